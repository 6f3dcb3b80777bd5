"""A report as one HTML file that needs nothing else: to mail, to attach, to open offline."""

from __future__ import annotations

from html import escape

from bdnet_deploy.report.tables import Column, Report, Table, Value

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; color: #222 }
h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .75rem; text-align: left; vertical-align: top }
.right { text-align: right; font-variant-numeric: tabular-nums }
"""


def render(report: Report) -> str:
    """The report as a complete HTML document."""
    title = f"bdnet-deploy {escape(report.kind)}"
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{fragment(report)}</body>\n</html>\n"
    )


def fragment(report: Report) -> str:
    """The report without the frame of a document, as notebooks show it."""
    parts = [_mapping(report.facts)]
    parts += [_table(table) for table in report.tables]
    if report.provenance:
        parts += ["<h2>made by</h2>\n", _mapping(report.provenance)]
    return "".join(parts)


def _mapping(values: dict[str, Value]) -> str:
    rows = (f"<tr><th>{escape(_heading(key))}</th><td>{_cell(value)}</td></tr>\n" for key, value in values.items())
    return f"<table>\n{''.join(rows)}</table>\n" if values else ""


def _heading(key: str) -> str:
    return Column(key).heading


def _cell(value: Value) -> str:
    return escape(Column("").text(value))


def _table(table: Table) -> str:
    def row(tag: str, cells: list[str]) -> str:
        marked = (f'<{tag} class="{column.align}">{escape(cell)}</{tag}>' for column, cell in zip(table.columns, cells))
        return f"<tr>{''.join(marked)}</tr>\n"

    head = row("th", [column.heading for column in table.columns])
    body = "".join(row("td", [c.text(values.get(c.key)) for c in table.columns]) for values in table.rows)
    notes = "".join(f"<p>{escape(note)}</p>\n" for note in table.notes)
    return f"<h2>{escape(table.title)}</h2>\n<table>\n{head}{body}</table>\n{notes}"
