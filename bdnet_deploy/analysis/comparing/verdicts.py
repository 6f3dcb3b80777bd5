"""The comparisons that were made, and what differed first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from bdnet_deploy.errors import BdnetError, MismatchError
from bdnet_deploy.report import Column, Report, Table


class VerifyError(MismatchError):
    """The artifact differs; ``report`` has every comparison."""

    def __init__(self, report: Report, what: str, *, where: str, why: str | None, fix: str | None = None) -> None:
        super().__init__(what, where=where, why=why, fix=fix)
        self.report = report


class RunError(VerifyError):
    """A runtime did not run the artifact, and nothing that could be compared differs."""

    exit_code = 1


def _measures() -> list[Column]:
    return [
        Column("compared", align="right", format=","),
        Column("different", align="right", format=","),
        Column("near_ties", "near ties", align="right", format=","),
        Column("distance", "largest distance", align="right", format=".3g"),
    ]


class Difference(NamedTuple):
    """A comparison that failed. ``layer``, ``why`` and ``cause`` may be empty."""

    check: str
    layer: str
    why: str
    cause: str


@dataclass
class Verdicts:
    """Comparisons in order. ``first`` is the first difference; ``cause`` the first likely cause that fits one;
    ``failure`` the first runtime that did not run: check, layer (may be empty), error."""

    table: Table = field(
        default_factory=lambda: Table(
            "comparisons", [Column("check"), Column("layer"), Column("result"), *_measures()], key="comparisons"
        )
    )
    first: Difference | None = None
    cause: str = ""
    failure: tuple[str, str, BdnetError] | None = None

    def add(
        self,
        check: str,
        layer: str,
        *,
        compared: int,
        different: int,
        near_ties: int = 0,
        distance: float | None = None,
        why: str = "",
        cause: str = "",
        judged: bool = True,
    ) -> None:
        """One comparison of ``compared`` elements.

        Args:
            check, layer: what was compared.
            compared, different, near_ties: elements; near ties are not among the different ones.
            distance: the largest, where values are real.
            why: what differs; ``cause``: what explains it, if anything does.
            judged: False: reported only, a difference is no failure.
        """
        result = "differs" if different else "equal" if not near_ties else "equal but near ties"
        if not judged:
            result = "not judged"
        self.table.add(
            check=check,
            layer=layer or None,
            result=result,
            compared=compared,
            different=different,
            near_ties=near_ties,
            distance=distance,
        )
        if different and judged:
            self.first = self.first or Difference(check, layer, why, cause)
            self.cause = self.cause or cause

    def fail(self, check: str, layer: str, error: BdnetError) -> None:
        """A runtime refused, crashed or hung: nothing could be compared."""
        self.table.add(
            check=check, layer=layer or None, result="failed", compared=0, different=0, near_ties=0, distance=None
        )
        self.failure = self.failure or (check, layer, error)

    def include(self, other: Verdicts, *, judged: bool) -> None:
        """All comparisons of ``other``; not judged: differences are reported only."""
        for row in other.table.rows:
            differs = row["result"] == "differs" and not judged
            self.table.rows.append({**row, "result": "not judged"} if differs else row)
        if judged:
            self.first = self.first or other.first
            self.cause = self.cause or other.cause

    def summary(self) -> Table:
        """One row a check: the sums over its layers."""
        table = Table(
            "summary", [Column("check"), Column("comparisons", align="right"), Column("result"), *_measures()]
        )
        for check in dict.fromkeys(row["check"] for row in self.table.rows):
            rows = [row for row in self.table.rows if row["check"] == check]
            distances = [row["distance"] for row in rows if isinstance(row["distance"], float)]
            results = [row["result"] for row in rows]
            table.add(
                check=check,
                comparisons=len(rows),
                result=next(
                    (r for r in ("failed", "differs", "not judged", "equal but near ties") if r in results), "equal"
                ),
                distance=max(distances, default=None),
                **{key: sum(int(str(row[key])) for row in rows) for key in ("compared", "different", "near_ties")},
            )
        return table
