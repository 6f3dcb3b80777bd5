"""Bits, trits and ubits that an affine map reads become integers first: kernels of affine maps read numbers."""

from __future__ import annotations

from bdnet_deploy.graph import Affine, BoxSum, Graph, Node, Reshape, Value


def unpack_bits(graph: Graph) -> Graph:
    """The graph (with its numerics chosen) in which no affine map reads packed values.

    The sum over a window of one pixel and one channel is the value itself, so nothing changes: a sign that is also added
    to something, the levels of an output.
    """
    graph = graph.copy()
    numbers: dict[Value, Value] = {}
    for node in list(graph.nodes):
        if not isinstance(node.op, Affine):
            continue
        terms = node.inputs[: node.op.terms]
        for value in terms:
            if value.type.dtype.is_packed and value not in numbers:
                numbers[value] = _unpack(graph, value, node)
        node.inputs = (*(numbers.get(v, v) for v in terms), *node.inputs[node.op.terms :])
    return graph


def _unpack(graph: Graph, value: Value, reader: Node) -> Value:
    """New nodes in front of ``reader``."""
    shape, count = value.type.shape, len(graph.nodes)
    x = value if len(shape) == 4 else graph.add(Reshape((1, 1, 1, shape[1])), [value], f"{value.name}.pixel")
    y = graph.add(BoxSum((1, 1), groups=shape[-1]), [x], f"{value.name}.numbers", source=reader.source)
    if len(shape) != 4:
        y = graph.add(Reshape(shape), [y], f"{value.name}.vector", source=reader.source)
    new = graph.nodes[count:]
    del graph.nodes[count:]
    at = graph.nodes.index(reader)
    graph.nodes[at:at] = new
    return y
