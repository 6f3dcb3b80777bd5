"""Means, maxima and sums over windows, the map or the channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.export.tflite.builder import VALID
from bdnet_deploy.export.tflite.encoding import FLOAT, Encoded
from bdnet_deploy.graph import AvgPool, GroupMean, MaxPool, Node, Reduce

if TYPE_CHECKING:
    from bdnet_deploy.export.tflite.lowering import Lowering

#: What never wins: the operator itself starts from it.
_LEAST = float(np.finfo(np.float32).min)


def _avg_pool(low: Lowering, node: Node) -> Encoded:
    op, b = node.op, low.b
    assert isinstance(op, AvgPool)
    output = b.tensor(f"{node.name}/mean", node.output.type.shape)
    b.op("AVERAGE_POOL_2D", (low.f32(node.inputs[0]),), output, padding=VALID, **_window(op))
    return Encoded(FLOAT, (output,))


def _window(op: AvgPool | MaxPool) -> dict[str, int]:
    (filter_h, filter_w), (stride_h, stride_w) = op.kernel, op.strides
    return {"filter_h": filter_h, "filter_w": filter_w, "stride_h": stride_h, "stride_w": stride_w}


def _global_avg_pool(low: Lowering, node: Node) -> Encoded:
    # Of integers the reference gives the sum.
    operator = "MEAN" if node.output.type.dtype.is_float else "SUM"
    return Encoded(FLOAT, (low.b.reduce(operator, low.f32(node.inputs[0]), (1, 2), f"{node.name}/mean"),))


def _group_mean(low: Lowering, node: Node) -> Encoded:
    assert isinstance(node.op, GroupMean)
    shape = node.output.type.shape
    groups = low.b.reshape(low.f32(node.inputs[0]), (*shape, node.op.size), f"{node.name}/groups")
    return Encoded(FLOAT, (low.b.reduce("MEAN", groups, (len(shape),), f"{node.name}/mean"),))


def _reduce(low: Lowering, node: Node) -> Encoded:
    op = node.op
    assert isinstance(op, Reduce)
    axes, operator = ((1, 2) if op.over == "map" else (3,)), "REDUCE_MAX" if op.kind == "max" else "SUM"
    x = low.f32(node.inputs[0])
    return Encoded(FLOAT, (low.b.reduce(operator, x, axes, f"{node.name}/{op.kind}", keep=op.over == "channels"),))


def _max_pool(low: Lowering, node: Node) -> Encoded:
    """LceBMaxPool2d on packed planes (the larger of two values has the larger planes), else MAX_POOL_2D."""
    op, x = node.op, node.inputs[0]
    assert isinstance(op, MaxPool)
    encoded = low.env[x]
    if encoded.encoding != FLOAT and op.dilation == (1, 1):
        planes = []
        for tensor in encoded.tensors:
            # All bits set: -1, which never wins. Every window has elements of the map, whose tail bits are 0.
            padded = low.padded(tensor, op.padding, -1, f"{node.name}/input") if any(op.padding) else tensor
            planes.append(low.b.lce_max_pool(padded, op.kernel, op.strides, f"{node.name}/max"))
        low.forms.add(node, "LceBMaxPool2d")
        return Encoded(encoded.encoding, tuple(planes))
    b, tensor = low.b, low.f32(x)
    if any(op.padding):
        tensor = b.pad_axes(tensor, [(0, 0), op.padding[:2], op.padding[2:], (0, 0)], _LEAST, f"{node.name}/input")
    if op.dilation != (1, 1):
        return Encoded(FLOAT, (_dilated(low, node, tensor),))
    output = b.tensor(f"{node.name}/max", node.output.type.shape)
    return Encoded(FLOAT, (b.op("MAX_POOL_2D", (tensor,), output, padding=VALID, **_window(op)),))


def _dilated(low: Lowering, node: Node, tensor: int) -> int:
    """The maximum of a slice for each place of the window: MAX_POOL_2D has no dilation."""
    op, b = node.op, low.b
    assert isinstance(op, MaxPool)
    _, oh, ow, channels = node.output.type.shape
    best: int | None = None
    for ky in range(op.kernel[0]):
        for kx in range(op.kernel[1]):
            y, x = ky * op.dilation[0], kx * op.dilation[1]
            end = [1, y + (oh - 1) * op.strides[0] + 1, x + (ow - 1) * op.strides[1] + 1, channels]
            tap = b.strided_slice(tensor, [0, y, x, 0], end, [1, *op.strides, 1], f"{node.name}/tap")
            best = tap if best is None else b.binary("MAXIMUM", best, tap, f"{node.name}/max")
    assert best is not None
    return best


EMIT = {
    "avg_pool": _avg_pool,
    "global_avg_pool": _global_avg_pool,
    "group_mean": _group_mean,
    "max_pool": _max_pool,
    "reduce": _reduce,
}
