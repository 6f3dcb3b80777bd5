"""Elements in another order or place; in a file maps are NCHW."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bdnet_deploy.export.onnx.body import TO_NCHW, TO_NHWC, Body, Call
from bdnet_deploy.graph import (
    Concat,
    Flip,
    Gather,
    Pad,
    PixelShuffle,
    PixelUnshuffle,
    Repeat,
    Reshape,
    Shuffle,
    Slice,
    TensorType,
    Transpose,
    Upsample,
)

#: Beyond the first element of any axis, counted from its end.
_BEFORE_FIRST = -(1 << 31)


def _axes(x: TensorType) -> list[int]:
    """Axes of rows, columns and channels in a file; of a vector only the last."""
    return [2, 3, 1] if len(x.shape) == 4 else [-1, -1, 1]


def _slice(b: Body, call: Call) -> str:
    op = call.as_op(Slice)
    parts = [p for p in zip(op.begin, op.end, _axes(call.operand()), op.strides, strict=True) if p[2] > 0]
    return b.op("Slice", call.inputs[0], *(b.ints(column) for column in zip(*parts, strict=True)))


def _pad(b: Body, call: Call) -> str:
    op = call.as_op(Pad)
    rank = len(call.operand().shape)
    amounts = [0] * (2 * rank)
    for place, axis in enumerate(_axes(call.operand())):
        if axis > 0:
            amounts[axis], amounts[rank + axis] = op.padding[2 * place : 2 * place + 2]
    if op.mode != "constant":
        mode = {"replicate": "edge", "reflect": "reflect"}[op.mode]
        return b.op("Pad", call.inputs[0], b.ints(amounts), mode=mode)
    return b.op("Pad", call.inputs[0], b.ints(amounts), b.const(np.float32(op.value)))


def _shuffle(b: Body, call: Call) -> str:
    groups, (*space, channels) = call.as_op(Shuffle).groups, call.out.shape[1:]
    split = b.reshape(call.inputs[0], [groups, channels // groups, int(np.prod(space, dtype=np.int64))])
    return b.reshape(b.op("Transpose", split, perm=(0, 2, 1, 3)), [channels, *space])


def _gather(b: Body, call: Call) -> str:
    op, x = call.as_op(Gather), call.inputs[0]
    for taken, axis in zip((op.rows, op.columns, op.indices), _axes(call.operand()), strict=True):
        if taken and axis > 0:
            x = b.op("Gather", x, b.ints(taken), axis=axis)
    return b.op("Identity", x) if x == call.inputs[0] else x


def _upsample(b: Body, call: Call) -> str:
    factors = call.as_op(Upsample).factors
    if len(call.operand().shape) == 2:
        return b.op("Identity", call.inputs[0])
    scales = b.const([1.0, 1.0, *factors])
    how = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    return b.op("Resize", call.inputs[0], "", scales, **how)


def _flip(b: Body, call: Call) -> str:
    places = _axes(call.operand())
    axes = sorted({places[axis] for axis in call.as_op(Flip).axes} - {-1})
    if not axes:
        return b.op("Identity", call.inputs[0])
    n = len(axes)
    return b.op("Slice", call.inputs[0], b.ints([-1] * n), b.ints([_BEFORE_FIRST] * n), b.ints(axes), b.ints([-1] * n))


def _concat(b: Body, call: Call) -> str:
    call.as_op(Concat)
    return b.op("Concat", *call.inputs, axis=1)


def _repeat(b: Body, call: Call) -> str:
    repeats = [1, call.as_op(Repeat).times, 1, 1][: len(call.out.shape)]
    return b.op("Tile", call.inputs[0], b.ints(repeats))


def _reshape(b: Body, call: Call) -> str:
    """In the graph's order of elements, which is NHWC."""
    call.as_op(Reshape)
    x, shape, before = call.inputs[0], call.out.shape, call.operand().shape
    if len(before) == 4 and before[1:3] != (1, 1):
        x = b.op("Transpose", x, perm=TO_NHWC)
    if len(shape) == 4 and shape[1:3] != (1, 1):
        return b.op("Transpose", b.reshape(x, shape[1:]), perm=TO_NCHW)
    return b.reshape(x, shape[1:] if len(shape) == 2 else [shape[3], 1, 1])


def _transpose(b: Body, call: Call) -> str:
    """Axis i of H, W, C of the output is axis perm[i]; in a file they are 2, 3, 1."""
    rows, columns, channels = ((2, 3, 1)[p] for p in call.as_op(Transpose).perm)
    return b.op("Transpose", call.inputs[0], perm=(0, channels, rows, columns))


def _pixel_shuffle(b: Body, call: Call) -> str:
    op = call.as_op(PixelShuffle)
    return b.op("DepthToSpace", call.inputs[0], blocksize=op.block, mode=op.order.upper())


def _pixel_unshuffle(b: Body, call: Call) -> str:
    op, (_, height, width, channels) = call.as_op(PixelUnshuffle), call.out.shape
    if op.order == "dcr":
        return b.op("SpaceToDepth", call.inputs[0], blocksize=op.block)
    split = b.reshape(call.inputs[0], [call.operand().channels, height, op.block, width, op.block])
    return b.reshape(b.op("Transpose", split, perm=(0, 1, 3, 5, 2, 4)), [channels, height, width])


EMIT: dict[str, Callable[[Body, Call], str]] = {
    "concat": _concat,
    "flip": _flip,
    "gather": _gather,
    "pad": _pad,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "repeat": _repeat,
    "reshape": _reshape,
    "shuffle": _shuffle,
    "slice": _slice,
    "transpose": _transpose,
    "upsample": _upsample,
}
