"""Back ends that run a file: other people's runtimes, each in a process of its own, and our files in the host library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.backends import Backend, Step
from bdnet_deploy.errors import UsageError, unknown_name
from bdnet_deploy.files import no_such_file
from bdnet_deploy.graph import Array
from bdnet_deploy.peers import lce, onnxruntime, tensorflow_lite
from bdnet_deploy.peers.jobs import TIMEOUT_S, Runtime

if TYPE_CHECKING:
    from bdnet_deploy.analysis.comparing.ends import Ends
    from bdnet_deploy.bdn_reader import BdnReader
    from bdnet_deploy.model import Model, PathLike
    from bdnet_deploy.samples import Samples

#: Forms of ``tflite``: what the file is exported as.
FORMS = ("stock", "extended", "int8")


def foreign_backend(
    model: Model,
    kind: str,
    form: str,
    calibrate: PathLike | Array | Samples | None = None,
    *,
    timeout: float = TIMEOUT_S,
) -> ForeignBackend:
    """A stock runtime on the model's exported file.

    Args:
        model: what is exported. Of one that came from a ``.tflite``, that file runs in ``lce``, not an export.
        kind: ``"lce"``, ``"tflite"`` or ``"onnxruntime"``.
        form: of lce a mode, of tflite one of :data:`FORMS`; "" is the first.
        calibrate: samples for int8.
        timeout: seconds for one batch.

    Raises:
        UsageError: an unknown form, or int8 without samples.
        MissingPackageError: the runtime is not installed.
    """
    from bdnet_deploy.artifact import foreign_file

    if kind == "onnxruntime":
        if form:
            raise UsageError(
                f"'{kind}:{form}': onnxruntime runs in its own float numerics", fix="--backend onnxruntime"
            )
        runtime = onnxruntime.runtime()
        return ForeignBackend("onnxruntime", runtime, foreign_file(model, "onnx").data, timeout=timeout)
    if kind == "lce":
        known = form or lce.MODES[0]
        if known not in lce.MODES:
            raise unknown_name("mode of Larq Compute Engine", form, lce.MODES)
        name = "Larq Compute Engine" + (f" {form}" if form else "")
        if model._tflite is None:
            return ForeignBackend(name, lce.runtime(known), foreign_file(model, "tflite").data, timeout=timeout)
        from bdnet_deploy.analysis.comparing.ends import TfliteEnds

        ends = TfliteEnds(model._tflite)
        return ForeignBackend(name, lce.runtime(known), model._tflite, ends=ends, timeout=timeout)
    form = form or FORMS[0]
    if form not in FORMS:
        raise unknown_name("form of tflite", form, FORMS)
    if form == "int8" and calibrate is None:
        raise UsageError("tflite:int8 needs calibration samples", fix="--calibrate samples.npz, or a folder of images")
    profile = "extended" if form == "extended" else "stock"
    runtime = tensorflow_lite.process() if form == "extended" else lce.runtime()
    int8 = form == "int8"
    written = foreign_file(model, "tflite", profile=profile, int8=int8, calibrate=calibrate if int8 else None)
    return ForeignBackend(f"tflite {form}", runtime, written.data, timeout=timeout)


def file_backend(path: Path, *, timeout: float = TIMEOUT_S) -> Backend:
    """An exported file, of ours or of another program, in the runtime that it is for.

    Raises:
        ModelFileError: there is no such file, or it is damaged.
        MissingPackageError: its runtime is not installed.
    """
    if not path.exists():
        raise no_such_file(path)
    suffix = path.suffix.lower()
    if suffix in (".bdn", ".c"):
        from bdnet_deploy.bdn_reader import BdnReader

        return FileBackend(path.name, BdnReader.open(path))
    from bdnet_deploy.analysis.comparing.ends import OnnxEnds, TfliteEnds
    from bdnet_deploy.analysis.comparing.files import runtimes

    ends = TfliteEnds(path.read_bytes()) if suffix == ".tflite" else OnnxEnds.of(path)
    runtime = next(iter(runtimes(ends.kind).values()))
    return ForeignBackend(f"{path.name} in {runtime.name}", runtime, ends.content, ends=ends, timeout=timeout)


class ForeignBackend:
    """A file in a foreign runtime, which runs in a process of its own with a time limit."""

    def __init__(
        self,
        name: str,
        runtime: Runtime,
        model: bytes | Path,
        *,
        ends: Ends | None = None,
        timeout: float = TIMEOUT_S,
    ) -> None:
        """``ends``: how inputs and outputs are encoded; None: float32 as the graph has them."""
        self.name = name
        self.runtime = runtime
        self.model = model
        self._ends = ends
        self._timeout = timeout

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """All outputs (N, ...) for all inputs (N, ...).

        Raises:
            PeerError: the runtime refused the file, crashed or hung.
        """
        given = [np.asarray(a, np.float32) for a in inputs]
        found = self.runtime.run(
            [(self.model, self._ends.encode(given) if self._ends else given)], timeout=self._timeout
        )[0]
        return self._ends.decode(found) if self._ends else found

    def predict(self, x: Array, progress: Step | None = None) -> Array:
        return np.asarray(self.run([x])[0], np.float64)

    def close(self) -> None:
        """Nothing is open: every batch has its process."""


class FileBackend:
    """A ``.bdn`` or ``.c`` in the host library."""

    def __init__(self, name: str, reader: BdnReader) -> None:
        self.name = f"{name} ({reader.numerics})"
        self._reader = reader

    def predict(self, x: Array, progress: Step | None = None) -> Array:
        return self._reader.predict(x)

    def close(self) -> None:
        """Nothing is open."""
