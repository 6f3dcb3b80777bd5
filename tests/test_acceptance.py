"""The whole path on the bundled network: accuracy, equal bytes everywhere, counts that hold for every input."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bdnet_deploy import load, targets
from bdnet_deploy.cli import app
from bdnet_deploy.emulated import EmulatedModel
from bdnet_deploy.emulator import Emulator, qemu
from bdnet_deploy.graph import evaluate
from bdnet_deploy.model import Model

for _package in ("torch", "ziglang", "unicorn", "capstone", "elftools"):
    pytest.importorskip(_package)

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits"
CALIBRATION = DIGITS / "calibration.npz"
IMAGES = 360


@pytest.fixture(scope="module")
def model() -> Model:
    return load(DIGITS / "model.pt")


def invoke(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(app.cli, [*map(str, arguments), "--format", "json"], prog_name="bdnet-deploy")
    assert result.exit_code == 0, result.stderr
    return dict(json.loads(result.stdout))


# -- the demo -----------------------------------------------------------------------------------------------------------------


def check_demo(report: dict[str, Any], images: int) -> None:
    rows = {row["backend"]: row for row in report["tables"]["backends"]["rows"]}
    float_runs = ("host float", "Larq Compute Engine", "onnxruntime")
    cores = [f"{name} fixed16" for name in ("cortex-m0plus", "cortex-m4", "cortex-a72")]
    assert list(rows) == ["PyTorch", "host float", "host fixed16", "host fixed8", *float_runs[1:], *cores]
    most = {**dict.fromkeys(float_runs, 1), **dict.fromkeys(["host fixed16", *cores], 4), "host fixed8": 11}
    for name, bound in most.items():
        assert rows[name]["differ"] <= bound, name
    for name in cores:
        assert rows[name]["bytes_equal"] == f"equal to host fixed16 on all {images}"
        assert rows[name]["correct"] == rows["host fixed16"]["correct"]
    for row in rows.values():
        assert row["samples"] == images
        assert row["accuracy"] >= 97 or images < IMAGES
    assert [row["result"] for row in report["tables"]["verified"]["rows"]] == ["equal"] * 3
    costs = {row["target"]: row for row in report["tables"]["costs"]["rows"]}
    assert {"cortex-m0plus", "cortex-m4", "cortex-a72", "pico", "mps2-an386"} == set(costs)
    for name, row in costs.items():
        for key in ("flash_bytes", "ram_bytes", "arena_bytes", "stack_bytes", "instructions"):
            assert row[key] > 0, (name, key)
        assert (row["ms_estimated"] is None) == (name == "cortex-a72")  # no cycle model
    assert costs["pico"]["instructions"] == costs["cortex-m0plus"]["instructions"]
    assert costs["mps2-an386"]["instructions"] == costs["cortex-m4"]["instructions"]
    boards = {row["board"]: row for row in report["tables"]["firmware"]["rows"]}
    assert set(boards) == {"pico", "mps2-an386"}
    assert all("self-test PASS" in row["says"] for row in boards.values())
    assert boards["pico"]["uf2"] % 512 == 0


@pytest.mark.slow
def test_demo() -> None:
    for name in ("larq_compute_engine", "onnxruntime"):  # importing the former would import TensorFlow
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    check_demo(invoke("demo"), IMAGES)


def test_predictions_on_all_test_images(model: Model) -> None:
    """The bounds of the demo where they are cheap to check: everything but the emulated cores."""
    backends = ["pytorch", "host:float", "host:fixed16", "host:fixed8"]
    report = model.evaluate(DIGITS / "test.npz", backends, calibrate=CALIBRATION)
    rows = {row["backend"]: row for row in report.table("backends").rows}
    for name, bound in (("host float", 1), ("host fixed16", 4), ("host fixed8", 11)):
        assert rows[name]["samples"] == IMAGES
        assert int(str(rows[name]["differ"])) <= bound
        assert float(str(rows[name]["accuracy"])) >= 97


# -- counts -------------------------------------------------------------------------------------------------------------------


def inputs(model: Model, n: int) -> np.ndarray:
    """Different inputs as the fixed16 graph takes them: extremes, single pixels, test images, noise."""
    kind = model.lowered("fixed16", CALIBRATION).graph.inputs[0].type
    info, shape = np.iinfo(kind.dtype.numpy), kind.shape[1:]
    rng = np.random.default_rng(2)
    special = [np.full(shape, value) for value in (info.min, info.max, 8, 1)]
    special += [np.indices(shape).sum(0) % 2 * info.max, np.arange(np.prod(shape)).reshape(shape)]
    single = np.full(shape, info.min)
    single[3, 4] = info.max
    raw = np.load(DIGITS / "test.npz")["x"][:30].reshape(-1, *shape)
    noise = [rng.integers(info.min, info.max + 1, shape) for _ in range(n - len(special) - 1 - len(raw))]
    stack = np.stack([*special, single, *raw, *noise]).astype(kind.dtype.numpy)
    assert len(np.unique(stack.reshape(n, -1), axis=0)) == n
    return stack


@pytest.mark.parametrize(
    ("core", "numerics", "n"),
    [
        ("cortex-m0plus", "fixed16", 45),
        *(
            pytest.param(core, numerics, 100, marks=pytest.mark.slow)
            for core in ("cortex-m0plus", "cortex-m4")
            for numerics in ("fixed16", "fixed8")
        ),
    ],
)
def test_every_input_costs_the_same(model: Model, core: str, numerics: str, n: int) -> None:
    """Fixed point on different inputs: one count, step by step, and the reference's bytes each time."""
    lowered = model.lowered(numerics, CALIBRATION)
    x = inputs(model, n)
    expected = evaluate(lowered.graph, [x])[lowered.graph.outputs[0].name]
    totals, steps = set(), set()
    with EmulatedModel(lowered, core) as emulated:
        for sample, want in zip(x, expected, strict=True):
            output, result = emulated.count(sample)
            assert output.tobytes() == want.tobytes()
            totals.add(result.instructions)
            counts = tuple(count.instructions for _, count in sorted(result.by_region.items()))
            steps.add(counts)
            assert result.overhead is not None
            assert sum(counts) + result.overhead.instructions == result.instructions
    assert min(totals) == max(totals)
    assert len(steps) == 1


