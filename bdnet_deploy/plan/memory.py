"""Where tensors lie in the arena, and which steps run row by row.

A plan is cut once: the steps before the cut run row by row through rings, the ones behind it map by map. Behind the
cut a trunk that has the shape of its residual takes the residual's place, when nothing reads that any more.
"""

from __future__ import annotations

from dataclasses import dataclass

from bdnet_deploy.bdn_format import align
from bdnet_deploy.errors import DoesNotFitError, UnsupportedError
from bdnet_deploy.plan.plan import Plan, PlanStep, PlanTensor
from bdnet_deploy.plan.schedule import Schedule, simulate


@dataclass(frozen=True, eq=False)
class Layout:
    """One way to lay a plan out: ``rows`` held and ``offset`` of every arena tensor, bytes in all."""

    cut: int
    rows: dict[PlanTensor, int]
    offsets: dict[PlanTensor, int]
    tensor_bytes: int
    lower_bound: int


def choose_layout(plan: Plan, *, ram: int | None = None, cut: int | None = None, push_rows: bool = False) -> None:
    """Lay ``plan`` out in place.

    Args:
        push_rows: the first input comes row by row, so that no buffer holds it; the layout streams then.
        ram: bytes for tensors and scratch. Without a limit nothing streams: whole maps need the fewest calls. With one
            the plan streams only if it must, and then as the smallest arena asks for.
        cut: stream the first ``cut`` steps, whatever they need.

    Raises:
        DoesNotFitError: no layout fits into ``ram``.
        UnsupportedError: ``push_rows``, but the input is too low or read by steps behind the cut.
    """
    pushed = next(t for t in plan.tensors if t.place == "input") if push_rows else None
    schedule = simulate(plan.steps, pushed)
    if pushed is not None:
        _check_pushed(plan, pushed, schedule)
    least = 1 if pushed is None else max(i for i, step in enumerate(plan.steps) if pushed in step.inputs) + 1
    if cut is not None:
        _apply(plan, lay_out(plan, max(cut, least) if pushed else cut, schedule))
        return
    whole = lay_out(plan, 0, schedule)
    needed = whole.tensor_bytes + plan.scratch_bytes
    if pushed is None and (ram is None or needed <= ram):
        _apply(plan, whole)
        return
    layouts = [lay_out(plan, k, schedule) for k in range(least, len(plan.steps) + 1)]
    best = min(layouts if pushed else [whole, *layouts], key=lambda layout: layout.tensor_bytes)
    if ram is not None and best.tensor_bytes + plan.scratch_bytes > ram:
        raise DoesNotFitError(
            f"the feature maps need {best.tensor_bytes + plan.scratch_bytes} bytes of RAM at least, not {ram}",
            where=plan.graph.name,
            why=f"the smallest mix streams the first {best.cut} steps"
            + ("" if pushed else f"; map by map they need {needed} bytes"),
            fix="use fixed8 numerics, a smaller input or narrower layers",
        )
    _apply(plan, best)


def _check_pushed(plan: Plan, tensor: PlanTensor, schedule: Schedule) -> None:
    if len(plan.graph.inputs) != 1:
        raise UnsupportedError("only a model of one input can take it row by row", where=plan.graph.name)
    if schedule.rows[tensor] >= tensor.height:
        raise UnsupportedError(
            f"an input of {tensor.height} rows cannot be pushed row by row: its first layer needs all of them",
            where=plan.graph.name,
        )


