"""How one recorded tensor becomes graph operators, given the tensors that it is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bdnet_deploy.graph import (
    Array,
    AvgPool,
    DType,
    GlobalAvgPool,
    Graph,
    GroupMean,
    Op,
    Repeat,
    Reshape,
    Sign,
    Ternarize,
    TwoSlope,
    Value,
)
from bdnet_deploy.importers.torch.aten import shown
from bdnet_deploy.importers.torch.constants import two_term_signs
from bdnet_deploy.importers.torch.emitted import Emitted, affine, real, unpadded
from bdnet_deploy.importers.torch.layers import refuse
from bdnet_deploy.importers.torch.moves import Move
from bdnet_deploy.importers.torch.piecewise import TwoLines
from bdnet_deploy.importers.torch.quantizer import Quantizer
from bdnet_deploy.importers.torch.trace import Step, Traced

_SUFFIXES: dict[type[Op], str] = {
    AvgPool: ".pool",
    GlobalAvgPool: ".pool",
    GroupMean: ".mean",
    Repeat: ".repeat",
    Reshape: ".reshape",
}


@dataclass(frozen=True, eq=False)
class Rule:
    """``emit`` takes the emitted ``sources`` in their order."""

    sources: Sequence[Traced]
    emit: Callable[..., Emitted]


def name_of(step: Step, suffix: str = "") -> str:
    return f"{step.path or shown(step.name)}{suffix}"


def affine_rule(graph: Graph, step: Step, x: Traced, mul: Array, add: Array, suffix: str = "") -> Rule:
    """``x * mul + add`` per channel. Levels stay levels under a factor; with an offset they become real."""

    def emit(emitted: Emitted) -> Emitted:
        unpadded(emitted, step.where)
        scale, offset = mul * emitted.scale(), mul * emitted.offset() + add
        if emitted.packed and not add.any():
            return replace(emitted, mul=scale, add=offset)
        return Emitted(affine(graph, [emitted.value], [scale], offset, name_of(step, suffix), step.path))

    return Rule([x], emit)


def sum_rule(graph: Graph, step: Step) -> Rule:
    """Sum or difference of two tensors."""
    left, right = step.argument("self"), step.argument("other")
    if left.shape != right.shape:
        raise refuse(
            step,
            f"its terms have different shapes, {left.shape} and {right.shape}",
            "add tensors of one shape; repeat channels where the widths differ",
        )
    factors = two_term_signs(step)

    def emit(*terms: Emitted) -> Emitted:
        for term in terms:
            unpadded(term, step.where)
        muls = [term.scale() * factor for term, factor in zip(terms, factors, strict=True)]
        add = sum((t.offset() * f for t, f in zip(terms, factors, strict=True)), np.zeros(left.shape[1]))
        return Emitted(affine(graph, [t.value for t in terms], muls, add, name_of(step, ".add"), step.path))

    return Rule([left, right], emit)


def lines_rule(graph: Graph, step: Step, lines: TwoLines) -> Rule:
    """An affine or two-slope function."""
    if lines.affine:
        add = lines.bias + lines.shift * lines.positive
        return affine_rule(graph, step, lines.source, lines.positive, add)

    def emit(emitted: Emitted) -> Emitted:
        x = real(graph, emitted, step.where)
        if lines.shift.any():
            x = affine(graph, [x], [np.ones_like(lines.shift)], lines.shift, name_of(step, ".shift"), step.path)
        parameters = {"positive": lines.positive, "negative": lines.negative, "bias": lines.bias}
        return Emitted(_with_parameters(graph, TwoSlope(), x, parameters, name_of(step), step.path))

    return Rule([lines.source], emit)


def quantize_rule(graph: Graph, step: Step, quantizer: Quantizer) -> Rule:
    """Bits or trits; their scale stays pending. A padding pending before is a padding with a level after."""

    def emit(emitted: Emitted) -> Emitted:
        padding, fill = emitted.padding, 0.0
        if emitted.padded:
            fill = _level_of_padding(quantizer, emitted.pad_value, step)
        x = real(graph, replace(emitted, padding=(0, 0, 0, 0)), step.where)
        mul, add = quantizer.mul, quantizer.add
        if quantizer.binary:
            dtype = DType.UBIT if quantizer.unsigned else DType.BIT
            bits = {"threshold": quantizer.low}
            value = _with_parameters(graph, Sign(dtype), x, bits, name_of(step, ".sign"), step.path)
            if quantizer.unsigned:
                mul, add = 2 * mul, 0 * add
        else:
            trits = {"low": quantizer.low, "high": quantizer.high}
            value = _with_parameters(graph, Ternarize(), x, trits, name_of(step, ".ternary"), step.path)
        return Emitted(value, mul, add, padding, fill, tie=quantizer.tie)

    return Rule([quantizer.source], emit)


def _level_of_padding(quantizer: Quantizer, fill: float, step: Step) -> float:
    t = (fill >= quantizer.low).astype(np.float64) + (fill >= quantizer.high) - 1
    levels = t * quantizer.mul + quantizer.add
    if np.ptp(levels) > 1e-6 * np.abs(levels).max():
        raise refuse(
            step,
            f"its input is padded with {fill:g}, which becomes different levels in different channels",
            "pad in the convolution, after the quantizer",
        )
    return float(levels[0])


def _with_parameters(graph: Graph, op: Op, x: Value, data: Mapping[str, Array], name: str, source: str) -> Value:
    constants = [graph.constant(f"{name}.{key}", array, DType.F64) for key, array in data.items()]
    return graph.add(op, [x, *constants], name, source=source)


def pad_rule(step: Step) -> Rule:
    """Padding stays pending until a convolution takes it."""
    x, amounts = step.inputs[0], [int(a) for a in step.argument("pad")]
    if len(x.shape) != 4 or any(amounts[4:]) or min(amounts) < 0:
        raise refuse(step, "it pads channels or crops", "only height and width can be padded")
    left, right, top, bottom = (*amounts, 0, 0)[:4]
    fill = float(step.argument("value") or 0.0)

    def emit(emitted: Emitted) -> Emitted:
        return replace(unpadded(emitted, step.where), padding=(top, bottom, left, right), pad_value=fill)

    return Rule([x], emit)


def move_rule(graph: Graph, step: Step, move: Move) -> Rule:
    """Repeats and reshapes keep levels; means are taken of real values."""

    def emit(emitted: Emitted) -> Emitted:
        if move.ops:
            unpadded(emitted, step.where)
        if any(not isinstance(op, Repeat | Reshape) for op in move.ops):
            emitted = Emitted(real(graph, emitted, step.where))
        for op in move.ops:
            name = name_of(step, _SUFFIXES.get(type(op), ""))
            value = graph.add(op, [emitted.value], name, source=step.path)
            times = op.times if isinstance(op, Repeat) else 1
            mul, add = (None if p is None else np.tile(p, times) for p in (emitted.mul, emitted.add))
            emitted = replace(emitted, value=value, mul=mul, add=add)
        if move.factor != 1.0:
            size = np.full(emitted.value.type.channels, move.factor)
            emitted = Emitted(
                affine(graph, [emitted.value], [size], np.zeros_like(size), name_of(step, ".sum"), step.path)
            )
        return emitted

    return Rule([move.source], emit)
