"""Choose float numerics: round every parameter to f32, once."""

from __future__ import annotations

import dataclasses

import numpy as np

from bdnet_deploy.graph import Affine, Dequantize, DType, Graph, Sign, Ternarize, TwoSlope, Value


def to_float(graph: Graph) -> Graph:
    """The real graph ``graph`` in f32 arithmetic, whose references define every byte."""
    new = Graph(graph.name, "float", reasons=dict(graph.reasons), lines=dict(graph.lines))
    values: dict[Value, Value] = {}
    for value in graph.inputs:
        values[value] = new.input(value.name, value.type.shape, DType.F32)

    def of(value: Value, like: DType | None = None) -> Value:
        if value not in values:
            assert value.data is not None
            dtype, data = value.type.dtype, value.data
            if dtype is DType.F64:
                if like is not None and not like.is_float:  # a threshold on integers
                    dtype, data = DType.I32, np.clip(np.ceil(data), -(2**31), 2**31 - 1)
                else:
                    dtype = DType.F32
            values[value] = new.constant(value.name, data, dtype)
        return values[value]

    for node in graph.nodes:
        op = node.op
        if isinstance(op, Affine | TwoSlope | Dequantize) and op.out is DType.F64:
            op = dataclasses.replace(op, out=DType.F32)
        inputs = [of(node.inputs[0])]
        inputs += [of(v, inputs[0].type.dtype if isinstance(op, Sign | Ternarize) else None) for v in node.inputs[1:]]
        values[node.output] = new.add(op, inputs, node.name, source=node.source)
    new.outputs = [values[v] for v in graph.outputs]
    return new
