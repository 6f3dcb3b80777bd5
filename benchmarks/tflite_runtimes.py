"""Wall times of ``.tflite`` files on this machine: stock ones in Larq Compute Engine's interpreter and in LiteRT or TensorFlow
with our operators, and extended ones there.

    python benchmarks/tflite_runtimes.py [--network digits] [--runtime litert] [--rounds 20] [--format json]
    python benchmarks/tflite_runtimes.py --lce-python A/bin/python --runtime-python B/bin/python

Larq's interpreter needs ``larq-compute-engine`` and numpy 1, the other one ``ai-edge-litert`` or ``tensorflow``: each runs in a
process of its own, with the Python that is given for it. One thread, alternating runs, medians. Random weights of a fixed seed
where a network has no trained checkpoint. The numbers are of this machine and of no other.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from network_models import NETWORKS, find

from bdnet_deploy import errors
from bdnet_deploy.export import tflite
from bdnet_deploy.graph import Affine, Conv2d, DType, Graph, Sign, Ternarize
from bdnet_deploy.hostlib import host_library
from bdnet_deploy.lowering import float_graph
from bdnet_deploy.peers import lce
from bdnet_deploy.report import Column, Report, Table

_WORKER = Path(__file__).with_name("tflite_runtimes_worker.py")
_FIND = "import importlib.util as u; print(next(iter(u.find_spec('larq_compute_engine').submodule_search_locations)))"


#: Eight binary depth-wise layers and nothing between them but signs.
DEPTHWISE = "depthwise_3x3_128_28"
_DISTANCE = "largest difference from LCE"


@dataclass(frozen=True)
class Way:
    """A file in an interpreter."""

    title: str
    peer: str
    profile: str
    mode: str


WAYS = (
    Way("stock, LCE default", "lce", "stock", "default"),
    Way("stock, LCE indirect", "lce", "stock", "indirect"),
    Way("stock, ours", "ours", "stock", "plain"),
    Way("extended, ours", "ours", "extended", "plain"),
    Way("stock, ours, XNNPACK", "ours", "stock", "xnnpack"),
    Way("extended, ours, XNNPACK", "ours", "extended", "xnnpack"),
)


class Worker:
    """A process with one runtime."""

    def __init__(self, python: str, runtime: str, library: Path) -> None:
        command = [python, str(_WORKER), runtime, str(library)]
        self.runtime = runtime
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (closed by close)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, encoding="utf-8"
        )

    def ask(self, **job: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.process.wait()
            self.errors.seek(0)
            raise errors.BdnetError(f"the process of {self.runtime} failed", why=self.errors.read()[-1000:].strip())
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.errors.close()


def depthwise_layers() -> Graph:
    """Eight layers of 3x3, 128 channels at 28x28, trits and bits in turn, with random bits as weights."""
    rng = np.random.default_rng(1)
    graph = Graph(DEPTHWISE)
    x = graph.input("x", (1, 28, 28, 128), DType.F64)
    for i in range(8):
        low = graph.constant(f"low{i}", np.full(128, -0.5 if i == 0 else -1), x.type.dtype)
        limits = [low] if i % 2 else [low, graph.constant(f"high{i}", np.full(128, 0.5 if i == 0 else 2), x.type.dtype)]
        levels = graph.add(Sign() if i % 2 else Ternarize(), [x, *limits], f"levels{i}")
        w = graph.constant(f"w{i}", rng.choice([-1, 1], (128, 3, 3, 1)), DType.BIT)
        x = graph.add(Conv2d(padding=(1, 1, 1, 1), groups=128), [levels, w], f"layer{i}")
    one, zero = (graph.constant(n, np.full(128, v), DType.F64) for n, v in (("one", 1.0), ("zero", 0.0)))
    graph.outputs = [graph.add(Affine(terms=1), [x, one, zero], "y")]
    return float_graph(graph)[0]


def measure(name: str, workers: dict[str, Worker], rounds: int, folder: Path) -> dict[str, Any]:
    """One row: bytes of the two files, and per way the median of the milliseconds of all runs."""
    graph = depthwise_layers() if name == DEPTHWISE else find(name).build().float_graph()
    shape = list(graph.inputs[0].type.shape)
    row: dict[str, Any] = {"network": name}
    outputs = {}
    for profile in ("stock", "extended"):
        data = tflite.write(graph, profile=profile).data
        (folder / f"{profile}.tflite").write_bytes(data)
        row[f"{profile} bytes"] = len(data)
    for way in WAYS:
        answer = workers[way.peer].ask(
            load=str(folder / f"{way.profile}.tflite"), name=way.title, mode=way.mode, shape=shape
        )
        outputs[way.title] = np.array(answer["output"], np.float32)
    for profile in ("", ", XNNPACK"):
        equal = outputs[f"stock, ours{profile}"].tobytes() == outputs[f"extended, ours{profile}"].tobytes()
        row[f"stock = extended{profile}"] = "same bytes" if equal else "differs"
    first = outputs[WAYS[0].title]
    row[_DISTANCE] = float(np.abs(outputs["extended, ours"] - first).max() / np.abs(first).max())
    times: dict[str, list[float]] = {way.title: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            times[way.title] += workers[way.peer].ask(time=way.title, runs=3)["seconds"][1:]
    for title, seconds in times.items():
        row[title] = statistics.median(seconds) * 1e3
    return row


def report(rows: Sequence[dict[str, Any]], runtime: str) -> Report:
    ways = [Column(way.title, align="right", format=".3f") for way in WAYS]
    times = Table("milliseconds", [Column("network"), *ways])
    times.notes.append("measured: wall time on this machine, one thread, median")
    sizes = [Column(f"{p} bytes", align="right", format=",") for p in ("stock", "extended")]
    same = [Column("stock = extended"), Column("stock = extended, XNNPACK")]
    files = Table("files", [Column("network"), *sizes, *same, Column(_DISTANCE, align="right", format=".1e")])
    for row in rows:
        for table in (times, files):
            table.add(**{column.key: row[column.key] for column in table.columns})
    return Report("tflite runtimes", {"runtime": runtime, "machine": platform.machine()}, [times, files])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--network", action="append", choices=[*NETWORKS, DEPTHWISE], help="default: all")
    parser.add_argument("--runtime", default="litert", choices=("litert", "tensorflow"))
    parser.add_argument("--lce-python", default="", help="Python with larq-compute-engine; default: this one")
    parser.add_argument("--runtime-python", default=sys.executable, help="Python with the runtime; default: this one")
    parser.add_argument("--rounds", type=int, default=20, help="of two runs each")
    parser.add_argument("--format", default="text", choices=("text", "json"))
    options = parser.parse_args(arguments)
    workers: dict[str, Worker] = {}
    try:
        python = options.lce_python or sys.executable
        extension = _extension(python) if options.lce_python else lce.find_interpreter()
        workers["lce"] = Worker(python, "lce", extension)
        workers["ours"] = Worker(options.runtime_python, options.runtime, host_library())
        rows = []
        with tempfile.TemporaryDirectory(prefix="bdnet-tflite-") as folder:
            for name in options.network or [*NETWORKS, DEPTHWISE]:
                print(name, file=sys.stderr)
                rows.append(measure(name, workers, options.rounds, Path(folder)))
    except errors.BdnetError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    finally:
        for worker in workers.values():
            worker.close()
    result = report(rows, options.runtime)
    print(json.dumps(rows, indent=2) if options.format == "json" else result)
    return 0


def _extension(python: str) -> Path:
    """The extension module of LCE's interpreter in another environment."""
    done = subprocess.run([python, "-c", _FIND], capture_output=True, encoding="utf-8", check=False)
    found = sorted((Path(done.stdout.strip()) / "tflite" / "python").glob("interpreter_wrapper_lite*"))
    if done.returncode or not found:
        raise errors.MissingPackageError(
            f"{python} has no larq-compute-engine", fix="pip install larq-compute-engine==0.16.0"
        )
    return found[0]


if __name__ == "__main__":
    sys.exit(main())
