"""What every graph must fulfil before it is written."""

from __future__ import annotations

from collections.abc import Collection

from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.export.bounds import bound
from bdnet_deploy.export.foreign import refuse
from bdnet_deploy.graph import AddMap, Clamp, Conv2d, DType, Graph, Linear, Mul, MulMap, Node, Value

TARGET = "TensorFlow Lite"
_FIX = "export to bdn or c, whose runtime has it"
#: Parameters behind this many computed operands; other operators have no parameters.
_COMPUTED = {"matmul": 2, "mul": 2, "bit_logic": 2}


def check_graph(graph: Graph, known: Collection[str]) -> dict[Value, int]:
    """The largest absolute value of each value that is not real.

    Raises:
        UnsupportedError: the numerics are not "float", an input is no float32, an operator is none of ``known``, computes in
            fixed point or has computed parameters, or an integer may reach 2**24.
    """
    if graph.numerics != "float":
        raise UnsupportedError(
            f"a graph of numerics '{graph.numerics}' cannot be exported to {TARGET}",
            where=graph.name,
            why=f"{TARGET} computes in float32",
            fix="export with --numerics float",
        )
    for value in graph.inputs:
        if value.type.dtype is not DType.F32:
            raise UnsupportedError(
                f"an input of {value.type.dtype.value} cannot be exported to {TARGET}",
                where=value.name,
                fix="give the model a float32 input",
            )
    bounds: dict[Value, int] = {}
    for node in graph.nodes:
        if node.op.name not in known:
            raise refuse(node, "the exporter does not know this operator", target=TARGET, fix=_FIX)
        _check_operands(node)
        if not node.output.type.dtype.is_float:
            bounds[node.output] = bound(node, bounds, TARGET, fix=_FIX)
    return bounds


def _check_operands(node: Node) -> None:
    op, out = node.op, node.output
    computed = getattr(op, "terms", _COMPUTED.get(op.name, 1))
    if op.name != "concat" and any(v.data is None for v in node.inputs[computed:]):
        raise refuse(node, "its parameters are computed", target=TARGET, fix=_FIX)
    if isinstance(op, Conv2d) and len(node.inputs) > 2:
        raise refuse(node, "its border is corrected by integers of fixed point", target=TARGET, fix=_FIX)
    if DType.F64 in (out.type.dtype, *(v.type.dtype for v in node.inputs)):
        raise refuse(node, "its numbers are doubles", target=TARGET, fix="choose float numerics")
    inferred = op.infer([v.type for v in node.inputs])
    if not inferred.same(out.type):
        raise refuse(node, "its integers have a scale of fixed point", target=TARGET, fix=_FIX)
    of_integers = not node.inputs[0].type.dtype.is_float and not node.inputs[0].type.dtype.is_packed
    fixed = isinstance(op, AddMap | MulMap | Mul | Clamp) and of_integers
    fixed = fixed or getattr(op, "out", DType.F32) in (DType.I8, DType.I16) or bool(getattr(op, "shifts", ()))
    if fixed or (op.name in ("avg_pool", "group_mean", "softmax", "layer_norm", "group_norm") and of_integers):
        raise refuse(node, "it computes in fixed point, rounding integers", target=TARGET, fix=_FIX)
    if isinstance(op, Conv2d | Linear) and node.inputs[1].type.quant is not None:
        raise refuse(node, "its weights are integers of fixed point", target=TARGET, fix=_FIX)
