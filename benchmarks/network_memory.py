"""How much memory a network's feature maps need under different plans."""

from __future__ import annotations

from dataclasses import dataclass

from bdnet_deploy.errors import DoesNotFitError, UnsupportedError
from bdnet_deploy.lowering import Lowered
from bdnet_deploy.plan import Plan, make_plan


@dataclass(frozen=True)
class MemoryRow:
    """Bytes of maps and scratch. ``input`` and ``output`` are buffers beside them, except under ``pushed``.

    Attributes:
        map_by_map: every map whole.
        streaming: every step row by row.
        smallest: the smallest mix of both that the planner finds.
        smallest_plan: which steps stream in it.
        pushed: the smallest mix whose input comes row by row, its ring included; None where that is not possible.
        lower_bound: what no placement of the smallest mix's maps can beat.
    """

    network: str
    numerics: str
    map_by_map: int
    streaming: int
    smallest: int
    smallest_plan: str
    pushed: int | None
    lower_bound: int
    input: int
    output: int


def needed(plan: Plan) -> int:
    """Bytes of maps and scratch, without the context."""
    return plan.tensor_bytes + plan.scratch_bytes


def measure_memory(network: str, numerics: str, lowered: Lowered) -> MemoryRow:
    """All plans of one network."""
    whole = lowered.replanned().plan
    best = smallest(lowered)
    source, result = lowered.graph.inputs[0].type, lowered.graph.outputs[0].type
    return MemoryRow(
        network,
        numerics,
        map_by_map=needed(whole),
        streaming=needed(make_plan(lowered.graph, cut=len(whole.steps))),
        smallest=needed(best),
        smallest_plan=best.execution,
        pushed=_pushed(lowered),
        lower_bound=best.lower_bound,
        input=source.size * source.dtype.numpy.itemsize,
        output=result.size * result.dtype.numpy.itemsize,
    )


def smallest(lowered: Lowered) -> Plan:
    """The plan of the least memory, found by asking the planner for less until it refuses."""
    best = lowered.replanned().plan
    refused = 0
    while needed(best) - refused > 1:
        ram = (refused + needed(best)) // 2
        try:
            best = lowered.replanned(ram=ram).plan
        except DoesNotFitError:
            refused = ram
    return best


def _pushed(lowered: Lowered) -> int | None:
    try:
        return needed(lowered.replanned(push_rows=True).plan)
    except UnsupportedError:
        return None