def test_profile_is_one_of_these_counts(model: Model) -> None:
    """``profile`` counts what real samples cost, whichever they are."""
    plain = model.profile("cortex-m4", calibrate=CALIBRATION).facts
    lowered = model.lowered("fixed16", CALIBRATION).replanned(sets=targets.core("cortex-m4").sets)
    with EmulatedModel(lowered, "cortex-m4") as emulated:
        assert emulated.count(inputs(model, 40)[10])[1].instructions == plain["instructions"]


@pytest.mark.parametrize(
    "core", ["cortex-m4", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cortex-m0plus", "cortex-a72"))]
)
def test_counts_equal_those_of_qemu(model: Model, core: str) -> None:
    """The image that ``profile`` counts, from reset to the end of its input, in two emulators."""
    where = targets.core(core)
    if not qemu.available(where):
        pytest.skip(f"{qemu.program(where)} is not installed")
    lowered = model.lowered("fixed16", CALIBRATION)
    request = b"R\0\0\0" + inputs(model, 40)[10].tobytes()
    with EmulatedModel(lowered, core) as emulated:
        _, inference = emulated.count(inputs(model, 40)[10])
        runs = {}
        for stdin in (b"", request):
            with Emulator(emulated.image, where, stdin=stdin) as emulator:
                emulator.close_input()
                ours = emulator.run(count=True)
            theirs = qemu.run(emulated.image.path, where, stdin, count=True, timeout_s=600)
            assert theirs.output == ours.output
            assert theirs.exit_code == ours.exit_code
            assert theirs.instructions == ours.instructions
            runs[stdin] = theirs.instructions
    # What QEMU counts for one request more is what ``profile`` reports, but for the waiting for input at both ends.
    assert runs[request] is not None and runs[b""] is not None and inference.instructions is not None
    assert abs(runs[request] - runs[b""] - inference.instructions) < 200
