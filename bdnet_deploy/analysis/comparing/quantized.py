"""The real and the quantized graph side by side: what saturates, which signs change, which predictions.

The numpy references of both run on the same samples. Every number is counted from their values; nothing is estimated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph import Affine, Array, Graph, Lut, Node, Quant, Sign, Ternarize, TwoSlope, Unary, Value, evaluate
from bdnet_deploy.graph.ops.pointwise import FRACTION_BITS
from bdnet_deploy.lowering import Lowered
from bdnet_deploy.passes import Batches, batch_size

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
        if twin is not None and not (_same_kind(twin, node) and twin.output.type.shape == node.output.type.shape):
            twin = None
        if twin is not None and isinstance(node.op, Sign | Ternarize):
            signs.append(Signs(node, twin.output))
        elif twin is not None:
            twins[node.output] = twin.output
        elif (
            node.name not in by_name  # the model's own quantization saturates on purpose
            and isinstance(node.op, Affine)
            and node.op.terms == 1
            and node.inputs[0] in twins
        ):
            twins[node.output] = twins[node.inputs[0]]  # the same numbers at another scale, for a reader that needs one
    edges = [
        Edge(value, twin, np.asarray(seen.low[twin.name]), np.asarray(seen.high[twin.name]))
        for value, twin in twins.items()
        if value.node is None or isinstance(value.node.op, Affine | TwoSlope)
    ]
    return Comparison(edges, signs)


def _same_kind(real: Node, fixed: Node) -> bool:
    """Whether one node does what the other does; a function is a table in fixed point."""
    return type(real.op) is type(fixed.op) or (isinstance(real.op, Unary) and isinstance(fixed.op, Lut))


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
