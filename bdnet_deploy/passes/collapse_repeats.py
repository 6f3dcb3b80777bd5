"""Compute once what is repeated: a repetition of channels moves behind what treats all its copies alike.

ES-BNN (CVPR 2025) repeats channels inside its squeeze-and-excitation too. There the copies stay equal: activations have
one parameter for all copies, and a layer of real weights that reads t copies is one with the sum of their weights.
Copies with parameters of their own (the normalization of an ES convolution) stay as they are.
"""

from __future__ import annotations

import numpy as np

from bdnet_deploy.graph import (
    Affine,
    AvgPool,
    Clamp,
    Conv2d,
    GlobalAvgPool,
    Graph,
    Linear,
    MaxPool,
    Node,
    Repeat,
    Sign,
    Ternarize,
    TwoSlope,
    Unary,
    Value,
)

_PER_CHANNEL = (Affine, AvgPool, Clamp, GlobalAvgPool, MaxPool, Sign, Ternarize, TwoSlope, Unary)


def collapse_repeats(graph: Graph) -> Graph:
    """The same function, exact in real arithmetic, with repetitions as late as they can be.

    Args:
        graph: with numerics ``"real"``.
    """
    graph = graph.copy()
    moved = True
    while moved:
        moved = False
        users = graph.users()
        for node in list(graph.nodes):
            repeat = node.inputs[0].node
            if repeat is None or not isinstance(repeat.op, Repeat) or repeat.inputs[0].is_constant:
                continue
            alone = users[repeat.output] == [node] and repeat.output not in graph.outputs
            if isinstance(node.op, Conv2d | Linear):
                moved |= _sum_weights(graph, node, repeat)
            elif (
                alone and isinstance(node.op, _PER_CHANNEL) and not (isinstance(node.op, Affine) and node.op.terms > 1)
            ):
                moved |= _move_behind(graph, node, repeat)
            if moved:
                break
        graph.prune()
    return graph


def _sum_weights(graph: Graph, node: Node, repeat: Node) -> bool:
    """Let a layer of real operands read one copy."""
    x, weights = repeat.inputs[0], node.inputs[1]
    grouped = isinstance(node.op, Conv2d) and node.op.groups != 1
    if grouped or weights.data is None or not weights.type.dtype.is_float or not x.type.dtype.is_float:
        return False
    copies = weights.data.reshape(*weights.data.shape[:-1], -1, x.type.channels)
    summed = graph.constant(f"{weights.name}.summed", copies.sum(-2), weights.type.dtype)
    node.inputs = (x, summed, *node.inputs[2:])
    return True


def _move_behind(graph: Graph, node: Node, repeat: Node) -> bool:
    """Let an operator on channels read one copy, and repeat what it makes."""
    assert isinstance(repeat.op, Repeat)
    x, times = repeat.inputs[0], repeat.op.times
    parts: list[Value] = []
    for parameter in node.inputs[1:]:
        assert parameter.data is not None
        copies = parameter.data.reshape(times, -1)
        if (copies != copies[:1]).any():
            return False
        parts.append(graph.constant(f"{parameter.name}.once", np.array(copies[0]), parameter.type.dtype))
    once = graph.add(node.op, [x, *parts], f"{node.name}.once", source=node.source)
    made = graph.nodes.pop()
    graph.nodes.insert(graph.nodes.index(node), made)
    node.op, node.inputs = Repeat(times), (once,)
    return True
