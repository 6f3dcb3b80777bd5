"""Softmax and normalization by the input's own mean and deviation."""

from __future__ import annotations

from collections.abc import Callable

from bdnet_deploy.export.onnx.body import Body, Call
from bdnet_deploy.graph import GroupNorm, LayerNorm


def _softmax(b: Body, call: Call) -> str:
    """Channels are axis 1 of maps and of vectors."""
    return b.op("Softmax", call.inputs[0], axis=1)


def _normalized(b: Body, x: str, axis: int, epsilon: float) -> str:
    deviation = b.op("Sub", x, b.op("ReduceMean", x, axes=[axis]))
    variance = b.op("ReduceMean", b.op("Mul", deviation, deviation), axes=[axis])
    root = b.op("Sqrt", b.op("Add", variance, b.const(epsilon)))
    return b.op("Mul", deviation, b.op("Reciprocal", root))


def _layer_norm(b: Body, call: Call) -> str:
    return _normalized(b, call.inputs[0], 1, call.as_op(LayerNorm).epsilon)


def _group_norm(b: Body, call: Call) -> str:
    op, (_, height, width, channels) = call.as_op(GroupNorm), call.out.shape
    groups = b.reshape(call.inputs[0], [op.groups, channels // op.groups * height * width])
    return b.reshape(_normalized(b, groups, 2, op.epsilon), [channels, height, width])


EMIT: dict[str, Callable[[Body, Call], str]] = {
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "softmax": _softmax,
}
