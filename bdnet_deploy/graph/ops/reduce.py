"""Sums and maxima over the map or over the channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph.dtypes import Array, DType, Quant, TensorType
from bdnet_deploy.graph.op import Op, check, register
from bdnet_deploy.graph.ops.max_pool import larger


@register
@dataclass(frozen=True)
class Reduce(Op):
    """``kind`` "max" or "sum" of x ``(1, H, W, C)`` over "map", giving ``(1, C)``, or "channels", giving ``(1, H, W, 1)``.

    Means are :class:`GlobalAvgPool` and :class:`GroupMean`. Real: ascending over pixels or channels; a sum is one
    accumulator from +0; a maximum is MaxPool's. Integers (u8, i8, i16): sums are exact i32 and the zero point grows by the number of
    terms; maxima keep the quantization. Over channels these must share scale and zero point.
    """

    kind: str = "max"
    over: str = "map"

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        (x,) = types
        check(self.kind in ("max", "sum") and self.over in ("map", "channels"), f"no {self.kind} over {self.over}")
        check(len(x.shape) == 4, f"needs NHWC, got {x}")
        check(not x.dtype.is_packed and x.dtype is not DType.I32, f"no reduction of {x.dtype.value}")
        over_map = self.over == "map"
        shape = (1, x.channels) if over_map else (*x.shape[:-1], 1)
        quant = x.quant
        if quant is not None and not over_map:
            same = all(np.all(a == np.ravel(a)[0]) for a in (quant.scale, quant.zero_point))
            check(same, "the channels differ in quantization")
            quant = Quant.of(*(np.ravel(a)[0] for a in (quant.scale, quant.zero_point)))
        if x.dtype.is_float or self.kind == "max":
            return TensorType(shape, x.dtype, quant)
        terms = x.shape[1] * x.shape[2] if over_map else x.channels
        return TensorType(shape, DType.I32, quant and Quant.of(quant.scale, quant.zero_point * terms))

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        x = arrays[0]
        terms = x.reshape(len(x), -1, x.shape[-1]).swapaxes(0, 1) if self.over == "map" else np.moveaxis(x, -1, 0)
        y: Array = terms[0].copy() if self.kind == "max" else np.zeros(terms.shape[1:], out.dtype.numpy)
        for term in terms:
            y = larger(y, term) if self.kind == "max" else y + term
        return y.reshape(len(x), *out.shape[1:])
