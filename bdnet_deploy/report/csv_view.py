"""A report as CSV: one block a table, with full values and the keys of JSON; facts and titles in lines that begin with #."""

from __future__ import annotations

import csv
import io

from bdnet_deploy.report.tables import Report, Table, Value


def render(report: Report) -> str:
    """Blocks with an empty line between them; of one table it is a plain CSV file but for the lines of facts."""
    stream = io.StringIO()
    for key, value in report.facts.items():
        stream.write(f"# {key}: {_text(value)}\n".replace("\r", " "))
    for number, table in enumerate(report.tables):
        if number:
            stream.write("\n")
        if len(report.tables) > 1:
            stream.write(f"# {table.key}\n")
        _write(stream, table)
    return stream.getvalue()


def _write(stream: io.StringIO, table: Table) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([column.key for column in table.columns])
    for row in table.rows:
        writer.writerow([_text(row.get(column.key)) for column in table.columns])


def _text(value: Value) -> str:
    if value is None:
        return ""
    if hasattr(value, "item") and not isinstance(value, str | bytes):
        value = value.item()
    if isinstance(value, list | tuple):
        return "x".join(map(str, value))
    return str(value).replace("\n", " ")
