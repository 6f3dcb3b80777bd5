"""Repetitions of channels behind what treats their copies alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bdnet_deploy.graph import (
    Affine,
    Array,
    AvgPool,
    Clamp,
    Conv2d,
    DType,
    GlobalAvgPool,
    Graph,
    Linear,
    Mul,
    Op,
    Repeat,
    Sign,
    TwoSlope,
    Unary,
    Value,
    evaluate,
)
from bdnet_deploy.passes import collapse_repeats

RNG = np.random.default_rng(8)


def tiled(times: int, size: int) -> Array:
    return np.tile(RNG.standard_normal(size), times)


def check(graph: Graph) -> Graph:
    collapsed = collapse_repeats(graph)
    x = RNG.standard_normal((3, *graph.inputs[0].type.shape[1:]))
    for name, expected in evaluate(graph, [x]).items():
        np.testing.assert_allclose(evaluate(collapsed, [x])[name], expected, rtol=1e-12, atol=1e-12)
    return collapsed


def parameter(graph: Graph, data: Array) -> Value:
    return graph.parameter("p", data)


def graph_of(op: Op, *parameters: Array, then: Op | None = None) -> Graph:
    graph = Graph()
    x = graph.input("x", (1, 4, 4, 3), DType.F64)
    y = graph.add(Repeat(4), [x], "repeat")
    y = graph.add(op, [y, *(parameter(graph, p) for p in parameters)], "op")
    graph.outputs = [graph.add(then, [y], "then") if then else y]
    return graph


CASES: dict[str, tuple[Op, tuple[Array, ...]]] = {
    "affine": (Affine(), (tiled(4, 3), tiled(4, 3))),
    "two_slope": (TwoSlope(), (tiled(4, 3), tiled(4, 3), tiled(4, 3))),
    "clamp": (Clamp(), (np.full(12, -1.0), np.full(12, 1.0))),
    "sign": (Sign(), (tiled(4, 3),)),
    "unary": (Unary("sigmoid"), ()),
    "mean": (GlobalAvgPool(), ()),
    "pool": (AvgPool(), ()),
}


@pytest.mark.parametrize("case", CASES)
def test_copies_treated_alike(case: str) -> None:
    op, parameters = CASES[case]
    collapsed = check(graph_of(op, *parameters))
    assert [n.op.name for n in collapsed.nodes] == [op.name, "repeat"]
    assert collapsed.nodes[0].output.type.channels == 3


def test_parameters_of_their_own_stay() -> None:
    graph = graph_of(Affine(), RNG.standard_normal(12), tiled(4, 3))
    assert [n.op.name for n in check(graph).nodes] == ["repeat", "affine"]


@pytest.mark.parametrize(
    ("op", "shape"), [(Conv2d(), (5, 1, 1, 12)), (Conv2d(padding=(1, 1, 1, 1)), (5, 3, 3, 12))], ids=["1x1", "3x3"]
)
def test_weights_of_copies_are_summed(op: Conv2d, shape: tuple[int, ...]) -> None:
    collapsed = check(graph_of(op, RNG.standard_normal(shape)))
    (conv,) = collapsed.nodes
    assert conv.inputs[1].type.shape == (*shape[:-1], 3)


def test_bits_and_groups_stay() -> None:
    graph = Graph()
    x = graph.input("x", (1, 4, 4, 3), DType.F64)
    bits = graph.add(Sign(), [x, parameter(graph, np.zeros(3))], "sign")
    repeated = graph.add(Repeat(4), [bits], "repeat")
    w = graph.constant("w", np.where(RNG.random((5, 1, 1, 12)) < 0.5, 1, -1), DType.BIT)
    graph.outputs = [graph.add(Conv2d(), [repeated, w], "conv")]
    assert [n.op.name for n in check(graph).nodes] == ["sign", "repeat", "conv2d"]
    grouped = graph_of(Conv2d(groups=4), RNG.standard_normal((4, 1, 1, 3)))
    assert [n.op.name for n in check(grouped).nodes] == ["repeat", "conv2d"]


def test_squeeze_and_excitation_of_es_bnn() -> None:
    """Two layers with a repetition behind each: both are computed once, the gates are repeated last."""
    graph = Graph()
    x = graph.input("x", (1, 4, 4, 16), DType.F64)
    y: Any = graph.add(GlobalAvgPool(), [x], "gap")
    y = graph.add(Linear(), [y, parameter(graph, RNG.standard_normal((2, 16)))], "squeeze")
    y = graph.add(Affine(), [y, *(parameter(graph, RNG.standard_normal(2)) for _ in range(2))], "bias")
    y = graph.add(Repeat(4), [y], "repeat1")
    y = graph.add(TwoSlope(), [y, *(parameter(graph, np.full(8, v)) for v in (1.0, 0.0, 0.0))], "relu")
    y = graph.add(Linear(), [y, parameter(graph, RNG.standard_normal((4, 8)))], "excite")
    y = graph.add(Repeat(4), [y], "repeat2")
    y = graph.add(Unary("sigmoid"), [y], "gate")
    graph.outputs = [graph.add(Mul(), [x, y], "mul")]
    collapsed = check(graph)
    assert [n.op.name for n in collapsed.nodes] == (
        "global_avg_pool linear affine two_slope linear unary repeat mul".split()
    )
    assert collapsed.nodes[4].inputs[1].type.shape == (4, 2)
