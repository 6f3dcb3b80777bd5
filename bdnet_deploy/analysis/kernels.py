"""Which kernel and packing of weights each step of a plan takes on a core, and why."""

from __future__ import annotations

from bdnet_deploy.plan import Plan
from bdnet_deploy.plan.variants import variants
from bdnet_deploy.report import Column, Table


def kernels_table(plan: Plan) -> Table:
    """One row a step: its kernels, the instruction set that each is written for, and why its weights are packed so."""
    table = Table(
        "kernels",
        [
            Column("step", align="right"),
            Column("layer"),
            Column("kernel"),
            Column("code", "written for"),
            Column("epilogue"),
            Column("epilogue_code", "written for"),
            Column("why", "packing"),
        ],
        key="kernels",
    )
    for i, step in enumerate(plan.steps):
        table.add(
            step=i,
            layer=step.name,
            kernel=step.kernel or "-",
            code=_code(step.kernel, plan.sets),
            epilogue=step.epilogue_kernel or "-",
            epilogue_code=_code(step.epilogue_kernel, plan.sets),
            why=step.why or ("canonical" if step.weights is not None else "-"),
        )
    table.notes.append("Plain C runs everywhere; the other kernels give the same bytes.")
    return table


def _code(kernel: str | None, sets: tuple[str, ...]) -> str:
    if kernel is None:
        return "-"
    return next((name for name in variants().get(kernel, ()) if name in sets), "plain C")
