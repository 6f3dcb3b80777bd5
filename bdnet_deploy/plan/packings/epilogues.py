"""Packings of epilogues' parameters, in the order in which a plan asks them."""

from __future__ import annotations

from bdnet_deploy.plan.packings.base import EpiloguePacking
from bdnet_deploy.plan.packings.lanes16 import LANES16
from bdnet_deploy.plan.packings.records import QUAD, WORD

EPILOGUES: tuple[EpiloguePacking, ...] = (QUAD, WORD, LANES16)


def epilogue_packing(kernel: str | None) -> EpiloguePacking | None:
    """The packing that an epilogue's name asks for; None for parameters in arrays."""
    suffix = (kernel or "").partition("__")[2]
    return next((p for p in EPILOGUES if p.suffix == suffix), None) if suffix else None
