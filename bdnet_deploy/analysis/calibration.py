"""What calibration chose, and what fixed point does to the calibration samples.

The numpy references of the real and of the quantized graph run side by side on the same samples. Every number is counted
from their values; nothing is estimated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.backends import need_samples
from bdnet_deploy.errors import UsageError, unknown_name
from bdnet_deploy.graph import Affine, Array, DType, Graph, Node, Quant, Sign, Ternarize, TwoSlope, Value, evaluate
from bdnet_deploy.graph.ops.pointwise import FRACTION_BITS
from bdnet_deploy.lowering import Lowered
from bdnet_deploy.passes import Batches, batch_size, merge_affine
from bdnet_deploy.report import Column, Report, Table

if TYPE_CHECKING:
    from bdnet_deploy.model import Model, PathLike, Progress
    from bdnet_deploy.samples import Samples

#: The two graphs are compared on at most so many samples, an even part of those that set the ranges.
LIMIT = 100
#: Elements of all values of both graphs that are held at once.
_ELEMENTS = 1 << 24


@dataclass(eq=False)
class Edge:
    """An integer map between layers (or an input) and the real value that it stands for.

    Attributes:
        value: in the quantized graph.
        real: in the real graph.
        low, high: (C,) range that calibration saw.
        values: how many were compared.
        saturated: how many of them clipping changed in the quantized graph, in a term or in the result.
        beyond: how many values of the real graph lie outside of what the integers can represent.
    """

    value: Value
    real: Value
    low: Array
    high: Array
    values: int = 0
    saturated: int = 0
    beyond: int = 0

    @property
    def quant(self) -> Quant:
        """Scale and zero point, each (C,)."""
        quant, shape = self.value.type.quant or Quant.of(1.0), (self.value.type.channels,)
        return Quant(np.broadcast_to(quant.scale, shape), np.broadcast_to(quant.zero_point, shape))

    @property
    def representable(self) -> tuple[Array, Array]:
        """(C,) smallest and largest real number that the integers stand for."""
        smallest, largest = self.value.type.dtype.range
        return self.quant.dequantize(np.array(smallest)), self.quant.dequantize(np.array(largest))

    @property
    def used(self) -> float:
        """Share of its representable range that the fullest channel used in calibration; above 1 it did not fit."""
        low, high = self.representable
        middle, half = (low + high) / 2, (high - low) / 2
        return float((np.maximum(np.abs(self.high - middle), np.abs(self.low - middle)) / half).max())


@dataclass(eq=False)
class Signs:
    """A sign or ternarizer: how many of its values are those of the real graph."""

    node: Node
    real: Value
    values: int = 0
    equal: int = 0


@dataclass(eq=False)
class Comparison:
    """The quantized graph against the real one on the same samples. ``*correct`` is None without labels."""

    edges: list[Edge]
    signs: list[Signs]
    samples: int = 0
    same_top1: int = 0
    real_correct: int | None = None
    correct: int | None = None

    @property
    def saturated(self) -> int:
        return sum(edge.saturated for edge in self.edges)


def compare(
    real: Graph,
    lowered: Lowered,
    samples: Batches,
    y: Array | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Run both graphs on the samples.

    Args:
        real: the graph that was quantized, with affine maps merged and one input.
        lowered: in fixed16 or fixed8.
        samples: as the network sees them; one batch of them is held at a time.
        y: (N,) class numbers, if known.
        progress: called with (samples done, samples in all).
    """
    result = _counters(real, lowered)
    fixed = lowered.graph
    real_correct = correct = 0
    for x in samples.batches(batch_size(real, fixed, elements=_ELEMENTS)):
        encoded = lowered.encode(x)
        before, after = evaluate(real, [x], keep=True), evaluate(fixed, [encoded], keep=True)
        for edge in result.edges:
            _count(edge, before[edge.real.name], after, x)
        for signs in result.signs:
            a, b = before[signs.real.name], after[signs.node.name]
            signs.values += a.size
            signs.equal += int((a == b).sum())
        tops = [
            logits.reshape(len(x), -1).argmax(-1)
            for logits in (before[real.outputs[0].name], lowered.decode(after[fixed.outputs[0].name]))
        ]
        result.same_top1 += int((tops[0] == tops[1]).sum())
        if y is not None:
            part = y[result.samples : result.samples + len(x)]
            real_correct += int((tops[0] == part).sum())
            correct += int((tops[1] == part).sum())
        result.samples += len(x)
        if progress:
            progress(result.samples, len(samples))
    if y is not None:
        result.real_correct, result.correct = real_correct, correct
    return result


def _counters(real: Graph, lowered: Lowered) -> Comparison:
    """The edges and signs of the quantized graph that have a twin in the real one, which is found by its name."""
    assert lowered.seen is not None
    seen = lowered.seen
    twins: dict[Value, Value] = dict(zip(lowered.graph.inputs, real.inputs, strict=True))
    by_name = {node.name: node for node in real.nodes}
    signs: list[Signs] = []
    for node in lowered.graph.nodes:
        twin = by_name.get(node.name)
        if twin is not None and (
            type(twin.op) is not type(node.op) or twin.output.type.shape != node.output.type.shape
        ):
            twin = None
        if twin is not None and isinstance(node.op, Sign | Ternarize):
            signs.append(Signs(node, twin.output))
        elif twin is not None:
            twins[node.output] = twin.output
        elif isinstance(node.op, Affine) and node.op.terms == 1 and node.inputs[0] in twins:
            twins[node.output] = twins[node.inputs[0]]  # the same numbers at another scale, for a reader that needs one
    edges = [
        Edge(value, twin, np.asarray(seen.low[twin.name]), np.asarray(seen.high[twin.name]))
        for value, twin in twins.items()
        if value.node is None or isinstance(value.node.op, Affine | TwoSlope)
    ]
    return Comparison(edges, signs)


def _count(edge: Edge, before: Array, after: dict[str, Array], x: Array) -> None:
    """Add one batch to an edge; ``x`` is the real input."""
    value, node = edge.value, edge.value.node
    if node is None:
        quant = edge.quant
        unclipped = np.rint(np.asarray(x, np.float64) / quant.scale + quant.zero_point)
    else:
        unclipped = unsaturated(node, [v.data if v.data is not None else after[v.name] for v in node.inputs])
    low, high = edge.representable
    half = edge.quant.scale / 2
    edge.values += before.size
    edge.saturated += int((unclipped != after[value.name]).sum())
    edge.beyond += int(((before < low - half) | (before > high + half)).sum())


def unsaturated(node: Node, arrays: list[Array]) -> Array:
    """What a fixed-point affine or two-slope would give if nothing in it clipped: int64.

    Args:
        node: its operator is ``Affine`` or ``TwoSlope`` with an integer output.
        arrays: its inputs, as its reference takes them.
    """
    if isinstance(node.op, Affine):
        terms = node.op.terms
        total = arrays[-1].astype(np.int64)
        for x, mul, shift in zip(arrays[:terms], arrays[terms:-1], node.op.shifts, strict=True):
            wide = x.astype(np.int64)
            total = total + (wide << shift if shift >= 0 else wide >> -shift) * mul.astype(np.int64)
        return np.asarray(total >> FRACTION_BITS)
    x, positive, negative = arrays
    return np.asarray((x.astype(np.int64) * np.where(x >= 0, positive, negative).astype(np.int64)) >> FRACTION_BITS)


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
