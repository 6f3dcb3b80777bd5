"""Products of two maps, tables, softmax and normalization: references against plain Python and PyTorch, the host library
against the references, cores, damaged files, and counts that do not depend on the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bdnet_deploy.errors import BdnetError, UnsupportedError
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.graph import (
    Affine,
    Array,
    DType,
    Graph,
    GraphError,
    LayerNorm,
    Matmul,
    Op,
    Quant,
    Sign,
    Softmax,
    TensorType,
    Unary,
    Value,
    evaluate,
)
from bdnet_deploy.host import HostModel
from bdnet_deploy.plan import make_plan

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

MATMULS = [f"{a}{b}_{out}" for a in "btz" for b in "btz" for out in ("i16", "i32")]
MATMULS += [f"{pair}_f32" for pair in ("ff", "fb", "ft", "fz", "bf", "tf", "zf")]
MATMULS += [
    f"{pair}_i32" for pair in ("qq", "hq", "qh", "qb", "qt", "hb", "ht", "bq", "tq", "bh", "th", "qz", "hz", "zq", "zh")
]
HOWS = ["random", "low", "high"]


def typed(x: Array, dtype: DType, scale: float = 1.0, zero_point: int = 0) -> TensorType:
    plain = dtype.is_float or dtype.is_packed
    return TensorType((1, *x.shape[1:]), dtype, None if plain else Quant.of(scale, zero_point))


def same(found: Array, expected: Array) -> None:
    """Equal values; of floats equal bytes, a NaN being a NaN."""
    found = found.reshape(expected.shape)
    if expected.dtype != np.float32:
        np.testing.assert_array_equal(found, expected)
        return
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), nan)
    np.testing.assert_array_equal(found[~nan].view(np.uint32), expected[~nan].view(np.uint32))


def graph_of(op: Op, dtypes: list[DType], arrays: list[Array], *, zero_point: int = 0, scale: float = 1.0) -> Graph:
    graph = Graph(numerics="float" if dtypes[0] is DType.F32 else "fixed16")
    inputs: list[Value] = []
    for i, (dtype, x) in enumerate(zip(dtypes, arrays, strict=True)):
        quant = typed(x, dtype, scale, zero_point if i == 0 else 0).quant if x.ndim > 1 else None
        if x.ndim == 1:
            inputs.append(graph.constant("table", x, dtype))
        else:
            inputs.append(graph.input("x", (1, *x.shape[1:]), dtype, quant))
    graph.outputs = [graph.add(op, inputs, "y")]
    return graph


def check_host(op: Op, dtypes: list[DType], arrays: list[Array], **options: Any) -> Array:
    """The host library gives the reference's bytes; they are returned."""
    graph = graph_of(op, dtypes, arrays, **options)
    maps = [a for a in arrays if a.ndim > 1]
    expected = evaluate(graph, maps)["y"]
    same(HostModel(write_bdn(make_plan(graph))).run(maps)[0], expected)
    return expected


# -- products -------------------------------------------------------------------------------------------------------------


def matmul_loops(x: Array, y: Array) -> Array:
    n, rows, m, k = x.shape
    out = np.zeros((n, rows, m, y.shape[2]), np.int64)
    for index in np.ndindex(*out.shape):
        i, b, row, column = index
        out[index] = sum(int(x[i, b, row, c]) * int(y[i, b, column, c]) for c in range(k))
    return out


def test_a_function_that_is_not_finite_is_refused() -> None:
    graph = Graph("log")
    x = graph.input("x", (1, 2, 2, 3), DType.F64)
    graph.outputs = [graph.add(Unary("log"), [x], "y", source="the.log")]
    with pytest.raises(UnsupportedError, match="not finite") as error:
        lowered(graph, "fixed16")
    assert error.value.where == "the.log" and error.value.fix
    with pytest.raises(GraphError, match="unknown function"):
        graph.add(Unary("sigmiod"), [x], "z")


def test_an_epsilon_beyond_the_values_is_refused() -> None:
    graph = Graph("norm")
    x = graph.input("x", (1, 2, 2, 3), DType.F64)
    graph.outputs = [graph.add(LayerNorm(1e30), [x], "y", source="the.norm")]
    with pytest.raises(BdnetError, match="epsilon"):
        lowered(graph, "fixed16")


def test_scores_keep_their_precision() -> None:
    """A scale between product and softmax is part of the softmax: the scores are the exact sums."""
    graph = Graph("scores")
    x = graph.input("x", (1, 2, 5, 40), DType.F64)
    bits = graph.add(Sign(), [x, graph.parameter("t", np.zeros(40))], "bits")
    product = graph.add(Matmul(), [bits, bits], "product")
    five = [graph.parameter("p", np.full(5, f)) for f in (0.17, 0.3)]
    graph.outputs = [graph.add(Softmax(), [graph.add(Affine(), [product, *five], "scaled")], "y")]
    made = lowered(graph, "fixed16")
    assert [s.kernel for s in made.plan.steps[-2:]] == ["bd_matmul_bb_i16", "bd_softmax_h_i16"]
    values = evaluate(made.graph, [extremes(made, 4)], keep=True)
    scores = values["product"] * 0.17
    e = np.exp(scores - scores.max(-1, keepdims=True))
    assert np.abs(values["y"] / 32768 - e / e.sum(-1, keepdims=True)).max() < 2.0**-14