def lay_out(plan: Plan, cut: int, schedule: Schedule) -> Layout:
    """Rings for what only the first ``cut`` steps read, whole maps for the rest, each at its place."""
    steps = plan.steps
    pushed = next((t for t in schedule.rows if t.place == "input"), None)
    lives = _lifetimes(steps, cut, pushed)
    rows = {}
    for tensor in lives:
        inside = all(i < cut for i, step in enumerate(steps) if tensor in step.inputs or tensor in step.outputs)
        rows[tensor] = min(schedule.rows[tensor], tensor.height) if inside else tensor.height
    homes = _homes(steps, cut, lives)
    groups: dict[PlanTensor, list[PlanTensor]] = {}
    for tensor in lives:
        groups.setdefault(homes.get(tensor, tensor), []).append(tensor)
    spans = {
        home: (min(lives[t][0] for t in members), max(lives[t][1] for t in members)) for home, members in groups.items()
    }
    sizes = {home: rows[home] * home.row_stride for home in groups}
    offsets = _place(spans, sizes)
    total = align(max((offsets[home] + sizes[home] for home in groups), default=0))
    bound = 0
    for i, step in enumerate(steps):
        moment = max(i - cut + 1, 0)
        alive = sum(align(sizes[home]) for home, (first, last) in spans.items() if first <= moment <= last)
        bound = max(bound, alive + step.scratch)
    return Layout(cut, rows, {t: offsets[homes.get(t, t)] for t in lives}, total, bound)


def _lifetimes(steps: list[PlanStep], cut: int, pushed: PlanTensor | None) -> dict[PlanTensor, tuple[int, int]]:
    """First and last moment that touches each arena tensor; the streamed steps are one moment, 0."""
    lives: dict[PlanTensor, tuple[int, int]] = {}
    for i, step in enumerate(steps):
        moment = max(i - cut + 1, 0)
        for tensor in (*step.inputs, *step.outputs):
            if tensor.place == "arena" or tensor is pushed:
                lives[tensor] = (lives.get(tensor, (moment, moment))[0], moment)
    return lives


def _homes(steps: list[PlanStep], cut: int, lives: dict[PlanTensor, tuple[int, int]]) -> dict[PlanTensor, PlanTensor]:
    """Trunk -> the tensor whose place it takes: an epilogue reads an element of the residual and then writes its own."""
    homes: dict[PlanTensor, PlanTensor] = {}
    for i, step in enumerate(steps):
        if i < cut or step.trunk is None or step.trunk.place != "arena" or len(step.inputs) < 2:
            continue
        if step.epilogue is None or step.epilogue.residual_mul is None:  # two factors of a kernel: read again and again
            continue
        residual = step.inputs[1]
        same = (residual.height, residual.width, residual.channels, residual.dtype) == (
            step.trunk.height,
            step.trunk.width,
            step.trunk.channels,
            step.trunk.dtype,
        )
        last = lives.get(residual, (0, -1))[1] == i - cut + 1
        if same and last and residual is not step.inputs[0]:
            homes[step.trunk] = homes.get(residual, residual)
    return homes


def _place(spans: dict[PlanTensor, tuple[int, int]], sizes: dict[PlanTensor, int]) -> dict[PlanTensor, int]:
    """Offsets: largest first, each at the lowest place that is free during its life."""
    offsets: dict[PlanTensor, int] = {}
    for tensor in sorted(spans, key=lambda t: (-sizes[t], spans[t], t.values[0].name)):
        first, last = spans[tensor]
        rivals = sorted((t for t in offsets if spans[t][0] <= last and first <= spans[t][1]), key=lambda t: offsets[t])
        offset = 0
        for rival in rivals:
            if offset + sizes[tensor] <= offsets[rival]:
                break
            offset = max(offset, align(offsets[rival] + sizes[rival]))
        offsets[tensor] = offset
    return offsets


def _apply(plan: Plan, layout: Layout) -> None:
    for tensor, offset in layout.offsets.items():
        tensor.rows_held = layout.rows[tensor]
        if tensor.place == "input":
            tensor.ring = offset
        else:
            tensor.offset = offset
    for i, step in enumerate(plan.steps):
        step.segment = 1 if i < layout.cut else 0
    plan.tensor_bytes = layout.tensor_bytes
    plan.lower_bound = layout.lower_bound
