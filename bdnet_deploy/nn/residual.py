"""Broadcast residual: a shortcut without weights between two widths."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional


class BroadcastResidual(nn.Module):
    """The shortcut R(x) around a convolution, without parameters.

    (N, C_in, H, W) to (N, C_out, H / stride, W / stride): the identity; at stride 2 a 2x2 average pool;
    channels repeated ``k`` times as a whole where ``C_out = k * C_in``; the mean over each of the C_out
    groups of neighbouring channels where ``C_in = k * C_out``. Our reading of the "broadcast residuals" of
    BD-Net (arXiv 2511.17633).

    Args:
        in_channels, out_channels: C_in and C_out.
        stride: 1 or 2.
        uneven: allow widths of which neither divides the other (MobileNet V2 has 144 -> 32): first the mean, down
            to the greatest common divisor, then the repeat.

    Raises:
        ValueError: neither width divides the other and ``uneven`` is not given; the stride is neither 1 nor 2.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, uneven: bool = False) -> None:
        super().__init__()
        if not uneven and out_channels % in_channels and in_channels % out_channels:
            raise ValueError(f"a broadcast residual needs widths that divide: {in_channels} and {out_channels}")
        if stride not in (1, 2):
            raise ValueError(f"a broadcast residual has stride 1 or 2, not {stride}")
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            x = functional.avg_pool2d(x, 2)
        kept = math.gcd(self.in_channels, self.out_channels)
        if kept < self.in_channels:
            x = x.unflatten(1, (kept, self.in_channels // kept)).mean(2)
        if kept < self.out_channels:
            x = x.repeat(1, self.out_channels // kept, 1, 1)
        return x

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, stride={self.stride}"
