"""Products of maps, softmax and normalization."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.export.tflite.encoding import FLOAT, Encoded
from bdnet_deploy.graph import GroupNorm, LayerNorm, Node, Value

if TYPE_CHECKING:
    from bdnet_deploy.export.tflite.lowering import Lowering


def _matmul(low: Lowering, node: Node) -> Encoded:
    """BATCH_MATMUL of float32: sums of integers are exact."""
    x, y = node.inputs
    operands = (_centered(low, node, x), low.f32(y))
    macs = int(np.prod(node.output.type.shape)) * x.type.channels
    low.forms.add(node, "BATCH_MATMUL", {"float": macs})
    output = low.b.tensor(f"{node.name}/product", node.output.type.shape)
    return Encoded(FLOAT, (low.b.op("BATCH_MATMUL", operands, output, adj_y=1),))


def _centered(low: Lowering, node: Node, x: Value) -> int:
    """Without the zero point."""
    quant = x.type.quant
    if quant is None or not np.any(quant.zero_point):
        return low.f32(x)
    zero = low.constant(f"{node.name}/zero", np.atleast_1d(quant.zero_point).astype(np.float32))
    return low.b.subtract(low.f32(x), zero, f"{node.name}/centered")


def _softmax(low: Lowering, node: Node) -> Encoded:
    return Encoded(FLOAT, (low.b.unary("SOFTMAX", low.f32(node.inputs[0]), f"{node.name}/softmax", beta=1.0),))


def _normalized(low: Lowering, x: int, axes: tuple[int, ...], epsilon: float, name: str) -> int:
    """Mean and deviation in the reference's own order of operations: small deviations lose no more than there."""
    b = low.b
    count = int(np.prod([b.shape(x)[axis] for axis in axes]))
    factor = low.number(1.0 / count)
    mean = b.multiply(b.reduce("SUM", x, axes, f"{name}/total", keep=True), factor, f"{name}/mean")
    deviation = b.subtract(x, mean, f"{name}/deviation")
    squares = b.reduce("SUM", b.multiply(deviation, deviation, f"{name}/squares"), axes, f"{name}/energy", keep=True)
    variance = b.multiply(squares, factor, f"{name}/variance")
    root = b.unary("SQRT", b.add(variance, low.number(epsilon), f"{name}/biased"), f"{name}/root")
    inverse = b.binary("DIV", low.number(1.0), root, f"{name}/inverse")
    return b.multiply(deviation, inverse, f"{name}/normalized")


def _layer_norm(low: Lowering, node: Node) -> Encoded:
    assert isinstance(node.op, LayerNorm)
    x = node.inputs[0]
    return Encoded(FLOAT, (_normalized(low, low.f32(x), (len(x.type.shape) - 1,), node.op.epsilon, node.name),))


def _group_norm(low: Lowering, node: Node) -> Encoded:
    op, b = node.op, low.b
    assert isinstance(op, GroupNorm)
    _, h, w, c = node.output.type.shape
    groups = b.reshape(low.f32(node.inputs[0]), (1, h * w, op.groups, c // op.groups), f"{node.name}/groups")
    normalized = _normalized(low, groups, (1, 3), op.epsilon, node.name)
    return Encoded(FLOAT, (b.reshape(normalized, (1, h, w, c), f"{node.name}/map"),))


EMIT = {"group_norm": _group_norm, "layer_norm": _layer_norm, "matmul": _matmul, "softmax": _softmax}
