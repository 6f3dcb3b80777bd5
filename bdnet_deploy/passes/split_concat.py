"""Concatenations of pairs: the kernels join two maps."""

from __future__ import annotations

from bdnet_deploy.graph import Concat, Graph, Node


def split_concat(graph: Graph) -> Graph:
    """The graph with every concatenation of more than two inputs as a chain, first inputs first. Values do not change."""
    graph = graph.copy()
    nodes, graph.nodes = graph.nodes, []
    for node in nodes:
        if isinstance(node.op, Concat):
            _chain(graph, node)
        graph.nodes.append(node)
    return graph


def _chain(graph: Graph, node: Node) -> None:
    joined, *rest = node.inputs
    for i, value in enumerate(rest[:-1]):
        joined = graph.add(Concat(), [joined, value], f"{node.name}.part{i}", source=node.source)
    node.inputs = (joined, rest[-1])
