"""A report as text for terminals, pipes and logs."""

from __future__ import annotations

import io

from rich.box import SIMPLE_HEAD, Box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from bdnet_deploy.report.tables import Column, Report, Table

# rich's SIMPLE_HEAD in ASCII
_ASCII_HEAD = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
_UNLIMITED = 10_000


def render(report: Report, *, width: int | None = None, unicode: bool = False, colour: bool = False) -> str:
    """The report as lines of text.

    Args:
        report: the report.
        width: columns of the terminal; longer cells are folded. None (pipes, files) folds nothing.
        unicode: draw lines with box-drawing characters; else with ASCII.
        colour: emphasise with ANSI sequences.
    """
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=width or _UNLIMITED,
        force_terminal=colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
    )
    if report.facts:
        console.print(_facts(report))
    for table in report.tables:
        console.print(Text(table.title, style="bold"))
        console.print(_table(table, SIMPLE_HEAD if unicode else _ASCII_HEAD))
        for note in table.notes:
            console.print(Text(note), soft_wrap=width is None)
        if table.notes:
            console.print()
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    return "\n".join(lines).strip("\n") + "\n"


def _facts(report: Report) -> RichTable:
    grid = RichTable.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for key, value in report.facts.items():
        column = Column(key, format=",")
        grid.add_row(Text(column.heading), Text(column.text(value)))
    grid.add_row("", "")
    return grid


def _table(table: Table, box: Box) -> RichTable:
    rich_table = RichTable(box=box, show_edge=False, pad_edge=False, header_style="bold")
    for column in table.columns:
        rich_table.add_column(Text(column.heading), justify=column.align, overflow="fold")
    for row in table.rows:
        rich_table.add_row(*(Text(column.text(row.get(column.key))) for column in table.columns))
    return rich_table
