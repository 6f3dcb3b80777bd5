"""Row by row: in which order the steps of a streamed segment make their rows, and how many rows a ring must hold.

The runtime sweeps over the segment: in every sweep each step, in order, makes one call if the rows that it reads are
there. Nothing pushes back, so a step's behaviour does not depend on the steps behind it, and one simulation gives the
rings of every segment that begins with its first step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from bdnet_deploy.plan.plan import PlanStep, PlanTensor


@dataclass(frozen=True, eq=False)
class Schedule:
    """``rows``: tensor -> rows that a ring must hold so that no row is overwritten before its last reader.

    ``calls``: kernel calls of all steps.
    """

    rows: dict[PlanTensor, int]
    calls: int


def producers(steps: Sequence[PlanStep]) -> dict[PlanTensor, int]:
    """Tensor -> index of the step that makes it."""
    return {tensor: i for i, step in enumerate(steps) for tensor in step.outputs}


def rows_over(step: PlanStep) -> int:
    """Rows over which the calls of a step go: of its output, or of its input when it accumulates."""
    return step.inputs[0].height if step.kind == "accumulate" else step.out_shape[0]


def rows_needed(step: PlanStep, operand: int, end: int) -> int:
    """Rows of an operand that the calls up to row ``end`` read: all below the result."""
    if step.kind == "whole":
        return step.inputs[operand].height
    if operand == 1:
        return min(end, step.inputs[1].height)  # a vector for all pixels has one row
    if step.kernel is None or step.kind == "accumulate":
        return end
    reach = (end - 1) * step.strides[0] + (step.window[0] - 1) * step.dilation[0] - step.pad_top_left[0] + 1
    return min(max(reach, 1), step.inputs[0].height)  # padding that replicates reads row 0 above the map


def first_kept(step: PlanStep, operand: int, made: int) -> int:
    """The first row of an operand that the calls from row ``made`` on still read."""
    if made >= rows_over(step):
        return step.inputs[operand].height
    if step.kind == "whole":
        return 0
    if operand == 1:
        return min(made, step.inputs[1].height - 1)
    if step.kernel is None or step.kind == "accumulate":
        return made
    first = max(made * step.strides[0] - step.pad_top_left[0], 0)
    return min(first, step.inputs[operand].height - 1)  # padding that replicates reads the last row below the map


def simulate(steps: Sequence[PlanStep], pushed: PlanTensor | None = None) -> Schedule:
    """Run the sweeps of a segment.

    Only what can have become ready is looked at: a step that made a call in the sweep before, or one that got rows in
    this sweep. All others are as they were when they were not ready.

    Args:
        steps: of the segment; what they read and none of them makes is there as a whole.
        pushed: an input whose rows come one at a time, each when nothing can move without it.
    """
    maker = producers(steps)
    readers: dict[PlanTensor, list[tuple[int, int]]] = {}
    for i, step in enumerate(steps):
        for k, tensor in enumerate(step.inputs):
            readers.setdefault(tensor, []).append((i, k))
    made = [0] * len(steps)
    there = dict.fromkeys((*maker, *([pushed] if pushed else [])), 0)
    rows: dict[PlanTensor, int] = dict.fromkeys(there, 1)
    awaited = [[(k, tensor) for k, tensor in enumerate(step.inputs) if tensor in there] for step in steps]
    sweep = list(range(len(steps)))
    queued = [True] * len(steps)
    calls = 0

    def arrive(tensor: PlanTensor, count: int) -> None:
        there[tensor] = count
        kept = count
        for j, k in readers.get(tensor, []):
            kept = min(kept, first_kept(steps[j], k, made[j]))
            if not queued[j]:
                queued[j] = True
                heappush(sweep, j)
        rows[tensor] = max(rows[tensor], count - kept)

    unfinished = len(steps)
    while unfinished:
        movers: list[int] = []
        while sweep:
            i = heappop(sweep)
            step, over = steps[i], rows_over(steps[i])
            end = min(made[i] + step.rows_per_call, over)
            if made[i] == over or any(there[tensor] < rows_needed(step, k, end) for k, tensor in awaited[i]):
                queued[i] = False
                continue
            calls += 1
            made[i] = end
            unfinished -= end == over
            movers.append(i)
            for tensor in step.outputs:
                arrive(tensor, (tensor.height if end == over else 0) if step.kind == "accumulate" else end)
            # Readers come later in the order, so nothing wakes this step again in this sweep.
        sweep = movers
        if pushed is not None and not movers:
            arrive(pushed, there[pushed] + 1)
    return Schedule(rows, calls)
