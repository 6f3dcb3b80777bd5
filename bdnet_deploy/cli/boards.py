"""``bdnet-deploy boards``: the boards that a model can be built for."""

from __future__ import annotations

from bdnet_deploy.cli import common


@common.command("boards")
@common.report_options
def command(output: common.Output) -> None:
    """List the boards: chip, core, clock and memories."""
    from bdnet_deploy import targets
    from bdnet_deploy.report import Column, Report, Table

    table = Table(
        "boards",
        [
            Column("name"),
            Column("chip"),
            Column("core"),
            Column("clock_hz", "clock", "Hz", "right", ","),
            Column("flash", unit="B", align="right", format=","),
            Column("ram", "RAM", "B", "right", ","),
            Column("description"),
        ],
    )
    for name in targets.boards():
        board = targets.board(name)
        sizes = {kind: sum(m.length for m in board.memories if m.kind == kind) for kind in ("flash", "ram")}
        table.add(
            name=name,
            chip=board.chip,
            core=board.core.name,
            clock_hz=board.clock_hz,
            description=board.description,
            **sizes,
        )
    output.show(Report("boards", tables=[table]))
