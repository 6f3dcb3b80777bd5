"""Binarizing and ternarizing activations with thresholds per channel or per layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bdnet_deploy.nn.quantizers import sign_ste, ternary_ste


def _threshold(value: float, channels: int | None, learnable: bool) -> nn.Parameter:
    """A threshold (1, channels or 1, 1, 1); a state-dict entry also when it is fixed."""
    return nn.Parameter(torch.full((1, channels or 1, 1, 1), value), requires_grad=learnable)


class Sign(nn.Module):
    """Sign against zero: ``sign(x)`` in {-1, +1} with ``sign(0) = +1``. Input and output of any shape.

    Args:
        clip: half-width of the gradient window.
        gradient: see :mod:`bdnet_deploy.nn.quantizers`.
    """

    def __init__(self, *, clip: float = 1.0, gradient: str = "clipped") -> None:
        super().__init__()
        self.clip, self.gradient = clip, gradient

    def forward(self, x: Tensor) -> Tensor:
        return sign_ste(x, self.clip, self.gradient)

    def extra_repr(self) -> str:
        return f"clip={self.clip}, gradient={self.gradient}"


class RSign(nn.Module):
    """Sign against a threshold: ``sign(x - threshold)`` in {-1, +1} (Liu et al., "ReActNet", ECCV 2020).

    Input and output (N, C, H, W).

    Args:
        channels: C, or None for one threshold for the layer.
        learnable: whether the threshold, 0 at first, is trained.
        clip: half-width of the gradient window.
        gradient: see :mod:`bdnet_deploy.nn.quantizers`.
    """

    def __init__(
        self, channels: int | None, *, learnable: bool = True, clip: float = 1.0, gradient: str = "clipped"
    ) -> None:
        super().__init__()
        self.clip, self.gradient = clip, gradient
        self.threshold = _threshold(0.0, channels, learnable)

    def forward(self, x: Tensor) -> Tensor:
        return sign_ste(x - self.threshold, self.clip, self.gradient)


class TernaryActivation(nn.Module):
    """1.58-bit activation in {-1, 0, +1} with the two thresholds ``center -+ |half_width|``.

    Input and output (N, C, H, W). Our reading of "an appropriate threshold to represent in 1.58-bit" (BD-Net,
    arXiv 2511.17633).

    Args:
        channels: C, or None for one pair of thresholds for the layer.
        half_width: initial half distance of the thresholds, in units of the input.
        learnable: whether center and half width are trained.
        clip: half-width of the gradient window around each threshold.
        gradient: see :mod:`bdnet_deploy.nn.quantizers`.
    """

    def __init__(
        self,
        channels: int | None,
        half_width: float = 0.5,
        *,
        learnable: bool = True,
        clip: float = 1.0,
        gradient: str = "clipped",
    ) -> None:
        super().__init__()
        self.clip, self.gradient = clip, gradient
        self.center = _threshold(0.0, channels, learnable)
        self.half_width = _threshold(half_width, channels, learnable)

    def thresholds(self) -> tuple[Tensor, Tensor]:
        """The lower and the higher threshold, each (1, C or 1, 1, 1)."""
        half = self.half_width.abs()
        return self.center - half, self.center + half

    def forward(self, x: Tensor) -> Tensor:
        low, high = self.thresholds()
        return ternary_ste(x, low, high, self.clip, self.gradient)
