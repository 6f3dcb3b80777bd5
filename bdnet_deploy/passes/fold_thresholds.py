"""Fold ``convolution -> affine [-> two slopes or limits] -> sign or ternarize`` into exact integer comparisons.

Applies where nothing else reads what lies between. The thresholds are found by evaluating the reference of the chain at
every integer that the accumulator can take, so ties and rounding are exact by construction. Where the chain falls with the accumulator, the filter's sign is flipped.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bdnet_deploy.graph import (
    Affine,
    Array,
    Clamp,
    Conv2d,
    DType,
    Graph,
    Linear,
    Node,
    Sign,
    Ternarize,
    TwoSlope,
    Value,
)

#: Accumulators beyond this are not folded: the table of the chain would not be worth its size.
MAX_TAPS = 1 << 15


def fold_thresholds(graph: Graph, *, report: Callable[[str], None] | None = None) -> Graph:
    """The graph (with its numerics chosen) with thresholds on accumulators wherever that is exact.

    ``report`` is told why a candidate was not folded.
    """
    graph = graph.copy()
    for node in list(graph.nodes):
        if isinstance(node.op, Sign | Ternarize):
            reason = _fold(graph, node)
            if reason and report:
                report(f"{node.source or node.name}: {reason}")
    graph.prune()
    return graph


def _chain(graph: Graph, node: Node) -> tuple[list[Node], Node] | None:
    """The affine, two-slope and clamp nodes between a binary convolution and ``node``, if nobody else reads them."""
    users = graph.users()
    chain: list[Node] = []
    value = node.inputs[0]
    while users.get(value) == [node if not chain else chain[0]] and value not in graph.outputs:
        producer = value.node
        if producer is None:
            return None
        if isinstance(producer.op, Conv2d | Linear):
            packed = all(v.type.dtype.is_packed for v in producer.inputs)
            return (chain, producer) if packed and chain else None
        if not (
            isinstance(producer.op, TwoSlope | Clamp) or (isinstance(producer.op, Affine) and producer.op.terms == 1)
        ):
            return None
        chain.insert(0, producer)
        value = producer.inputs[0]
    return None


def _fold(graph: Graph, node: Node) -> str | None:
    """Fold one candidate; the reason if it is one but cannot be folded."""
    found = _chain(graph, node)
    if found is None:
        return None
    chain, conv = found
    weight = conv.inputs[1]
    assert weight.data is not None
    taps = int(np.prod(weight.data.shape[1:]))
    if taps > MAX_TAPS:
        return f"not folded into thresholds: accumulators of {taps} taps"
    if any(v is weight for n in graph.nodes if n is not conv for v in n.inputs):
        return "not folded into thresholds: the filter is shared"
    acc = np.arange(-taps, taps + 1, dtype=np.int32)
    channels = conv.output.type.channels
    level = _evaluate([*chain, node], np.repeat(acc[:, None], channels, axis=1))
    rising = (np.diff(level.astype(np.int16), axis=0) >= 0).all(0)
    falling = (np.diff(level.astype(np.int16), axis=0) <= 0).all(0)
    if not (rising | falling).all():
        return "not folded into thresholds: a slope is negative, so the accumulator crosses a threshold twice"
    flip = ~rising
    level[:, flip] = level[::-1, flip]  # of the flipped filter's accumulator, -acc

    def first(minimum: int) -> Array:
        reached = level >= minimum
        return np.where(reached.any(0), acc[reached.argmax(0)], taps + 1).astype(np.int32)

    if isinstance(node.op, Sign):
        thresholds = [("threshold", first(1))]
    else:
        thresholds = [("low", first(0)), ("high", first(1))]
    if flip.any():
        data = weight.data.copy()
        data[flip] = -data[flip]
        conv.inputs = (conv.inputs[0], graph.constant(f"{weight.name}.flipped", data, weight.type.dtype))
    constants: list[Value] = [graph.constant(f"{node.name}.{n}", t, DType.I32) for n, t in thresholds]
    node.inputs = (conv.output, *constants)
    return None


def _evaluate(chain: list[Node], values: Array) -> Array:
    """Run (N, C) accumulators through per-channel nodes."""
    for node in chain:
        arrays = [values, *(v.data for v in node.inputs[1:] if v.data is not None)]
        values = node.op.reference([v.type for v in node.inputs], arrays, node.output.type)
    return values
