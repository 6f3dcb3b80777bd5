"""The memory of a plan: which mix of whole steps and streamed segments it runs as, and where its tensors lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bdnet_deploy.bdn_format import align
from bdnet_deploy.errors import DoesNotFitError, UnsupportedError, UsageError
from bdnet_deploy.plan import placement
from bdnet_deploy.plan.partition import Partitions
from bdnet_deploy.plan.plan import Moment, Plan, PlanTensor, describe_units
from bdnet_deploy.plan.units import Costs, Unit

#: Segments are numbered from 1; the format has a byte for the number.
_SEGMENT_NUMBERS = 255


@dataclass(frozen=True, eq=False)
class Layout:
    """One way to lay a plan out.

    Attributes:
        units: the partition of the steps.
        rows: held of every arena tensor, and of an input that is pushed.
        offsets: of the same, in bytes.
        tensor_bytes: in all.
        live: bytes that are alive while each unit runs; ``tensor_bytes`` cannot be less than the most.
        in_place: whole steps whose trunk takes its residual's place.
    """

    units: tuple[Unit, ...]
    rows: dict[PlanTensor, int]
    offsets: dict[PlanTensor, int]
    tensor_bytes: int
    live: tuple[int, ...]
    in_place: int

    @property
    def streamed(self) -> int:
        """How many steps run row by row."""
        return sum(unit.end - unit.first for unit in self.units if unit.streamed)

    @property
    def execution(self) -> str:
        """How the steps run, in words."""
        return describe_units([(u.first, u.end, u.streamed) for u in self.units], self.in_place)


def choose_layout(
    plan: Plan,
    *,
    ram: int | None = None,
    cache: int | None = None,
    push_rows: bool = False,
    segments: Sequence[tuple[int, int]] | None = None,
    cut: int | None = None,
) -> None:
    """Lay ``plan`` out in place.

    Without a limit nothing streams: whole maps need the fewest calls.

    Args:
        ram: bytes for tensors and scratch, a hard limit. The mix with the fewest steps row by row that fits.
        cache: bytes, a wish: what a unit reads and writes (maps in the arena and in the caller's buffers, rings, scratch;
            no weights) stays within it, with the fewest steps row by row. Where that cannot be, the units exceed it by
            as little as possible in sum. Without ``ram`` the arena is not larger than map by map.
        push_rows: the first input comes row by row, so that no buffer holds it; the steps that read it stream. Without
            another limit the smallest arena.
        segments: the streamed segments themselves, as (first step, step behind the last); all other steps run whole.
        cut: short for one segment of the first ``cut`` steps, or of all that read a pushed input if those are more.

    Raises:
        DoesNotFitError: no layout fits into ``ram``.
        UnsupportedError: ``push_rows``, but the input is too low or one of several.
        UsageError: ``segments`` overlap or leave the plan, or do not hold all readers of a pushed input.
    """
    costs = _costs(plan, push_rows)
    if cut is not None:
        end = max(cut, costs.least)
        segments = [(0, end)] if end else []
    if segments is not None:
        _apply(plan, lay_out(costs, _partition(costs, segments)))
    else:
        _apply(plan, _search(plan, costs, ram, cache))


def _costs(plan: Plan, push_rows: bool) -> Costs:
    if not push_rows:
        return Costs(plan.steps)
    pushed = next(t for t in plan.tensors if t.place == "input")
    if len(plan.graph.inputs) != 1:
        raise UnsupportedError("only a model of one input can take it row by row", where=plan.graph.name)
    costs = Costs(plan.steps, pushed)
    if costs.schedule(0, costs.least).rows[pushed] >= pushed.height:
        raise UnsupportedError(
            f"an input of {pushed.height} rows cannot be pushed row by row: its first layer needs all of them",
            where=plan.graph.name,
        )
    return costs


def _partition(costs: Costs, segments: Sequence[tuple[int, int]]) -> list[Unit]:
    """The units of a plan whose streamed segments are given."""
    units: list[Unit] = []
    at = 0
    for first, end in [*segments, (len(costs.steps), len(costs.steps))]:
        if not at <= first <= end <= len(costs.steps):
            raise UsageError(
                f"segments {list(segments)} do not divide {len(costs.steps)} steps",
                fix="ascending pairs (first step, step behind the last) that do not overlap",
            )
        units += [Unit(i, i + 1) for i in range(at, first)]
        units += [Unit(first, end, True)] if end > first else []
        at = end
    for unit in units:
        if unit.streamed and unit.end not in costs.streamed(unit.first):
            raise UsageError(f"steps {unit.first} to {unit.end - 1} cannot be one segment")
    if costs.least and not (units[0].streamed and units[0].end >= costs.least):
        raise UsageError(f"a pushed input is read by the first {costs.least} steps, which must be in the first segment")
    return units


def _search(plan: Plan, costs: Costs, ram: int | None, cache: int | None) -> Layout:
    """The layout that fits ``ram`` and comes nearest to ``cache``, with the fewest steps row by row."""
    whole = None if costs.least else lay_out(costs, [Unit(i, i + 1) for i in range(len(costs.steps))])
    if whole is not None and cache is None and (ram is None or whole.tensor_bytes + plan.scratch_bytes <= ram):
        return whole
    room = None if ram is None else ram - plan.scratch_bytes
    usual = None if whole is None else max(whole.live)
    if cache is None:
        partitions = Partitions(costs, max(single_segment_peak(costs), room or 0))
        peak = partitions.smallest_peak() if room is None else room
    else:
        partitions = Partitions(costs, usual if room is None else room)
        peak = (partitions.largest if usual is None else usual) if room is None else room
    assert peak is not None  # a single segment is within the limit
    while (chosen := partitions.best(peak, cache)) is not None:
        layout = lay_out(costs, chosen)
        if room is None or layout.tensor_bytes <= room:
            return layout
        peak = max(layout.live) - 1  # the placement is not tight: a mix that needs less
    layout = smallest_layout(costs)
    needed = layout.tensor_bytes + plan.scratch_bytes
    raise DoesNotFitError(
        f"the feature maps need {needed} bytes of RAM at least, not {ram}",
        where=plan.graph.name,
        why=f"the smallest mix is {layout.execution}"
        + ("" if whole is None else f"; map by map alone needs {whole.tensor_bytes + plan.scratch_bytes}"),
        fix="use fixed8 numerics, a smaller input or narrower layers",
    )


def single_segment_peak(costs: Costs) -> int:
    """What the best mix needs whose only segment, if any, begins with the first step: a bound for the search."""
    wholes = [costs.whole(i).live for i in range(len(costs.steps))]
    behind = [0]
    for live in reversed(wholes):
        behind.append(max(behind[-1], live))
    behind.reverse()
    peaks = [max(cost.live, behind[end]) for end, cost in costs.streamed(0).items()]
    return min(peaks if costs.least else [*peaks, behind[0]])


def smallest_layout(costs: Costs) -> Layout:
    """Of all mixes the one whose largest unit needs the least; of these the one with the fewest steps row by row."""
    partitions = Partitions(costs, single_segment_peak(costs))
    peak = partitions.smallest_peak()
    chosen = None if peak is None else partitions.best(peak)
    assert chosen is not None  # a single segment is within the limit
    return lay_out(costs, chosen)


def other_mixes(plan: Plan) -> dict[str, Layout]:
    """What ``plan`` could run as instead, by name; mixes that cannot take its pushed input are left out.

    ``smallest``: the largest unit of no mix needs less than ``max(live)`` of this one. ``map by map``: every step whole.
    ``row by row``: all steps in one segment.
    """
    count = len(plan.steps)
    costs = Costs(plan.steps, next((t for t in plan.tensors if t.place == "input"), None) if plan.pushed else None)
    found = {"smallest": smallest_layout(costs)}
    if not plan.pushed:
        found["map by map"] = lay_out(costs, [Unit(i, i + 1) for i in range(count)])
    if count in costs.streamed(0):
        found["row by row"] = lay_out(costs, [Unit(0, count, True)])
    return found


def smallest_bound(plan: Plan) -> int:
    """Bytes of tensors and scratch that ``plan``'s steps need at least, whatever mix they run as."""
    return max(other_mixes(plan)["smallest"].live, default=0) + plan.scratch_bytes


