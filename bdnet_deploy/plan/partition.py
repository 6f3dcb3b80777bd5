"""The best partition of a plan's steps into units: dynamic programming over the borders between them."""

from __future__ import annotations

from dataclasses import dataclass

from bdnet_deploy.plan.units import Cost, Costs, Unit


@dataclass(frozen=True, order=True)
class _Rank:
    """What partitions of the first steps are compared by. Each part is a sum or a maximum over the units, so that the
    best partition of all steps holds a best partition of those before its last unit."""

    excess: int
    streamed: int
    peak: int


class Partitions:
    """All units that may matter, and the best ways to join them.

    Args:
        limit: segments that need more bytes of the arena are left out.
    """

    def __init__(self, costs: Costs, limit: int | None = None) -> None:
        self._count = len(costs.steps)
        self._ending: list[list[tuple[Unit, Cost]]] = [[] for _ in range(self._count + 1)]
        for i in range(self._count):
            if i >= costs.least:
                self._ending[i + 1].append((Unit(i, i + 1), costs.whole(i)))
            if i == 0 or i >= costs.least:
                for end, cost in costs.streamed(i, limit).items():
                    self._ending[end].append((Unit(i, end, True), cost))

    @property
    def largest(self) -> int:
        """Bytes of the arena that the largest unit needs."""
        return max((cost.live for units in self._ending for _, cost in units), default=0)

    def smallest_peak(self) -> int | None:
        """The least that the largest unit of a partition needs: a bottleneck path over the borders. None: no partition
        is within the limit."""
        best: list[int | None] = [0] + [None] * self._count
        for end in range(1, self._count + 1):
            best[end] = min(
                (
                    max(before, cost.live)
                    for unit, cost in self._ending[end]
                    if (before := best[unit.first]) is not None
                ),
                default=None,
            )
        return best[self._count]

    def best(self, peak: int, cache: int | None = None) -> list[Unit] | None:
        """A partition whose units need ``peak`` bytes of the arena at most, None if there is none.

        Of several the one whose units exceed ``cache`` by the least in sum; of these the one with the fewest steps row
        by row; of these the one whose largest unit needs the least.
        """
        best: list[tuple[_Rank, Unit | None] | None] = [(_Rank(0, 0, 0), None)] + [None] * self._count
        for end in range(1, self._count + 1):
            for unit, cost in self._ending[end]:
                before = best[unit.first]
                if before is None or cost.live > peak:
                    continue
                rank = _Rank(
                    before[0].excess + (0 if cache is None else max(cost.touched - cache, 0)),
                    before[0].streamed + (unit.end - unit.first if unit.streamed else 0),
                    max(before[0].peak, cost.live),
                )
                now = best[end]
                if now is None or rank < now[0]:
                    best[end] = rank, unit
        units: list[Unit] = []
        at = self._count
        while at:
            entry = best[at]
            if entry is None:
                return None
            assert entry[1] is not None
            units.append(entry[1])
            at = entry[1].first
        return units[::-1]
