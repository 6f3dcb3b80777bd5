"""The comparisons that were made, and what differed first."""

from __future__ import annotations

from dataclasses import dataclass, field

from bdnet_deploy.errors import MismatchError
from bdnet_deploy.report import Column, Report, Table


class VerifyError(MismatchError):
    """The artifact differs; ``report`` has every comparison."""

    def __init__(self, report: Report, what: str, *, where: str, why: str | None, fix: str | None = None) -> None:
        super().__init__(what, where=where, why=why, fix=fix)
        self.report = report


def _measures() -> list[Column]:
    return [
        Column("compared", align="right", format=","),
        Column("different", align="right", format=","),
        Column("near_ties", "near ties", align="right", format=","),
        Column("distance", "largest distance", align="right", format=".3g"),
    ]


@dataclass
class Verdicts:
    """Comparisons in order. ``first`` is the first difference: check, layer (may be empty), why."""

    table: Table = field(
        default_factory=lambda: Table(
            "comparisons", [Column("check"), Column("layer"), Column("result"), *_measures()], key="comparisons"
        )
    )
    first: tuple[str, str, str] | None = None

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
        judged: bool = True,
    ) -> None:
        """One comparison of ``compared`` elements; ``why`` explains a difference. Not judged: reported only."""
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
        if different and self.first is None:
            self.first = (check, layer, why)

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
                result=next((r for r in ("differs", "not judged", "equal but near ties") if r in results), "equal"),
                distance=max(distances, default=None),
                **{key: sum(int(str(row[key])) for row in rows) for key in ("compared", "different", "near_ties")},
            )
        return table
