"""Limits per channel, and products of two maps or of a map and a gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph.dtypes import Array, DType, Quant, TensorType
from bdnet_deploy.graph.op import Op, check, register


def broadcasts(vector: TensorType, map_: TensorType) -> bool:
    """Whether ``vector`` is ``(1, C)`` or ``(1, 1, 1, C)`` for a map of C channels."""
    return vector.channels == map_.channels and vector.size == vector.channels


def over_map(vector: Array, map_: Array) -> Array:
    """A vector (N, C) or (N, 1, 1, C) as an operand beside a map (N, ..., C)."""
    return vector.reshape(len(vector), *[1] * (map_.ndim - 2), vector.shape[-1])


@register
@dataclass(frozen=True)
class Clamp(Op):
    """``y = min(max(x, low[c]), high[c])``: ReLU6, Hardtanh; x ``(1, ..., C)``, low and high ``(C,)``.

    Of f32, i16 and i8. NaN stays NaN. Integers: i32 limits in the value's own quantization, which is unchanged.
    """

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        x, low, high = types
        check(x.dtype.is_float or x.dtype in (DType.I16, DType.I8), f"no limits on {x.dtype.value}")
        expected = x.dtype if x.dtype.is_float else DType.I32
        for limit in (low, high):
            check(limit.shape == (x.channels,), f"a limit has shape {limit.shape}, expected ({x.channels},)")
            check(limit.dtype is expected, f"{limit.dtype.value} limits for {x}")
        return TensorType(x.shape, x.dtype, x.quant)

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        x, low, high = arrays
        raised = np.where(x < low, low, x)
        return np.where(raised > high, high, raised).astype(out.dtype.numpy)


@register
@dataclass(frozen=True)
class Mul(Op):
    """``a * b`` of two maps of one shape, or of a map and a gate ``(1, C)`` or ``(1, 1, 1, C)`` (squeeze and excitation).

    Real: one rounded product. Integers (i16 or i8, zero points 0): the exact i32 product, whose scale is the product of
    the scales; an :class:`Affine` brings it back to the trunk. Squeeze-and-Excitation: arXiv 1709.01507.
    """

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        a, b = types
        check(a.shape == b.shape or broadcasts(b, a), f"{a} and {b} are neither of one shape nor a map and its gate")
        if a.dtype.is_float and b.dtype.is_float:
            return TensorType(a.shape, DType.F64 if DType.F64 in (a.dtype, b.dtype) else DType.F32)
        check(
            all(t.dtype in (DType.I16, DType.I8) for t in types), f"no product of {a.dtype.value} and {b.dtype.value}"
        )
        quants = [t.quant or Quant.of(1.0) for t in types]
        check(not any(np.any(q.zero_point) for q in quants), "the factors need zero points of 0")
        return TensorType(a.shape, DType.I32, Quant.of(quants[0].scale * quants[1].scale))

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        a, b = (x.astype(out.dtype.numpy) for x in arrays)
        product: Array = a * over_map(b, a) if types[0].shape != types[1].shape else a * b
        return product
