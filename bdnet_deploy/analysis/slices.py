"""How long the slices of an inference are: what a watchdog or a scheduler must allow for one ``bd_advance``."""

from __future__ import annotations

from bdnet_deploy.emulator import RunResult
from bdnet_deploy.lowering import Lowered
from bdnet_deploy.report import Column, Table, Value


def slice_facts(lowered: Lowered, result: RunResult, hertz: int) -> dict[str, Value]:
    """The number of slices and the longest one.

    Args:
        result: of an inference in slices: regions are slices, labels their steps.
        hertz: the clock that milliseconds are for.
    """
    longest = max(result.by_region, key=lambda n: (result.by_region[n].instructions, -n))
    count = result.by_region[longest]
    step = result.labels.get(longest)
    return {
        "slices": len(result.by_region),
        "longest_slice_instructions": count.instructions,
        "longest_slice_ms_estimated": None if count.cycles is None else round(count.cycles / hertz * 1e3, 3),
        "longest_slice_step": None if step is None else f"{step} {lowered.plan.steps[step].name}",
    }


def slices_table(lowered: Lowered, result: RunResult, hertz: int) -> Table:
    """Slices by the step that they call."""
    table = Table(
        "slices",
        [
            Column("step", align="right"),
            Column("layer"),
            Column("slices", align="right", format=","),
            Column("longest", "longest, instructions (counted)", align="right", format=","),
            Column("longest_cycles", "longest, cycles (estimated)", align="right", format=",.0f"),
            Column("longest_ms", "longest, ms (estimated)", align="right", format=".3f"),
        ],
    )
    by_step: dict[int | None, list[int]] = {}
    for number in result.by_region:
        by_step.setdefault(result.labels.get(number), []).append(number)
    for step, numbers in sorted(by_step.items(), key=lambda item: (item[0] is None, item[0])):
        longest = max((result.by_region[n] for n in numbers), key=lambda region: region.instructions)
        table.add(
            step=step,
            layer="(no kernel call)" if step is None else lowered.plan.steps[step].name,
            slices=len(numbers),
            longest=longest.instructions,
            longest_cycles=longest.cycles,
            longest_ms=None if longest.cycles is None else longest.cycles / hertz * 1e3,
        )
    table.notes.append("A slice is one bd_advance: one kernel call, and looking for it.")
    return table
