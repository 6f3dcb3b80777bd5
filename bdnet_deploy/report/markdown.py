"""A report as Markdown: to paste into an issue or a README."""

from __future__ import annotations

from bdnet_deploy.report.tables import Column, Report, Table


def render(report: Report) -> str:
    """Facts as a list, then every table with its title and notes."""
    facts = [
        f"- {Column(key).heading}: {_cell(Column(key, format=',').text(value))}" for key, value in report.facts.items()
    ]
    parts = ["\n".join(facts)] if facts else []
    return "\n\n".join([*parts, *(_table(table) for table in report.tables)]) + "\n"


def _table(table: Table) -> str:
    lines = [f"**{_cell(table.title)}**", "", _row([_cell(column.heading) for column in table.columns])]
    lines.append(_row(["---:" if column.align == "right" else "---" for column in table.columns]))
    lines += [_row([_cell(c.text(row.get(c.key))) for c in table.columns]) for row in table.rows]
    lines += [f"\n{note}" for note in table.notes]
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
