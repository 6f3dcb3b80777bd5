"""Integers of the model's own, and logic of bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bdnet_deploy.export.onnx.body import Body, Call
from bdnet_deploy.export.onnx.emit.pointwise import limited
from bdnet_deploy.graph import BitLogic, Dequantize, DType, Quant, Quantize


def _quantize(b: Body, call: Call) -> str:
    """The zero point of NaN, as the reference has it; beyond the range every sum is beyond it, too."""
    op = call.as_op(Quantize)
    ratio = b.op("Div", call.inputs[0], b.const(np.float32(op.scale)))
    number = b.where(b.op("IsNaN", ratio), b.const(0.0), ratio)
    shifted = b.op("Add", b.op("Round", number), b.const(float(op.zero_point)))
    low, high = (b.const(float(v)) for v in op.dtype.range)
    return limited(b, shifted, low, high)


def _dequantize(b: Body, call: Call) -> str:
    call.as_op(Dequantize)
    quant = call.operand().quant or Quant.of(1.0)

    def constant(values: Any) -> str:
        array = np.asarray(values, np.float32)
        shape = (-1, 1, 1) if array.ndim and len(call.operand().shape) == 4 else array.shape
        return b.const(array.reshape(shape))

    return b.op("Mul", b.op("Sub", call.inputs[0], constant(quant.zero_point)), constant(quant.scale))


def _bit_logic(b: Body, call: Call) -> str:
    kind, (x, y) = call.as_op(BitLogic).kind, call.inputs
    if kind in ("and", "or"):
        return b.op("Min" if kind == "and" else "Max", x, y)
    if call.out.dtype is DType.BIT:
        product = b.op("Mul", x, y)
        return product if kind == "xnor" else b.op("Neg", product)
    differs = b.op("Abs", b.op("Sub", x, y))
    return differs if kind == "xor" else b.op("Sub", b.const(1.0), differs)


EMIT: dict[str, Callable[[Body, Call], str]] = {
    "bit_logic": _bit_logic,
    "dequantize": _dequantize,
    "quantize": _quantize,
}
