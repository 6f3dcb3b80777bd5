"""Expand and shrink: a binary convolution of fewer filters on a wider map (ES-BNN)."""

from __future__ import annotations

from torch import Tensor, nn

from bdnet_deploy.nn.activations import RSign
from bdnet_deploy.nn.conv import BinaryConv2d
from bdnet_deploy.nn.residual import BroadcastResidual


class ESBlockHalf(nn.Module):
    """shift -> sign -> shrunk binary convolution -> replicate -> batch normalization -> residual -> PReLU.

    ES-BNN (CVPR 2025; github.com/imfinethanks/ESBNN, src/bnext_rep_ops.py) carries every map of c channels as
    c * tau. The convolution has out_channels / tau filters over in_channels * tau channels, so that it has as many
    weights and multiply-accumulates as the plain one while each sum is over tau times as many inputs. Its integer
    map is tiled tau**2 times (channel j reads filter ``j mod (out_channels / tau)``) and the batch normalization
    has parameters of its own for every replica, which is what makes them differ. As in the released code, there is
    no weight scale, the shift is per channel and the gradients of activations and weights pass within +-1.5.

    Our readings, since the released code holds BNext only: the residual is added behind the batch normalization,
    around every convolution, and PReLU comes last, the order of the ReActNet (arXiv 2003.03488) that ES-BNN was
    applied to; sign(0) is +1; the shortcut is :class:`BroadcastResidual`: a 2x2 average pool at stride 2, channels
    repeated where the width grows.

    Input (N, in_channels * tau, H, W), output (N, out_channels * tau, H / stride, W / stride).

    Args:
        in_channels, out_channels: before widening; out_channels is a multiple of tau.
        stride: 1 or 2; H and W are even at stride 2.
        tau: expansion ratio, 2 in the released code.
        kernel_size: odd.
        gradient: straight-through window of the sign, see :mod:`bdnet_deploy.nn.quantizers`.
        clip: half-width of both straight-through windows.
        bn_momentum: momentum of the running statistics.

    Raises:
        ValueError: tau does not divide out_channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        tau: int = 2,
        kernel_size: int = 3,
        gradient: str = "clipped",
        clip: float = 1.5,
        bn_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        if out_channels % tau:
            raise ValueError(f"tau is {tau}; it divides the width, {out_channels}")
        self.tau = tau
        wide_in, wide_out = in_channels * tau, out_channels * tau
        self.activation = RSign(wide_in, clip=clip, gradient=gradient)
        self.conv = BinaryConv2d(
            wide_in, out_channels // tau, kernel_size, stride, kernel_size // 2, alpha="one", weight_clip=clip
        )
        self.bn = nn.BatchNorm2d(wide_out, momentum=bn_momentum)
        self.shortcut = BroadcastResidual(wide_in, wide_out, stride)
        self.prelu = nn.PReLU(wide_out)

    def forward(self, x: Tensor) -> Tensor:
        counts = self.conv(self.activation(x))
        y: Tensor = self.bn(counts.repeat(1, self.tau**2, 1, 1))
        out: Tensor = self.prelu(y + self.shortcut(x))
        return out

    def extra_repr(self) -> str:
        return f"tau={self.tau}"
