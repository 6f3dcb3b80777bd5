"""Squeeze-and-excitation in two passes: maps that wait for a sum over themselves are computed twice where that is smaller."""

from __future__ import annotations

import numpy as np
import pytest
from random_networks import random_network

from bdnet_deploy.errors import DoesNotFitError
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.graph import (
    NUMERICS,
    Affine,
    Conv2d,
    DType,
    GlobalAvgPool,
    Graph,
    Linear,
    Mul,
    Repeat,
    Sign,
    TwoSlope,
    Value,
    evaluate,
)
from bdnet_deploy.host import HostModel
from bdnet_deploy.lowering import Lowered, lower
from bdnet_deploy.passes import recompute
from bdnet_deploy.plan import make_plan

SIDE, CHANNELS, TAU = 24, 32, 2


def es_block() -> Lowered:
    """ES-BNN's block: shrunk convolution, replicas with a normalization each, squeeze-and-excitation, residual."""
    rng = np.random.default_rng(0)
    graph = Graph("es_block")

    def affine(x: Value, gain: float, channels: int) -> Value:
        mul, add = rng.normal(gain, 0.2 * gain, channels), rng.normal(0, 0.2, channels)
        return graph.add(Affine(), [x, graph.parameter("mul", mul), graph.parameter("add", add)], "affine")

    def linear(x: Value, outputs: int) -> Value:
        weights = rng.standard_normal((outputs, x.type.channels)) / 4
        return affine(graph.add(Linear(), [x, graph.constant("w", weights, DType.F64)], "linear"), 1.0, outputs)

    x = graph.input("x", (1, SIDE, SIDE, 3), DType.F64)
    stem = graph.constant("stem", rng.standard_normal((CHANNELS, 3, 3, 3)), DType.F64)
    y = affine(graph.add(Conv2d(padding=(1, 1, 1, 1)), [x, stem], "conv"), 0.2, CHANNELS)
    bits = graph.add(Sign(), [y, graph.parameter("shift", rng.normal(0, 0.1, CHANNELS))], "sign")
    weights = graph.constant("binary", rng.choice([-1, 1], (CHANNELS // TAU**2, 3, 3, CHANNELS)), DType.BIT)
    counts = graph.add(Conv2d(padding=(1, 1, 1, 1)), [bits, weights], "counts", source="binary")
    h = affine(graph.add(Repeat(TAU**2), [counts], "repeat"), 0.1, CHANNELS)
    slopes = [
        graph.parameter(n, v)
        for n, v in (("p", np.ones(CHANNELS)), ("n", np.full(CHANNELS, 0.25)), ("b", np.zeros(CHANNELS)))
    ]
    h = graph.add(TwoSlope(), [h, *slopes], "prelu")
    gate = linear(linear(graph.add(GlobalAvgPool(), [h], "squeeze"), 4), CHANNELS)
    gated = graph.add(Mul(), [h, gate], "gated")
    one = np.ones(CHANNELS)
    out = graph.add(
        Affine(2), [gated, y, *(graph.parameter(n, v) for n, v in (("g", one), ("r", one), ("a", 0 * one)))], "out"
    )
    graph.outputs = [linear(graph.add(GlobalAvgPool(), [out], "pool"), 10)]
    return lower(graph, "fixed16", samples=rng.standard_normal((4, SIDE, SIDE, 3)))


def test_the_replicas_are_not_kept() -> None:
    lowered = es_block()
    smallest = None
    for ram in range(150_000, 10_000, -500):
        try:
            make_plan(lowered.graph, ram=ram)
            smallest = ram
        except DoesNotFitError:
            break
    assert smallest is not None
    planned = lowered.replanned(ram=smallest - 500)
    assert planned.graph is not lowered.graph
    held = {value.name: t.rows_held for t in planned.plan.tensors for value in t.values if t.height == SIDE}
    assert held["counts"] == SIDE and "repeat" not in held
    assert max(rows for name, rows in held.items() if name.startswith("prelu")) < SIDE  # a ring, both times
    assert planned.plan.tensor_bytes + planned.plan.scratch_bytes <= smallest - 500
    x = lowered.encode(np.random.default_rng(1).standard_normal((2, SIDE, SIDE, 3)))
    expected = evaluate(lowered.graph, [x])[lowered.graph.outputs[0].name]
    assert np.array_equal(HostModel(write_bdn(planned.plan)).run(x)[0].reshape(expected.shape), expected)
    with pytest.raises(DoesNotFitError):
        lowered.replanned(ram=3000)


def test_nothing_to_double() -> None:
    """A map that only the sum reads is not kept, and one without a smaller source stays."""
    counts = [0, 0]  # of the networks without such a map and with one; these are rare
    for seed in range(600):
        network = random_network(seed)
        lowered = lower(network.graph, NUMERICS[seed % 3], io=network.io, samples=network.samples)
        twice = recompute(lowered.graph)
        counts[twice is not None] += 1
        if twice is None:
            continue
        x = network.inputs(lowered)
        with np.errstate(all="ignore"):
            expected = evaluate(lowered.graph, [x])[lowered.graph.outputs[0].name]
            assert np.array_equal(
                evaluate(twice, [x])[twice.outputs[0].name], expected, equal_nan=expected.dtype.kind == "f"
            )
            found = HostModel(write_bdn(make_plan(twice))).run(x)[0].reshape(expected.shape)
        assert np.array_equal(found, expected, equal_nan=found.dtype.kind == "f")
        if counts[1] == 2 and counts[0] > 60:
            break
    assert counts[1] == 2 and counts[0] > 60
