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
_NARROWEST = 8


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
        console.print(_table(table, SIMPLE_HEAD if unicode else _ASCII_HEAD, width))
        for note in table.notes:
            console.print(Text(note), soft_wrap=width is None)
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


def _table(table: Table, box: Box, width: int | None) -> RichTable:
    gap, widths = _layout(table, width)
    rich_table = RichTable(box=box, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0), header_style="bold")
    for column, cell_width in zip(table.columns, widths):
        rich_table.add_column(Text(column.heading), justify=column.align, overflow="fold", width=cell_width)
    for row in table.rows:
        rich_table.add_row(*(Text(column.text(row.get(column.key))) for column in table.columns))
    return rich_table


def _layout(table: Table, available: int | None) -> tuple[int, list[int | None]]:
    """The gap between columns, and widths that break headings first, then texts between words, then long words.

    Numbers are never broken.
    """
    if available is None or not table.columns:
        return 3, [None] * len(table.columns)
    cells = [[column.text(row.get(column.key)) for row in table.rows] for column in table.columns]
    headings = [column.heading for column in table.columns]
    wide = [max(map(len, [heading, *column])) for heading, column in zip(headings, cells)]
    unbroken = [max(map(len, [*heading.split(), *column])) for heading, column in zip(headings, cells)]
    words = [
        max(len(word) for text in [heading, *column] for word in text.split() or [""])
        for heading, column in zip(headings, cells)
    ]
    narrow = [word if column.align == "right" else min(word, _NARROWEST) for word, column in zip(words, table.columns)]
    gap = 3 if sum(unbroken) + 3 * (len(wide) - 1) <= available else 2
    widths = wide
    for smallest in (unbroken, words, narrow):
        widths = _shrunk(widths, smallest, available - gap * (len(wide) - 1))
    return gap, list(widths)


def _shrunk(widths: list[int], smallest: list[int], space: int) -> list[int]:
    """The widest columns made narrower until all fit into ``space`` or none can give more."""
    widths = list(widths)
    while sum(widths) > space:
        spare = [(width, -i) for i, width in enumerate(widths) if width > smallest[i]]
        if not spare:
            break
        widths[-max(spare)[1]] -= 1
    return widths
