"""Which steps run together: the units of a plan, and the bytes that each of all possible ones needs.

A unit is one step that runs over its whole map, or a segment of adjacent steps that runs row by row. A tensor that is
made and read inside one segment is a ring; one that crosses a border between units is a whole map. So the bytes of a
unit do not depend on how the other steps are divided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bdnet_deploy.bdn_format import align
from bdnet_deploy.plan.plan import PlanStep, PlanTensor
from bdnet_deploy.plan.schedule import Schedule, simulate

#: How far back, in steps, a segment's step finds the producer of its operand: ``bd_step.source`` is a byte.
MAX_SOURCE = 255


@dataclass(frozen=True, order=True)
class Unit:
    """Steps ``first`` .. ``end - 1``: one that runs whole, or a segment that runs row by row."""

    first: int
    end: int
    streamed: bool = False

    def __contains__(self, step: int) -> bool:
        return self.first <= step < self.end


@dataclass(frozen=True)
class Cost:
    """Bytes that a unit needs while it runs.

    Attributes:
        live: maps of the arena that are alive, used or not, and the unit's rings.
        touched: what the unit itself reads and writes: its maps in the arena and in the caller's buffers, its rings,
            its scratch. No weights.
    """

    live: int
    touched: int


def taken_by_trunk(step: PlanStep) -> PlanTensor | None:
    """The residual whose place a whole step's trunk can take, if nothing reads it any more: an epilogue reads an
    element of the residual and then writes its own."""
    trunk = step.trunk
    if trunk is None or trunk.place != "arena" or step.epilogue is None or step.epilogue.residual_mul is None:
        return None
    residual = step.inputs[1]
    if residual.place != "arena" or residual is step.inputs[0]:
        return None
    shapes = [(t.height, t.width, t.channels, t.dtype) for t in (residual, trunk)]
    return residual if shapes[0] == shapes[1] else None


class Costs:
    """The bytes of every possible unit of ``steps``.

    Args:
        pushed: the input that comes row by row; the first unit is then a segment with all its readers.
    """

    def __init__(self, steps: Sequence[PlanStep], pushed: PlanTensor | None = None) -> None:
        self.steps = steps
        self.pushed = pushed
        self.made: dict[PlanTensor, int] = {}
        self.last: dict[PlanTensor, int] = {}
        for i, step in enumerate(steps):
            for tensor in step.inputs:
                self.made.setdefault(tensor, -1)
                self.last[tensor] = i
            for tensor in step.outputs:
                self.made[tensor] = i
                self.last.setdefault(tensor, i)
        #: The first unit ends here or later.
        self.least = 0 if pushed is None else self.last[pushed] + 1
        self._schedules: dict[int, tuple[int, Schedule]] = {}

    def schedule(self, first: int, end: int) -> Schedule:
        """Rings of the segments that begin with step ``first`` and end at ``end`` or before."""
        known = self._schedules.get(first)
        if known is None or known[0] < end:
            pushed = self.pushed if first == 0 else None
            known = self._schedules[first] = end, simulate(self.steps[first:end], pushed)
        return known[1]

    def carried(self, first: int) -> int:
        """Bytes of the arena's maps that are alive when step ``first`` begins."""
        return sum(map_bytes(t) for t, made in self.made.items() if t.place == "arena" and made < first <= self.last[t])

    def in_place(self, index: int) -> PlanTensor | None:
        """The residual whose place the trunk of step ``index`` takes when the step runs whole."""
        residual = taken_by_trunk(self.steps[index])
        return residual if residual is not None and self.last[residual] == index else None

    def whole(self, index: int) -> Cost:
        """Of one step over its whole map."""
        step = self.steps[index]
        residual = self.in_place(index)
        saved = map_bytes(residual) if residual is not None else 0
        made = sum(map_bytes(t) for t in step.outputs if t.place == "arena")
        touched = sum(map_bytes(t) for t in {*step.inputs, *step.outputs}) + step.scratch
        return Cost(self.carried(index) + made - saved, touched - saved)

    def streamed(self, first: int, limit: int | None = None) -> dict[int, Cost]:
        """Of the segments that begin with step ``first``, by their ends.

        Args:
            limit: segments that need more bytes of the arena may be left out; the fewer are asked for, the less is
                simulated.
        """
        end = self._reach(first, limit)
        if end == first:
            return {}
        rows = self.schedule(first, end).rows
        whole = touched = scratch = rings = 0
        carried = self.carried(first)
        costs = {}
        dying: dict[int, list[PlanTensor]] = {}
        seen: set[PlanTensor] = set()
        for i in range(first, end):
            step = self.steps[i]
            scratch = max(scratch, step.scratch)
            for tensor in (*step.inputs, *step.outputs):
                if tensor in seen:
                    continue
                seen.add(tensor)
                if tensor is self.pushed:
                    rings += ring_bytes(tensor, rows)
                elif self.made[tensor] < first or tensor.place != "arena":
                    touched += map_bytes(tensor)
                else:  # a whole map, as long as its last reader is behind the segment
                    whole += map_bytes(tensor)
                    dying.setdefault(self.last[tensor], []).append(tensor)
            for tensor in dying.pop(i, []):
                whole -= map_bytes(tensor)
                rings += ring_bytes(tensor, rows)
            if first or i + 1 >= self.least:
                costs[i + 1] = Cost(carried + whole + rings, touched + whole + rings + scratch)
        return costs

    def _reach(self, first: int, limit: int | None) -> int:
        """Where the longest segment from ``first`` ends that the format can hold and whose rings of one row each, and
        the maps that it carries, are within ``limit``."""
        least = self.carried(first)
        end = first
        for i in range(first, len(self.steps)):
            inputs = self.steps[i].inputs
            if any(self.made[t] >= first and i - self.made[t] > MAX_SOURCE for t in inputs):
                break
            touched = {*inputs, *self.steps[i].outputs}
            least += sum(
                align(t.row_stride)
                for t in touched
                if t.place == "arena" and self.made[t] >= first and self.last[t] == i
            )
            if limit is not None and least > limit:
                break
            end = i + 1
        return end


def map_bytes(tensor: PlanTensor) -> int:
    """Of the whole map in the arena."""
    return align(tensor.height * tensor.row_stride)


def ring_bytes(tensor: PlanTensor, rows: dict[PlanTensor, int]) -> int:
    """Of a ring of the arena."""
    return align(min(rows[tensor], tensor.height) * tensor.row_stride)
