"""RPReLU: PReLU between two learned shifts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class RPReLU(nn.Module):
    """``y = PReLU(x + shift_in) + shift_out``, all per channel (Liu et al., "ReActNet", ECCV 2020).

    Input and output (N, C, H, W).

    Args:
        channels: C.
        slope: initial slope of the negative side.
    """

    def __init__(self, channels: int, slope: float = 0.25) -> None:
        super().__init__()
        self.shift_in = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.slope = nn.Parameter(torch.full((1, channels, 1, 1), slope))
        self.shift_out = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.shift_in
        positive = functional.relu(x)
        # Both sides by one relu: the backward pass of nn.PReLU is about four times slower on CPUs.
        return positive + self.slope * (x - positive) + self.shift_out
