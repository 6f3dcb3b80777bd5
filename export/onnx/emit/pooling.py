"""Means and maxima over windows, over the map and over channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bdnet_deploy.export.onnx.body import Body, Call
from bdnet_deploy.export.onnx.emit.pointwise import limited
from bdnet_deploy.graph import AvgPool, DType, GroupMean, MaxPool, Move, Permutation, Reduce
from bdnet_deploy.graph.ops.max_pool import least
from bdnet_deploy.graph.ops.pooling import reciprocal


def _integer_mean(b: Body, total: str, count: int, dtype: DType) -> str:
    """Exactly ``(sum * reciprocal + 2**15) >> 16``: in double, where nothing of it is rounded."""
    wide = b.op("Cast", total, to=b.onnx.TensorProto.DOUBLE)
    scaled = b.op("Add", b.op("Mul", wide, b.const(float(reciprocal(count)), "float64")), b.const(32768.0, "float64"))
    whole = b.op("Floor", b.op("Mul", scaled, b.const(1.0 / 65536, "float64")))
    low, high = (b.const(float(v)) for v in dtype.range)
    return limited(b, b.op("Cast", whole, to=b.onnx.TensorProto.FLOAT), low, high)


def _taps(b: Body, x: str, axis: int, size: int, kernel: int, stride: int, dilation: int) -> list[str]:
    """What each tap of a window reads along one axis: (positions) elements from ``tap * dilation`` on."""
    positions = (size - (kernel - 1) * dilation - 1) // stride + 1
    found = []
    for tap in range(kernel):
        begin = tap * dilation
        bounds = (b.ints([v]) for v in (begin, begin + (positions - 1) * stride + 1, axis, stride))
        found.append(b.op("Slice", x, *bounds))
    return found


def _moved(call: Call) -> bool:
    """Whether a pool must not stand right behind what made its input.

    onnxruntime takes a Pad, whose zeros are values, for the padding of the pool.
    """
    producer = call.node.inputs[0].node
    return producer is not None and isinstance(producer.op, Move | Permutation)


def _avg_pool(b: Body, call: Call) -> str:
    op, x = call.as_op(AvgPool), call.inputs[0]
    real = call.out.dtype.is_float
    if real and not _moved(call):
        return b.op("AveragePool", x, kernel_shape=op.kernel, strides=op.strides)
    _, height, width, _ = call.operand().shape
    for axis, size in ((2, height), (3, width)):
        x = b.op("Sum", *_taps(b, x, axis, size, op.kernel[axis - 2], op.strides[axis - 2], 1))
    count = op.kernel[0] * op.kernel[1]
    return b.op("Mul", x, b.const(1.0 / count)) if real else _integer_mean(b, x, count, call.out.dtype)


def _global_avg_pool(b: Body, call: Call) -> str:
    """Of integers the sum."""
    if call.out.dtype.is_float:
        return b.op("ReduceMean", call.inputs[0], axes=[2, 3], keepdims=0)
    return b.op("ReduceSum", call.inputs[0], b.ints([2, 3]), keepdims=0)


def _group_mean(b: Body, call: Call) -> str:
    size, shape = call.as_op(GroupMean).size, call.out.shape
    groups = b.reshape(call.inputs[0], [shape[-1], size, *shape[1:-1]])
    if call.out.dtype.is_float:
        return b.op("ReduceMean", groups, axes=[2], keepdims=0)
    return _integer_mean(b, b.op("ReduceSum", groups, b.ints([2]), keepdims=0), size, call.out.dtype)


def _larger(b: Body, first: str, second: str) -> str:
    """NaN wins; of equal values (+0 and -0) the first stays."""
    wins = b.op("Or", b.op("Greater", second, first), b.op("IsNaN", second))
    return b.where(wins, second, first)


def pad_for_pool(b: Body, call: Call, x: str) -> str:
    """The map of a max pool with its padding, which never wins."""
    op = call.as_op(MaxPool)
    top, bottom, left, right = op.padding
    if not any(op.padding):
        return x
    amounts = b.ints([0, 0, top, left, 0, 0, bottom, right])
    if op.dilation == (1, 1):  # a window that reaches beyond the map holds the pixel at the border, too
        return b.op("Pad", x, amounts, mode="edge")
    # Not 0, which onnxruntime takes for the padding of the pool itself and then finds too wide.
    return b.op("Pad", x, amounts, b.const(float(least(call.out.dtype)) - 1.0))


def plain_max_pool(b: Body, call: Call) -> str:
    """The operator of that name. It pads by itself where both sides are alike and smaller than the window."""
    op, x = call.as_op(MaxPool), call.inputs[0]
    top, bottom, left, right = op.padding
    pads = [top, left, bottom, right]
    if _moved(call):
        floor = np.finfo(np.float32).min if call.out.dtype.is_float else least(call.out.dtype)
        x = b.op("Max", x, b.const(float(floor)))
    if (top, left) != (bottom, right) or top >= op.kernel[0] or left >= op.kernel[1]:
        x, pads = pad_for_pool(b, call, x), [0, 0, 0, 0]
    geometry: dict[str, Any] = {"kernel_shape": op.kernel, "strides": op.strides, "dilations": op.dilation}
    return b.op("MaxPool", x, pads=pads, **geometry)


def _max_pool(b: Body, call: Call) -> str:
    """Of real numbers maxima along rows and then columns of shifted maps: what ``MaxPool`` does with NaN is left to the
    runtime."""
    if not call.out.dtype.is_float:
        return plain_max_pool(b, call)
    op = call.as_op(MaxPool)
    top, bottom, left, right = op.padding
    x = pad_for_pool(b, call, call.inputs[0])
    _, height, width, _ = call.operand().shape
    for axis, size in ((3, width + left + right), (2, height + top + bottom)):
        i = axis - 2
        first, *others = _taps(b, x, axis, size, op.kernel[i], op.strides[i], op.dilation[i])
        for other in others:
            first = _larger(b, first, other)
        x = first
    return x


def _largest(b: Body, x: str, axis: int) -> str:
    """Along one axis, which stays with size 1: the first of the largest, or NaN."""
    nan = b.op("IsNaN", x)
    infinite = b.where(nan, b.const(float("inf")), x)
    found = b.op("GatherElements", x, b.op("ArgMax", infinite, axis=axis), axis=axis)
    some = b.op("ReduceMax", b.op("Cast", nan, to=b.onnx.TensorProto.FLOAT), axes=[axis])
    return b.where(b.op("Greater", some, b.const(0.0)), b.const(float("nan")), found)


def _reduce(b: Body, call: Call) -> str:
    op, x = call.as_op(Reduce), call.inputs[0]
    over_map = op.over == "map"
    axes: Sequence[int] = [2, 3] if over_map else [1]
    keep = int(not over_map)
    if op.kind == "sum":
        return b.op("ReduceSum", x, b.ints(axes), keepdims=keep)
    if not call.out.dtype.is_float:
        return b.op("ReduceMax", x, axes=axes, keepdims=keep)
    if not over_map:
        return _largest(b, x, 1)
    _, height, width, channels = call.operand().shape
    return b.reshape(_largest(b, b.reshape(x, [channels, height * width]), 2), [channels])


EMIT: dict[str, Callable[[Body, Call], str]] = {
    "avg_pool": _avg_pool,
    "global_avg_pool": _global_avg_pool,
    "group_mean": _group_mean,
    "max_pool": _max_pool,
    "reduce": _reduce,
}
