"""Partitions of a plan into whole steps and streamed segments: the search against all partitions of small networks,
with costs and sweeps written down a second time, plainly."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from random_networks import random_network

from bdnet_deploy.bdn_format import align
from bdnet_deploy.errors import DoesNotFitError, UsageError
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.graph import NUMERICS
from bdnet_deploy.lowering import Lowered, lower
from bdnet_deploy.plan import Plan, PlanStep, PlanTensor, make_plan, placement
from bdnet_deploy.plan.memory import lay_out
from bdnet_deploy.plan.partition import Partitions
from bdnet_deploy.plan.schedule import first_kept, rows_needed, rows_over, simulate
from bdnet_deploy.plan.units import Costs, Unit

Mix = tuple[Unit, ...]


@cache
def lowered(seed: int) -> Lowered:
    network = random_network(seed)
    return lower(network.graph, NUMERICS[seed % 3], io=network.io, samples=network.samples)


SMALL = [seed for seed in range(120) if len(lowered(seed).plan.steps) <= 9][:24]


# -- the plain version ----------------------------------------------------------------------------------------------------


def plain_rings(steps: list[PlanStep], pushed: PlanTensor | None) -> dict[PlanTensor, int]:
    """Every sweep looks at every step."""
    made = [0] * len(steps)
    there = {t: 0 for s in steps for t in s.outputs} | ({pushed: 0} if pushed else {})
    rings = dict.fromkeys(there, 1)
    readers = {t: [(s, i, k) for i, s in enumerate(steps) for k, x in enumerate(s.inputs) if x is t] for t in there}
    while any(m < rows_over(s) for m, s in zip(made, steps, strict=True)):
        calls = 0
        arrived: list[tuple[PlanTensor, int]] = []
        for i, step in enumerate(steps):
            end = min(made[i] + step.rows_per_call, rows_over(step))
            blocked = any(t in there and there[t] < rows_needed(step, k, end) for k, t in enumerate(step.inputs))
            if made[i] == rows_over(step) or blocked:
                continue
            made[i], calls = end, calls + 1
            rows = end if step.kind != "accumulate" else step.out_shape[0] if end == rows_over(step) else 0
            for t in step.outputs:
                there[t] = rows
                rings[t] = max([rings[t], *(rows - first_kept(s, k, made[j]) for s, j, k in readers[t])])
        if pushed is not None and not calls:
            there[pushed] += 1
            arrived = [(pushed, there[pushed])]
        for t, rows in arrived:
            rings[t] = max([rings[t], *(rows - first_kept(s, k, made[j]) for s, j, k in readers[t])])
    return rings


def plain_live(steps: list[PlanStep], mix: Mix, pushed: PlanTensor | None) -> list[int]:
    """Bytes of the arena while each unit runs."""
    unit_of = {i: n for n, unit in enumerate(mix) for i in range(unit.first, unit.end)}
    touching: dict[PlanTensor, list[int]] = {}
    for i, step in enumerate(steps):
        for t in (*step.inputs, *step.outputs):
            touching.setdefault(t, []).append(i)
    live = []
    for n, unit in enumerate(mix):
        first = unit.first == 0
        rings = plain_rings(steps[unit.first : unit.end], pushed if first else None) if unit.streamed else {}
        size = 0
        for t, at in touching.items():
            units = [unit_of[i] for i in at]
            if (t.place != "arena" and t is not pushed) or not min(units) <= n <= max(units):
                continue
            rows = min(rings[t], t.height) if rings and min(units) == max(units) == n else t.height
            size += align(rows * t.row_stride)
        if not unit.streamed:
            step = steps[unit.first]
            residual = step.inputs[1] if step.epilogue and step.epilogue.residual_mul is not None else None
            same = residual and step.trunk and {(t.height, t.width, t.channels, t.dtype, t.place) for t in (residual, step.trunk)}  # fmt: skip
            if residual and same and len(same) == 1 and residual.place == "arena" and residual is not step.inputs[0]:
                size -= align(residual.height * residual.row_stride) if max(touching[residual]) == unit.first else 0
        live.append(size)
    return live


def all_mixes(count: int) -> Iterator[Mix]:
    for borders in itertools.product([False, True], repeat=count - 1):
        ends = [i + 1 for i, border in enumerate(borders) if border] + [count]
        pairs = list(zip([0, *ends[:-1]], ends, strict=True))
        choices = [[True, False] if end - first == 1 else [True] for first, end in pairs]
        for streamed in itertools.product(*choices):
            yield tuple(Unit(first, end, s) for (first, end), s in zip(pairs, streamed, strict=True))


def streamed_steps(mix: Mix) -> int:
    return sum(unit.end - unit.first for unit in mix if unit.streamed)


# -- the search -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("push", [False, True])
@pytest.mark.parametrize("seed", SMALL)
def test_the_search_finds_what_trying_everything_finds(seed: int, push: bool) -> None:
    plan = lowered(seed).plan
    pushed = next(t for t in plan.tensors if t.place == "input") if push else None
    costs = Costs(plan.steps, pushed)
    partitions = Partitions(costs)
    allowed = [m for m in all_mixes(len(plan.steps)) if not push or (m[0].streamed and m[0].end >= costs.least)]
    plain = {mix: plain_live(plan.steps, mix, pushed) for mix in allowed}
    peaks = sorted({max(live) for live in plain.values()})
    assert partitions.smallest_peak() == peaks[0]
    assert partitions.best(peaks[0] - 1) is None
    for peak in [peaks[0], *np.random.default_rng(seed).choice(peaks, 4).tolist()]:
        found = partitions.best(peak)
        assert found is not None
        best = min((streamed_steps(mix), max(live)) for mix, live in plain.items() if max(live) <= peak)
        assert (streamed_steps(tuple(found)), max(plain[tuple(found)])) == best
        assert list(lay_out(costs, found).live) == plain[tuple(found)]
        pruned = Partitions(costs, peak).best(peak)  # segments above the limit left out
        assert pruned == found


@pytest.mark.parametrize("seed", SMALL[:12])
def test_a_cache_is_exceeded_by_as_little_as_can_be(seed: int) -> None:
    plan = lowered(seed).plan
    costs = Costs(plan.steps)
    partitions = Partitions(costs)

    def touched(unit: Unit) -> int:
        steps = plan.steps[unit.first : unit.end]
        outside = [s for i, s in enumerate(plan.steps) if i not in unit]
        rings = plain_rings(steps, None)
        size = max(s.scratch for s in steps)
        for t in {t for s in steps for t in (*s.inputs, *s.outputs)}:
            inner = unit.streamed and t in rings and t.place == "arena" and not any(t in s.inputs for s in outside)
            size += align((min(rings[t], t.height) if inner else t.height) * t.row_stride)
        residual = None if unit.streamed else costs.in_place(unit.first)
        return size - (align(residual.height * residual.row_stride) if residual else 0)

    sizes = {unit: touched(unit) for mix in all_mixes(len(plan.steps)) for unit in mix}
    for limit in [1, *np.random.default_rng(seed).choice(sorted(sizes.values()), 4).tolist()]:
        excess = {mix: sum(max(sizes[u] - limit, 0) for u in mix) for mix in all_mixes(len(plan.steps))}
        found = tuple(partitions.best(partitions.largest, limit) or ())
        assert (excess[found], streamed_steps(found)) == min((e, streamed_steps(m)) for m, e in excess.items())


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_simulations_agree(seed: int) -> None:
    """Looking only at what may have become ready, once for all ends, gives the rings of looking at everything."""
    steps = lowered(seed).plan.steps
    rng = np.random.default_rng(seed)
    first = int(rng.integers(len(steps)))
    found = simulate(steps[first:]).rows
    for end in {len(steps), int(rng.integers(first, len(steps))) + 1}:
        inner = [t for t in plain_rings(steps[first:end], None) if not any(t in s.inputs for s in steps[end:])]
        plain = plain_rings(steps[first:end], None)
        assert {t: found[t] for t in inner} == {t: plain[t] for t in inner}


# -- limits ---------------------------------------------------------------------------------------------------------------


def needed(plan: Plan) -> int:
    return plan.tensor_bytes + plan.scratch_bytes


@pytest.mark.parametrize("seed", range(40))
def test_limits_are_kept(seed: int) -> None:
    graph = lowered(seed).graph
    whole = make_plan(graph)
    with pytest.raises(DoesNotFitError, match="bytes of RAM at least, not 1\n") as error:
        make_plan(graph, ram=1)
    least = int(str(error.value).split(" bytes of RAM")[0].split()[-1])
    smallest = make_plan(graph, ram=least)
    assert needed(smallest) == least <= needed(whole)
    streamed = []
    for ram in np.linspace(least, needed(whole), 6).astype(int).tolist():
        plan = make_plan(graph, ram=ram)
        assert needed(plan) <= ram
        streamed.append(plan.streamed)
    assert streamed == sorted(streamed, reverse=True) and streamed[-1] == 0
    assert write_bdn(make_plan(graph, ram=least)) == write_bdn(smallest)
    for size in (1, needed(whole) // 3, needed(whole)):
        plan = make_plan(graph, cache=size)
        assert max(m.live for m in plan.timeline) <= max(m.live for m in whole.timeline)
        assert needed(make_plan(graph, cache=size, ram=least)) <= least
    touched = max(Costs(whole.steps).whole(i).touched for i in range(len(whole.steps)))
    assert make_plan(graph, cache=touched).streamed == 0


@pytest.mark.parametrize("seed", range(20))
def test_the_timeline_says_what_lives(seed: int) -> None:
    whole = make_plan(lowered(seed).graph)
    count = len(whole.steps)
    plan = make_plan(lowered(seed).graph, segments=[(0, count // 2), (count // 2, count)])
    assert [name for m in plan.timeline for name in m.names] == [s.name for s in plan.steps]
    assert [(m.first, m.end, m.streamed) for m in plan.timeline] == [
        (a, b, True) for a, b in ((0, count // 2), (count // 2, count)) if a < b
    ]
    assert plan.lower_bound == max(m.live for m in plan.timeline) + plan.scratch_bytes <= needed(plan)
    assert len({s.segment for s in plan.steps}) == len(plan.timeline) and all(s.segment for s in plan.steps)


def test_a_mix_in_words() -> None:
    graph = next(lowered(s).graph for s in range(100) if len(lowered(s).plan.steps) >= 8 and lowered(s).plan.in_place)
    count = len(make_plan(graph).steps)
    whole = make_plan(graph)
    assert whole.execution == f"map by map, {whole.in_place} in place"
    assert make_plan(graph, cut=count).execution == "row by row"
    plan = make_plan(graph, segments=[(1, 3), (3, 4)])
    words = f"steps 0 map by map, 1-2 row by row, 3 row by row, 4-{count - 1} map by map"
    assert plan.execution == words + (f", {plan.in_place} in place" if plan.in_place else "")


def test_wrong_segments_are_refused() -> None:
    graph = lowered(0).graph
    count = len(lowered(0).plan.steps)
    for segments in ([(0, count + 1)], [(2, 1)], [(0, 2), (1, 3)], [(-1, 1)]):
        with pytest.raises(UsageError, match="do not divide"):
            make_plan(graph, segments=segments)


# -- placement --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
def test_placement_is_the_best_of_all_orders(seed: int) -> None:
    """Six tensors: some order of placing each as low as it goes is optimal, and all orders can be tried."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, 8, 6)
    spans = {n: (int(s), int(s + rng.integers(0, 5))) for n, s in enumerate(starts)}
    sizes = {n: int(rng.integers(1, 20)) * 16 for n in spans}
    offsets = placement.place(spans, sizes)
    assert offsets == placement.place(spans, sizes)
    for a, b in itertools.combinations(spans, 2):
        if spans[a][0] <= spans[b][1] and spans[b][0] <= spans[a][1]:
            assert offsets[a] + sizes[a] <= offsets[b] or offsets[b] + sizes[b] <= offsets[a]

    def lowest(order: tuple[int, ...]) -> int:
        at: dict[int, int] = {}
        for t in order:
            rivals = [r for r in at if spans[r][0] <= spans[t][1] and spans[t][0] <= spans[r][1]]
            at[t] = min(
                y
                for y in [0, *(at[r] + sizes[r] for r in rivals)]
                if all(y + sizes[t] <= at[r] or at[r] + sizes[r] <= y for r in rivals)
            )
        return max(at[t] + sizes[t] for t in order)

    best = min(map(lowest, itertools.permutations(spans)))
    assert placement.total(offsets, sizes) == best >= placement.lower_bound(spans, sizes)
