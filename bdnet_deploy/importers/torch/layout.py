"""Which axis of a PyTorch tensor is the channel of the graph's map.

The graph knows maps ``(1, H, W, C)`` and vectors ``(1, C)``. A tensor of any rank lies in one of them by a layout, so that
convolutions (channels are axis 1), linear layers on tokens (the last axis) and the second operand of a matrix product (the
last but one) all find their channels innermost. A change of layout is a transpose, made only where two readers disagree.
"""

from __future__ import annotations

import enum
import math

import numpy as np

from bdnet_deploy.graph import Array


class Layout(enum.Enum):
    """The axis that becomes the channel."""

    FIRST = 1  # axis 1: maps and vectors of convolutional networks; axis 0 is the batch; see axes()
    LAST = -1  # the last axis: tokens
    SWAPPED = -2  # the last but one: the second operand of a product of matrices

    def axis(self, rank: int) -> int:
        """The channel's axis of a tensor of that rank, or the first of them."""
        return 1 if self is Layout.FIRST else rank + self.value

    def axes(self, rank: int) -> tuple[int, ...]:
        """The axes that together become the channel: several where FIRST has more than two behind it, (1, G, C, H, W)."""
        return tuple(range(1, max(rank - 2, 2))) if self is Layout.FIRST else (self.axis(rank),)


def fits(shape: tuple[int, ...], layout: Layout) -> bool:
    """Whether a tensor of that shape can lie so."""
    if layout is Layout.FIRST:
        return len(shape) >= 2 and shape[0] == 1
    return len(shape) >= (1 if layout is Layout.LAST else 2)


def to_graph(x: Array, layout: Layout) -> Array:
    """A tensor as the graph has it: (1, H, W, C), or (1, C)."""
    if x.ndim < 2:
        return x.reshape(1, -1)
    if x.ndim == 2 and (layout is Layout.FIRST or (layout is Layout.LAST and x.shape[0] == 1)):
        return x
    if layout is Layout.FIRST and x.ndim > 4:
        x = x.reshape(1, math.prod(x.shape[1:-2]), *x.shape[-2:])
    moved = np.moveaxis(x, layout.axis(x.ndim), -1)
    if layout is Layout.FIRST:  # (1, *space, C)
        space = moved.shape[1:-1]
        return moved.reshape(1, math.prod(space[:-1]), space[-1], moved.shape[-1])
    return moved.reshape(1, math.prod(moved.shape[:-2]), *moved.shape[-2:])


def from_graph(x: Array, shape: tuple[int, ...], layout: Layout) -> Array:
    """The tensor of ``shape`` that :func:`to_graph` turns into ``x``."""
    index = to_graph(np.arange(math.prod(shape)).reshape(shape), layout)
    flat = np.empty(math.prod(shape), x.dtype)
    flat[index.ravel()] = x.ravel()
    return flat.reshape(shape)


def graph_shape(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    """The shape of :func:`to_graph`'s result."""
    if len(shape) < 2:
        return (1, math.prod(shape))
    return to_graph(np.broadcast_to(np.int8(0), shape), layout).shape


def along_channels(parameter: Array, shape: tuple[int, ...], layout: Layout) -> Array:
    """A parameter with one number for each element of axis 1, or one for all, along the channels of the graph's map."""
    behind = shape[2:-2] if layout is Layout.FIRST and len(parameter) > 1 else ()
    return np.repeat(parameter, math.prod(behind))
