"""Softmax over the channels of each pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph import float_functions
from bdnet_deploy.graph.dtypes import Array, DType, Quant, TensorType
from bdnet_deploy.graph.op import Op, check, register
from bdnet_deploy.graph.ops.pointwise import saturate

#: Powers of two by ``2**-(i / 256)`` in units of 1 / 32767: both ends of an octave are there to interpolate.
EXP2_TABLE = np.rint(32767 * 2.0 ** (-np.arange(257) / 256)).astype(np.int16)
#: So many octaves below the largest score 16 bits have become 0.
_OCTAVES = 17
OUTPUTS = {DType.I16: Quant.of(2.0**-15), DType.I8: Quant.of(2.0**-8, -128)}
"""How each fixed output stands for probabilities."""


@dataclass(frozen=True)
class ExpScale:
    """From a difference d of scores to octaves with 16 fractional bits: ``(min(d >> drop, limit) * mul) >> shift``.

    ``limit`` and ``mul`` fit 32 bits without sign, and so does the result.
    """

    drop: int
    limit: int
    mul: int
    shift: int

    @staticmethod
    def of(scale: float) -> ExpScale:
        """For scores of that scale: ``d * scale / ln 2 * 65536``.

        Raises:
            ValueError: when the scale is not between 2**-40 and 2**40.
        """
        if not 2.0**-40 <= scale <= 2.0**40:
            raise ValueError(f"scores of scale {scale} are beyond the fixed-point softmax")
        end = _OCTAVES << 16
        per_unit = min(scale / math.log(2.0) * 65536.0, float(end))
        drop = 0
        while per_unit < 1.0:  # such a difference has no effect
            per_unit, drop = 2.0 * per_unit, drop + 1
        shift = 16
        while round(per_unit * 2.0**shift) >= 1 << 32:
            shift -= 1
        return ExpScale(drop, math.ceil(end / per_unit), round(per_unit * 2.0**shift), shift)


@register
@dataclass(frozen=True)
class Softmax(Op):
    """``y[c] = exp(x[c]) / sum_j exp(x[j])`` over the last axis; x ``(1, ..., C)``.

    Real: m is the largest x (NaN is not larger than anything), e[c] = exp(x[c] - m) as
    :mod:`bdnet_deploy.graph.float_functions` has it, the sum ascends from +0, y[c] = e[c] * (1 / sum).

    Fixed (``out`` is i16 or i8; x is i8, i16 or i32 of one scale; zero points cancel). Every step is exact:
    ``d = max - x``; ``z = (min(d >> drop, limit) * mul) >> shift`` octaves with 16 fractional bits; with
    ``n = min(z >> 16, 31)`` and the table T of 257 entries, interpolated by bits 8 to 15 (i) and 0 to 7 (f) of z:
    ``e = ((((T[i] << 8) - (T[i] - T[i + 1]) * f) >> n) + 128) >> 8``; ``r = floor(2**46 / sum e)``. Output i16 is
    ``min((e * r + 2**30) >> 31, 32767)`` of scale 2**-15, i8 ``min((e * r + 2**37) >> 38, 255) - 128`` of scale 2**-8
    and zero point -128.
    """

    out: DType = DType.F64
    exp: ExpScale | None = None

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        (x,) = types
        if x.dtype.is_float:
            check(self.exp is None, "the scale of scores belongs to fixed point")
            return TensorType(x.shape, x.dtype)
        check(self.out in OUTPUTS, f"no fixed-point softmax to {self.out.value}")
        check(x.dtype in (DType.I8, DType.I16, DType.I32), f"no softmax of {x}")
        check(x.channels <= 65535, f"{x.channels} channels; 65535 are possible")
        exp = self.exp
        check(exp is not None and 0 <= exp.drop <= 31 and 0 <= exp.shift <= 31, "a fixed softmax needs its scale")
        assert exp is not None
        check(0 < exp.limit < 1 << 32 and 0 < exp.mul < 1 << 32, "limit and mul have 32 bits")
        check(exp.limit * exp.mul >> exp.shift < 1 << 32, "octaves leave 32 bits")
        return TensorType(x.shape, self.out, OUTPUTS[self.out])

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        x = arrays[0]
        if out.dtype is DType.F64:
            e = np.exp(x - x.max(-1, keepdims=True))
            return np.asarray(e / e.sum(-1, keepdims=True))
        largest = x[..., 0]
        for c in range(1, x.shape[-1]):
            largest = np.where(x[..., c] > largest, x[..., c], largest)
        if out.dtype is DType.F32:
            with np.errstate(all="ignore"):
                e = float_functions.exp(x - largest[..., None])
                total = np.zeros_like(largest)
                for c in range(x.shape[-1]):
                    total = total + e[..., c]
                return np.asarray(e * (np.float32(1) / total)[..., None])
        assert self.exp is not None
        d = largest[..., None].astype(np.int64) - x
        z = (np.minimum(d >> self.exp.drop, self.exp.limit) * self.exp.mul) >> self.exp.shift
        i, f, n = (z >> 8) & 255, z & 255, np.minimum(z >> 16, 31)
        table = EXP2_TABLE.astype(np.int64)
        e = ((((table[i] << 8) - (table[i] - table[i + 1]) * f) >> n) + 128) >> 8
        r = (1 << 46) // e.sum(-1, keepdims=True)
        if out.dtype is DType.I16:
            return saturate((e * r + (1 << 30)) >> 31, DType.I16)
        return saturate(((e * r + (1 << 37)) >> 38) - 128, DType.I8)
