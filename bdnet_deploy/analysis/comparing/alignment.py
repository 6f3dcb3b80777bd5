"""Which node of a decoded graph is which node of the model's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from bdnet_deploy.graph import Graph, Node, Value, difference


@dataclass(eq=False)
class Alignment:
    """Nodes of the model -> nodes of the file, values likewise; ``same``: the graphs are one but for names."""

    model: Graph
    file: Graph
    nodes: dict[Node, Node] = field(default_factory=dict)
    values: dict[Value, Value] = field(default_factory=dict)
    same: bool = False

    @property
    def missing(self) -> list[Node]:
        """Nodes of the model that the file does not have, in order."""
        return [node for node in self.model.nodes if node not in self.nodes]

    @property
    def extra(self) -> list[Node]:
        """Nodes of the file that the model does not have, in order."""
        known = set(self.nodes.values())
        return [node for node in self.file.nodes if node not in known]


def align(model: Graph, file: Graph) -> Alignment:
    """Pair the nodes: side by side from the outputs up where the graphs are one; else by name, then side by side.

    A pair has operators of one kind, with as many inputs.
    """
    result = Alignment(model, file, same=difference(model, file) is None)
    taken: set[Node] = set()

    def pair(a: Node, b: Node) -> bool:
        if a in result.nodes or b in taken or type(a.op) is not type(b.op) or len(a.inputs) != len(b.inputs):
            return False
        result.nodes[a] = b
        result.values[a.output] = b.output
        taken.add(b)
        return True

    result.values.update(zip(model.inputs, file.inputs))
    if not result.same:
        names = {node.name: node for node in file.nodes}
        for node in model.nodes:
            if node.name in names:
                pair(node, names[node.name])
    todo = list(zip(model.outputs, file.outputs))[::-1]
    seen: set[tuple[Value, Value]] = set()
    while todo:
        a, b = todo.pop()
        if (a, b) in seen or a.node is None or b.node is None:
            continue
        seen.add((a, b))
        if result.nodes.get(a.node) is b.node or pair(a.node, b.node):
            todo += zip(a.node.inputs, b.node.inputs)
    return result


def differing_wires(alignment: Alignment) -> Iterator[tuple[Node, str]]:
    """Pairs whose inputs are not pairs: which, and what the file's reads instead."""
    twins = alignment.values
    for a, b in alignment.nodes.items():
        for left, right in zip(a.inputs, b.inputs):
            if (left.data is None) != (right.data is None):
                yield a, f"the file has {'a constant' if right.is_constant else 'a computed value'} for '{left.name}'"
            elif left.data is None and twins.get(left) is not right:
                yield a, f"it reads '{right.name}' in the file, in the model '{left.name}'"
