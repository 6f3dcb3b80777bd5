"""``bdnet-deploy cores``: the cores that a model can be compiled, counted and timed for."""

from __future__ import annotations

from bdnet_deploy.cli import common


@common.command("cores")
@common.report_options
def command(output: common.Output) -> None:
    """List the cores and how far their timing is validated."""
    from bdnet_deploy import targets
    from bdnet_deploy.report import Column, Report, Table

    table = Table(
        "cores",
        [
            Column("name"),
            Column("description"),
            Column("isa", "instruction set"),
            Column("validation", "timing validated"),
        ],
        notes=["Instructions are counted exactly; cycles and milliseconds are estimated from a core's table."],
    )
    for name in targets.cores():
        core = targets.core(name)
        table.add(name=name, description=core.description, isa=core.isa, validation=core.validation.status)
    output.show(Report("cores", tables=[table]))
