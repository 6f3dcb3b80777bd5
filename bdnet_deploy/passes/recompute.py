"""Compute a map twice where that is smaller than keeping it: squeeze-and-excitation in two passes.

A map ``h`` that is summed up over the whole map and then read again (its gate is known only then) must be kept whole. Where
``h`` is made per channel from accumulators with fewer bytes, as ES-BNN's replicas are, the sum gets a copy of that chain: streamed,
the first pass keeps the accumulators only, and the second makes ``h`` anew. Values do not change.
"""

from __future__ import annotations

from bdnet_deploy.graph import Affine, DType, GlobalAvgPool, Graph, Node, Reduce, Repeat, TwoSlope, Value

_BYTES = {DType.I32: 2, DType.I16: 2, DType.I8: 1, DType.U8: 1, DType.F32: 4}  # accumulators of bits take 16 bits


def recompute(graph: Graph) -> Graph | None:
    """The graph (with its numerics chosen) with such chains doubled; None where there are none."""
    graph = graph.copy()
    changed = False
    for node in list(graph.nodes):
        users = graph.users()
        sums = [reader for reader in users.get(node.output, []) if _is_sum(reader)]
        if not sums or len(sums) == len(users[node.output]) + (node.output in graph.outputs):
            continue
        chain = _chain(node)
        if chain and _bytes(chain[0].inputs[0]) < _bytes(node.output):
            _double(graph, chain, sums)
            changed = True
    return graph if changed else None


def _is_sum(node: Node) -> bool:
    return isinstance(node.op, GlobalAvgPool) or (isinstance(node.op, Reduce) and node.op.over == "map")


def _chain(node: Node) -> list[Node]:
    """The per-channel operators that make a map from the smallest map before it, first to last."""
    chain: list[Node] = []
    best: list[Node] = []
    at: Node | None = node
    while at is not None and (isinstance(at.op, Repeat | TwoSlope) or (isinstance(at.op, Affine) and at.op.terms == 1)):
        chain.insert(0, at)
        if not best or _bytes(at.inputs[0]) < _bytes(best[0].inputs[0]):
            best = list(chain)
        at = at.inputs[0].node
    return best


def _bytes(value: Value) -> int:
    return value.type.size * _BYTES.get(value.type.dtype, 1)


def _double(graph: Graph, chain: list[Node], readers: list[Node]) -> None:
    """Let ``readers`` read a copy of the chain; the chain itself goes to its first other reader."""
    value = chain[0].inputs[0]
    copies: list[Node] = []
    for node in chain:
        output = Value(graph.unique(f"{node.name}.again"), node.output.type)
        copy = Node(node.op, (value, *node.inputs[1:]), output, node.source)
        output.node = copy
        copies.append(copy)
        value = output
    at = graph.nodes.index(chain[-1])
    graph.nodes[at:at] = copies
    old = chain[-1].output
    for reader in readers:
        reader.inputs = tuple(value if v is old else v for v in reader.inputs)
    moved = [
        node for node in chain if all(reader in chain for reader in graph.users()[node.output]) or node is chain[-1]
    ]
    graph.nodes = [node for node in graph.nodes if node not in moved]
    at = min((i for i, node in enumerate(graph.nodes) if old in node.inputs), default=len(graph.nodes))
    graph.nodes[at:at] = moved
