"""Arithmetic with constants: a factor and an offset per channel, or a map of them per pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from bdnet_deploy.graph import AddMap, Array, MulMap, Op
from bdnet_deploy.importers.torch.cone import layout_of_axis, varying_axes
from bdnet_deploy.importers.torch.layers import array
from bdnet_deploy.importers.torch.layout import Layout
from bdnet_deploy.importers.torch.trace import Step, Traced


def per_channel(step: Step, constant: Any, shape: tuple[int, ...]) -> tuple[Array, Layout | None] | None:
    """A constant operand as (C,) and the layout in which C are the channels of a tensor of ``shape``.

    One number for all elements is (1,) in any layout (None). The result is None where the constant differs along two
    axes, or one that cannot be the channels.
    """
    if not isinstance(constant, Tensor):
        return np.array([float(constant)]), None
    values = array(step, constant, "constant")
    axes = varying_axes(constant, len(shape))
    if not axes:
        return values.ravel()[:1].copy(), None
    layout = layout_of_axis(shape, next(iter(axes))) if len(axes) == 1 else None
    if layout is None:
        return None
    (axis,) = axes
    index = [0] * values.ndim
    line = values[tuple(slice(None) if i + len(shape) - values.ndim == axis else index[i] for i in range(values.ndim))]
    return line.copy(), layout


def constant_affine(step: Step) -> tuple[Array, Array, Layout | None] | None:
    """``(mul, add, layout)`` if the step is ``x * mul + add`` per channel of its one traced argument; else None."""
    x, output = step.inputs[0], step.outputs[0]
    if output is None or x.shape != output.shape:
        return None
    one, zero = np.ones(1), np.zeros(1)
    if step.name == "neg":
        return -one, zero, None
    left, right = step.argument("self"), step.argument("other")
    if isinstance(left, Traced) and isinstance(right, Traced):
        return None
    first = isinstance(left, Traced)
    operand = per_channel(step, right if first else left, x.shape)
    if operand is None:
        return None
    c, layout = operand
    if step.name == "mul":
        return c, np.zeros_like(c), layout
    if step.name == "div":
        usable = first and step.argument("rounding_mode") is None and c.all()
        return (1.0 / c, np.zeros_like(c), layout) if usable else None
    mine, other = two_term_signs(step)
    mul = np.full_like(c, mine if first else other)
    return mul, c * (other if first else mine), layout


def constant_map(step: Step) -> tuple[Op, float, Array] | None:
    """``(AddMap, factor, m)`` if the step is ``factor * x + m`` of its one traced argument, ``(MulMap, 1, m)`` if it is ``x * m``.

    m has the shape of x, in PyTorch's order. None for other functions, and for constants that are numbers.
    """
    x, output = step.inputs[0], step.outputs[0]
    left, right = step.argument("self"), step.argument("other")
    first = isinstance(left, Traced)
    constant = right if first else left
    if output is None or x.shape != output.shape or not isinstance(constant, Tensor):
        return None
    c = np.broadcast_to(array(step, constant, "constant"), x.shape)
    if step.name == "mul":
        return MulMap(), 1.0, c
    if step.name == "div":
        usable = first and step.argument("rounding_mode") is None and c.all()
        return (MulMap(), 1.0, 1.0 / c) if usable else None
    mine, other = two_term_signs(step)
    return AddMap(), mine if first else other, c * (other if first else mine)


def two_term_signs(step: Step) -> tuple[float, float]:
    """Factors of ``self`` and ``other`` in an add, sub or rsub."""
    alpha = step.argument("alpha")
    alpha = 1.0 if alpha is None else float(alpha)
    return {"add": (1.0, alpha), "sub": (1.0, -alpha), "rsub": (-alpha, 1.0)}[step.name]
