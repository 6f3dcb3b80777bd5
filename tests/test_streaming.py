"""Steps that run row by row: every mix of streamed and whole steps gives the reference's bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from random_networks import random_network

import bdnet_deploy
from bdnet_deploy import resources
from bdnet_deploy.emulated import EmulatedModel
from bdnet_deploy.errors import DoesNotFitError, ModelFileError, UnsupportedError
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.graph import NUMERICS, Array, evaluate
from bdnet_deploy.host import HostModel
from bdnet_deploy.lowering import Lowered, lower
from bdnet_deploy.plan import Plan, make_plan

DIGITS = resources.examples_dir() / "digits"


def _same(found: Array, expected: Array) -> bool:
    """Equal bytes; NaN is NaN, whatever its payload."""
    found = np.ascontiguousarray(found.reshape(expected.shape))
    if found.dtype.kind == "f":
        return bool(((found.view("u4") == expected.view("u4")) | (np.isnan(found) & np.isnan(expected))).all())
    return np.array_equal(found, expected)


def _check(plan: Plan, x: Array, expected: Array) -> None:
    model = HostModel(write_bdn(plan))
    assert _same(model.run(x)[0], expected), plan.execution
    outputs, slices = model.run_rows(x[0])
    assert _same(outputs[0], expected[0]), plan.execution
    assert slices >= len(plan.steps)


@pytest.fixture(scope="module")
def digits() -> Lowered:
    return bdnet_deploy.load(DIGITS / "model.pt").lowered("fixed16", DIGITS / "calibration.npz")


def _segments(rng: np.random.Generator, count: int, least: int = 0) -> list[tuple[int, int]]:
    """A random partition; its first segment has ``least`` steps or more."""
    borders = np.flatnonzero(rng.random(count + 1) < rng.choice([0.15, 0.4, 0.8]))
    borders = np.unique([0, *borders[borders >= least], count])
    pairs = list(zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True))
    return [pair for i, pair in enumerate(pairs) if rng.random() < 0.6 or (least and i == 0)]


def _readers_of_the_input(plan: Plan) -> int:
    """How many first steps hold all readers of the input."""
    return max(i for i, step in enumerate(plan.steps) if any(t.place == "input" for t in step.inputs)) + 1


@pytest.mark.parametrize("seed", range(90))
def test_random_networks_in_random_partitions(seed: int) -> None:
    network = random_network(seed)
    rng = np.random.default_rng(seed)
    lowered = lower(network.graph, NUMERICS[seed % 3], io=network.io, samples=network.samples)
    x = network.inputs(lowered)
    expected = evaluate(lowered.graph, [x])[lowered.graph.outputs[0].name]
    count = len(lowered.plan.steps)
    for segments in ([], [(0, count)], *(_segments(rng, count) for _ in range(4))):
        _check(make_plan(lowered.graph, segments=segments), x, expected)
    try:
        segments = _segments(rng, count, _readers_of_the_input(lowered.plan))
        _check(make_plan(lowered.graph, segments=segments, push_rows=True), x, expected)
    except UnsupportedError:
        assert x.shape[1] <= 8  # maps as low as their first window


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m4", "cortex-a72"])
@pytest.mark.parametrize("options", [{"cut": 13}, {"segments": [(0, 2), (2, 6), (7, 9)], "push_rows": True}], ids=str)
def test_emulated_cores(digits: Lowered, core: str, options: dict[str, Any]) -> None:
    x = np.random.default_rng(1).integers(0, 17, (2, 8, 8, 1)).astype(np.uint8)
    expected = evaluate(digits.graph, [x])[digits.graph.outputs[0].name]
    with EmulatedModel(dataclasses.replace(digits, plan=make_plan(digits.graph, **options)), core) as emulated:
        for sample, output in zip(x, expected, strict=True):
            assert np.array_equal(emulated.run(sample), output)


def test_rings_are_as_deep_as_a_window(digits: Lowered) -> None:
    """Rings do not grow with the depth of the network: a 3x3 window, and one row that waits."""
    plan = make_plan(digits.graph, cut=len(digits.plan.steps))
    rings = [t for t in plan.tensors if t.rows_held < t.height]
    assert rings and all(t.place == "arena" for t in rings)
    assert {t.rows_held for t in rings} <= {1, 2, 3, 4}


@pytest.mark.parametrize("segments", [lambda n: [(0, n)], lambda n: [(1, 5), (5, n)]], ids=["one", "two"])
def test_fewer_rows_than_simulated_are_too_few(
    digits: Lowered, segments: Callable[[int], list[tuple[int, int]]]
) -> None:
    """The rings are tight: with one row less in any of them, some output differs."""
    plan = make_plan(digits.graph, segments=segments(len(digits.plan.steps)))
    x = np.random.default_rng(2).integers(0, 17, (4, 8, 8, 1)).astype(np.uint8)
    expected = evaluate(digits.graph, [x])[digits.graph.outputs[0].name]
    wrong = 0
    rings = [t for t in plan.tensors if 1 < t.rows_held < t.height]
    for ring in rings:
        ring.rows_held -= 1
        wrong += not np.array_equal(HostModel(write_bdn(plan)).run(x)[0].reshape(expected.shape), expected)
        ring.rows_held += 1
    assert wrong > 0.8 * len(rings)  # a row that is overwritten with an equal one does not show


def test_a_limit_makes_the_plan_stream(digits: Lowered) -> None:
    whole = make_plan(digits.graph)
    needed = whole.tensor_bytes + whole.scratch_bytes
    assert whole.streamed == 0 and make_plan(digits.graph, ram=needed).streamed == 0
    small = make_plan(digits.graph, ram=needed - 1)
    assert small.streamed > 0 and small.tensor_bytes + small.scratch_bytes < needed
    assert small.tensor_bytes + small.scratch_bytes >= small.lower_bound
    with pytest.raises(DoesNotFitError, match="bytes of RAM at least, not 4000") as error:
        make_plan(digits.graph, ram=4000)
    assert error.value.exit_code == 3 and error.value.fix


def test_residuals_are_taken_in_place(digits: Lowered) -> None:
    plan = make_plan(digits.graph)
    shared = [s for s in plan.steps if s.trunk and len(s.inputs) == 2 and s.trunk.offset == s.inputs[1].offset]
    assert len(shared) >= 4  # the blocks whose shape does not change


def test_imagenet_shape_fits_an_rp2040() -> None:
    """BD-Net MobileNet V1 1.0 at 224x224 in 264 KB of RAM and 2 MB of flash: maps, names and test vector included."""
    pytest.importorskip("torch")
    model = bdnet_deploy.load(model="bdnet_deploy.models:bdnet_mobilenet_v1", inputs=[(1, 3, 224, 224)])
    lowered = model.lowered("fixed8").replanned(push_rows=True)
    plan = lowered.plan
    assert plan.tensor_bytes + plan.scratch_bytes <= 232 * 1024
    assert len(write_bdn(plan)) <= 1_900_000
    x = lowered.encode(np.random.default_rng(0).standard_normal((1, 224, 224, 3), np.float32))
    expected = evaluate(lowered.graph, [x])[lowered.graph.outputs[0].name]
    assert np.array_equal(HostModel(write_bdn(plan)).run(x)[0].reshape(expected.shape), expected)


@pytest.mark.slow
def test_imagenet_shape_runs_on_an_emulated_pico() -> None:
    model = bdnet_deploy.load(model="bdnet_deploy.models:bdnet_mobilenet_v1", inputs=[(1, 3, 224, 224)])
    lowered = model.lowered("fixed8").replanned(push_rows=True)
    x = lowered.encode(np.random.default_rng(0).standard_normal((1, 224, 224, 3), np.float32))
    expected = evaluate(lowered.graph, [x])[lowered.graph.outputs[0].name]
    with EmulatedModel(lowered, "pico") as emulated:
        assert emulated.image.flash_bytes <= 1_900_000
        assert np.array_equal(emulated.run(x[0]), expected[0])
        stack = emulated.emulator.run().stack_high_water
        assert emulated.image.symbols["arena"].size + stack <= 236 * 1024


def test_rows_out_of_turn_are_refused(digits: Lowered) -> None:
    import ctypes

    model = HostModel(write_bdn(make_plan(digits.graph, push_rows=True)))
    lib, context = model._lib, model._context
    row = (ctypes.c_uint8 * 8)()
    nowhere = (ctypes.c_void_p * 1)()
    assert lib.bd_push_row(context, row) == 11  # BD_ERROR_ARGUMENT: no inference under way
    assert lib.bd_begin(context, nowhere, 1, model._out_pointers, 1) == 0
    assert lib.bd_push_row(context, row) == 11  # none was asked for
    progress = ctypes.c_int(1)
    while progress.value == 1:
        assert lib.bd_advance(context, ctypes.byref(progress)) == 0
    assert progress.value == 2  # BD_ROWS
    assert lib.bd_push_row(context, row) == 0
    assert lib.bd_push_row(context, row) == 11  # one at a time


def test_wrong_sources_are_refused(digits: Lowered) -> None:
    """Sources that do not make the operand; so no file that the loader takes can stand still (the fuzzer insists)."""
    from bdnet_deploy import bdn_format

    data = write_bdn(make_plan(digits.graph, cut=len(digits.plan.steps)))
    file = bdn_format.read(data)
    start = data.index(file.steps.tobytes())
    for step in range(len(file.steps)):
        for source in (1, 2, 255):
            steps = file.steps.copy()
            if steps[step]["source"][0] == source:
                continue
            steps[step]["source"][0] = source
            changed = bdn_format.seal(data[:start] + steps.tobytes() + data[start + len(steps.tobytes()) :])
            with pytest.raises(ModelFileError):
                HostModel(changed)
