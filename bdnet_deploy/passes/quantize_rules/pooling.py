"""Pools and repetition of channels."""

from __future__ import annotations

from typing import cast

import numpy as np

from bdnet_deploy.graph import (
    AvgPool,
    DType,
    GlobalAvgPool,
    GroupMean,
    MaxPool,
    Node,
    Reduce,
    Repeat,
    Value,
)
from bdnet_deploy.graph.ops.pooling import reciprocal
from bdnet_deploy.passes.fixed_point import ONE
from bdnet_deploy.passes.quantizer import Quantizer, rule

#: Largest relative error of the 16-bit reciprocal by which fixed-point means are taken.
MEAN_TOLERANCE = 1 / 256


@rule(GlobalAvgPool)
def global_avg_pool(q: Quantizer, node: Node) -> Value:
    old = node.inputs[0]
    x = q.values[old]
    if x.type.dtype is DType.I32 and (x.type.quant is not None or q.magnitude(x).max() > np.iinfo(np.int16).max):
        x = q.narrow(old, x, q.dtype_of(old), node.source)  # sums of products, where no affine map came between
    pooled = q.same(node, x)
    q.magnitudes[pooled] = q.magnitude(x) * (x.type.size // x.type.channels)
    q.expect(pooled, node.output)
    return pooled


def _check_mean(q: Quantizer, node: Node, count: int) -> None:
    if abs(reciprocal(count) * count / ONE - 1) > MEAN_TOLERANCE:
        raise q.unsupported(
            node,
            f"{q.new.numerics} takes means with 16 fractional bits, too few for {count} elements",
            fix="pool in two stages or globally, or export with numerics float",
        )


@rule(AvgPool)
def avg_pool(q: Quantizer, node: Node) -> Value:
    assert isinstance(node.op, AvgPool)
    _check_mean(q, node, node.op.kernel[0] * node.op.kernel[1])
    old = node.inputs[0]
    x = q.values[old]
    return q.same(node, q.narrow(old, x, q.dtype_of(old), node.source) if x.type.dtype is DType.I32 else x)


@rule(GroupMean)
def group_mean(q: Quantizer, node: Node) -> Value:
    assert isinstance(node.op, GroupMean)
    _check_mean(q, node, node.op.size)
    return q.same(node, q.uniform(node.inputs[0], q.values[node.inputs[0]], q.trunk))


@rule(Repeat)
def repeat(q: Quantizer, node: Node) -> Value:
    x = q.values[node.inputs[0]]
    return q.carry(x, q.same(node, x), cast(Repeat, node.op).times)


@rule(MaxPool)
def max_pool(q: Quantizer, node: Node) -> Value:
    x = q.values[node.inputs[0]]
    return q.carry(x, q.same(node, x))


@rule(Reduce)
def reduce(q: Quantizer, node: Node) -> Value:
    op, old = cast(Reduce, node.op), node.inputs[0]
    x = q.values[old]
    if op.over == "channels":
        x = q.uniform(old, x, q.dtype_of(old))
    elif x.type.dtype is DType.I32:
        x = q.narrow(old, x, q.dtype_of(old), node.source)
    y = q.same(node, x)
    if y.type.dtype is DType.I32:
        terms = x.type.size // y.type.size
        q.magnitudes[y] = np.resize(q.magnitude(x) * terms, y.type.channels)
        q.expect(y, node.output)
    return y
