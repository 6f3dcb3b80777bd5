"""The row contract's price: instructions of three kernels that are called through it, on emulated Cortex-M cores.

    python benchmarks/row_contract.py [--core cortex-m4] [--format json]

Every kernel makes the middle row of a map of 28 pixels and is compared with the references of ``bdnet_deploy.graph``. Counts are
exact and include everything that the kernel calls. Goals are those of free-standing functions of the same algorithms (plus
15 %), which had no steps, views or rings; of epilogues, an upper bound.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

if __package__ in (None, ""):
    sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from row_build import SOURCES, WARNINGS, Program
from row_cases import FORMS, Case, depthwise, epilogue, pointwise, run_all

from bdnet_deploy import errors, toolchain
from bdnet_deploy.toolchain import zig

ROW = 28
TOLERANCE = 1.15
MACS_POINTWISE, MACS_DEPTHWISE, ELEMENTS = 64 * 128 * ROW, 9 * 128 * ROW, 128 * ROW

GOALS = {
    "cortex-m4": {"pointwise": 0.164, "depthwise": 0.656, "counts": 0.623, "epilogue": 17.0},
    "cortex-m0plus": {"pointwise": 0.305, "depthwise": 1.135, "counts": 1.032, "epilogue": 34.0},
}
EPILOGUES = {"cortex-m4": "quad", "cortex-m0plus": "word"}
#: Forms that saturate, on a core without saturating instructions: above the goal, the reason to prove ranges at export.
UNBOUNDED = {"word", "word_k1", "word_u8", "word_u8_k1", "word_u8_one"}


@dataclass(frozen=True)
class Measurement:
    """One line of the table; ``measured`` and ``goal`` are instructions per ``unit``, ``bound`` says that the goal must be met."""

    kernel: str
    core: str
    instructions: int
    unit: str
    measured: float
    goal: float
    ratio: float
    within: bool
    bound: bool
    bad: int
    compared: int
    stack: int


def measure(core: str, program: Program | None = None) -> list[Measurement]:
    """All kernels on one core."""
    goals = GOALS[core]
    rng = np.random.default_rng(1)
    jobs: list[tuple[Case, str, int, float, float]] = [
        (pointwise(rng), "MAC", MACS_POINTWISE, goals["pointwise"], TOLERANCE),
        (depthwise(rng), "MAC", MACS_DEPTHWISE, goals["depthwise"], TOLERANCE),
        (depthwise(rng, raw=True), "MAC", MACS_DEPTHWISE, goals["counts"], TOLERANCE),
    ]
    for variant in FORMS:
        if variant.startswith(EPILOGUES[core]):
            jobs.append((epilogue(rng, variant), "element", ELEMENTS, goals["epilogue"], 1.0))
    lines = []
    outcomes = run_all(program or Program(core), [job[0] for job in jobs])
    for (case, unit, units, goal, tolerance), outcome in zip(jobs, outcomes, strict=True):
        measured = outcome.instructions / units
        ratio = measured / goal
        bound = case.kernel.removeprefix("bd_epilogue_i16__") not in UNBOUNDED
        rest = (ratio, ratio <= tolerance, bound, outcome.bad, outcome.compared, outcome.stack)
        lines.append(Measurement(case.kernel, core, outcome.instructions, unit, measured, goal, *rest))
    return lines


def _text(lines: list[Measurement]) -> str:
    rows = [f"{'kernel':34} {'core':13} instructions measured   goal  ratio         bad of bytes stack"]
    for m in lines:
        verdict = "" if m.bound else "not bound"
        rows.append(
            f"{m.kernel:34} {m.core:13} {m.instructions:12} {m.measured:8.4f} {m.goal:6g} {m.ratio:6.3f} {verdict:9} "
            f"{m.bad:3} {m.compared:8} {m.stack:5}"
        )
    rows += ["", "measured, goal: instructions per MAC, of epilogues per element; stack in bytes"]
    flags = [*zig.COMMON_FLAGS, *WARNINGS]
    return "\n".join([*rows, f"{toolchain.version()}: {' '.join(flags)}"])


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; 1 when a byte is wrong or a goal is missed."""
    parser = argparse.ArgumentParser(description="Instructions of kernels behind the row contract.")
    parser.add_argument("--core", choices=list(SOURCES), action="append", help="repeatable; default: all")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    options = parser.parse_args(arguments)
    try:
        lines = [line for core in options.core or list(SOURCES) for line in measure(core)]
        if options.format == "json":
            report = {
                "compiler": toolchain.version(),
                "flags": [*zig.COMMON_FLAGS, *WARNINGS],
                "measurements": [asdict(line) for line in lines],
            }
            print(json.dumps(report, indent=2))
        else:
            print(_text(lines))
    except errors.BdnetError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 1 if any(line.bad or (line.bound and not line.within) for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
