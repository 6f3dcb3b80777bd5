"""Groups of nodes that exporters write for one operator of PyTorch, put back together."""

from __future__ import annotations

from collections import Counter

from bdnet_deploy.importers.onnx.file import Body, Node, bodies, read_by

#: A group normalization written as instance normalization of a reshaped map; not an operator of ONNX.
GROUPS_BY_RESHAPE = "\0GroupNormalization"


def rewrite(body: Body) -> Body:
    """Reshape, InstanceNormalization, Reshape becomes one node, which both of PyTorch's exporters write for GroupNorm.

    Its inputs are the map, the reshaped map, scale, bias and the shape of the second Reshape: whether it really goes back to
    the map's shape is seen when it runs.
    """
    made_by = {name: node for node in body.nodes for name in node.outputs}
    reads = Counter(name for node in body.nodes for name in node.inputs)
    reads.update(name for node in body.nodes for inner in bodies(node) for name in read_by(inner))
    reads.update(body.outputs)
    joined: dict[int, Node] = {}
    dropped: set[int] = set()
    for last in body.nodes:
        norm = made_by.get(last.inputs[0]) if _is(last, "Reshape", 2) else None
        first = made_by.get(norm.inputs[0]) if norm is not None and _is(norm, "InstanceNormalization", 3) else None
        if norm is None or first is None or not _is(first, "Reshape", 2) or reads[norm.outputs[0]] != 1:
            continue
        inputs = (first.inputs[0], first.outputs[0], norm.inputs[1], norm.inputs[2], last.inputs[1])
        joined[id(last)] = Node("", GROUPS_BY_RESHAPE, inputs, last.outputs, norm.attributes, norm.opset, norm.place)
        dropped.add(id(norm))
    nodes = [joined.get(id(node), node) for node in body.nodes if id(node) not in dropped]
    return Body(nodes, body.constants, body.outputs)


def _is(node: Node, op: str, inputs: int) -> bool:
    return node.domain == "" and node.op == op and len(node.inputs) == inputs and len(node.outputs) == 1
