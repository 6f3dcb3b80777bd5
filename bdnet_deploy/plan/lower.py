"""From a graph with numerics to a plan: fuse each convolution with what follows it, choose kernels, pack weights."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from bdnet_deploy.graph import Graph
from bdnet_deploy.plan import lower_rules  # noqa: F401  enters the rules
from bdnet_deploy.plan.lowering import Lowering
from bdnet_deploy.plan.memory import choose_layout
from bdnet_deploy.plan.packings import choose_packings, whole_calls, widen_calls
from bdnet_deploy.plan.plan import Plan


def make_plan(
    graph: Graph,
    *,
    ram: int | None = None,
    cache: int | None = None,
    push_rows: bool = False,
    segments: Sequence[tuple[int, int]] | None = None,
    cut: int | None = None,
    sets: Collection[str] = (),
) -> Plan:
    """Lower a graph whose numerics are chosen.

    Args:
        graph: with its numerics.
        ram, cache, push_rows, segments, cut: see :func:`~bdnet_deploy.plan.memory.choose_layout`.
        sets: instruction sets of the core that the plan is for: its kernels' packings are chosen for them. The file runs
            everywhere all the same.

    Raises:
        DoesNotFitError: no layout fits into ``ram``.
        UnsupportedError: for a combination of dtypes that no kernel takes; names the layer.
    """
    plan = Lowering(graph).run()
    choose_packings(plan, sets)
    plan.sets = tuple(sorted(sets))
    if ram is None and cache is None and not push_rows and segments is None:
        widen_calls(plan, sets)
    choose_layout(plan, ram=ram, cache=cache, push_rows=push_rows, segments=segments, cut=cut)
    for step in plan.steps:
        if whole_calls(step, sets):
            step.rows_per_call = step.out_shape[0]
    return plan
