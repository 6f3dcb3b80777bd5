"""Unary functions of single elements: in real arithmetic by name, in fixed point as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph import float_functions
from bdnet_deploy.graph.dtypes import Array, DType, TensorType
from bdnet_deploy.graph.op import Op, check, register

#: Entries of a table: 8-bit inputs, and knots over the range of 16-bit ones.
TABLE_SIZE, KNOTS = 256, (257, 513)


@register
@dataclass(frozen=True)
class Unary(Op):
    """``y = function(x)`` for every element; real inputs of any shape.

    ``function`` is a name of :data:`bdnet_deploy.graph.float_functions.REAL`: abs, erf, exp, gelu, gelu_tanh,
    hard_sigmoid, hard_swish, log, mish, rsqrt, sigmoid, silu, softplus, sqrt, square, tanh. In f32 the operations of
    :mod:`bdnet_deploy.graph.float_functions` define the result, also for NaN, infinities and subnormal numbers. In
    fixed point it becomes a :class:`Lut`.
    """

    function: str = "sigmoid"

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        (x,) = types
        check(self.function in float_functions.REAL, f"unknown function '{self.function}'")
        check(x.dtype.is_float, f"{self.function} of {x}: a real input is needed")
        return TensorType(x.shape, x.dtype)

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        return float_functions.apply(self.function, arrays[0])


@register
@dataclass(frozen=True)
class Lut(Op):
    """A unary function of integers by a table.

    Inputs: x of i8 or i16 and the table, a vector.

    x of i8: 256 entries of the output's dtype (i8 or i16), ``y = table[x + 128]``.

    x of i16: 257 or 513 knots of i16 over equal steps of ``size = 65536 / (knots - 1)``, and exact integer interpolation
    between them: with ``i, f = divmod(x + 32768, size)``,
    ``y = table[i] + (((table[i + 1] - table[i]) * f + size / 2) >> log2(size))``, floor.
    """

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        x, table = types
        check(x.dtype in (DType.I8, DType.I16), f"a table takes i8 or i16, not {x}")
        if x.dtype is DType.I8:
            check(table.shape == (TABLE_SIZE,), f"a table of shape {table.shape} for i8, expected ({TABLE_SIZE},)")
            check(table.dtype in (DType.I8, DType.I16), f"a table of {table.dtype.value}, expected i8 or i16")
        else:
            check(table.shape in [(k,) for k in KNOTS], f"knots of shape {table.shape}, expected 257 or 513")
            check(table.dtype is DType.I16, f"knots of {table.dtype.value}, expected i16")
        return TensorType(x.shape, table.dtype)

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        x, table = arrays
        if types[0].dtype is DType.I8:
            return np.asarray(table[x.astype(np.int64) + 128])
        knots = table.astype(np.int64)
        shift = 16 - (len(table) - 1).bit_length() + 1
        position = x.astype(np.int64) + 32768
        i, fraction = position >> shift, position & ((1 << shift) - 1)
        y = knots[i] + (((knots[i + 1] - knots[i]) * fraction + (1 << (shift - 1))) >> shift)
        return np.asarray(y.astype(np.int16))
