"""Runs models in a foreign runtime in a process of its own: it may crash or hang, and the caller survives."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bdnet_deploy.peers import PeerError

Array = npt.NDArray[Any]

#: Seconds that all jobs of one process may take, where nothing else is asked for.
TIMEOUT_S = 300.0
_WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Earlier:
    """An input of a job that is an output of an earlier one; ``shape`` without the batch."""

    job: int
    shape: tuple[int, ...] | None = None
    output: int = 0


#: A model file or its content (a file where it has others beside it), and its inputs, (N, ...) each: one array, or one per
#: input.
Job = tuple["bytes | Path", "Array | Sequence[Array | Earlier]"]


@dataclass(frozen=True)
class Runtime:
    """A foreign runtime: ``kind`` and ``options`` are for the worker, ``name`` is for messages."""

    name: str
    kind: str
    options: tuple[tuple[str, Any], ...] = ()

    def run(self, jobs: Sequence[Job], *, timeout: float = TIMEOUT_S) -> list[list[Array]]:
        """Run the jobs in order, in one process.

        Args:
            jobs: models and their inputs; equal models and arrays (the same objects) are handed over once.
            timeout: seconds for all of them.

        Returns:
            Per job one (N, ...) array per output.

        Raises:
            PeerError: the runtime refused a model, crashed, or ran out of time.
        """
        with tempfile.TemporaryDirectory(prefix="bdnet-peer-") as name:
            folder = Path(name)
            _write(folder, self, jobs)
            try:
                self._start(folder, timeout)
            except PeerError as error:
                error.job = next((i for i in range(len(jobs)) if not (folder / f"{i}.json").exists()), None)
                raise
            return [_outputs(folder, i) for i in range(len(jobs))]

    def _start(self, folder: Path, timeout: float) -> None:
        command = [sys.executable, str(_WORKER), str(folder)]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False, cwd=folder
            )
        except subprocess.TimeoutExpired:
            raise PeerError(
                f"{self.name} did not finish within {timeout:g} s",
                fix="run fewer samples (--limit), or allow more time (--timeout)",
            ) from None
        if done.returncode:
            raise PeerError(
                f"{self.name} crashed" if done.returncode < 0 else f"{self.name} refused the model or its inputs",
                why=_reason(done.returncode, done.stderr.decode("utf-8", "replace")),
            )


def _write(folder: Path, runtime: Runtime, jobs: Sequence[Job]) -> None:
    models: dict[int, str] = {}
    arrays: dict[int, int] = {}
    records = []
    for model, given in jobs:
        if id(model) not in models:
            path = folder / f"{len(models)}.model" if isinstance(model, bytes) else model.resolve()
            if isinstance(model, bytes):
                path.write_bytes(model)
            models[id(model)] = str(path)
        inputs = []
        for array in [given] if isinstance(given, np.ndarray) else given:
            if isinstance(array, Earlier):
                inputs.append({"file": f"{array.job}.out{array.output}", "shape": array.shape})
                continue
            if id(array) not in arrays:
                arrays[id(array)] = len(arrays)
                np.save(folder / f"in{arrays[id(array)]}.npy", np.ascontiguousarray(array), allow_pickle=False)
            inputs.append({"file": f"in{arrays[id(array)]}", "shape": None})
        records.append({"model": models[id(model)], "inputs": inputs})
    content = {"runtime": runtime.kind, "options": dict(runtime.options), "jobs": records}
    (folder / "jobs.json").write_text(json.dumps(content), encoding="utf-8")


def _outputs(folder: Path, job: int) -> list[Array]:
    count = json.loads((folder / f"{job}.json").read_text(encoding="utf-8"))
    return [np.load(folder / f"{job}.out{k}.npy", allow_pickle=False) for k in range(count)]


def _reason(code: int, stderr: str) -> str:
    text = stderr.strip().splitlines()
    # What native code prints before Python's exception says more than the exception.
    said = [line for line in text if line.startswith("ERROR") or ".cc" in line or "Error: " in line[:40]] or text[-1:]
    if code < 0:
        said = [f"killed by signal {-code}{_signal_name(-code)}", *said]
    return "; ".join(dict.fromkeys(line.strip()[:500] for line in said[:6])) or f"exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return ""
