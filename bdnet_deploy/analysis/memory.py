"""The memory of a plan, beside that of the other mixes of whole and streamed steps that it could run as."""

from __future__ import annotations

from bdnet_deploy.plan import Plan
from bdnet_deploy.plan.memory import other_mixes
from bdnet_deploy.report import Column, Table


def mixes_table(plan: Plan) -> Table:
    """Bytes of tensors and scratch, as placed and at least, of the chosen mix and of the others."""
    table = Table(
        "feature maps and scratch",
        [
            Column("mix"),
            Column("bytes", align="right", format=","),
            Column("lower_bound", align="right", format=","),
            Column("streamed", "steps row by row", align="right"),
            Column("execution"),
        ],
        key="mixes",
    )

    def add(mix: str, tensor_bytes: int, live: int, streamed: int, execution: str) -> None:
        scratch = plan.scratch_bytes
        table.add(
            mix=mix,
            bytes=tensor_bytes + scratch,
            lower_bound=live + scratch,
            streamed=streamed,
            execution=execution,
        )

    add("chosen", plan.tensor_bytes, plan.lower_bound - plan.scratch_bytes, plan.streamed, plan.execution)
    for name, layout in other_mixes(plan).items():
        add(name, layout.tensor_bytes, max(layout.live, default=0), layout.streamed, layout.execution)
    table.notes.append("No placement of a mix needs less than its lower bound, and no mix less than the smallest's.")
    return table


def timeline_table(plan: Plan) -> Table:
    """What is alive while each unit, a whole step or a segment, runs."""
    table = Table(
        "memory over time",
        [
            Column("first", "step", align="right"),
            Column("last", "to", align="right"),
            Column("runs"),
            Column("from_layer", "from"),
            Column("to_layer", "to"),
            Column("live_bytes", "maps and rings", "B", "right", ","),
            Column("scratch_bytes", "scratch", "B", "right", ","),
        ],
        key="timeline",
    )
    for moment in plan.timeline:
        table.add(
            first=moment.first,
            last=moment.end - 1,
            runs="row by row" if moment.streamed else "map by map",
            from_layer=moment.names[0],
            to_layer=moment.names[-1],
            live_bytes=moment.live,
            scratch_bytes=max(step.scratch for step in plan.steps[moment.first : moment.end]),
        )
    return table
