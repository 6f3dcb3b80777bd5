"""Operators that put the elements of a map into another order: transposes, reshapes, pixel shuffles.

Their common form is a list of digits. Counting through the output in row-major order counts through the digits, the
last one fastest, and every digit moves the place in the input by so many rows, pixels and channels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph.dtypes import Array, Quant, TensorType
from bdnet_deploy.graph.op import Op, check, register
from bdnet_deploy.graph.ops.moving import map_shape

#: Size of a digit, and the rows, pixels and channels of the input from one value of it to the next.
Digit = tuple[int, int, int, int]


def _one_quant(x: TensorType, why: str) -> Quant | None:
    """The quantization of ``x``, which must be one for all channels."""
    per_channel = x.quant is not None and (np.ndim(x.quant.scale) or np.ndim(x.quant.zero_point))
    check(not per_channel, f"{why} would mix channels of different scale")
    return x.quant


@dataclass(frozen=True)
class Permutation(Op):
    """Base of the operators of this file; elements of every dtype move as they are."""

    @abstractmethod
    def digits(self, x: TensorType) -> list[Digit]:
        """The output's order, for an input of this type that the operator takes."""


@register
@dataclass(frozen=True)
class Reshape(Permutation):
    """The same values in the same (row-major) order under another shape; no code where height, width and channels stay."""

    shape: tuple[int, ...] = ()

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        (x,) = types
        check(int(np.prod(self.shape)) == x.size, f"cannot reshape {x} to {self.shape}")
        check(len(self.shape) in (2, 4) and self.shape[0] == 1, f"{self.shape} is not (1, H, W, C) or (1, C)")
        quant = x.quant if self.shape[-1] == x.channels else _one_quant(x, "reshape")
        return TensorType(self.shape, x.dtype, quant)

    def digits(self, x: TensorType) -> list[Digit]:
        height, width, channels = map_shape(x.shape)
        return [(height, 1, 0, 0), (width, 0, 1, 0), (channels, 0, 0, 1)]

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        return arrays[0].reshape(arrays[0].shape[0], *self.shape[1:])


@register
@dataclass(frozen=True)
class Transpose(Permutation):
    """Axis i of the output is axis ``perm[i]`` of the input, among 0 (H), 1 (W) and 2 (C)."""

    perm: tuple[int, int, int] = (1, 0, 2)

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        (x,) = types
        check(len(x.shape) == 4, f"needs (1, H, W, C), got {x}")
        check(sorted(self.perm) == [0, 1, 2], f"{self.perm} is no permutation of 0, 1 and 2")
        quant = x.quant if self.perm[2] == 2 else _one_quant(x, "transposing")
        return TensorType((1, *(x.shape[1 + axis] for axis in self.perm)), x.dtype, quant)

    def digits(self, x: TensorType) -> list[Digit]:
        units = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
        return [(x.shape[1 + axis], *units[axis]) for axis in self.perm]

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        return np.ascontiguousarray(arrays[0].transpose(0, *(1 + axis for axis in self.perm)))


_ORDERS = ("crd", "dcr")


@register
@dataclass(frozen=True)
class PixelShuffle(Permutation):
    """Depth to space: ``y[h * block + i, w * block + j, c] = x[h, w, k]`` with block^2 fewer channels.

    ``order`` says which k: ``"crd"`` c * block^2 + i * block + j (PyTorch's pixel_shuffle), ``"dcr"``
    (i * block + j) * C_out + c (TensorFlow's and ONNX's default). Sub-pixel convolution: arXiv 1609.05158.
    """

    block: int = 2
    order: str = "crd"

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        (x,) = types
        check(len(x.shape) == 4, f"needs (1, H, W, C), got {x}")
        check(self.order in _ORDERS, f"no order '{self.order}'; there are {', '.join(_ORDERS)}")
        area = self.block**2
        check(self.block > 0 and x.channels % area == 0, f"{x.channels} channels in blocks of {area} pixels")
        shape = (1, x.shape[1] * self.block, x.shape[2] * self.block, x.channels // area)
        return TensorType(shape, x.dtype, _one_quant(x, "depth to space"))

    def digits(self, x: TensorType) -> list[Digit]:
        b = self.block
        channels = x.channels // b**2
        row, pixel, channel = (b, 1, b * b) if self.order == "crd" else (b * channels, channels, 1)
        return [
            (x.shape[1], 1, 0, 0),
            (b, 0, 0, row),
            (x.shape[2], 0, 1, 0),
            (b, 0, 0, pixel),
            (channels, 0, 0, channel),
        ]

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        (n, h, w, _), b, c = arrays[0].shape, self.block, out.channels
        if self.order == "crd":
            split = arrays[0].reshape(n, h, w, c, b, b).transpose(0, 1, 4, 2, 5, 3)
        else:
            split = arrays[0].reshape(n, h, w, b, b, c).transpose(0, 1, 3, 2, 4, 5)
        return split.reshape(n, *out.shape[1:])


@register
@dataclass(frozen=True)
class PixelUnshuffle(Permutation):
    """Space to depth, the inverse of :class:`PixelShuffle` of the same ``block`` and ``order``."""

    block: int = 2
    order: str = "crd"

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        (x,) = types
        check(len(x.shape) == 4, f"needs (1, H, W, C), got {x}")
        check(self.order in _ORDERS, f"no order '{self.order}'; there are {', '.join(_ORDERS)}")
        b = self.block
        check(b > 0 and x.shape[1] % b == 0 and x.shape[2] % b == 0, f"{x} in blocks of {b} x {b}")
        shape = (1, x.shape[1] // b, x.shape[2] // b, x.channels * b**2)
        return TensorType(shape, x.dtype, _one_quant(x, "space to depth"))

    def digits(self, x: TensorType) -> list[Digit]:
        b = self.block
        inside, channel = [(b, 1, 0, 0), (b, 0, 1, 0)], (x.channels, 0, 0, 1)
        order = [channel, *inside] if self.order == "crd" else [*inside, channel]
        return [(x.shape[1] // b, b, 0, 0), (x.shape[2] // b, 0, b, 0), *order]

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        n, (_, h, w, _), b, c = len(arrays[0]), out.shape, self.block, arrays[0].shape[3]
        split = arrays[0].reshape(n, h, b, w, b, c)
        axes = (0, 1, 3, 5, 2, 4) if self.order == "crd" else (0, 1, 3, 2, 4, 5)
        return split.transpose(axes).reshape(n, *out.shape[1:])
