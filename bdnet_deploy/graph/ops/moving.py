"""Operators that move whole elements by one index table per axis: slices, padding, channel orders, up-sampling, flips."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph.dtypes import Array, DType, Quant, TensorType
from bdnet_deploy.graph.op import Op, check, register

#: Indices into rows, columns and channels; -1 is the fill value.
Tables = tuple[Array, Array, Array]


def map_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(1, H, W, C) or (1, C) as (H, W, C): a vector is a map of one pixel."""
    return (1, 1, shape[1]) if len(shape) == 2 else (shape[1], shape[2], shape[3])


@dataclass(frozen=True)
class Move(Op):
    """Base of the operators ``y[h, w, c] = x[rows[h], columns[w], channels[c]]`` on ``(1, H, W, C)`` or ``(1, C)``.

    Elements of every dtype move as they are; the quantization of a channel moves with it.
    """

    @property
    def fill(self) -> float:
        """What stands where an index is -1."""
        return 0.0

    @abstractmethod
    def tables(self, x: TensorType) -> Tables:
        """The three index tables for an input of this type.

        Raises:
            GraphError: when the operator does not fit it.
        """

    @abstractmethod
    def move(self, x: Array) -> Array:
        """(N, H, W, C) of the input to that of the output."""

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        (x,) = types
        check(len(x.shape) in (2, 4), f"needs (1, H, W, C) or (1, C), got {x}")
        rows, columns, channels = self.tables(x)
        sizes = (len(rows), len(columns), len(channels))
        check(min(sizes) > 0, "nothing is left")
        vector = len(x.shape) == 2
        check(not vector or sizes[:2] == (1, 1), f"a vector has no height and width, got {x}")
        shape = (1, len(channels)) if vector else (1, *sizes)
        return TensorType(shape, x.dtype, self._quant(x.quant, channels))

    def _quant(self, quant: Quant | None, channels: Array) -> Quant | None:
        if quant is None:
            return None
        scale, zero = quant.scale, quant.zero_point
        if np.ndim(scale):  # what fills a channel stands for 0 at any scale
            scale = np.where(channels < 0, scale.max(), scale[channels])
        if np.ndim(zero):
            zero = np.where(channels < 0, self.fill, zero[channels])
        return Quant.of(scale, zero)

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        x = arrays[0]
        moved = self.move(x.reshape(len(x), *map_shape(types[0].shape)))
        return np.ascontiguousarray(moved).reshape(len(x), *out.shape[1:])


@register
@dataclass(frozen=True)
class Slice(Move):
    """``y = x[begin[0]:end[0]:strides[0], begin[1]:..., begin[2]:...]`` over (H, W, C).

    0 <= begin < end <= size, strides positive. A channel slice is a head or a split; a stride over rows and columns is
    the subsampling of an option-A shortcut (He et al., arXiv 1512.03385).
    """

    begin: tuple[int, int, int] = (0, 0, 0)
    end: tuple[int, int, int] = (1, 1, 1)
    strides: tuple[int, int, int] = (1, 1, 1)

    @staticmethod
    def channels(x: TensorType, begin: int, end: int) -> Slice:
        """The slice of the channels ``begin`` to ``end`` (exclusive) of the whole map ``x``."""
        height, width, _ = map_shape(x.shape)
        return Slice((0, 0, begin), (height, width, end))

    def tables(self, x: TensorType) -> Tables:
        tables = []
        for name, size, begin, end, stride in zip(
            ("rows", "columns", "channels"), map_shape(x.shape), self.begin, self.end, self.strides, strict=True
        ):
            check(stride > 0, f"the stride over {name} is {stride}; it must be positive")
            check(0 <= begin < end <= size, f"{name} {begin}:{end} of {size}")
            tables.append(np.arange(begin, end, stride))
        return tables[0], tables[1], tables[2]

    def move(self, x: Array) -> Array:
        rows, columns, channels = (slice(*s) for s in zip(self.begin, self.end, self.strides, strict=True))
        return x[:, rows, columns, channels]


_NUMPY_MODE = {"constant": "constant", "replicate": "edge", "reflect": "reflect"}


