"""What every operator must fulfil to be carried by ONNX."""

from __future__ import annotations

from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.export.bounds import bound, largest
from bdnet_deploy.export.foreign import refuse
from bdnet_deploy.export.onnx.emit import EMIT
from bdnet_deploy.graph import Affine, Conv2d, DType, Graph, Node, Value

TARGET = "ONNX"
#: Operators whose later inputs are computed, as the first one always is: so many; the rest are constants.
_COMPUTED = {"bit_logic": 2, "matmul": 2, "mul": 2}


def computed_inputs(node: Node) -> int:
    """How many of a node's inputs, from the first on, are computed; the others are constants."""
    if node.op.name == "concat":
        return len(node.inputs)
    return node.op.terms if isinstance(node.op, Affine) else _COMPUTED.get(node.op.name, 1)


def check(graph: Graph) -> dict[Value, int]:
    """The largest absolute value that each integer, bit or trit of the graph can have.

    Raises:
        UnsupportedError: the numerics are not "float", or an operator has operands that cannot be carried; ``where`` names
            the user's layer.
    """
    if graph.numerics != "float":
        raise UnsupportedError(
            f"a graph of numerics '{graph.numerics}' cannot be exported to {TARGET}",
            where=graph.name,
            why="files for other runtimes carry the numerics 'float'",
            fix="export with --numerics float",
        )
    bounds: dict[Value, int] = {}
    for value in graph.inputs:
        if value.type.quant is not None or value.type.dtype is DType.F64:
            raise UnsupportedError(f"an input of {value.type} cannot be exported to {TARGET}", where=value.name)
        if not value.type.dtype.is_float:
            bounds[value] = largest(value)
    for node in graph.nodes:
        _check_node(node)
        if not node.output.type.dtype.is_float:
            bounds[node.output] = bound(node, bounds, TARGET)
    return bounds


def _check_node(node: Node) -> None:
    if node.op.name not in EMIT:
        raise refuse(node, "it belongs to fixed point", target=TARGET, fix="export to bdn or c, whose runtime has it")
    if isinstance(node.op, Conv2d) and len(node.inputs) > 2:
        raise refuse(node, "its border is corrected by integers of fixed point", target=TARGET)
    computed = computed_inputs(node)
    if any(v.is_constant for v in node.inputs[:computed]) or not all(v.is_constant for v in node.inputs[computed:]):
        raise refuse(node, "its parameters are computed, or its input is constant", target=TARGET)
    out = node.output.type
    if DType.F64 in (out.dtype, *(v.type.dtype for v in node.inputs)):
        raise refuse(node, "it is in double: the graph was not given its numerics", target=TARGET)
    if any(v.is_constant and v.type.quant for v in node.inputs):
        raise refuse(node, "its constants are quantized", target=TARGET)
    if not out.same(node.op.infer([v.type for v in node.inputs])):
        raise refuse(node, f"{out} has another quantization than its inputs give it", target=TARGET)
    if getattr(node.op, "out", None) in (DType.I8, DType.I16):
        raise refuse(node, f"it computes {out.dtype.value} in fixed point", target=TARGET)
    if not out.dtype.is_float and node.op.name in ("softmax", "layer_norm", "group_norm"):
        raise refuse(node, f"it computes {out.dtype.value} in fixed point", target=TARGET)
