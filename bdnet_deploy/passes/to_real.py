"""Back from float numerics: what a file in float holds, as an importer returns it."""

from __future__ import annotations

import dataclasses

from bdnet_deploy.graph import Affine, Dequantize, DType, Graph, TwoSlope, Value


def to_real(graph: Graph) -> Graph:
    """The float graph with its parameters in double; :func:`~bdnet_deploy.passes.to_float` gives it back as it was."""
    new = Graph(graph.name, "real", reasons=dict(graph.reasons), lines=dict(graph.lines))
    values: dict[Value, Value] = {}
    for value in graph.inputs:
        values[value] = new.input(value.name, value.type.shape, _wide(value.type.dtype), value.type.quant)

    def of(value: Value) -> Value:
        if value not in values:
            assert value.data is not None
            values[value] = new.constant(value.name, value.data, _wide(value.type.dtype), value.type.quant)
        return values[value]

    for node in graph.nodes:
        op = node.op
        if isinstance(op, Affine | TwoSlope | Dequantize) and op.out is DType.F32:
            op = dataclasses.replace(op, out=DType.F64)
        quant = node.output.type.quant
        values[node.output] = new.add(op, [of(v) for v in node.inputs], node.name, source=node.source, quant=quant)
    new.outputs = [values[v] for v in graph.outputs]
    return new


def _wide(dtype: DType) -> DType:
    return DType.F64 if dtype is DType.F32 else dtype