@register
@dataclass(frozen=True)
class Pad(Move):
    """Elements added at the sides: ``padding`` is (top, bottom, left, right, front, back), the last two of channels.

    ``mode``: ``"constant"`` puts ``value`` there; ``"replicate"`` the nearest element; ``"reflect"`` mirrors the map at
    its outermost elements, which are not repeated (so a side must be shorter than the map).

    ``value`` is a number of the tensor's dtype: -1 or +1 for bits, -1, 0 or +1 for trits, an integer of a
    quantized tensor (its zero point stands for 0.0), any finite number of a real one. When fixed point is chosen,
    the value becomes the integer that stands for it.
    """

    padding: tuple[int, int, int, int, int, int] = (0, 0, 0, 0, 0, 0)
    mode: str = "constant"
    value: float = 0.0

    @property
    def fill(self) -> float:
        return self.value

    def tables(self, x: TensorType) -> Tables:
        check(self.mode in _NUMPY_MODE, f"no padding mode '{self.mode}'; there are {', '.join(_NUMPY_MODE)}")
        check(min(self.padding) >= 0, f"negative padding {self.padding}")
        if self.mode == "constant":
            self._check_value(x)
        sizes = map_shape(x.shape)
        rows, columns, channels = (
            self._table(size, *self.padding[2 * axis : 2 * axis + 2]) for axis, size in enumerate(sizes)
        )
        return rows, columns, channels

    def _check_value(self, x: TensorType) -> None:
        if x.dtype.is_float:
            check(bool(np.isfinite(self.value)), f"padding value {self.value}")
            return
        low, high = x.dtype.range
        whole = float(self.value).is_integer() and low <= self.value <= high
        check(whole and not (x.dtype is DType.BIT and self.value == 0), f"no {x.dtype.value} is {self.value}")

    def _table(self, size: int, before: int, after: int) -> Array:
        index = np.arange(-before, size + after)
        if self.mode == "constant":
            return np.where((index < 0) | (index >= size), -1, index)
        if self.mode == "replicate":
            return np.clip(index, 0, size - 1)
        check(before < size and after < size, f"cannot reflect {max(before, after)} of {size} elements")
        index = np.abs(index)
        return np.where(index >= size, 2 * (size - 1) - index, index)

    def move(self, x: Array) -> Array:
        top, bottom, left, right, front, back = self.padding
        widths = ((0, 0), (top, bottom), (left, right), (front, back))
        if self.mode == "constant":
            return np.pad(x, widths, constant_values=x.dtype.type(self.value))
        return np.asarray(np.pad(x, widths, mode=_NUMPY_MODE[self.mode]))  # type: ignore[call-overload]


def _whole(x: TensorType) -> list[Array]:
    return [np.arange(size) for size in map_shape(x.shape)]


@register
@dataclass(frozen=True)
class Shuffle(Move):
    """Channel shuffle: ``y[..., j * groups + i] = x[..., i * (C / groups) + j]`` (ShuffleNet, arXiv 1707.01083)."""

    groups: int = 2

    def tables(self, x: TensorType) -> Tables:
        check(self.groups > 0 and x.channels % self.groups == 0, f"{x.channels} channels in {self.groups} groups")
        rows, columns, channels = _whole(x)
        return rows, columns, (channels % self.groups) * (x.channels // self.groups) + channels // self.groups

    def move(self, x: Array) -> Array:
        return x.reshape(*x.shape[:3], self.groups, -1).swapaxes(3, 4).reshape(x.shape)


@register
@dataclass(frozen=True)
class Gather(Move):
    """Elements by lists of indices: ``y[i, j, k] = x[rows[i], columns[j], indices[k]]``, each as often as it occurs.

    ``indices`` are channels. An empty list takes the axis as it is.
    """

    indices: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()

    def tables(self, x: TensorType) -> Tables:
        lists = (self.rows, self.columns, self.indices)
        check(any(lists), "no indices")
        tables = []
        for what, size, taken in zip(("rows", "columns", "channels"), map_shape(x.shape), lists, strict=True):
            check(
                not taken or 0 <= min(taken) <= max(taken) < size,
                f"indices {min(taken, default=0)} to {max(taken, default=0)} of {size} {what}",
            )
            tables.append(np.array(taken) if taken else np.arange(size))
        return tables[0], tables[1], tables[2]

    def move(self, x: Array) -> Array:
        for axis, taken in enumerate((self.rows, self.columns, self.indices), start=1):
            x = np.take(x, taken, axis) if taken else x
        return x


@register
@dataclass(frozen=True)
class Upsample(Move):
    """Nearest neighbour by whole factors: ``y[h, w, c] = x[h // factors[0], w // factors[1], c]``."""

    factors: tuple[int, int] = (2, 2)

    def tables(self, x: TensorType) -> Tables:
        check(min(self.factors) > 0, f"factors {self.factors}; they must be positive")
        rows, columns, channels = _whole(x)
        return np.repeat(rows, self.factors[0]), np.repeat(columns, self.factors[1]), channels

    def move(self, x: Array) -> Array:
        return x.repeat(self.factors[0], 1).repeat(self.factors[1], 2)


@register
@dataclass(frozen=True)
class Flip(Move):
    """The order of the elements reversed along ``axes``, a selection of 0 (H), 1 (W) and 2 (C)."""

    axes: tuple[int, ...] = (1,)

    def tables(self, x: TensorType) -> Tables:
        check(set(self.axes) <= {0, 1, 2}, f"axes {self.axes}; there are 0, 1 and 2")
        rows, columns, channels = (t[::-1] if i in self.axes else t for i, t in enumerate(_whole(x)))
        return rows, columns, channels

    def move(self, x: Array) -> Array:
        return np.flip(x, [axis + 1 for axis in self.axes])
