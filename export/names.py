"""Names of tensors in a file."""

from __future__ import annotations

from collections.abc import Iterable


class Names:
    """Hands out names that nothing else bears."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def unique(self, name: str) -> str:
        candidate, n = name, 0
        while candidate in self._taken:
            n += 1
            candidate = f"{name}.{n}"
        self._taken.add(candidate)
        return candidate
