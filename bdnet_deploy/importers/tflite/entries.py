"""What a tensor of the file is while a graph is made of it: a value, its elements in another order, padded, or a constant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bdnet_deploy.graph import Array, Value

#: (top, bottom, left, right) rows and columns of an image map.
Sides = tuple[int, int, int, int]
NO_PADDING: Sides = (0, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class Entry:
    """A tensor of the file.

    Attributes:
        shape: its shape there; of packed words the shape of the bits, channels last.
        data: a constant's real numbers; else ``value`` is set.
        value: the elements, in the order ``index``.
        index: (shape) indices into the value's elements; None: in their order.
        factor: bits and trits stand for -factor, 0, +factor.
        padding: rows and columns around the value's map that hold ``fill``, counted in ``shape``; ``index`` is None then.
        packed: whether the file holds words of bits.
    """

    shape: tuple[int, ...]
    value: Value | None = None
    data: Array | None = None
    index: Array | None = None
    factor: float = 1.0
    padding: Sides = NO_PADDING
    fill: float = field(default=0.0)
    packed: bool = False

    @property
    def channels(self) -> int:
        return self.shape[-1]

    @property
    def is_bits(self) -> bool:
        """Whether its values are those of a bit or trit map, times the factor."""
        return self.value is not None and self.value.type.dtype.is_packed

    def bare(self) -> Entry:
        """Without its padding."""
        if self.padding == NO_PADDING:
            return self
        _, height, width, channels = self.shape
        top, bottom, left, right = self.padding
        shape = (1, height - top - bottom, width - left - right, channels)
        return replace(self, shape=shape, padding=NO_PADDING, fill=0.0)

    def order(self) -> Array:
        """``index``, also where it is None."""
        return np.arange(int(np.prod(self.shape))).reshape(self.shape) if self.index is None else self.index

    def with_shape(self, shape: tuple[int, ...]) -> Entry:
        """The same elements in the same order under another shape."""
        return replace(self, shape=shape, index=None if self.index is None else self.index.reshape(shape))

    def in_order(self, index: Array) -> Entry:
        """The same value with its elements in this order."""
        same = np.array_equal(index.ravel(), np.arange(self.value.type.size)) if self.value else False
        return replace(self, shape=index.shape, index=None if same else index)


def constant(data: Array) -> Entry:
    return Entry(data.shape, data=data)


def graph_shape(shape: Sequence[int]) -> tuple[int, ...] | None:
    """(1, H, W, C) or (1, C) with the elements of ``shape`` in the same order, the same ones last; None if there is none."""
    full = tuple(shape)
    if len(full) <= 2 and (len(full) < 2 or full[0] == 1):
        return (1, full[-1] if full else 1)
    full = full if full[0] == 1 and len(full) > 2 else (1, *full)
    return None if len(full) > 4 else (1, *[1] * (4 - len(full)), *full[1:])
