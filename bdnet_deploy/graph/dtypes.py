"""What a tensor's values can be, and how integers stand for real numbers."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class DType(enum.Enum):
    """The set of values of a tensor. The dtype, not the operator's name, makes a layer binary.

    ``F64`` exists only for the parameters of a graph that has not been given its numerics yet: scales and
    biases stay double until they are rounded once.
    """

    F64 = "f64"
    F32 = "f32"
    U8 = "u8"
    I8 = "i8"
    I16 = "i16"
    I32 = "i32"
    BIT = "bit"  # -1 or +1
    TRIT = "trit"  # -1, 0 or +1
    UBIT = "ubit"  # 0 or 1

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy dtype that holds the values in the reference (bits, trits and ubits as int8)."""
        return np.dtype(_NUMPY[self])

    @property
    def is_float(self) -> bool:
        return self in (DType.F32, DType.F64)

    @property
    def is_packed(self) -> bool:
        """Whether the runtime stores it as bit planes."""
        return self in _PLANES

    @property
    def planes(self) -> int:
        """Bit planes of a packed dtype: 2 for trits, 1 for bits and ubits; 0 for the others."""
        return _PLANES.get(self, 0)

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest value of an integer or packed tensor.

        Raises:
            ValueError: for a float dtype.
        """
        if self.is_float:
            raise ValueError(f"{self.value} has no integer range")
        if self.is_packed:
            return (0, 1) if self is DType.UBIT else (-1, 1)
        info = np.iinfo(self.numpy)
        return int(info.min), int(info.max)


_NUMPY = {
    DType.F64: "float64",
    DType.F32: "float32",
    DType.U8: "uint8",
    DType.I8: "int8",
    DType.I16: "int16",
    DType.I32: "int32",
    DType.BIT: "int8",
    DType.TRIT: "int8",
    DType.UBIT: "int8",
}
_PLANES = {DType.BIT: 1, DType.TRIT: 2, DType.UBIT: 1}


@dataclass(frozen=True, eq=False)
class Quant:
    """An integer q stands for the real number ``(q - zero_point) * scale``.

    ``scale`` and ``zero_point`` are float64 arrays of shape () or (C,). The zero point may be fractional
    where every reader folds it into its own constants (trunk edges); a convolution's input needs an integer.
    """

    scale: Array
    zero_point: Array

    @staticmethod
    def of(scale: npt.ArrayLike, zero_point: npt.ArrayLike = 0.0) -> Quant:
        return Quant(np.asarray(scale, np.float64), np.asarray(zero_point, np.float64))

    def dequantize(self, q: Array) -> Array:
        """The float64 values that the integers ``q`` (..., C) stand for."""
        return np.asarray((q.astype(np.float64) - self.zero_point) * self.scale)

    def quantize(self, x: Array, dtype: DType) -> Array:
        """Nearest integers (ties to even) of the reals ``x`` (..., C), saturated to ``dtype``."""
        low, high = dtype.range
        q = np.rint(np.asarray(x, np.float64) / self.scale + self.zero_point)
        return np.asarray(np.clip(q, low, high).astype(dtype.numpy))

    def same(self, other: Quant | None) -> bool:
        return (
            other is not None
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )


@dataclass(frozen=True, eq=False)
class TensorType:
    """Shape, dtype and, for integers, quantization.

    Feature maps are NHWC with N = 1: ``(1, H, W, C)``; vectors are ``(1, C)``. Parameters have their own shapes.
    """

    shape: tuple[int, ...]
    dtype: DType
    quant: Quant | None = None

    @property
    def channels(self) -> int:
        return self.shape[-1]

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    def same(self, other: TensorType) -> bool:
        if self.shape != other.shape or self.dtype != other.dtype:
            return False
        return self.quant is None if other.quant is None else other.quant.same(self.quant)

    def __str__(self) -> str:
        return f"{self.dtype.value}[{','.join(map(str, self.shape))}]"
