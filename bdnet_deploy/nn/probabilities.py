"""Attention probabilities of two levels, 0 and a learned one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _ProbabilitySTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(p, scale)
        return torch.round(p / scale).clamp(0, 1) * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        p, scale = ctx.saved_tensors
        ratio = p / scale
        inside = ((ratio >= 0) & (ratio <= 1)).to(p.dtype)
        above = (ratio > 1).to(p.dtype)
        of_scale = (grads[0] * (inside * (ratio.round() - ratio) + above)).sum()
        return grads[0] * inside, of_scale.reshape(scale.shape)


class BinaryProbabilities(nn.Module):
    """``round(p / c)`` clamped to {0, 1}, times the learned c: 0 up to c / 2, c above.

    The elastic binarization of unsigned activations of BiT (Liu et al., NeurIPS 2022), as BinaryViT (arXiv
    2306.16678) uses it on the probabilities of attention. Rounds half to even, so that p = c / 2 gives 0. The
    gradient of p passes between 0 and c.

    Input and output of any shape.

    Args:
        scale: c at first; 0.005 in the published BinaryViT.
    """

    def __init__(self, scale: float = 0.005) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def forward(self, p: Tensor) -> Tensor:
        levels: Tensor = _ProbabilitySTE.apply(p, self.scale)
        return levels
