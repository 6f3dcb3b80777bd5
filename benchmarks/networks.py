"""Whole networks on emulated cores: counted instructions and bytes, beside what other tools publish for the same shapes.

    python benchmarks/networks.py [--network kws] [--core cortex-m4] [--numerics fixed8] [--format json]
    python benchmarks/networks.py --memory [--network vww_0.25_96] [--numerics fixed8]

Networks without a trained checkpoint have random weights of a fixed seed: their counts and bytes hold, their outputs mean nothing.
Every network on every core takes some minutes; progress goes to stderr.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent))

from network_memory import MemoryRow, measure_memory
from network_models import NETWORKS, Network, find
from network_peers import MEMORY, read

from bdnet_deploy import errors, targets, toolchain
from bdnet_deploy.graph import NUMERICS
from bdnet_deploy.model import Model
from bdnet_deploy.report import Column, Report, Table
from bdnet_deploy.toolchain import STACK_BYTES

CORES = ("cortex-m0plus", "cortex-m4", "cortex-a72")
MEMORY_NETWORKS = ("vww_0.25_96", "es_resnet20")
#: Real seconds that one emulated inference may take: a 224x224 image is thousands of millions of instructions.
TIMEOUT_S = 3600.0
#: RAM that a run on a core without a board leaves to the harness when a network must stream to fit.
HARNESS_BYTES = 64 * 1024
#: What this version set out to reach: instructions of one inference in fixed16, of network and core.
GOALS = {
    "vww_0.25_96": {"cortex-m0plus": 13_500_000, "cortex-m4": 5_600_000, "cortex-a72": 1_000_000},
    "kws": {"cortex-m0plus": 5_000_000, "cortex-m4": 2_050_000, "cortex-a72": 380_000},
    "mobilenet_v1_224": {"cortex-m0plus": 380_000_000, "cortex-a72": 32_000_000},
}


@dataclass(frozen=True)
class Row:
    """One network on one core. Instructions are counted; arena, stack, flash and RAM are bytes; cycles are estimated."""

    network: str
    core: str
    numerics: str
    instructions: int
    arena: int
    stack: int
    flash: int
    model: int
    ram: int
    cycles_estimated: int | None
    execution: str
    weights: str

    @property
    def goal(self) -> int | None:
        """Instructions, where :data:`GOALS` has some."""
        return GOALS.get(self.network, {}).get(self.core) if self.numerics == "fixed16" else None


def measure(network: Network, model: Model, core: str, numerics: str) -> Row:
    """Count one inference. A network that does not fit the core's memory streams, as under ``--ram``.

    Raises:
        DoesNotFitError: it does not fit even so.
    """
    calibrate = None if numerics == "float" else network.calibrate
    try:
        report = model.profile(core, numerics=numerics, calibrate=calibrate, timeout_s=TIMEOUT_S)
    except errors.DoesNotFitError:
        memories = [memory.length for memory in targets.core(core).memories if memory.kind == "ram"]
        if not memories:
            raise
        room = max(memories) - STACK_BYTES - HARNESS_BYTES - buffers(model, numerics)
        report = model.profile(core, numerics=numerics, calibrate=calibrate, ram=room, timeout_s=TIMEOUT_S)
    facts = report.facts
    sizes = {str(row["what"]).strip(): row["bytes"] for row in report.table("memory").rows}
    return Row(
        network.name,
        core,
        numerics,
        instructions=facts["instructions"],
        arena=facts["arena_bytes"],
        stack=facts["stack_bytes"],
        flash=facts["flash_bytes"],
        model=sizes["model"],
        ram=facts["ram_bytes"],
        cycles_estimated=facts["cycles_estimated"],
        execution=facts["execution"],
        weights=network.weights,
    )


def buffers(model: Model, numerics: str) -> int:
    """Bytes of the input and output buffers."""
    graph = model.lowered(numerics).graph
    types = (graph.inputs[0].type, graph.outputs[0].type)
    return sum(value.size * value.dtype.numpy.itemsize for value in types)


# -- views ------------------------------------------------------------------------------------------------------------


def count_tables(rows: Sequence[Row]) -> list[Table]:
    """Our counts, and the peers' figures of the same networks."""
    ours = Table(
        "counts",
        [
            Column("network"),
            Column("core"),
            Column("numerics"),
            Column("instructions", "instructions (counted)", align="right", format=","),
            Column("goal", align="right", format=","),
            Column("cycles_estimated", "cycles (estimated)", align="right", format=","),
            Column("arena", unit="B", align="right", format=","),
            Column("stack", unit="B", align="right", format=","),
            Column("flash", unit="B", align="right", format=","),
            Column("model", unit="B", align="right", format=","),
            Column("execution"),
            Column("weights"),
        ],
    )
    for row in rows:
        values = {**dataclasses.asdict(row), "goal": row.goal}
        ours.add(**{column.key: values[column.key] for column in ours.columns})
    ours.notes += [
        "Arena: context, feature maps, scratch; input and output buffers and the stack are not in it.",
        "Flash: the whole image with runtime and harness; model: the .bdn bytes in it.",
        "An inference is bd_run with the harness around it; loading and its checks are not counted.",
    ]
    return [ours, peer_table({row.network for row in rows})]


