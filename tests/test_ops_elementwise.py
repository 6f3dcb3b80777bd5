"""Limits, products, gates and vectors for all pixels: references, runtime, fixed point, squeeze and excitation."""

from __future__ import annotations

from typing import Any

import numpy as np
from test_ops_pooling import same

from bdnet_deploy.emulated import EmulatedModel
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.graph import (
    DType,
    Graph,
    Op,
    Value,
    evaluate,
)
from bdnet_deploy.host import HostModel
from bdnet_deploy.lowering import Lowered, lower

Array = np.ndarray[Any, np.dtype[Any]]
LETTER = {DType.F32: "f", DType.I16: "h", DType.I8: "q"}


class Net:
    """A graph of one real map."""

    def __init__(self, *shape: int) -> None:
        self.graph = Graph()
        self.x = self.graph.input("input", (1, *shape), DType.F64)

    def add(self, op: Op, *inputs: Value, source: str = "") -> Value:
        return self.graph.add(op, inputs, op.name, source=source)

    def vector(self, *values: Any) -> list[Value]:
        return [self.graph.parameter("p", np.asarray(v, np.float64)) for v in values]

    def lowered(self, y: Value, numerics: str, samples: Array) -> Lowered:
        self.graph.outputs = [y]
        return lower(self.graph, numerics, samples=samples)


def check_host(lowered: Lowered, x: Array) -> Array:
    """The host library gives the reference's bytes; the real numbers that these stand for."""
    q = lowered.encode(x)
    expected = evaluate(lowered.graph, [q])[lowered.graph.outputs[0].name]
    tensor = lowered.plan.tensor_of(lowered.graph.outputs[0])
    assert tensor is not None
    same(HostModel(write_bdn(lowered.plan)).run(q)[0], expected.astype(tensor.dtype.numpy))
    return lowered.decode(expected)


def check_core(core: str, lowered: Lowered, inputs: Array) -> None:
    """The reference's bytes on an emulated core; in fixed point every input costs the same instructions."""
    q = lowered.encode(inputs)
    expected = evaluate(lowered.graph, [q])[lowered.graph.outputs[0].name]
    counts = set()
    with EmulatedModel(lowered, core) as model:
        for x, wanted in zip(q, expected, strict=True):
            found, result = model.count(x)
            same(found, wanted)
            counts.add(result.instructions)
    assert len(counts) == 1 or lowered.graph.numerics == "float"


# -- clamp ------------------------------------------------------------------------------------------------------------------
