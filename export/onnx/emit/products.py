"""Convolutions, matrix products, and sums over windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bdnet_deploy.export.onnx.body import Body, Call
from bdnet_deploy.graph import REPLICATE, BoxSum, Conv2d, Matmul, TensorType


def _centred(b: Body, x: str, type_: TensorType) -> str:
    """Integers without their zero point, which is one for all."""
    zero = 0.0 if type_.quant is None else type_.quant.zero_point
    return b.op("Sub", x, b.const(np.ravel(zero)[0])) if np.any(zero) else x


def _padded(b: Body, x: str, padding: Sequence[int], value: int) -> tuple[str, list[int]]:
    """The map with what ``Conv`` cannot pad itself, and what it pads."""
    top, bottom, left, right = padding
    if value == 0 or not any(padding):
        return x, [top, left, bottom, right]
    amounts = b.ints([0, 0, top, left, 0, 0, bottom, right])
    if value == REPLICATE:
        return b.op("Pad", x, amounts, mode="edge"), [0, 0, 0, 0]
    return b.op("Pad", x, amounts, b.const(float(value))), [0, 0, 0, 0]


def _conv(b: Body, x: str, w: str, op: Conv2d | BoxSum, kernel: Sequence[int]) -> str:
    source, pads = _padded(b, x, op.padding, op.pad_value)
    geometry: dict[str, Any] = {"kernel_shape": kernel, "strides": op.strides, "dilations": op.dilation}
    return b.op("Conv", source, w, pads=pads, group=op.groups, **geometry)


def _conv2d(b: Body, call: Call) -> str:
    x = _centred(b, call.inputs[0], call.operand())
    return _conv(b, x, b.weights(call), call.as_op(Conv2d), call.operand(1).shape[1:3])


def _linear(b: Body, call: Call) -> str:
    return b.op("Gemm", _centred(b, call.inputs[0], call.operand()), b.weights(call), transB=1)


def _box_sum(b: Body, call: Call) -> str:
    op, x = call.as_op(BoxSum), call.operand()
    if op == BoxSum((1, 1), groups=x.channels):  # numbers of bits
        return b.op("Identity", call.inputs[0])
    shape = (op.groups, x.channels // op.groups, *op.kernel)
    ones = b.op("Expand", b.const(1.0), b.ints(shape))
    return _conv(b, call.inputs[0], ones, op, op.kernel)


def _matmul(b: Body, call: Call) -> str:
    """x (N, B, M, K) and y (N, B, P, K), which lie as (N, K, B, M) and (N, K, B, P)."""
    call.as_op(Matmul)
    x, y = (_centred(b, call.inputs[i], call.operand(i)) for i in (0, 1))
    rows = b.op("Transpose", x, perm=(0, 2, 3, 1))
    columns = b.op("Transpose", y, perm=(0, 2, 1, 3))
    return b.op("Transpose", b.op("MatMul", rows, columns), perm=(0, 3, 1, 2))


EMIT: dict[str, Callable[[Body, Call], str]] = {
    "box_sum": _box_sum,
    "conv2d": _conv2d,
    "linear": _linear,
    "matmul": _matmul,
}
