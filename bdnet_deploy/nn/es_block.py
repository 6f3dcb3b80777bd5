"""Expand and shrink: a binary convolution of fewer filters on a wider map (ES-BNN)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from bdnet_deploy.nn.activations import RSign
from bdnet_deploy.nn.conv import BinaryConv2d
from bdnet_deploy.nn.residual import BroadcastResidual

DOWNSAMPLES = ("pool", "conv")


class _ConvShortcut(nn.Module):
    """2x2 average pool (stride 2) -> real 1x1 convolution of few filters -> replicate -> batch normalization."""

    def __init__(self, channels: int, filters: int, stride: int, groups: int, copies: int, bn_momentum: float) -> None:
        super().__init__()
        self.stride, self.copies = stride, copies
        self.conv = nn.Conv2d(channels, filters, 1, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(filters * copies, momentum=bn_momentum)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            x = functional.avg_pool2d(x, 2)
        y: Tensor = self.bn(self.conv(x).repeat(1, self.copies, 1, 1))
        return y


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
    applied to; sign(0) is +1; where shapes change, the shortcut is one of the two below.

    With ``groups`` = g > 1 it is the group variant, which the paper's figure shows and no code was released for: maps
    have c * tau * g channels, the convolution has g groups of out_channels / (tau * g) filters over in_channels * tau
    channels each (as many weights and multiply-accumulates again), and its map is tiled tau**2 * g times. Each run
    of c * tau channels then holds every filter tau**2 times, so that no group of the next convolution sees only one
    group of this one.

    Input (N, in_channels * tau * groups, H, W), output (N, out_channels * tau * groups, H / stride, W / stride).

    Args:
        in_channels, out_channels: before widening; out_channels is a multiple of tau * groups.
        stride: 1 or 2; H and W are even at stride 2.
        tau: expansion ratio, 2 in the released code.
        groups: g.
        kernel_size: odd.
        downsample: shortcut where the shape changes. ``"pool"``: :class:`BroadcastResidual`, a 2x2 average pool at
            stride 2 and channels repeated, no weights. ``"conv"``: the average pool, a real 1x1 convolution and
            batch normalization as in Bi-Real Net and ReActNet, the convolution expanded and shrunk as the binary ones.
        gradient: straight-through window of the sign, see :mod:`bdnet_deploy.nn.quantizers`.
        clip: half-width of both straight-through windows.
        bn_momentum: momentum of the running statistics.

    Raises:
        ValueError: tau * groups does not divide out_channels, or another value is none of those.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        tau: int = 2,
        groups: int = 1,
        kernel_size: int = 3,
        downsample: str = "pool",
        gradient: str = "clipped",
        clip: float = 1.5,
        bn_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        if out_channels % (tau * groups):
            raise ValueError(f"tau * groups is {tau} * {groups}; it divides the width, {out_channels}")
        if downsample not in DOWNSAMPLES:
            raise ValueError(f"downsample is {downsample!r}; it is one of {', '.join(DOWNSAMPLES)}")
        self.tau, self.groups, self.copies = tau, groups, tau**2 * groups
        wide_in, wide_out = in_channels * tau * groups, out_channels * tau * groups
        filters = out_channels // tau
        self.activation = RSign(wide_in, clip=clip, gradient=gradient)
        self.conv = BinaryConv2d(
            wide_in, filters, kernel_size, stride, kernel_size // 2, groups, alpha="one", weight_clip=clip
        )
        self.bn = nn.BatchNorm2d(wide_out, momentum=bn_momentum)
        self.shortcut: nn.Module
        if downsample == "conv" and (stride != 1 or wide_in != wide_out):
            self.shortcut = _ConvShortcut(wide_in, filters, stride, groups, self.copies, bn_momentum)
        else:
            self.shortcut = BroadcastResidual(wide_in, wide_out, stride)
        self.prelu = nn.PReLU(wide_out)

    def forward(self, x: Tensor) -> Tensor:
        counts = self.conv(self.activation(x))
        y: Tensor = self.bn(counts.repeat(1, self.copies, 1, 1))
        out: Tensor = self.prelu(y + self.shortcut(x))
        return out

    def extra_repr(self) -> str:
        return f"tau={self.tau}, groups={self.groups}"
