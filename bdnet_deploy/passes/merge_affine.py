"""Merge per-channel affine maps in double: batch normalization, biases, scales, shifts and residual sums become one.

Works on a real graph, where parameters are exact doubles, so that each is rounded once when numerics are chosen.
"""

from __future__ import annotations

import numpy as np

from bdnet_deploy.graph import (
    AddMap,
    Affine,
    Array,
    Conv2d,
    DType,
    Graph,
    Linear,
    MulMap,
    Node,
    Repeat,
    TwoSlope,
    Value,
)


def merge_affine(graph: Graph) -> Graph:
    """The graph with chains of Affine, and TwoSlope followed by Affine, merged; identities removed.

    Rewrites, where the inner node has no other reader:
        ``affine(affine(x))``, ``affine(affine(x), y)``, ``affine(x, affine(y))`` -> one affine of the same terms;
        ``affine(x + y)`` -> one affine of two terms; ``affine(two_slope(x))`` -> two_slope with other slopes;
        ``add_map(add_map(x))``, ``mul_map(mul_map(x))`` -> one; ``affine(repeat(affine(conv)))`` -> ``affine(repeat(conv))``: replicas of integers are integers (ES-BNN).
    """
    graph = graph.copy()
    changed = True
    while changed:
        changed = False
        for node in list(graph.nodes):
            if isinstance(node.op, Affine) and node.op.out is DType.F64:
                changed |= _drop_identity(graph, node) or _pull(graph, node)
            elif isinstance(node.op, AddMap | MulMap):
                changed |= _join_maps(graph, node)
        graph.prune()
    return graph


def _join_maps(graph: Graph, node: Node) -> bool:
    """Two constant maps one behind the other are their sum or their product."""
    x, outer = node.inputs[0], node.inputs[1].data
    if x.node is None or type(x.node.op) is not type(node.op) or not _sole_reader(graph, x, node):
        return False
    source, inner = x.node.inputs[0], x.node.inputs[1].data
    assert inner is not None and outer is not None
    both = inner + outer if isinstance(node.op, AddMap) else inner * outer
    node.inputs = (source, graph.parameter(f"{node.name}.maps", both))
    return True


def _parameters(node: Node) -> list[Array]:
    terms = node.op.terms if isinstance(node.op, Affine) else 1
    return [v.data for v in node.inputs[terms:] if v.data is not None]


def _drop_identity(graph: Graph, node: Node) -> bool:
    x = node.inputs[0]
    if not isinstance(node.op, Affine) or node.op.terms != 1 or not x.type.dtype.is_float:
        return False
    mul, add = _parameters(node)
    if x.node is None or not (np.all(mul == 1.0) and np.all(add == 0.0)):
        return False
    graph.redirect(node.output, x)
    return True


def _sole_reader(graph: Graph, value: Value, node: Node) -> bool:
    readers = [n for n in graph.nodes for v in n.inputs if v is value]
    return readers == [node] and value not in graph.outputs


def _pull(graph: Graph, node: Node) -> bool:
    """Merge one producer into the affine ``node``; True if something was merged."""
    assert isinstance(node.op, Affine)
    terms = node.op.terms
    muls, add = _parameters(node)[:-1], _parameters(node)[-1]
    for i in range(terms):
        inner = node.inputs[i].node
        if inner is None or not _sole_reader(graph, node.inputs[i], node):
            continue
        if isinstance(inner.op, Affine) and terms - 1 + inner.op.terms <= 2:
            inner_muls, inner_add = _parameters(inner)[:-1], _parameters(inner)[-1]
            xs = [*node.inputs[:i], *inner.inputs[: inner.op.terms], *node.inputs[i + 1 : terms]]
            factors = [*muls[:i], *(muls[i] * m for m in inner_muls), *muls[i + 1 :]]
            _become(graph, node, Affine(len(xs)), xs, [*factors, add + muls[i] * inner_add])
            node.source = node.source or inner.source
            return True
        if isinstance(inner.op, Repeat) and _behind_repeat(graph, node, i, inner):
            return True
        if isinstance(inner.op, TwoSlope) and terms == 1:
            positive, negative, bias = _parameters(inner)
            mul = muls[0]
            _become(graph, node, TwoSlope(), [inner.inputs[0]], [positive * mul, negative * mul, bias * mul + add])
            return True
    return False


def _behind_repeat(graph: Graph, node: Node, term: int, repeat: Node) -> bool:
    """Merge the affine between a convolution and ``repeat``, which makes ``term`` of ``node``, into ``node``."""
    inner = repeat.inputs[0].node
    if inner is None or not isinstance(inner.op, Affine) or inner.op.terms != 1:
        return False
    source = inner.inputs[0].node
    if source is None or not isinstance(source.op, Conv2d | Linear) or not _sole_reader(graph, inner.output, repeat):
        return False
    assert isinstance(node.op, Affine) and isinstance(repeat.op, Repeat)
    muls, add = _parameters(node)[:-1], _parameters(node)[-1]
    mul, offset = (np.tile(parameter, repeat.op.times) for parameter in _parameters(inner))
    repeat.inputs = (inner.inputs[0],)
    repeat.output.type = repeat.op.infer([inner.inputs[0].type])
    factors = [m * mul if i == term else m for i, m in enumerate(muls)]
    _become(graph, node, node.op, list(node.inputs[: node.op.terms]), [*factors, add + muls[term] * offset])
    return True


def _become(graph: Graph, node: Node, op: Affine | TwoSlope, xs: list[Value], parameters: list[Array]) -> None:
    values = [graph.parameter(f"{node.name}.p{i}", p) for i, p in enumerate(parameters)]
    node.op, node.inputs = op, (*xs, *values)
