"""Limits, products of maps and gates, and what is exact on bits."""

from __future__ import annotations

from typing import cast

import numpy as np

from bdnet_deploy.graph import Affine, Array, BitLogic, BoxSum, Clamp, DType, Mul, Node, Value
from bdnet_deploy.passes.quantizer import Quantizer, rule


@rule(Clamp)
def clamp(q: Quantizer, node: Node) -> Value:
    x = q.values[node.inputs[0]]
    if x.type.dtype not in (DType.I16, DType.I8):
        x = q.narrow(node.inputs[0], x, q.dtype_of(node.output), node.source)
    scale, zero = q.vectors(x)
    limits = [
        q.constant(v.name, np.clip(np.rint(cast(Array, v.data) / scale + zero), *x.type.dtype.range), DType.I32)
        for v in node.inputs[1:]
    ]
    return q.same(node, x, *limits)


@rule(Mul)
def mul(q: Quantizer, node: Node) -> Value:
    a, b = (q.narrow(v, q.values[v], q.dtype_of(v), node.source) for v in node.inputs)
    product = q.new.add(Mul(), [a, b], node.name, source=node.source)
    q.magnitudes[product] = q.magnitude(a) * q.magnitude(b)
    q.expect(product, node.output)
    readers = q.users.get(node.output, [])
    if node.output not in q.old.outputs and all(isinstance(n.op, Affine) for n in readers):
        return product  # an affine map takes 32 bits and brings it back to the trunk
    one, zero = np.ones(product.type.channels), np.zeros(product.type.channels)
    return q.affine(f"{node.name}.narrow", node.output, [product], [one], zero, node.source)


@rule(BitLogic)
def bit_logic(q: Quantizer, node: Node) -> Value:
    return q.same(node, *(q.values[v] for v in node.inputs))


@rule(BoxSum)
def box_sum(q: Quantizer, node: Node) -> Value:
    op, x = cast(BoxSum, node.op), q.values[node.inputs[0]]
    y = q.same(node, x)
    taps = op.kernel[0] * op.kernel[1] * (x.type.channels // op.groups)
    q.magnitudes[y] = np.full(op.groups, float(taps))
    return y