def lay_out(costs: Costs, units: Sequence[Unit]) -> Layout:
    """Rings for what is read in the segment that makes it, whole maps for the rest, each at its place."""
    moment = [n for n, unit in enumerate(units) for _ in range(unit.first, unit.end)]
    rows: dict[PlanTensor, int] = {}
    homes: dict[PlanTensor, PlanTensor] = {}
    spans: dict[PlanTensor, tuple[int, int]] = {}
    in_place = 0
    for tensor, made in costs.made.items():
        if tensor.place != "arena" and tensor is not costs.pushed:
            continue
        first, last = moment[max(made, 0)], moment[costs.last[tensor]]
        unit = units[first]
        rows[tensor] = tensor.height
        if unit.streamed and first == last:
            rows[tensor] = min(costs.schedule(unit.first, unit.end).rows[tensor], tensor.height)
        home = tensor
        residual = costs.in_place(made) if made >= 0 and not unit.streamed else None
        if residual is not None and tensor is costs.steps[made].trunk:
            home = homes[residual]
            in_place += 1
        homes[tensor] = home
        spans[home] = (min(spans.get(home, (first, last))[0], first), max(spans.get(home, (first, last))[1], last))
    sizes = {home: rows[home] * home.row_stride for home in spans}
    offsets = placement.place(spans, sizes)
    return Layout(
        units=tuple(units),
        rows=rows,
        offsets={tensor: offsets[home] for tensor, home in homes.items()},
        tensor_bytes=placement.total(offsets, sizes),
        live=tuple(
            sum(align(sizes[t]) for t, (first, last) in spans.items() if first <= n <= last) for n in range(len(units))
        ),
        in_place=in_place,
    )


def _apply(plan: Plan, layout: Layout) -> None:
    for tensor, offset in layout.offsets.items():
        tensor.rows_held = layout.rows[tensor]
        if tensor.place == "input":
            tensor.ring = offset
        else:
            tensor.offset = offset
    number = 0
    for unit in layout.units:
        number += unit.streamed
        for step in plan.steps[unit.first : unit.end]:
            step.segment = (number - 1) % _SEGMENT_NUMBERS + 1 if unit.streamed else 0
    plan.tensor_bytes = layout.tensor_bytes
    plan.lower_bound = max(layout.live, default=0) + plan.scratch_bytes
    plan.timeline = [
        Moment(
            unit.first, unit.end, unit.streamed, tuple(step.name for step in plan.steps[unit.first : unit.end]), live
        )
        for unit, live in zip(layout.units, layout.live, strict=True)
    ]
