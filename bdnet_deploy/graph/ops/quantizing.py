"""Between real numbers and integers, where a model says so itself (quantization-aware training, integer inputs)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph.dtypes import Array, DType, Quant, TensorType
from bdnet_deploy.graph.op import Op, check, register


@register
@dataclass(frozen=True)
class Quantize(Op):
    """``q = saturate(round(x / scale) + zero_point)``: halves to even, one scale a tensor (ONNX QuantizeLinear).

    The division is one rounded operation in the dtype of x, by the scale rounded to it. What lies beyond the range of
    ``dtype`` (u8, i8, i16), infinities too, saturates; NaN gives the zero point.
    """

    dtype: DType = DType.I8
    scale: float = 1.0
    zero_point: int = 0

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        (x,) = types
        check(x.dtype.is_float, f"quantizes real numbers, not {x.dtype.value}")
        check(self.dtype in (DType.U8, DType.I8, DType.I16), f"no quantization to {self.dtype.value}")
        rounded = float(np.float32(self.scale))
        check(0 < rounded < float("inf"), f"scale {self.scale}")
        low, high = self.dtype.range
        check(low <= self.zero_point <= high, f"zero point {self.zero_point} of {self.dtype.value}")
        return TensorType(x.shape, self.dtype, Quant.of(self.scale, self.zero_point))

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        x = arrays[0]
        ratio = x / x.dtype.type(self.scale)
        nearest = np.rint(np.where(np.isnan(ratio), 0, ratio)).astype(np.float64) + self.zero_point
        return np.asarray(np.clip(nearest, *self.dtype.range).astype(self.dtype.numpy))


@register
@dataclass(frozen=True)
class Dequantize(Op):
    """The real numbers that integers stand for: ``y = (q - zero_point) * scale``, by the quantization of the input.

    In f32 the integer, the zero point and the scale are rounded to f32 and each operation is rounded.
    """

    out: DType = DType.F64

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        (x,) = types
        check(not x.dtype.is_float and not x.dtype.is_packed, f"dequantizes integers, not {x.dtype.value}")
        check(self.out.is_float, f"no real number is {self.out.value}")
        return TensorType(x.shape, self.out)

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        quant, real = types[0].quant or Quant.of(1.0), out.dtype.numpy
        y: Array = (arrays[0].astype(real) - quant.zero_point.astype(real)) * quant.scale.astype(real)
        return y
