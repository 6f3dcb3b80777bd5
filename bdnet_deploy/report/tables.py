"""The data structure behind every result: facts, tables, and what made them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Scalar: TypeAlias = "str | int | float | bool | None"
Value: TypeAlias = "Scalar | Sequence[int]"
"""A cell: a scalar, or a shape. None means "not known" or "does not apply"."""

SCHEMA_VERSION = 1
"""Version of the JSON layout; it grows when a reader of the older layout would break."""


@dataclass(frozen=True)
class Column:
    """A column of a :class:`Table`.

    Args:
        key: the name in the rows and in JSON, e.g. ``"instructions"``.
        title: the heading, e.g. ``"instructions"``; the key with spaces by default.
        unit: the unit, shown behind the heading, e.g. ``"ms"``.
        align: alignment of the cells in text.
        format: Python format specification of numbers in text and HTML, e.g. ``","`` or ``".2f"``; JSON keeps
            the full value.
    """

    key: str
    title: str = ""
    unit: str = ""
    align: Literal["left", "right"] = "left"
    format: str = ""

    @property
    def heading(self) -> str:
        title = self.title or self.key.replace("_", " ")
        return f"{title} [{self.unit}]" if self.unit else title

    def text(self, value: Value) -> str:
        """The cell as a reader sees it."""
        value = _plain(value)
        if value is None:
            return "-"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, list):
            return "x".join(str(n) for n in value)
        if isinstance(value, str):
            return value
        return format(value, self.format)


@dataclass
class Table:
    """Rows of named values.

    Args:
        title: what the table shows.
        columns: the columns, in order.
        rows: one mapping a row, from column keys to values; absent keys are None.
        notes: sentences below the table: conventions, what is estimated, what was left out.
        key: the name in JSON; made from the title by default.

    Raises:
        ValueError: when a row has a key that no column has.
    """

    title: str
    columns: list[Column]
    rows: list[dict[str, Value]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    key: str = ""

    def __post_init__(self) -> None:
        self.key = self.key or re.sub(r"[^a-z0-9]+", "_", self.title.lower()).strip("_")
        for row in self.rows:
            self._check(row)

    def add(self, **row: Value) -> None:
        """Append a row."""
        self._check(row)
        self.rows.append(row)

    def _check(self, row: Iterable[str]) -> None:
        unknown = set(row) - {column.key for column in self.columns}
        if unknown:
            raise ValueError(f"table '{self.key}' has no column {', '.join(sorted(unknown))}")


@dataclass
class Report:
    """A result: what was asked, what made it, and the numbers.

    Args:
        kind: which question it answers, e.g. ``"inspect"``.
        facts: single values, in reading order.
        tables: the tables, in reading order.
        provenance: what made the numbers: tool and compiler versions, options, hashes. No times and no host
            names: equal runs give equal reports.
        schema_version: see :data:`SCHEMA_VERSION`.
    """

    kind: str
    facts: dict[str, Value] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    provenance: dict[str, Value] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def table(self, key: str) -> Table:
        """The table of this key.

        Raises:
            KeyError: when there is none.
        """
        for table in self.tables:
            if table.key == key:
                return table
        raise KeyError(key)

    def to_dict(self) -> dict[str, Any]:
        """The report in plain Python types, as JSON shows it."""
        keys = [table.key for table in self.tables]
        if len(set(keys)) != len(keys):
            raise ValueError(f"two tables of one report have one key: {', '.join(keys)}")
        return {
            "kind": self.kind,
            "schema_version": self.schema_version,
            "provenance": _plain_mapping(self.provenance),
            "facts": _plain_mapping(self.facts),
            "tables": {table.key: _plain_table(table) for table in self.tables},
        }

    def __str__(self) -> str:
        from bdnet_deploy.report import text

        return text.render(self)

    def _repr_html_(self) -> str:
        from bdnet_deploy.report import html

        return html.fragment(self)


def _plain_table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "columns": [{"key": column.key, "unit": column.unit} for column in table.columns],
        "rows": [{column.key: _plain(row.get(column.key)) for column in table.columns} for row in table.rows],
        "notes": list(table.notes),
    }


def _plain_mapping(values: Mapping[str, Value]) -> dict[str, Any]:
    return {key: _plain(value) for key, value in values.items()}


def _plain(value: Any) -> Any:
    """Python's own types: numpy scalars become numbers, shapes lists."""
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        return value.item()
    return value
