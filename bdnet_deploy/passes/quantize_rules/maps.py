"""Sums and products with a constant map."""

from __future__ import annotations

from typing import cast

import numpy as np

from bdnet_deploy.graph import AddMap, Affine, Array, DType, MulMap, Node, Quant, Sign, Ternarize, Value
from bdnet_deploy.graph.ops.maps import FRACTION
from bdnet_deploy.passes.quantizer import Quantizer, rule

_LARGEST = DType.I16.range[1]


def _per_channel(data: Array) -> Array:
    """(C,) largest absolute value of a map (1, H, W, C)."""
    return np.abs(data).max((0, 1, 2))


def _brought_back(q: Quantizer, node: Node, y: Value) -> Value:
    """The i32 ``y`` where only one affine map or threshold reads it, which takes 32 bits; else in the trunk."""
    q.expect(y, node.output)
    readers = q.users.get(node.output, [])
    if node.output not in q.old.outputs and len(readers) == 1 and isinstance(readers[0].op, Affine | Sign | Ternarize):
        return y
    one, zero = np.ones(y.type.channels), np.zeros(y.type.channels)
    return q.affine(f"{node.name}.narrow", node.output, [y], [one], zero, node.source)


@rule(AddMap)
def add_map(q: Quantizer, node: Node) -> Value:
    """The map in units of x, of which a channel is as coarse as the map needs it."""
    old, constant = node.inputs
    x, data = q.values[old], cast(Array, constant.data)
    if x.type.dtype not in FRACTION:
        x = q.narrow(old, x, q.dtype_of(old), node.source)
    if (_per_channel(data) / q.vectors(x)[0] * (1 << FRACTION[x.type.dtype]) > _LARGEST).any():
        need = np.maximum(q.need(old, DType.I16), _per_channel(data) / _LARGEST)
        one, zero = np.ones(len(need)), np.zeros(len(need))
        x = q.affine_to(f"{x.name}.coarse", [x], [one], zero, need, DType.I16, node.source, False)
    fine = 1 << FRACTION[x.type.dtype]
    units = np.rint(data / q.vectors(x)[0] * fine)
    y = q.same(node, x, q.constant(constant.name, units, DType.I16))
    q.magnitudes[y] = q.magnitude(x) * fine + _per_channel(units)
    return _brought_back(q, node, y)


@rule(MulMap)
def mul_map(q: Quantizer, node: Node) -> Value:
    old, constant = node.inputs
    x, data = q.narrow(old, q.values[old], q.dtype_of(old), node.source), cast(Array, constant.data)
    scale = _per_channel(data) / _LARGEST
    scale = np.where(scale > 0, scale, 1.0)
    units = np.rint(data / scale)
    y = q.same(node, x, q.constant(constant.name, units, DType.I16, Quant.of(scale)))
    q.magnitudes[y] = q.magnitude(x) * _per_channel(units)
    return _brought_back(q, node, y)
