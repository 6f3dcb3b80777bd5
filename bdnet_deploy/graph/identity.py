"""Are two graphs one, but for names?"""

from __future__ import annotations

import numpy as np

from bdnet_deploy.graph.dtypes import Array
from bdnet_deploy.graph.graph import Graph, Node, Value


def difference(a: Graph, b: Graph) -> str | None:
    """The first difference between two graphs, whatever their values are called and in whatever valid order their nodes are.

    Operators with their attributes, types with their quantization, constants to the last bit, and the order of inputs and
    outputs count; names, source layers and reasons do not. ``None``: the graphs are the same.
    """
    if a.numerics != b.numerics:
        return f"numerics {a.numerics} and {b.numerics}"
    counts = {
        "inputs": (len(a.inputs), len(b.inputs)),
        "outputs": (len(a.outputs), len(b.outputs)),
        "nodes": (len(a.nodes), len(b.nodes)),
    }
    for what, (of_a, of_b) in counts.items():
        if of_a != of_b:
            return f"{of_a} and {of_b} {what}"
    twins: dict[Value, Value] = dict(zip(a.inputs, b.inputs))
    known = set(b.inputs)
    todo = [*zip(a.outputs, b.outputs), *zip(a.inputs, b.inputs)][::-1]
    while todo:
        left, right = todo.pop()
        if left.data is None and left in twins and left.node is None:
            if twins[left] is not right:
                return f"'{left.name}' stands where '{right.name}' does"
            if not left.type.same(right.type):
                return f"'{left.name}' is {left.type}, '{right.name}' is {right.type}"
            continue
        if left in twins:
            if twins[left] is not right:
                return f"'{left.name}' is both '{twins[left].name}' and '{right.name}'"
            continue
        found = _value_difference(left, right)
        if found:
            return found
        if left.data is None:
            if right in known:
                return f"'{right.name}' is more than one value of the other graph"
            known.add(right)
            twins[left] = right
        if left.node is not None and right.node is not None:
            todo += zip(left.node.inputs, right.node.inputs)
    return None


def _value_difference(a: Value, b: Value) -> str | None:
    names = f"'{a.name}' and '{b.name}'"
    if not a.type.same(b.type):
        return f"{names}: {a.type} and {b.type}"
    if (a.data is None) != (b.data is None):
        return f"{names}: one is a constant"
    if a.data is not None and b.data is not None:
        different = a.data.tobytes() != b.data.tobytes()
        return f"{names}: {_first(a.data, b.data)}" if different else None
    if (a.node is None) != (b.node is None):
        return f"{names}: one is an input"
    return _node_difference(a.node, b.node) if a.node is not None and b.node is not None else None


def _first(a: Array, b: Array) -> str:
    place = tuple(int(i) for i in np.argwhere(~((a == b) & (np.signbit(a) == np.signbit(b))))[0])
    return f"at {place} {a[place]} and {b[place]}"


def _node_difference(a: Node, b: Node) -> str | None:
    if a.op != b.op:
        return f"'{a.name}' is {a.op}, '{b.name}' is {b.op}"
    if len(a.inputs) != len(b.inputs):
        return f"'{a.name}' has {len(a.inputs)} inputs, '{b.name}' has {len(b.inputs)}"
    return None
