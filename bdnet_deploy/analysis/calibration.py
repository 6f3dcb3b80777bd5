"""The calibration report: what calibration chose, and what fixed point does to the calibration samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bdnet_deploy.analysis.comparing.quantized import Comparison, compare
from bdnet_deploy.backends import need_samples
from bdnet_deploy.errors import UsageError, unknown_name
from bdnet_deploy.graph import Array, DType, Sign
from bdnet_deploy.passes import merge_affine
from bdnet_deploy.report import Column, Report, Table

if TYPE_CHECKING:
    from bdnet_deploy.model import Model, PathLike, Progress
    from bdnet_deploy.samples import Samples

#: The two graphs are compared on at most so many samples, an even part of those that set the ranges.
LIMIT = 100


def report_calibration(
    model: Model,
    calibrate: PathLike | Array | Samples,
    numerics: str,
    *,
    limit: int = LIMIT,
    progress: Progress | None = None,
) -> Report:
    """See :meth:`bdnet_deploy.model.Model.calibration`."""
    if numerics == "float":
        raise UsageError("float has no ranges to calibrate", fix="--numerics fixed16 or fixed8")
    if numerics not in ("fixed16", "fixed8"):
        raise unknown_name("numerics", numerics, ("fixed16", "fixed8"))
    need_samples(numerics, calibrate)
    samples = model.samples(calibrate)
    lowered = model.lowered(numerics, samples, progress=progress)
    part = samples.spread(limit)
    step = (lambda done, total: progress("comparing with float", done, total)) if progress else None
    found = compare(merge_affine(model.graph), lowered, part, part.y, step)
    tables = [_summary(found, numerics, len(samples)), _edges(found, len(samples)), _signs(found)]
    return Report("calibration", {"model": model.name, "numerics": numerics}, tables)


def _summary(found: Comparison, numerics: str, calibrated: int) -> Table:
    table = Table(
        "calibration",
        [
            Column("numerics"),
            Column("calibrated", "samples", align="right", format=","),
            Column("compared", align="right", format=","),
            Column("values", align="right", format=","),
            Column("saturated", align="right", format=","),
            Column("signs", align="right", format=","),
            Column("equal_signs", "equal to float", "%", "right", ".2f"),
            Column("same_top1", "top-1 as float", align="right", format=","),
            Column("float_correct", "float correct", align="right", format=","),
            Column("correct", align="right", format=","),
        ],
        key="calibration",
    )
    signs = sum(s.values for s in found.signs)
    table.add(
        numerics=numerics,
        calibrated=calibrated,
        compared=found.samples,
        values=sum(edge.values for edge in found.edges),
        saturated=found.saturated,
        signs=signs,
        equal_signs=100 * sum(s.equal for s in found.signs) / signs if signs else None,
        same_top1=found.same_top1,
        float_correct=found.real_correct,
        correct=found.correct,
    )
    table.notes.append(
        "Counted in the numpy references of the network as imported (float, in double) and of the quantized one, on "
        f"{found.samples} of the {calibrated} samples that set the ranges."
    )
    return table


def _edges(found: Comparison, calibrated: int) -> Table:
    table = Table(
        "ranges",
        [
            Column("edge"),
            Column("dtype"),
            Column("low", "seen from", align="right", format=".4g"),
            Column("high", "to", align="right", format=".4g"),
            Column("representable_low", "representable from", align="right", format=".4g"),
            Column("representable_high", "to", align="right", format=".4g"),
            Column("finest_scale", "scale from", align="right", format=".3g"),
            Column("coarsest_scale", "to", align="right", format=".3g"),
            Column("used", "fullest channel", "%", "right", ".1f"),
            Column("values", align="right", format=","),
            Column("saturated", align="right", format=","),
            Column("beyond", "float beyond", align="right", format=","),
        ],
        key="ranges",
    )
    for edge in found.edges:
        low, high = edge.representable
        table.add(
            edge=edge.value.name,
            dtype=edge.value.type.dtype.value,
            low=float(edge.low.min()),
            high=float(edge.high.max()),
            representable_low=float(low.min()),
            representable_high=float(high.max()),
            finest_scale=float(edge.quant.scale.min()),
            coarsest_scale=float(edge.quant.scale.max()),
            used=100 * edge.used,
            values=edge.values,
            saturated=edge.saturated,
            beyond=edge.beyond,
        )
    table.notes += [
        f"Seen: over all {calibrated} samples and all channels; scales are per channel.",
        "Saturated: values of the quantized network that clipping changed. "
        "Float beyond: values of the float network that the integers cannot represent.",
    ]
    return table


def _signs(found: Comparison) -> Table:
    table = Table(
        "signs and trits",
        [
            Column("layer"),
            Column("dtype"),
            Column("values", align="right", format=","),
            Column("different", align="right", format=","),
            Column("equal", "equal to float", "%", "right", ".2f"),
        ],
        key="signs",
    )
    for signs in found.signs:
        table.add(
            layer=signs.node.name,
            dtype=(DType.BIT if isinstance(signs.node.op, Sign) else DType.TRIT).value,
            values=signs.values,
            different=signs.values - signs.equal,
            equal=100 * signs.equal / signs.values,
        )
    table.notes.append(
        "Each network computes with its own values: differences of earlier layers are part of later ones'."
    )
    return table
