"""How values of the graph lie in the file."""

from __future__ import annotations

from dataclasses import dataclass

#: The packed planes of a trit, in order: for the lower and for the higher threshold.
PLANES = ("low", "high")


@dataclass(frozen=True)
class Encoded:
    """``encoding`` is "float" (one f32 tensor), "bits" (one of packed words) or "trits" (two: :data:`PLANES`)."""

    encoding: str
    tensors: tuple[int, ...]
