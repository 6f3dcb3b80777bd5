"""Runs ``.tflite`` files in the stock Larq Compute Engine (LCE) interpreter, without TensorFlow.

Importing ``larq_compute_engine`` imports TensorFlow, but its interpreter is one self-contained extension module. It
is loaded by path, in a process of its own, because some graphs crash it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bdnet_deploy.errors import MissingPackageError, unknown_name
from bdnet_deploy.peers.jobs import TIMEOUT_S, Runtime

Array = npt.NDArray[Any]

#: Kernels of LceBconv2d: ``default`` is what users get; ``indirect`` is the fastest on x86; ``reference`` is the
#: slowest.
MODES = ("default", "indirect", "reference")


def run(
    model: bytes, inputs: Array | Sequence[Array], *, mode: str = "default", timeout: float = TIMEOUT_S
) -> list[Array]:
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
    jobs: Sequence[tuple[bytes, Array | Sequence[Array]]], *, mode: str = "default", timeout: float = TIMEOUT_S
) -> list[list[Array]]:
    """:func:`run` for several models in one process; ``timeout`` is for all of them."""
    return runtime(mode).run(jobs, timeout=timeout)


def runtime(mode: str = "default") -> Runtime:
    """The interpreter in a mode.

    Raises:
        MissingPackageError: larq-compute-engine is missing, or numpy is too new for it.
        UsageError: unknown mode.
    """
    if mode not in MODES:
        raise unknown_name("mode of Larq Compute Engine", mode, MODES)
    options = (("extension", str(find_interpreter())), ("mode", mode))
    return Runtime("Larq Compute Engine", "lce", options)


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
