"""Wall time on this computer: the host library beside larq-compute-engine and onnxruntime, one thread each.

    python benchmarks/host.py [--network mobilenet_v1_224] [--rounds 15] [--format text|json]

Every contestant is a process of its own that has loaded the same network and the same input. They take turns, so that whatever
else the computer does falls on all of them. Printed are the medians over all inferences by the clock and of processor time, which
a busy computer disturbs less, and the fastest by the clock. It is the call from Python that is timed, with the copies of input and
output that each binding makes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from full_precision import write_int8
from network_models import NETWORKS, find

from bdnet_deploy import errors
from bdnet_deploy.artifact import foreign_file
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.host import kernels
from bdnet_deploy.hostlib import KERNELS
from bdnet_deploy.model import Model
from bdnet_deploy.report import Column, Report, Table

WORKER = Path(__file__).with_name("host_worker.py")
NUMERICS = ("float", "fixed16", "fixed8")
#: Another function: MobileNet V1 with 8-bit layers.
FULL_PRECISION = "full-precision MobileNet V1"
#: Features of a processor that the kernels, or the peers', use where it has them.
FEATURES = "ssse3 sse4_1 avx avx2 fma f16c popcnt avx512f avx512bw avx512vl avx512_vpopcntdq avx512_vnni asimd asimddp"


@dataclass(frozen=True)
class Contestant:
    """A runtime, how it was set, what file it runs, and the kernels of ours."""

    runtime: str
    setting: str
    numerics: str
    model: Path
    level: str = ""


@dataclass(frozen=True)
class Result:
    """Milliseconds of one inference: medians by the clock and of processor time, and the fastest by the clock. Speed: how
    many times less processor time than the fastest larq-compute-engine."""

    runtime: str
    setting: str
    numerics: str
    median_ms: float
    cpu_ms: float
    fastest_ms: float
    top1: int
    speed: float | None = None


def contestants(model: Model, folder: Path, sample: Any) -> tuple[list[Contestant], list[str]]:
    """Everyone who can run the network, and why others cannot. Fixed point is calibrated with the one sample."""
    found, absent = [], []
    for numerics in NUMERICS:
        lowered = model.lowered(numerics) if numerics == "float" else model.lowered(numerics, sample)
        path = folder / f"{numerics}.bdn"
        path.write_bytes(write_bdn(lowered.plan))
        levels = kernels() if numerics == "float" else kernels()[-1:]
        found += [Contestant("bdnet-deploy", level, numerics, path, level) for level in levels]
    for target, int8 in (("tflite", False), ("onnx", False), ("tflite", True), ("onnx", True)):
        numerics = "int8" if int8 else "float"
        path = folder / f"{numerics}.{target}"
        try:
            path.write_bytes(foreign_file(model, target, int8=int8, calibrate=sample if int8 else None).data)
        except errors.BdnetError as error:
            absent.append(f"{target} {numerics}: {error}")
            continue
        modes = ("default", "indirect") if target == "tflite" else ("",)
        name = "larq-compute-engine" if target == "tflite" else "onnxruntime"
        found += [Contestant(name, mode, numerics, path) for mode in modes]
    if model.graph.inputs[0].type.shape[1:3] == (224, 224):
        path = folder / "full_precision.onnx"
        try:
            write_int8(path)
            found.append(Contestant("onnxruntime", FULL_PRECISION, "int8", path))
        except errors.BdnetError as error:
            absent.append(f"onnxruntime int8: {error}")
    return found, absent


def start(who: Contestant, source: Path, output: Path, inferences: int) -> subprocess.Popen[str]:
    runtimes = {"bdnet-deploy": "bdnet", "larq-compute-engine": "lce", "onnxruntime": "onnxruntime"}
    job = {
        "runtime": runtimes[who.runtime],
        "mode": who.setting,
        "model": str(who.model),
        "input": str(source),
        "output": str(output),
        "inferences": inferences,
    }
    environment = {**os.environ, **({KERNELS: who.level} if who.level else {})}
    return subprocess.Popen(
        [sys.executable, str(WORKER), json.dumps(job)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        env=environment,
    )


def measure(network: str, rounds: int, inferences: int) -> tuple[list[Result], list[str]]:
    """Alternating runs of everyone.

    Returns:
        The results, and who did not take part and why.
    """
    model = find(network).build()
    with tempfile.TemporaryDirectory(prefix="bdnet-host-") as name:
        folder = Path(name)
        shape = model.lowered("float").graph.inputs[0].type
        rng = np.random.default_rng(1)
        pixels = rng.integers(0, 256, shape.shape).astype(np.uint8)
        everyone, absent = contestants(model, folder, pixels)
        processes, outputs = [], []
        for i, who in enumerate(everyone):
            numerics = who.numerics if who.runtime == "bdnet-deploy" else "float"
            encoded = model.lowered(*((numerics,) if numerics == "float" else (numerics, pixels))).encode(pixels)
            if who.setting == FULL_PRECISION:
                encoded = np.moveaxis(encoded, -1, 1)
            source = folder / f"{i}.in.npy"
            np.save(source, encoded, allow_pickle=False)
            outputs.append(folder / f"{i}.out.npy")
            processes.append(start(who, source, outputs[-1], inferences))
        times: list[list[tuple[float, float]]] = [[] for _ in everyone]
        alive = [p.stdout is not None and p.stdout.readline() == "ready\n" for p in processes]
        for _ in range(rounds):
            for i, process in enumerate(processes):
                if alive[i] and process.stdin is not None and process.stdout is not None:
                    process.stdin.write("go\n")
                    process.stdin.flush()
                    times[i] += json.loads(process.stdout.readline())
        for process in processes:
            process.communicate()
        absent += [f"{w.runtime} {w.setting} {w.numerics}: it did not run" for w, ok in zip(everyone, alive) if not ok]
        results = [
            Result(
                w.runtime, w.setting, w.numerics, *milliseconds(t),
                int(np.load(o, allow_pickle=False).reshape(-1).argmax()),
            )
            for w, t, o, ok in zip(everyone, times, outputs, alive)
            if ok
        ]  # fmt: skip
    return with_speed(results), absent


def milliseconds(times: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Medians by the clock and of processor time, and the fastest by the clock."""
    wall, cpu = zip(*times, strict=True)
    return 1e3 * statistics.median(wall), 1e3 * statistics.median(cpu), 1e3 * min(wall)


