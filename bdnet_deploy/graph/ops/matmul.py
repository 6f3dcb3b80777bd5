"""Products of two feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph.dtypes import Array, DType, TensorType
from bdnet_deploy.graph.op import Op, check, register
from bdnet_deploy.graph.ops.convolution import _operand, _product_type


@register
@dataclass(frozen=True)
class Matmul(Op):
    """Matrix products of the rows of two maps: ``out[b, m, n] = sum_k x[b, m, k] * y[b, n, k]`` (attention).

    Inputs: x ``(1, B, M, K)`` and y ``(1, B, N, K)``, both computed; output ``(1, B, M, N)``. Heads are rows B. The
    second operand has K last too, so that both are read along their channels.

    Operands of any dtype, as in Conv2d: integers, bits and trits give exact i32 sums, a real operand real ones.
    Quantized operands have one scale; x may have a whole zero point, y has 0. Real accumulation: one accumulator per
    output starting at +0, ascending k, each product and each sum rounded.
    """

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        x, y = types
        check(len(x.shape) == 4 and len(y.shape) == 4, f"needs maps (1, B, M, K) and (1, B, N, K), got {x} and {y}")
        check(x.shape[1] == y.shape[1], f"{x.shape[1]} rows times {y.shape[1]} rows")
        check(x.channels == y.channels, f"{x.channels} channels times {y.channels} channels")
        if y.quant is not None:
            check(np.ndim(y.quant.scale) == 0, "the second operand needs one scale per tensor")
            check(not np.any(y.quant.zero_point), "the second operand needs zero point 0")
        return _product_type(x, y, (1, x.shape[1], x.shape[2], y.shape[2]))

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        x = _operand(arrays[0], types[0], out.dtype)
        y = _operand(arrays[1], types[1], out.dtype)
        if out.dtype is not DType.F32:
            product: Array = np.matmul(x, y.swapaxes(-1, -2))
            return product.astype(np.int32) if out.dtype is DType.I32 else product
        acc = np.zeros((x.shape[0], *out.shape[1:]), np.float32)
        for k in range(x.shape[-1]):
            acc = acc + x[..., :, None, k] * y[..., None, :, k]
        return acc
