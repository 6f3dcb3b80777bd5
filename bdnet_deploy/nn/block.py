"""Half a BD-Net block: one convolution with its activation, residual, batch normalization and RPReLU."""

from __future__ import annotations

from torch import Tensor, nn

from bdnet_deploy.nn.activations import RSign, TernaryActivation
from bdnet_deploy.nn.conv import BinaryConv2d
from bdnet_deploy.nn.dual_binary import DualBinaryConv2d
from bdnet_deploy.nn.residual import BroadcastResidual
from bdnet_deploy.nn.rprelu import RPReLU

ACTIVATIONS = ("binary", "ternary")
RESIDUALS = ("pre", "post", "none")


class BDBlockHalf(nn.Module):
    """activation -> convolution -> residual and batch normalization -> RPReLU.

    Input (N, C_in, H, W), output (N, C_out, H / stride, W / stride); odd kernels with padding k // 2, H and W
    even at stride 2.

    Args:
        in_channels, out_channels, kernel_size, stride, groups: of the convolution.
        activation: ``"binary"``: :class:`RSign`; ``"ternary"``: :class:`DualBinaryConv2d`.
        residual: ``"pre"``: BN(conv + R(x)) (BD-Net); ``"post"``: BN(conv) + R(x) (Bi-Real Net, ReActNet);
            ``"none"``: BN(conv).
        thresholds: ``"learned"`` or ``"fixed"``.
        threshold_per: ``"channel"`` or ``"layer"``.
        half_width: initial half distance of the ternary thresholds.
        gradient, activation_clip: of the activation, see :mod:`bdnet_deploy.nn.quantizers`.
        alpha, weights, weight_std, weight_clip: see :class:`BinaryConv2d`.
        bn_momentum: momentum of the running statistics.
        uneven: of the residual, see :class:`BroadcastResidual`.
        linear: end behind the residual, without RPReLU.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        *,
        activation: str = "binary",
        residual: str = "pre",
        thresholds: str = "learned",
        threshold_per: str = "channel",
        half_width: float = 0.5,
        gradient: str = "clipped",
        activation_clip: float = 1.0,
        alpha: str = "mean",
        weights: str = "binary",
        weight_std: float | None = None,
        weight_clip: float = 1.5,
        bn_momentum: float = 0.1,
        uneven: bool = False,
        linear: bool = False,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS or residual not in RESIDUALS:
            raise ValueError(f"activation is one of {ACTIVATIONS}, residual of {RESIDUALS}: {activation}, {residual}")
        channels = in_channels if threshold_per == "channel" else None
        learnable = thresholds == "learned"
        shape = (in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups)
        self.activation: nn.Module
        self.conv: BinaryConv2d
        if activation == "ternary":
            ternary = TernaryActivation(
                channels, half_width, learnable=learnable, clip=activation_clip, gradient=gradient
            )
            self.activation = nn.Identity()
            self.conv = DualBinaryConv2d(
                *shape,
                activation=ternary,
                alpha=alpha,
                weights=weights,
                weight_std=weight_std,
                weight_clip=weight_clip,
            )
        else:
            self.activation = RSign(channels, learnable=learnable, clip=activation_clip, gradient=gradient)
            self.conv = BinaryConv2d(
                *shape, alpha=alpha, weights=weights, weight_std=weight_std, weight_clip=weight_clip
            )
        self.residual = residual
        self.shortcut = None
        if residual != "none":
            self.shortcut = BroadcastResidual(in_channels, out_channels, stride, uneven=uneven)
        self.bn = nn.BatchNorm2d(out_channels, momentum=bn_momentum)
        self.rprelu = nn.Identity() if linear else RPReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.activation(x))
        if self.shortcut is None:
            y = self.bn(y)
        elif self.residual == "pre":
            y = self.bn(y + self.shortcut(x))
        else:
            y = self.bn(y) + self.shortcut(x)
        out: Tensor = self.rprelu(y)
        return out

    def extra_repr(self) -> str:
        return f"residual={self.residual}"
