"""Arithmetic with constants as a factor and an offset per channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from bdnet_deploy.graph import Array
from bdnet_deploy.importers.torch.layers import array, refuse
from bdnet_deploy.importers.torch.trace import Step, Traced


def per_channel(step: Step, constant: Any, shape: tuple[int, ...]) -> Array:
    """A constant operand as (C,) for a tensor of ``shape`` (1, C, ...).

    Raises:
        UnsupportedError: it differs from pixel to pixel.
    """
    if not isinstance(constant, Tensor):
        return np.full(shape[1], float(constant))
    values = np.broadcast_to(array(step, constant, "constant"), shape).reshape(shape[1], -1)
    if (values != values[:, :1]).any():
        raise refuse(step, "its constant differs from pixel to pixel", "use one value per channel")
    return values[:, 0].copy()


def constant_affine(step: Step) -> tuple[Array, Array] | None:
    """``(mul, add)``, both (C,), if the step is ``x * mul + add`` of its one traced argument; else None."""
    x, output = step.inputs[0], step.outputs[0]
    if output is None or x.shape != output.shape or len(x.shape) not in (2, 4):
        return None
    one, zero = np.ones(x.shape[1]), np.zeros(x.shape[1])
    if step.name == "neg":
        return -one, zero
    left, right = step.argument("self"), step.argument("other")
    if isinstance(left, Traced) and isinstance(right, Traced):
        return None
    first = isinstance(left, Traced)
    c = per_channel(step, right if first else left, x.shape)
    if step.name == "mul":
        return c, zero
    if step.name == "div":
        return (1.0 / c, zero) if first and step.argument("rounding_mode") is None and c.all() else None
    mine, other = two_term_signs(step)
    return (one * mine, c * other) if first else (one * other, c * mine)


def two_term_signs(step: Step) -> tuple[float, float]:
    """Factors of ``self`` and ``other`` in an add, sub or rsub."""
    alpha = step.argument("alpha")
    alpha = 1.0 if alpha is None else float(alpha)
    return {"add": (1.0, alpha), "sub": (1.0, -alpha), "rsub": (-alpha, 1.0)}[step.name]
