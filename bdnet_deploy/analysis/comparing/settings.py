"""How strictly ``verify`` judges, and how long it waits."""

from __future__ import annotations

from dataclasses import dataclass

from bdnet_deploy.peers.jobs import TIMEOUT_S

#: Share of top-1 predictions of a foreign float runtime that must agree with the reference.
FLOAT_AGREEMENT = 0.99
#: The same for files of integers (fixed16, fixed8, int8), where nothing better can be compared.
INTEGER_AGREEMENT = 0.9
#: Elements of all values of a graph that are held at once: 256 MB of float32.
ELEMENTS = 1 << 26


@dataclass(frozen=True)
class Settings:
    """What the user chose.

    Attributes:
        timeout: seconds that one process of a foreign runtime may take.
        min_agreement: share of predictions that must be the reference's; None: the defaults above.
        judge_integers: whether the predictions of a file of integers are judged: random inputs say nothing about them.
    """

    timeout: float = TIMEOUT_S
    min_agreement: float | None = None
    judge_integers: bool = True

    def agreement(self, *, integers: bool = False) -> float:
        if self.min_agreement is not None:
            return self.min_agreement
        return INTEGER_AGREEMENT if integers else FLOAT_AGREEMENT
