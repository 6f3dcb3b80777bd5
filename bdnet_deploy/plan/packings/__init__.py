"""Packings that kernels with a suffix in their name read, and which one a step takes on a core.

A packing is chosen only where the core has a variant of its kernel (:mod:`bdnet_deploy.plan.variants`); the plain version is
there so that any build runs any file. The layouts stand in the headers of ``runtime/kernels``.
"""

from __future__ import annotations

from collections.abc import Collection

from bdnet_deploy.bdn_format import accumulator_bytes
from bdnet_deploy.plan.packings.base import Packing, has_variant
from bdnet_deploy.plan.packings.epilogues import EPILOGUES, epilogue_packing
from bdnet_deploy.plan.packings.planes import PLANES
from bdnet_deploy.plan.packings.tile16 import TILE16
from bdnet_deploy.plan.plan import Plan, PlanStep, format_code

#: Bytes of accumulators that wait for an epilogue on a core with caches: half of the smallest first cache there is.
CACHED = 16 * 1024

#: In the order in which a plan asks them.
PACKINGS: tuple[Packing, ...] = (TILE16, PLANES)


def packing(kernel: str | None) -> Packing | None:
    """The packing that a kernel's name asks for; None for the canonical one."""
    suffix = (kernel or "").partition("__")[2]
    return next((p for p in PACKINGS if p.suffix == suffix), None) if suffix else None


def choose_packings(plan: Plan, sets: Collection[str]) -> None:
    """Choose kernels with packings for a core with these instruction sets; without any the plan stays as it is."""
    for step in plan.steps if sets else ():
        for candidate in PACKINGS:
            if candidate.take(step, sets):
                break
        if step.epilogue is not None:
            names = (p.takes(step, sets) for p in EPILOGUES)
            step.epilogue_kernel = next((name for name in names if name), step.epilogue_kernel)


def rows_of_a_call(step: PlanStep, sets: Collection[str]) -> int:
    """Rows that one call should make of a step that runs by itself: these kernels prepare something for each call.

    All rows where no epilogue follows, as more rows then need no memory. On AArch64 as many as leave the accumulators in the
    cache where one follows: kernel and epilogue begin anew for every call, which is half of the work for maps of 6 x 6.
    """
    kernel, height = step.kernel or "", step.out_shape[0]
    prepares = kernel.endswith("__tile16") or (kernel.startswith("bd_dw_") and has_variant(kernel, sets))
    if step.segment != 0 or not prepares:
        return step.rows_per_call
    if step.epilogue_kernel is None:
        return height
    if "neon64" not in sets:
        return step.rows_per_call
    _, width, channels = step.out_shape
    calls = -(-height // max(1, CACHED // accumulator_bytes(width, channels, format_code(step.acc_dtype), 1)))
    return -(-height // calls)


__all__ = ["EPILOGUES", "PACKINGS", "choose_packings", "epilogue_packing", "packing", "rows_of_a_call"]
