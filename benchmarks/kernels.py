"""What one binary layer costs on an emulated core: executed instructions of the whole layer, in the image that the project builds.

    python benchmarks/kernels.py [--core aarch64] [--layer pw64x128_28] [--variant picked] [--format text|json|markdown]

A layer is its whole map with all borders; padded taps count as multiplications (MACs). Counted is everything that its step
executes, call and epilogue included, and every byte of the output is compared with the reference in ``bdnet_deploy.graph``.
Accumulators of depth-wise layers on Cortex-M are those that the kernel leaves for an epilogue inside of a network; of these rows
it is all functions of the kernel's source file, without the epilogue and without the runtime's call.
``picked`` is the kernel and the packing of weights that the plan chooses for the core, ``generic`` plain C in the canonical
packing. Cycles are *estimated* by the core's timing table, where it has one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent))

from kernel_layers import EPILOGUE_SHAPE, EPILOGUES, LAYERS, Layer, build, build_epilogue

from bdnet_deploy import errors, targets
from bdnet_deploy._toml import read_toml
from bdnet_deploy.emulated import EmulatedModel
from bdnet_deploy.firmware import runtime_includes, runtime_sources
from bdnet_deploy.graph import evaluate
from bdnet_deploy.plan.packings.base import has_variant
from bdnet_deploy.plan.variants import variants
from bdnet_deploy.toolchain import compile_objects, zig

#: Names on the command line -> the core that stands for them.
CORES = {
    "cortex-m0plus": "cortex-m0plus",
    "cortex-m4": "cortex-m4",
    "cortex-m33": "cortex-m33",
    "cortex-m55": "cortex-m55",
    "aarch64": "cortex-a72",
    "armv7": "cortex-a7",
}
VARIANTS = ("picked", "generic")
PEERS = Path(__file__).resolve().with_name("kernel_peers.toml")


@dataclass(frozen=True)
class Row:
    """One line: a layer with one of its outputs on one core, by one choice of kernels."""

    layer: str
    output: str
    core: str
    variant: str
    kernel: str
    instructions: int
    macs: int
    per_mac: float
    cycles_per_mac: float | None
    equal: bool


def measure(layer: Layer | str, output: str, name: str, variant: str) -> Row:
    """Count one layer, or one of the epilogues; of these ``macs`` counts elements.

    Raises:
        BdnetError: there is no such core, or the image cannot be built.
    """
    core = targets.core(CORES[name])
    if variant == "generic":
        core = dataclasses.replace(core, sets=())
    case = build_epilogue(layer, core.sets) if isinstance(layer, str) else build(layer, output, core.sets)
    units = int(np.prod(EPILOGUE_SHAPE)) if isinstance(layer, str) else layer.macs
    graph, plan = case.lowered.graph, case.lowered.plan
    expected = evaluate(graph, [case.x[None]])[graph.outputs[0].name]
    if case.counted is not None:
        expected = (case.counted - expected) // 2
    with EmulatedModel(case.lowered, core) as model:
        found, result = model.count(case.x)
    region = result.by_region[case.step]
    step = plan.steps[case.step]
    instructions, cycles = region.instructions, region.cycles
    names = [k for k in (step.kernel, step.epilogue_kernel) if k]
    if not isinstance(layer, str) and layer.alone(output, core.sets):
        functions, names, cycles = kernel_functions(names[0], core), names[:1], None
        instructions = sum(n for name, n in result.by_function.items() if name in functions)
    return Row(
        layer=layer if isinstance(layer, str) else layer.name,
        output=output,
        core=name,
        variant=variant,
        kernel=" + ".join(names),
        instructions=instructions,
        macs=units,
        per_mac=instructions / units,
        cycles_per_mac=None if cycles is None else cycles / units,
        equal=bool(np.array_equal(found, expected[0])),
    )


def kernel_functions(kernel: str, core: targets.Core) -> set[str]:
    """Names of all functions in the object that holds a kernel's best implementation for a core."""
    elffile = errors.require("elftools.elf.elffile", extra="emulate")
    best = [f"{kernel}_on_{name}" for name in variants().get(kernel, ()) if name in core.sets]
    sources = runtime_sources(core.sets)
    for path in compile_objects(sources, core, includes=runtime_includes()):
        with path.open("rb") as file:
            symbols = list(elffile.ELFFile(file).get_section_by_name(".symtab").iter_symbols())
        if any(s.name == [*best, kernel][0] and s["st_shndx"] != "SHN_UNDEF" for s in symbols):
            return {s.name for s in symbols if s["st_info"]["type"] == "STT_FUNC"}
    return set()


