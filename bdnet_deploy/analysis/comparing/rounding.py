"""How far float32 itself lets two sound runtimes differ: where terms cancel, and where a deviation is divided by its own rounding.

The relative tolerance of a layer is of its largest value. A sum whose terms cancel everywhere (one logit close to 0) is smaller than
the roundings of its terms.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from bdnet_deploy.graph import (
    Affine,
    Array,
    AvgPool,
    Conv2d,
    DType,
    GlobalAvgPool,
    GroupMean,
    GroupNorm,
    LayerNorm,
    Linear,
    Matmul,
    Node,
    Op,
    Reduce,
    TensorType,
    Value,
)

#: Relative error of one rounding to float32.
_UNIT = 2.0**-24
_SUMS = (Affine, AvgPool, Conv2d, GlobalAvgPool, GroupMean, Linear, Matmul)


def allowance(node: Node, values: Mapping[str, Array]) -> Array:
    """By how much the values (N, ...) of a real layer may differ, each computed in float32 in some order; 0 where nothing is known.

    Of sums of n terms: the error of either order is about sqrt(n) roundings of the sum of the terms' sizes (Higham and Mary, "A new
    approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41(5), 2019). Of normalizations: as far as the reference
    itself is from its formula in double, for numbers that are all but equal.
    """
    size = sizes(node, values)
    if size is not None:
        return np.asarray(2 * np.sqrt(_terms(node)) * _UNIT * size)
    if isinstance(node.op, LayerNorm | GroupNorm):
        exact = _in_double(node, [_given(v, values).astype(np.float64) for v in node.inputs])
        error = np.abs(exact - values[node.name])
        return np.full(error.shape, 2 * float(error.max(initial=0.0)))
    return np.zeros(values[node.name].shape)


def sizes(node: Node, values: Mapping[str, Array]) -> Array | None:
    """(N, ...): the sum of the sizes of the terms of each element; None of what is no sum."""
    total = isinstance(node.op, Reduce) and node.op.kind == "sum"
    if not (total or isinstance(node.op, _SUMS)):
        return None
    return _in_double(node, [np.abs(_given(v, values).astype(np.float64)) for v in node.inputs])


def largest_term(value: Value, values: Mapping[str, Array]) -> float:
    """The largest sum of the sizes of terms that an output is made of: its last product and the factors behind it."""
    node = value.node
    size = None if node is None else sizes(node, values)
    if node is None or size is None:
        return 0.0
    largest = float(size.max(initial=0.0))
    if isinstance(node.op, Affine) and node.op.terms == 1:
        factor = node.inputs[1].data
        assert factor is not None
        return max(largest, float(np.abs(factor).max(initial=0.0)) * largest_term(node.inputs[0], values))
    return largest


def _given(value: Value, values: Mapping[str, Array]) -> Array:
    return values[value.name] if value.data is None else value.data


def _in_double(node: Node, arrays: list[Array]) -> Array:
    """The operator's reference, without roundings to float32."""
    types = [TensorType(v.type.shape, DType.F64) for v in node.inputs]
    return np.asarray(_wide(node.op).reference(types, arrays, TensorType(node.output.type.shape, DType.F64)))


def _wide(op: Op) -> Op:
    return dataclasses.replace(op, out=DType.F64) if isinstance(op, Affine) else op


def _terms(node: Node) -> int:
    op, x = node.op, node.inputs[0].type
    if isinstance(op, Conv2d | Linear):
        return int(np.prod(node.inputs[1].type.shape[1:]))
    if isinstance(op, Affine):
        return 2 * op.terms + 1
    if isinstance(op, Matmul):
        return x.channels
    return max(1, x.size // node.output.type.size)
