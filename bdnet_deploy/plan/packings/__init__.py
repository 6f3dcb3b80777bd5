"""Packings that kernels with a suffix in their name read, and which one a step takes on a core.

A packing is chosen only where the core has a variant of its kernel (:mod:`bdnet_deploy.plan.variants`); the plain version is
there so that any build runs any file. The layouts stand in the headers of ``runtime/kernels``.
"""

from __future__ import annotations

from collections.abc import Collection

from bdnet_deploy.plan.packings.base import Packing, has_variant
from bdnet_deploy.plan.packings.epilogues import EPILOGUES, epilogue_packing
from bdnet_deploy.plan.packings.forms3 import FORMS3, FORMS3N
from bdnet_deploy.plan.packings.lut7 import LUT7
from bdnet_deploy.plan.packings.planes import PLANES
from bdnet_deploy.plan.packings.tile16 import TILE16
from bdnet_deploy.plan.plan import Plan, PlanStep
from bdnet_deploy.plan.variants import variants

#: In the order in which a plan asks them.
PACKINGS: tuple[Packing, ...] = (LUT7, TILE16, FORMS3, FORMS3N, PLANES)


def packing(kernel: str | None) -> Packing | None:
    """The packing that a kernel's name asks for; None for the canonical one."""
    suffix = (kernel or "").partition("__")[2]
    return next((p for p in PACKINGS if p.suffix == suffix), None) if suffix else None


def choose_packings(plan: Plan, sets: Collection[str]) -> None:
    """Choose kernels with packings for a core with these instruction sets; without any the plan stays as it is."""
    for step in plan.steps if sets else ():
        for candidate in () if _has_vectors(step.kernel, sets) else PACKINGS:
            if candidate.take(step, sets):
                break
        if step.epilogue is not None and not _has_vectors(step.epilogue_kernel, sets):
            names = (p.takes(step, sets) for p in EPILOGUES)
            step.epilogue_kernel = next((name for name in names if name), step.epilogue_kernel)


def _has_vectors(kernel: str | None, sets: Collection[str]) -> bool:
    """Whether ``kernel`` has a variant for the vectors of Armv8.1-M, which read canonical arrays. They are ahead of the packed
    kernels for the DSP extension, which such a core has too."""
    return kernel is not None and "mve" in sets and "mve" in variants().get(kernel, ())


#: Bytes of accumulators that may wait for an epilogue on a processor with caches.
TILE_BYTES = 16 * 1024


def whole_calls(step: PlanStep, sets: Collection[str]) -> bool:
    """Whether one call should make all rows: these kernels prepare something for each call, or compute 7 pixels at once, and
    need no memory for more rows where no epilogue follows."""
    kernel = step.kernel or ""
    prepares = kernel.endswith(("__tile16", "__lut7")) or (kernel.startswith("bd_dw_") and has_variant(kernel, sets))
    return step.segment == 0 and step.epilogue_kernel is None and prepares


def widen_calls(plan: Plan, sets: Collection[str]) -> None:
    """Let calls of fused steps make several rows on AArch64, where the accumulators of small maps are nothing beside the caches:
    kernels and epilogues load their parameters once a call."""
    for step in plan.steps if "neon64" in sets else ():
        if step.kind == "window" and step.epilogue_kernel is not None:
            while step.rows_per_call < step.out_shape[0]:
                step.rows_per_call += 1
                if step.kernel is not None and step.scratch > TILE_BYTES:
                    step.rows_per_call -= 1
                    break


__all__ = ["EPILOGUES", "PACKINGS", "choose_packings", "epilogue_packing", "packing", "whole_calls", "widen_calls"]
