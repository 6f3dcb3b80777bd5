"""``profile``: instructions counted per layer on an emulated core, time estimated from them, memory and stack bound from the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.analysis.macs import node_macs
from bdnet_deploy.analysis.memory import mixes_table, timeline_table
from bdnet_deploy.analysis.slices import slice_facts, slices_table
from bdnet_deploy.analysis.stack import START, bound_of, stack_table
from bdnet_deploy.backends import default_numerics
from bdnet_deploy.emulated import EmulatedModel
from bdnet_deploy.emulator import TIMEOUT_S, RunResult
from bdnet_deploy.firmware import Memory, core_of, memory_of, target
from bdnet_deploy.lowering import Lowered
from bdnet_deploy.passes import random_inputs
from bdnet_deploy.plan import PlanStep
from bdnet_deploy.plan.memory import smallest_bound
from bdnet_deploy.report import Column, Report, Table, Value
from bdnet_deploy.targets import Board
from bdnet_deploy.toolchain import STACK_BYTES, version
from bdnet_deploy.toolchain.stack import StackReport

if TYPE_CHECKING:
    from bdnet_deploy.model import Model, PathLike
    from bdnet_deploy.samples import Samples

#: Kept free for the context and the harness's own variables.
_HARNESS_BYTES = 2048
#: Where no board gives a clock, milliseconds are for this one.
NOMINAL_HZ = 100_000_000


def profile(
    model: Model,
    name: str,
    *,
    numerics: str | None = None,
    calibrate: PathLike | Samples | np.ndarray | None = None,
    ram: int | None = None,
    cache: int | None = None,
    push_rows: bool = False,
    slices: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> Report:
    """See :meth:`bdnet_deploy.model.Model.profile`. ``name``: a core or a board."""
    numerics = numerics or default_numerics(name)
    lowered = model.lowered(numerics, calibrate)
    sets = core_of(target(name)).sets
    lowered = lowered.replanned(ram=ram or _room(lowered, name, push_rows), cache=cache, push_rows=push_rows, sets=sets)
    x = random_inputs(model.graph, samples=1)[0] if calibrate is None else next(model.samples(calibrate).batches(1))
    with EmulatedModel(lowered, name) as emulated:
        _, result = emulated.count(lowered.encode(x)[0], timeout_s=timeout_s)
        memory = memory_of(emulated.image)
        stack = bound_of(emulated)
        board, core = emulated.board, emulated.core
        digest = emulated.image.sha256
    hertz = board.clock_hz if board and board.clock_hz else NOMINAL_HZ
    clock = f"{hertz / 1e6:g} MHz"
    layers = _layers(lowered, result)
    facts: dict[str, Value] = {
        "model": model.name,
        "target": name,
        "numerics": numerics,
        "execution": lowered.plan.execution,
        "instructions": result.instructions,
        "cycles_estimated": None if result.cycles is None else round(result.cycles),
        "ms_estimated": None if result.cycles is None else round(result.cycles / hertz * 1e3, 3),
        "clock": clock if board else f"{clock} (nominal: no board named)",
        "timing_validation": core.validation.status,
        "flash_bytes": memory.flash,
        "ram_bytes": memory.ram,
        "arena_bytes": memory.arena,
        "stack_bytes": result.stack_high_water,
        "stack_bound_bytes": stack.bounds[START].bytes if isinstance(stack, StackReport) else None,
    }
    tables = [layers, _functions(result), _memory(memory, result, lowered, stack)]
    tables += [mixes_table(lowered.plan), timeline_table(lowered.plan)]
    if isinstance(stack, StackReport):
        tables.append(stack_table(stack))
    if slices:
        with EmulatedModel(lowered, name, slices=True) as emulated:
            _, sliced = emulated.count(lowered.encode(x)[0])
        facts.update(slice_facts(lowered, sliced, hertz))
        tables.insert(1, slices_table(lowered, sliced, hertz))
    if numerics == "float" and not core.is_linux and not core.has_fpu:
        layers.notes.append("Float on a core without FPU calls soft-float routines: counts depend on the input.")
    if lowered.timing_only:
        layers.notes.append(
            "Ranges are from random inputs: memory holds, the outputs mean nothing. Ranges decide which loops the epilogues"
            " take, so instructions differ by up to some 15 % from those with real ones: --calibrate."
        )
    made = {
        "model_sha256": model.source_sha256,
        "image_sha256": digest,
        "compiler": version(),
        "compiler_flags": "-O2",
        "emulator": "unicorn",
        "numerics": numerics,
    }
    return Report("profile", facts, tables, provenance={k: v for k, v in made.items() if v is not None})


def _room(lowered: Lowered, name: str, push_rows: bool) -> int | None:
    """RAM of a board that is left for feature maps; None for a core without a board, whose memory is nominal."""
    where = target(name)
    if not isinstance(where, Board):
        return None
    largest = max(memory.length for memory in where.memories if memory.kind == "ram")
    source, result = lowered.graph.inputs[0].type, lowered.graph.outputs[0].type
    rows = source.shape[1] if push_rows else 1
    buffers = source.size * source.dtype.numpy.itemsize // rows + result.size * result.dtype.numpy.itemsize
    return largest - STACK_BYTES - buffers - _HARNESS_BYTES


def _layers(lowered: Lowered, result: RunResult) -> Table:
    table = Table(
        "layers",
        [
            Column("step", align="right"),
            Column("layer"),
            Column("kernels"),
            Column("macs", "MACs", align="right", format=","),
            Column("instructions", "instructions (counted)", align="right", format=","),
            Column("share", unit="%", align="right", format=".1f"),
            Column("per_mac", "per MAC", align="right", format=".3f"),
            Column("cycles_estimated", "cycles (estimated)", align="right", format=",.0f"),
        ],
    )
    total = result.instructions or 1
    for i, step in enumerate(lowered.plan.steps):
        region = result.by_region.get(i)
        count = region.instructions if region else 0
        macs = sum(node_macs(node) for node in step.nodes)
        table.add(
            step=i,
            layer=step.name,
            kernels=kernels_of(step),
            macs=macs or None,
            instructions=count,
            share=100 * count / total,
            per_mac=count / macs if macs else None,
            cycles_estimated=region.cycles if region else None,
        )
    overhead = result.overhead
    count = overhead.instructions if overhead else 0
    table.add(
        layer="(runtime and harness)",
        instructions=count,
        share=100 * count / total,
        cycles_estimated=overhead.cycles if overhead else None,
    )
    return table


def kernels_of(step: PlanStep) -> str:
    return " + ".join(k for k in (step.kernel, step.epilogue_kernel) if k)


def _functions(result: RunResult) -> Table:
    table = Table(
        "functions",
        [
            Column("function"),
            Column("instructions", align="right", format=","),
            Column("share", unit="%", align="right", format=".1f"),
        ],
    )
    total = result.instructions or 1
    for name, count in sorted(result.by_function.items(), key=lambda item: (-item[1], item[0])):
        table.add(function=name, instructions=count, share=100 * count / total)
    return table


def _memory(memory: Memory, result: RunResult, lowered: Lowered, stack: StackReport | str) -> Table:
    table = Table("memory", [Column("what"), Column("bytes", align="right", format=","), Column("meaning")])
    table.add(what="flash", bytes=memory.flash, meaning="the whole image: model, runtime, harness")
    table.add(what="  model", bytes=memory.model, meaning="the .bdn bytes: weights, plan, names, test vector")
    table.add(what="  code", bytes=memory.code, meaning="everything else")
    table.add(what="RAM", bytes=memory.ram, meaning="arena, input and output buffers, harness; without stack")
    table.add(what="  arena", bytes=memory.arena, meaning="context, feature maps and scratch")
    table.add(
        what="  lower bound", bytes=lowered.plan.lower_bound, meaning="maps and scratch of the largest unit of this mix"
    )
    table.add(what="  best of all mixes", bytes=smallest_bound(lowered.plan), meaning="the least lower bound")
    table.add(what="stack", bytes=result.stack_high_water, meaning="used in this run: high-water mark")
    if isinstance(stack, StackReport):
        worst = stack.bounds[START].bytes
        table.add(what="  at most", bytes=worst, meaning="worst case from the linked image, without exceptions")
    else:
        table.notes.append(f"Worst-case stack unknown: {stack}.")
    return table
