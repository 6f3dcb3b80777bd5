"""Per-channel arithmetic between convolutions: affine with residual, and two-slope activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph.dtypes import Array, DType, TensorType
from bdnet_deploy.graph.op import Op, check, register
from bdnet_deploy.graph.ops.elementwise import broadcasts, over_map

#: Fixed-point factors have this many fractional bits, everywhere.
FRACTION_BITS = 16


def saturate(y: Array, dtype: DType) -> Array:
    low, high = dtype.range
    return np.clip(y, low, high).astype(dtype.numpy)


def _check_parameters(x: TensorType, parameters: Sequence[TensorType], out: DType) -> None:
    for p in parameters:
        check(p.shape == (x.channels,), f"a parameter has shape {p.shape}, expected ({x.channels},)")
        ok = p.dtype is DType.I32 if not out.is_float else p.dtype is out
        check(ok, f"{p.dtype.value} parameter for an {out.value} output")


@register
@dataclass(frozen=True)
class Affine(Op):
    """Per-channel affine map of one term, or of two (batch normalization with a residual connection).

    Inputs: x0 ``(1, ..., C)``, [x1 of the same shape, or one vector ``(1, C)`` or ``(1, 1, 1, C)`` for all pixels], then per-channel ``(C,)`` factors mul0, [mul1], and add.

    Real: ``y = ((x0 * mul0) [+ x1 * mul1]) + add``, each operation rounded to f32 in this order.

    Fixed point (``out`` is i16 or i8; i32 parameters, the factors with 16 fractional bits):
    ``y = saturate((sum shift(x_i, shift_i) * mul_i + add) >> 16)``, floor. ``shift`` is to the left where positive,
    arithmetic to the right where negative, then saturated to 16 bits: small counts go up (so that a 16-bit factor keeps
    its precision), wide accumulators down. The rounding constant, biases and the zero points of the inputs
    lie in ``add``. A factor is ``k * 65536 + m`` with m in 16 bits: back ends may add ``k * x_i`` after the shift,
    which is the same number; without the k parts the sum fits 32 bits (the quantize pass proves it).
    """

    terms: int = 1
    out: DType = DType.F64
    shifts: tuple[int, ...] = ()

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        check(self.terms in (1, 2) and len(types) == 2 * self.terms + 1, "needs one or two terms and their factors")
        x = types[0]
        check(
            all(t.shape == x.shape or broadcasts(t, x) for t in types[1 : self.terms]),
            "the second term has neither the shape of the first nor is it one vector for all pixels",
        )
        _check_parameters(x, types[self.terms :], self.out)
        if self.out.is_float:
            check(not self.shifts, "shifts belong to fixed point")
        else:
            check(self.out in (DType.I16, DType.I8), f"no fixed-point affine to {self.out.value}")
            check(not any(t.dtype.is_float for t in types[: self.terms]), "fixed point needs integer terms")
            check(len(self.shifts) == self.terms, "one shift per term")
        return TensorType(x.shape, self.out)

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        xs, muls, add = [*arrays[: self.terms]], arrays[self.terms : -1], arrays[-1]
        if self.terms == 2 and types[1].shape != types[0].shape:
            xs[1] = over_map(xs[1], xs[0])
        if out.dtype.is_float:
            y: Array = xs[0].astype(out.dtype.numpy) * muls[0]
            if self.terms == 2:
                y = y + xs[1].astype(out.dtype.numpy) * muls[1]
            return y + add
        total = add.astype(np.int64)
        for x, mul, shift in zip(xs, muls, self.shifts, strict=True):
            shifted = x.astype(np.int64) << shift if shift >= 0 else x.astype(np.int64) >> -shift
            total = total + np.clip(shifted, *DType.I16.range) * mul.astype(np.int64)
        return saturate(total >> FRACTION_BITS, out.dtype)


@register
@dataclass(frozen=True)
class TwoSlope(Op):
    """Two lines through the origin: ReLU, PReLU, RPReLU, leaky ReLU, Maxout.

    Inputs: x ``(1, ..., C)``, per-channel ``(C,)`` slopes for x >= 0 and x < 0 and, in real arithmetic, a bias:
    ``y = (x * (positive if x >= 0 else negative)) + bias``.

    Fixed point (``out`` is i16 or i8): i32 slopes with 16 fractional bits, no bias (it is the zero point of the
    output): ``y = saturate((x * slope) >> 16)``, floor.
    """

    out: DType = DType.F64

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        check(len(types) == (4 if self.out.is_float else 3), "wrong number of parameters")
        _check_parameters(types[0], types[1:], self.out)
        return TensorType(types[0].shape, self.out)

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        x, positive, negative = arrays[:3]
        slope = np.where(x >= 0, positive, negative)
        if out.dtype.is_float:
            y: Array = x.astype(out.dtype.numpy) * slope + arrays[3]
            return y
        return saturate((x.astype(np.int64) * slope.astype(np.int64)) >> FRACTION_BITS, out.dtype)
