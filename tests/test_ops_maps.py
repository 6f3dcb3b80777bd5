"""Sums and products with a constant map: references, kernels, fixed point, streaming, damaged files."""

from __future__ import annotations

import numpy as np
import test_ops_elementwise
from bdn_cases import CODES, LETTERS, Bdn

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.graph import (
    AddMap,
    Affine,
    Array,
    MulMap,
    Op,
    Value,
    evaluate,
)
from bdnet_deploy.host import HostModel
from bdnet_deploy.lowering import Lowered

INPUT, OUTPUT = bdn.Place.INPUT, bdn.Place.OUTPUT
#: Kernel letters of x and of each operator that takes it.
KERNELS = [(AddMap(), x) for x in "fuqh"] + [(MulMap(), x) for x in "fqh"]
SHAPES = [(4, 5, 7), (1, 1, 33), (6, 1, 3), (1, 8, 2), (3, 2, 64), (1, 1, 1)]
#: Largest distance from the real graph of the same inputs, as a share of the largest value.
CLOSE = {"float": 1e-6, "fixed16": 3e-3, "fixed8": 0.02}


class Net(test_ops_elementwise.Net):
    """A graph of one real map."""

    def affine(self, *xs: Value, rng: np.random.Generator) -> Value:
        vectors = rng.normal(1.0, 0.3, (len(xs) + 1, xs[0].type.channels))
        return self.add(Affine(len(xs)), *xs, *self.vector(*vectors))


def check_host(lowered: Lowered, x: Array) -> Array:
    """The host library gives the reference's bytes; the real numbers that these stand for."""
    q = lowered.encode(x)
    expected = evaluate(lowered.graph, [q])[lowered.graph.outputs[0].name]
    assert np.array_equal(HostModel(write_bdn(lowered.plan)).run(q)[0].reshape(expected.shape), expected)
    return lowered.decode(expected)


def map_file(op: Op, letter: str, shape: tuple[int, int, int], constant: Array) -> Bdn:
    """One step, from input to output."""
    b = Bdn()
    out = bdn.DType.F32 if letter == "f" else bdn.DType.I32
    x, y = b.tensor(shape, CODES[LETTERS[letter]], INPUT), b.tensor(shape, out, OUTPUT)
    kernel = f"bd_{op.name}_{letter}_{out.name.lower()}"
    b.step(kernel, [x], [y], shape, acc_dtype=out, weights=constant, rows_per_call=2)
    return b
