"""How much memory a network's feature maps need under different plans."""

from __future__ import annotations

from dataclasses import dataclass

from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.lowering import Lowered
from bdnet_deploy.plan import Plan
from bdnet_deploy.plan.memory import other_mixes


@dataclass(frozen=True)
class MemoryRow:
    """Bytes of maps and scratch. ``input`` and ``output`` are buffers beside them, except under ``pushed``.

    Attributes:
        map_by_map: every map whole.
        streaming: every step row by row; None where that is not possible.
        smallest: the smallest mix of both that the planner finds.
        smallest_plan: which steps stream in it.
        pushed: the smallest mix whose input comes row by row, its ring included; None where that is not possible.
        lower_bound: what no placement of the smallest mix's maps can beat.
    """

    network: str
    numerics: str
    map_by_map: int
    streaming: int | None
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
    plan = lowered.replanned().plan
    mixes = other_mixes(plan)
    smallest, streaming = mixes["smallest"], mixes.get("row by row")
    source, result = lowered.graph.inputs[0].type, lowered.graph.outputs[0].type
    return MemoryRow(
        network,
        numerics,
        map_by_map=needed(plan),
        streaming=streaming.tensor_bytes + plan.scratch_bytes if streaming else None,
        smallest=smallest.tensor_bytes + plan.scratch_bytes,
        smallest_plan=smallest.execution,
        pushed=_pushed(lowered),
        lower_bound=max(smallest.live) + plan.scratch_bytes,
        input=source.size * source.dtype.numpy.itemsize,
        output=result.size * result.dtype.numpy.itemsize,
    )


def _pushed(lowered: Lowered) -> int | None:
    try:
        return needed(lowered.replanned(push_rows=True).plan)
    except UnsupportedError:
        return None
