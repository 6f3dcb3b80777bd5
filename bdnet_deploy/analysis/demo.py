"""The demo: a BD-Net trained on scikit-learn's digits, exported, verified, run on emulated cores, counted.

Everything is done through the public API on the files that are installed with the package.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bdnet_deploy import resources
from bdnet_deploy.analysis.evaluate import check_bytes
from bdnet_deploy.emulator import Emulator
from bdnet_deploy.errors import MismatchError
from bdnet_deploy.firmware import build_digits, target
from bdnet_deploy.loading import load
from bdnet_deploy.model import Model, Progress
from bdnet_deploy.report import Column, Report, Table
from bdnet_deploy.targets import Board
from bdnet_deploy.toolchain.uf2 import write_uf2

#: Emulated cores whose predictions are shown, all in fixed16.
CORES = ("cortex-m0plus", "cortex-m4", "cortex-a72")
BOARDS = ("pico", "mps2-an386")
#: Test images that are linked into the firmware example.
FIRMWARE_IMAGES = 10


def demo(
    *, limit: int | None = None, note: Callable[[str], None] = lambda text: None, progress: Progress | None = None
) -> Report:
    """Run it.

    Args:
        limit: use only the first test images.
        note: told what happens, line by line.
        progress: called with (what, done, total).

    Raises:
        MismatchError: an emulated core, a foreign runtime or the firmware disagrees.
    """
    folder = resources.examples_dir() / "digits"
    note("loading examples/digits/model.pt")
    model = load(folder / "model.pt")
    test = model.samples(folder / "test.npz", limit=limit)
    calibration = folder / "calibration.npz"
    with tempfile.TemporaryDirectory(prefix="bdnet-deploy-") as name:
        workspace = Path(name)
        verified = _verify(model, workspace, folder / "test.npz", note)
        backends = [
            "pytorch",
            "host:float",
            "host:fixed16",
            "host:fixed8",
            "lce",
            "onnxruntime",
            *(f"{core}:fixed16" for core in CORES),
        ]
        note(f"running {len(test)} test images in {len(backends)} back ends")
        evaluated = model.evaluate(test, backends, calibrate=calibration, progress=progress)
        note("counting one inference per core")
        costs = _costs(model, calibration)
        note("building and running the firmware example for " + " and ".join(BOARDS))
        firmware = _firmware(model, calibration, folder / "test.npz", workspace)
    report = Report(
        "demo",
        {"model": "examples/digits/model.pt", "test images": len(test)},
        [verified, *evaluated.tables, costs, firmware],
    )
    check_bytes(report)
    return report


def _verify(model: Model, workspace: Path, samples: Path, note: Callable[[str], None]) -> Table:
    """Export to the foreign formats and compare them with the model."""
    table = Table(
        "exported and verified",
        [
            Column("file"),
            Column("bytes", align="right", format=","),
            Column("runtime", "verified in"),
            Column("comparisons", align="right"),
            Column("result"),
        ],
        key="verified",
    )
    runtimes = {"tflite": "Larq Compute Engine", "onnx": "onnxruntime", "bdn": "host library"}
    for kind, runtime in runtimes.items():
        note(f"exporting to {kind} and verifying in {runtime}")
        artifact = model.export(kind, workspace / f"model.{kind}")
        checked = model.verify(artifact.paths[0], inputs=samples, limit=20)
        table.add(
            file=f"model.{kind}",
            bytes=artifact.paths[0].stat().st_size,
            runtime=runtime,
            comparisons=len(checked.tables[0].rows),
            result=checked.facts["verdict"],
        )
    return table


def _costs(model: Model, calibration: Path) -> Table:
    table = Table(
        "cost of one inference, fixed16",
        [
            Column("target"),
            Column("flash_bytes", "flash", "B", "right", ","),
            Column("ram_bytes", "RAM", "B", "right", ","),
            Column("arena_bytes", "of it arena", "B", "right", ","),
            Column("stack_bytes", "stack", "B", "right", ","),
            Column("instructions", "instructions (counted)", align="right", format=","),
            Column("cycles_estimated", "cycles (estimated)", align="right", format=","),
            Column("ms_estimated", "ms (estimated)", align="right", format=".2f"),
            Column("clock"),
        ],
        key="costs",
        notes=[
            "Instructions are counted under emulation; cycles and milliseconds are estimated from the core's timing "
            "table without a board (see: bdnet-deploy cores)."
        ],
    )
    for name in ("cortex-m0plus", "cortex-m4", "cortex-a72", *BOARDS):
        profiled = model.profile(name, numerics="fixed16", calibrate=calibration)
        table.add(**{c.key: profiled.facts[c.key] for c in table.columns})
    return table


def _firmware(model: Model, calibration: Path, test: Path, workspace: Path) -> Table:
    """The digits application with its board's memory map and UART."""
    lowered = model.lowered("fixed16", calibrate=calibration)
    samples = model.samples(test, limit=FIRMWARE_IMAGES)
    assert samples.y is not None
    table = Table(
        "firmware_examples/digits",
        [
            Column("board"),
            Column("flash", unit="B", align="right", format=","),
            Column("ram", "RAM", "B", "right", ","),
            Column("uf2", "UF2", "B", "right", ","),
            Column("says"),
        ],
        key="firmware",
    )
    for name in BOARDS:
        where = target(name)
        assert isinstance(where, Board)
        folder = workspace / name
        folder.mkdir()
        image = build_digits(lowered, where, folder, lowered.encode(samples.x), samples.y.tolist())
        uf2 = None
        if where.boot2:
            write_uf2(image.path, folder / "digits.uf2", where.chip)
            uf2 = (folder / "digits.uf2").stat().st_size
        with Emulator(image, where.core, where) as emulator:
            said = emulator.run().output.decode("ascii", "replace").splitlines()
        if "self-test PASS" not in said:
            raise MismatchError("the firmware's self-test fails", where=name, why=" / ".join(said[-3:]))
        expected = np.asarray(samples.y)
        table.add(board=name, flash=image.flash_bytes, ram=image.ram_bytes, uf2=uf2, says=f"{said[1]}; {said[-1]}")
        assert len(said) == len(expected) + 3
    return table
