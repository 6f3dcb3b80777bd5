"""Runs ``.tflite`` files in the stock Larq Compute Engine (LCE) interpreter, without TensorFlow.

Importing ``larq_compute_engine`` imports TensorFlow, but its interpreter is one self-contained extension module. It
is loaded by path, in a process of its own, because some graphs crash it.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bdnet_deploy.errors import MissingPackageError, unknown_name
from bdnet_deploy.peers import PeerError

Array = npt.NDArray[Any]

#: Kernels of LceBconv2d: ``default`` is what users get; ``indirect`` is the fastest on x86; ``reference`` is the
#: slowest.
MODES = ("default", "indirect", "reference")
_WORKER = Path(__file__).with_name("lce_worker.py")


def run(model: bytes, inputs: Array | Sequence[Array], *, mode: str = "default", timeout: float = 300.0) -> list[Array]:
    """Run one model on many samples.

    Args:
        model: the content of a ``.tflite`` of batch 1.
        inputs: (N, ...) samples of the model's input, or one such array per input.
        mode: one of :data:`MODES`.
        timeout: seconds for all samples.

    Returns:
        One (N, ...) array per output.

    Raises:
        MissingPackageError: larq-compute-engine is missing, or numpy is too new for it.
        PeerError: the interpreter refused the model, crashed or ran out of time.
        UsageError: unknown mode.
    """
    return run_many([(model, inputs)], mode=mode, timeout=timeout)[0]


def run_many(
    jobs: Sequence[tuple[bytes, Array | Sequence[Array]]], *, mode: str = "default", timeout: float = 300.0
) -> list[list[Array]]:
    """:func:`run` for several models in one process; ``timeout`` is for all of them."""
    if mode not in MODES:
        raise unknown_name("mode of Larq Compute Engine", mode, MODES)
    extension = find_interpreter()
    with tempfile.TemporaryDirectory(prefix="bdnet-lce-") as name:
        folder = Path(name)
        counts = [_write_job(folder, i, model, inputs) for i, (model, inputs) in enumerate(jobs)]
        description = {"extension": str(extension), "mode": mode, "inputs": counts}
        (folder / "jobs.json").write_text(json.dumps(description), encoding="utf-8")
        _run_worker(folder, timeout)
        outputs = []
        for i in range(len(jobs)):
            count = json.loads((folder / f"{i}.json").read_text(encoding="utf-8"))
            outputs.append([np.load(folder / f"{i}.out{k}.npy", allow_pickle=False) for k in range(count)])
    return outputs


def find_interpreter() -> Path:
    """The extension module of LCE's interpreter.

    Raises:
        MissingPackageError: larq-compute-engine is missing or incomplete, or numpy is too new for it.
    """
    fix = "pip install 'bdnet-deploy[larq]' (CPython 3.10 to 3.12; on Linux x86-64 only)"
    spec = importlib.util.find_spec("larq_compute_engine")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError("running a .tflite needs larq-compute-engine, which is not installed", fix=fix)
    folder = Path(next(iter(spec.submodule_search_locations))) / "tflite" / "python"
    found = sorted(p for p in folder.glob("interpreter_wrapper_lite*") if p.suffix in (".so", ".pyd"))
    if not found:
        raise MissingPackageError(
            "this larq-compute-engine has no interpreter",
            where=str(folder),
            fix="pip install larq-compute-engine==0.16.0",
        )
    if int(np.__version__.split(".")[0]) >= 2:
        raise MissingPackageError(
            f"larq-compute-engine does not work with numpy {np.__version__}",
            why="its interpreter was built for numpy 1 and loses the content of numpy 2 arrays without saying so",
            fix="pip install 'numpy<2', or verify in an environment that has bdnet-deploy[larq]",
        )
    return found[0]


def _write_job(folder: Path, index: int, model: bytes, inputs: Array | Sequence[Array]) -> int:
    arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    (folder / f"{index}.tflite").write_bytes(model)
    for k, array in enumerate(arrays):
        np.save(folder / f"{index}.in{k}.npy", np.ascontiguousarray(array), allow_pickle=False)
    return len(arrays)


def _run_worker(folder: Path, timeout: float) -> None:
    command = [sys.executable, str(_WORKER), str(folder)]
    try:
        result = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise PeerError(
            f"Larq Compute Engine did not finish within {timeout:g} s", fix="run fewer samples, or allow more time"
        ) from None
    if result.returncode == 0:
        return
    text = result.stderr.decode("utf-8", "replace").strip().splitlines()
    # What TensorFlow Lite prints before the exception says more than the exception.
    lines = [
        line for line in text if line.startswith(("ERROR", "RuntimeError", "ValueError")) or ".cc" in line
    ] or text[-1:]
    if result.returncode < 0:
        lines.insert(0, f"killed by signal {-result.returncode}")
    raise PeerError(
        "Larq Compute Engine crashed" if result.returncode < 0 else "Larq Compute Engine refused the model",
        why="; ".join(dict.fromkeys(lines)) or f"exit code {result.returncode}",
    )