def memory_tables(rows: Sequence[MemoryRow]) -> list[Table]:
    """Our plans, and the memory that peers publish."""
    numbers = ("map_by_map", "streaming", "smallest", "pushed", "lower_bound", "input", "output")
    ours = Table(
        "memory of feature maps and scratch",
        [
            Column("network"),
            Column("numerics"),
            *(Column(key, unit="B", align="right", format=",") for key in numbers),
            Column("smallest_plan"),
        ],
        key="memory",
    )
    for row in rows:
        ours.add(**dataclasses.asdict(row))
    ours.notes += [
        "Input and output buffers are not in the plans, except that 'pushed' takes its input row by row and needs no input buffer.",
        "Peers' arenas hold the input.",
    ]
    return [ours, peer_table({row.network for row in rows}, MEMORY)]


def peer_table(networks: set[str], measures: Sequence[str] | None = None) -> Table:
    """Published figures; all of them are others' measurements."""
    table = Table(
        "published by others",
        [
            Column("network"),
            Column("peer"),
            Column("version"),
            Column("model"),
            Column("measure"),
            Column("value", align="right"),
            Column("unit"),
            Column("platform"),
        ],
        key="peers",
    )
    for figure in read():
        if figure.network in networks and (measures is None or figure.measure in measures):
            table.add(**{column.key: getattr(figure, column.key) for column in table.columns})
    table.notes.append("Sources: benchmarks/peers.toml. Nothing here was measured by this project.")
    return table


def markdown(tables: Sequence[Table]) -> str:
    """Tables as Markdown."""
    lines = []
    for table in (t for t in tables if t.rows):
        rule = "|".join("---:" if column.align == "right" else "---" for column in table.columns)
        lines += ["| " + " | ".join(column.heading for column in table.columns) + " |", f"|{rule}|"]
        for row in table.rows:
            lines.append("| " + " | ".join(column.text(row.get(column.key)) for column in table.columns) + " |")
        lines += ["", *table.notes, ""]
    return "\n".join(lines).rstrip()


def show(rows: Sequence[Row] | Sequence[MemoryRow], tables: Callable[[], list[Table]], form: str) -> str:
    if form == "json":
        return json.dumps([dataclasses.asdict(row) for row in rows], indent=2)
    if form == "markdown":
        return f"{markdown(tables())}\n\n{toolchain.version()}"
    report = Report("networks", {"compiler": toolchain.version()}, [t for t in tables() if t.rows])
    return str(report)


# -- command ----------------------------------------------------------------------------------------------------------


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", help=f"repeatable; default: all of {', '.join(NETWORKS)}")
    parser.add_argument("--core", action="append", help=f"repeatable; default: {', '.join(CORES)}")
    parser.add_argument("--numerics", action="append", help=f"of {', '.join(NUMERICS)}; repeatable; default: fixed8")
    parser.add_argument("--format", choices=("text", "json", "markdown"), default="text")
    parser.add_argument(
        "--memory",
        action="store_true",
        help=f"plans instead of runs: arenas map by map, streaming, mixed; default networks: {', '.join(MEMORY_NETWORKS)}",
    )
    return parser.parse_args(arguments)


def _plans(options: argparse.Namespace, networks: Sequence[Network]) -> str:
    if options.core:
        raise errors.UsageError("--memory plans without a core", fix="leave out --core")
    rows = []
    for network in networks:
        model = network.build()
        for numerics in options.numerics or ("fixed16", "fixed8"):
            print(f"{network.name}: planning in {numerics}", file=sys.stderr)
            rows.append(measure_memory(network.name, numerics, model.lowered(numerics)))
    return show(rows, lambda: memory_tables(rows), options.format)


def _counts(options: argparse.Namespace, networks: Sequence[Network], cores: Sequence[str]) -> tuple[str, int]:
    """The rows that could be measured, and the exit code of the first one that could not."""
    rows, code = [], 0
    for network in networks:
        model = network.build()
        for numerics in options.numerics or ("fixed8",):
            for core in cores:
                print(f"{network.name}: counting {numerics} on {core}", file=sys.stderr)
                try:
                    rows.append(measure(network, model, core, numerics))
                except errors.MissingPackageError:
                    raise
                except errors.BdnetError as error:
                    print(f"error: {error}", file=sys.stderr)
                    code = code or error.exit_code
    return show(rows, lambda: count_tables(rows), options.format), code


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; the exit codes are those of the command line."""
    options = _arguments(arguments)
    code = 0
    try:
        networks = [find(name) for name in options.network or (MEMORY_NETWORKS if options.memory else NETWORKS)]
        for numerics in options.numerics or ():
            if numerics not in NUMERICS:
                raise errors.unknown_name("numerics", numerics, NUMERICS)
        cores = [targets.core(name).name for name in options.core or CORES]
        if options.memory:
            text = _plans(options, networks)
        else:
            text, code = _counts(options, networks, cores)
    except errors.BdnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