def peers(core: str, layer: str, output: str) -> Iterator[dict[str, Any]]:
    """Counts of other projects' kernels for that layer or the nearest that was counted, from ``kernel_peers.toml``."""
    for figure in read_toml(PEERS)["figure"]:
        if figure["core"] == core and layer in figure["layers"] and output in figure["outputs"]:
            yield figure


def floors(core: str, layer: str) -> Iterator[dict[str, Any]]:
    """What the instruction set leaves at the least, with the argument."""
    for floor in read_toml(PEERS).get("floor", ()):
        if floor["core"] == core and layer in floor["layers"]:
            yield floor


def _cells(row: Row) -> list[str]:
    floor = next(floors(row.core, row.layer), None)
    found = [f"{p['per_mac']:g} {p['peer']}" for p in peers(row.core, row.layer, row.output)]
    return [
        row.core,
        row.layer,
        row.output,
        row.variant,
        row.kernel,
        f"{row.instructions:,}",
        f"{row.per_mac:.4f}",
        f"{floor['per_mac']:.4f}" if floor else "",
        "" if row.cycles_per_mac is None else f"{row.cycles_per_mac:.3f}",
        ", ".join(found),
        "yes" if row.equal else "NO",
    ]


HEADER = [
    "core",
    "layer",
    "output",
    "variant",
    "kernel",
    "instructions",
    "per MAC",
    "floor",
    "cycles (est.)",
    "peers",
    "equal",
]


def _text(rows: list[Row]) -> str:
    table = [HEADER, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(HEADER))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in table)


def _markdown(rows: list[Row]) -> str:
    lines = [HEADER, ["---"] * len(HEADER), *(_cells(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(argv: list[str] | None = None) -> int:
    """Prints the table; ends with 1 when a byte differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--core", choices=CORES, action="append", help="default: all that this version has")
    parser.add_argument("--layer", choices=[*(layer.name for layer in LAYERS), *EPILOGUES], action="append")
    parser.add_argument("--variant", choices=VARIANTS, action="append", help="default: picked")
    parser.add_argument("--format", choices=("text", "json", "markdown"), default="text")
    options = parser.parse_args(argv)
    known = targets.cores()
    rows = []
    for name in options.core or [n for n, core in CORES.items() if core in known]:
        for layer, output in [
            *((a, kind) for a in LAYERS for kind in a.kinds),
            *((e, "i16 + packed") for e in EPILOGUES),
        ]:
            if output == "counts" and not has_variant("bd_conv_bb_i16__lut7", targets.core(CORES[name]).sets):
                continue
            if not options.layer or (layer if isinstance(layer, str) else layer.name) in options.layer:
                rows += [measure(layer, output, name, variant) for variant in options.variant or ["picked"]]
    missing = [n for n, core in CORES.items() if core not in known and not options.core]
    if options.format == "json":
        print(
            json.dumps({"compiler": zig.version(), "rows": [asdict(r) for r in rows], "not_there": missing}, indent=1)
        )
    else:
        print(_text(rows) if options.format == "text" else _markdown(rows))
        print(f"\n{zig.version()}, {' '.join(zig.COMMON_FLAGS)}")
        if missing:
            print(f"not there yet: {', '.join(missing)}")
    return 0 if all(row.equal for row in rows) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except errors.BdnetError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