def with_speed(results: Sequence[Result]) -> list[Result]:
    """Each with its speed."""
    peers = [r.cpu_ms for r in results if r.runtime == "larq-compute-engine"]
    return [Result(**{**asdict(r), "speed": min(peers) / r.cpu_ms if peers else None}) for r in results]


def processor() -> dict[str, str]:
    """The processor's name and those of :data:`FEATURES` that it has, where Linux says so."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    has = set((fields.get("flags") or fields.get("Features") or "").split())
    return {
        "processor": fields.get("model name", platform.processor() or platform.machine()),
        "features": " ".join(f for f in FEATURES.split() if f in has),
    }


def report(network: str, results: Sequence[Result], absent: Sequence[str]) -> Report:
    table = Table(
        "milliseconds of one inference",
        [
            Column("runtime"),
            Column("setting"),
            Column("numerics"),
            Column("median_ms", "clock", unit="ms", align="right", format=".2f"),
            Column("cpu_ms", "processor", unit="ms", align="right", format=".2f"),
            Column("fastest_ms", "fastest", unit="ms", align="right", format=".2f"),
            Column("speed", "times the fastest larq-compute-engine", align="right", format=".2f"),
            Column("top1", "top-1", align="right"),
        ],
        key="host",
    )
    for result in results:
        table.add(**asdict(result))
    table.notes += [f"Not there: {reason}" for reason in absent]
    return Report("host", {"network": network, **processor(), "threads": 1}, [table])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="mobilenet_v1_224", choices=sorted(NETWORKS))
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contestant")
    parser.add_argument("--inferences", type=int, default=3, help="inferences in a turn")
    parser.add_argument("--format", default="text", choices=("text", "json"))
    chosen = parser.parse_args(arguments)
    results, absent = measure(chosen.network, chosen.rounds, chosen.inferences)
    found = report(chosen.network, results, absent)
    if chosen.format == "json":
        print(json.dumps({**found.facts, "results": [asdict(r) for r in results], "absent": absent}, indent=2))
    else:
        print(found)


if __name__ == "__main__":
    main()
