"""Sums and products with a constant map: a number per pixel and channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph.dtypes import Array, DType, Quant, TensorType
from bdnet_deploy.graph.op import Op, check, register

#: Fractional bits that the integers of a sum have more than the input: 8 bits alone would round the map too coarsely.
FRACTION = {DType.U8: 4, DType.I8: 4, DType.I16: 0}


def _check_map(x: TensorType, constant: TensorType, integers: Sequence[DType]) -> None:
    check(len(x.shape) == 4, f"needs NHWC, got {x}")
    check(constant.shape == x.shape, f"a constant map of shape {constant.shape} for {x}")
    check(x.dtype.is_float or x.dtype in integers, f"no constant map for {x.dtype.value}")
    expected = x.dtype if x.dtype.is_float else DType.I16
    check(constant.dtype is expected, f"a constant map of {constant.dtype.value} for {x}, expected {expected.value}")


@register
@dataclass(frozen=True)
class AddMap(Op):
    """``y = x + m`` with a constant m of the shape ``(1, H, W, C)`` of x: position embeddings, thresholds per pixel.

    Real: one rounded sum. Integers (u8, i8, i16): m is i16 in units of x's scale, per channel; for 8 bits of a 16th of it.
    The sum is the exact i32 ``y = x * 16 + m`` (i16: ``x + m``), with scale and zero point to match; an :class:`Affine` brings it back to
    the trunk.
    """

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        x, constant = types
        _check_map(x, constant, list(FRACTION))
        if x.dtype.is_float:
            return TensorType(x.shape, x.dtype)
        quant, factor = x.quant or Quant.of(1.0), 1 << FRACTION[x.dtype]
        return TensorType(x.shape, DType.I32, Quant.of(quant.scale / factor, quant.zero_point * factor))

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        x, constant = (a.astype(out.dtype.numpy) for a in arrays)
        y: Array = x + constant if out.dtype.is_float else (x << FRACTION[types[0].dtype]) + constant
        return y


@register
@dataclass(frozen=True)
class MulMap(Op):
    """``y = x * m`` with a constant m of the shape ``(1, H, W, C)`` of x: a scale per pixel (XNOR-Net++, arXiv 1909.13863).

    Real: one rounded product. Integers (x is i8 or i16 with zero point 0, m i16 with a scale per channel): the exact
    i32 product, whose scale is the product of the scales; an :class:`Affine` brings it back to the trunk.
    """

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        x, constant = types
        _check_map(x, constant, (DType.I16, DType.I8))
        if x.dtype.is_float:
            return TensorType(x.shape, x.dtype)
        quants = [t.quant or Quant.of(1.0) for t in types]
        check(not any(np.any(q.zero_point) for q in quants), "the factors need zero points of 0")
        return TensorType(x.shape, DType.I32, Quant.of(quants[0].scale * quants[1].scale))

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        x, constant = (a.astype(out.dtype.numpy) for a in arrays)
        y: Array = x * constant
        return y
