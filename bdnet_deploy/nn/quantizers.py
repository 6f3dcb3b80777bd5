"""Sign and ternary quantizers with straight-through gradients.

The forward values are exact: ``sign(0) = +1`` and NaN becomes -1, in every quantizer. The backward pass
replaces the derivative of the step, zero almost everywhere, by a window around it:

* ``"clipped"``: 1 where ``|x| <= clip``, else 0 (Hubara et al., "Binarized Neural Networks", NeurIPS 2016);
* ``"quadratic"``: ``max(0, 2 - 2|x|/clip) / clip``, the derivative of a piecewise quadratic approximation of
  the step (Liu et al., "Bi-Real Net", ECCV 2018, where clip = 1);
* ``"tanh"``: ``max(1, 1/clip) * (1 - tanh(x/clip)^2)``, the derivative of a soft step that sharpens as clip falls
  (Qin et al., "IR-Net", CVPR 2020, arXiv 1909.10788, where t = 1/clip and k = max(1/t, 1)).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

GRADIENTS = ("clipped", "quadratic", "tanh")


class _SignSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, clip: float, gradient: str) -> Tensor:
        ctx.save_for_backward(x)
        ctx.clip, ctx.gradient = clip, gradient
        # Faster on CPUs than torch.where, and exact.
        return (x >= 0).to(x.dtype) * 2 - 1

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        if ctx.gradient == "clipped":
            window = (x.abs() <= ctx.clip).to(x.dtype)
        elif ctx.gradient == "tanh":
            window = max(1.0, 1 / ctx.clip) * (1 - torch.tanh(x / ctx.clip) ** 2)
        else:
            window = (2 - 2 * x.abs() / ctx.clip).clamp(min=0) / ctx.clip
        return grads[0] * window, None, None


class _TernaryWeightSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, delta: Tensor, clip: float) -> Tensor:
        ctx.save_for_backward(w)
        ctx.clip = clip
        return (w > delta).to(w.dtype) - (w < -delta).to(w.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (w,) = ctx.saved_tensors
        return grads[0] * (w.abs() <= ctx.clip).to(w.dtype), None, None


def sign_ste(x: Tensor, clip: float = 1.0, gradient: str = "clipped") -> Tensor:
    """Sign of ``x`` in {-1, +1}, any shape; ``x >= 0`` gives +1.

    Args:
        x: real values.
        clip: half-width of the window in which the gradient passes; for ``"tanh"`` its scale.
        gradient: one of :data:`GRADIENTS`.
    """
    result: Tensor = _SignSTE.apply(x, clip, gradient)
    return result


def ternary_ste(x: Tensor, low: Tensor, high: Tensor, clip: float = 1.0, gradient: str = "clipped") -> Tensor:
    """Mean of the signs against two thresholds, in {-1, 0, +1}: the "dual binary" form of a 1.58-bit value.

    ``x >= high`` gives +1, ``x < low`` gives -1, between them 0. The gradient is the mean of both signs'
    gradients, so that both thresholds can be learned.

    Args:
        x: real values.
        low: lower threshold, broadcastable to ``x``.
        high: higher threshold, ``high >= low``.
        clip: half-width of the gradient window around each threshold.
        gradient: one of :data:`GRADIENTS`.
    """
    return 0.5 * (sign_ste(x - high, clip, gradient) + sign_ste(x - low, clip, gradient))


def ternary_weight_ste(w: Tensor, clip: float = 1.5) -> Tensor:
    """Ternary weights in {-1, 0, +1} by the threshold 0.7 * mean|w| of each output channel.

    Li, Zhang, Liu, "Ternary Weight Networks", 2016, equation 6. The gradient passes where ``|w| <= clip``.

    Args:
        w: latent weights (out, in / groups, kh, kw).
        clip: half-width of the gradient window.
    """
    delta = 0.7 * w.detach().abs().mean((1, 2, 3), keepdim=True)
    result: Tensor = _TernaryWeightSTE.apply(w, delta, clip)
    return result
