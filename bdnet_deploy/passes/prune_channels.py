"""Compute only the channels that are read: channel slices move in front of what makes the channels one by one.

A head that is sliced off a wider map leaves dead channels behind. The slice moves up through affine maps, activations,
thresholds and repetitions (their parameters are sliced) into the filters of a convolution, where it ends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import cast

import numpy as np

from bdnet_deploy.graph import (
    Affine,
    Array,
    AvgPool,
    Clamp,
    Conv2d,
    DType,
    GlobalAvgPool,
    Graph,
    Linear,
    MaxPool,
    Node,
    Quant,
    Repeat,
    Sign,
    Slice,
    Ternarize,
    TwoSlope,
    Value,
)

_PER_CHANNEL = (Affine, TwoSlope, Clamp, Sign, Ternarize, AvgPool, MaxPool, GlobalAvgPool)


def prune_channels(graph: Graph, *, report: Callable[[str], None] | None = None) -> Graph:
    """Move the channel slices of a graph, whose numerics are chosen, as far up as that is exact.

    Exact, because every operator above computes a channel from parameters of its own: the same numbers in the same order.
    ``report`` is told why a slice stays behind an operator that computes channels nobody reads.
    """
    graph = graph.copy()
    moved = True
    while moved:
        moved = False
        for node in list(graph.nodes):
            if _channel_range(node) is not None and _move_up(graph, node) is None:
                moved = True
        graph.prune()
    for node in graph.nodes if report else []:
        reason = _move_up(graph, node, dry=True) if _channel_range(node) is not None else None
        if reason and report:
            report(f"{node.source or node.name}: {reason}")
    return graph


def _channel_range(node: Node) -> tuple[int, int] | None:
    """Begin and end of a slice of adjacent channels of a whole map."""
    if not isinstance(node.op, Slice):
        return None
    begin, end = node.op.begin[2], node.op.end[2]
    whole = node.op == Slice.channels(node.inputs[0].type, begin, end)
    return (begin, end) if whole else None


def _move_up(graph: Graph, node: Node, *, dry: bool = False) -> str | None:
    """Move the slice ``node`` in front of its producer; the reason, possibly empty, if it stays.

    ``dry``: only the reason.
    """
    found = _channel_range(node)
    assert found is not None
    begin, end = found
    value = node.inputs[0]
    producer = value.node
    if producer is None or not isinstance(producer.op, (*_PER_CHANNEL, Repeat, Conv2d, Linear)):
        return ""
    channels = value.type.channels
    readers = [n for n in graph.nodes for v in n.inputs if v is value]
    if readers != [node] or value in graph.outputs:
        return f"channels {begin} to {end} of {channels} are sliced, but '{value.name}' has another reader"
    if isinstance(producer.op, Repeat):
        return _through_repeat(graph, node, producer, begin, end, dry)
    groups = producer.op.groups if isinstance(producer.op, Conv2d) else 1
    depthwise = groups == channels == producer.inputs[0].type.channels and groups > 1
    if groups > 1 and not depthwise:
        return f"channels {begin} to {end} of {channels} are sliced from a grouped convolution"
    if dry:
        return ""
    op = producer.op
    if isinstance(op, Conv2d) and depthwise:
        op = dataclasses.replace(op, groups=end - begin)
    terms = op.terms if isinstance(op, Affine) else 1
    narrow = not isinstance(op, Conv2d | Linear) or depthwise  # else every filter reads all channels of the input
    maps = {v: _slice(graph, node, v, begin, end) if narrow else v for v in producer.inputs[:terms]}
    constants = [_part(graph, v, begin, end) for v in producer.inputs[terms:]]
    node.op, node.inputs = op, (*(maps[v] for v in producer.inputs[:terms]), *constants)
    node.source = producer.source  # the slice becomes the operator; its output keeps name and type
    return None


def _through_repeat(graph: Graph, node: Node, repeat: Node, begin: int, end: int, dry: bool) -> str | None:
    """Whole repetitions stay a shorter repeat; a range inside one is a slice of what is repeated."""
    x = repeat.inputs[0]
    size = x.type.channels
    first, last = begin // size, (end - 1) // size
    whole = begin % size == 0 and end % size == 0
    if not whole and first != last:
        return f"channels {begin} to {end} begin or end within one of the repetitions of {size} channels"
    if dry:
        return ""
    if whole:
        node.op, node.inputs, node.source = Repeat(last - first + 1), (x,), repeat.source
    else:
        node.op = Slice.channels(x.type, begin - first * size, end - first * size)
        node.inputs = (x,)
    return None


def _slice(graph: Graph, node: Node, x: Value, begin: int, end: int) -> Value:
    """A new slice of ``x`` in front of ``node``."""
    y = graph.add(Slice.channels(x.type, begin, end), [x], f"{x.name}.{begin}-{end}", source=node.source)
    new = graph.nodes.pop()
    graph.nodes.insert(graph.nodes.index(node), new)
    return y


def _part(graph: Graph, value: Value, begin: int, end: int) -> Value:
    """Some of the filters (OHWI, OI), of the parameters per channel (C,), or of a convolution's borders (..., O)."""
    data, quant = cast(Array, value.data), value.type.quant
    filters = value.type.dtype is not DType.I32 and data.ndim > 1
    if quant is not None:
        quant = Quant.of(*(a[begin:end] if np.ndim(a) else a for a in (quant.scale, quant.zero_point)))
    part = data[begin:end] if filters else data[..., begin:end]
    return graph.constant(f"{value.name}.{begin}-{end}", part, value.type.dtype, quant)
