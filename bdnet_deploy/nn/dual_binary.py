"""The 1.58-bit dual-binary convolution of BD-Net, in the reading that this project implements."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bdnet_deploy.nn.activations import TernaryActivation
from bdnet_deploy.nn.conv import BinaryConv2d
from bdnet_deploy.nn.quantizers import sign_ste


class DualBinaryConv2d(BinaryConv2d):
    """A ternary activation, seen as two sign planes that share one binary weight: no extra weights.

    ``b1 = sign(x - high)``, ``b2 = sign(x - low)``, ``y = alpha * (W * (b1 + b2) / 2)``. The convolution is
    linear, so training convolves the mean of the planes once; a device counts bits of both planes. Zero
    padding is exact: it is ``b1 = -1``, ``b2 = +1``. A 3x3 depth-wise output has 19 levels instead of 10.
    Input real (N, C_in, H, W), output (N, C_out, H', W'). BD-Net (arXiv 2511.17633) publishes no equation
    within reach; this is our reading of its abstract and figures.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, groups: as in :class:`torch.nn.Conv2d`.
        activation: the two thresholds.
        options: those of :class:`BinaryConv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        *,
        activation: TernaryActivation | None = None,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, groups, **options)
        self.activation = activation or TernaryActivation(in_channels)

    def planes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The sign planes in {-1, +1}, shaped like ``x``: b1 from the higher threshold, b2 from the lower."""
        low, high = self.activation.thresholds()
        return sign_ste(x - high), sign_ste(x - low)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.activation(x))
