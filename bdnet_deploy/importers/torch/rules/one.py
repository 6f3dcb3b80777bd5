"""Functions of one tensor, element by element."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bdnet_deploy.graph import (
    Array,
    Clamp,
    Dequantize,
    DType,
    Graph,
    Op,
    Quantize,
    Sign,
    Ternarize,
    TwoSlope,
    Unary,
)
from bdnet_deploy.importers.torch.emitted import Emitted, affine, real, unpadded
from bdnet_deploy.importers.torch.layers import refuse
from bdnet_deploy.importers.torch.layout import Layout, fits, to_graph
from bdnet_deploy.importers.torch.piecewise import Limits, TwoLines
from bdnet_deploy.importers.torch.quantizer import Quantizer
from bdnet_deploy.importers.torch.rules.rule import Rule, Source, broadcast, name_of, with_parameters
from bdnet_deploy.importers.torch.staircase import Staircase
from bdnet_deploy.importers.torch.trace import Step


def affine_rule(graph: Graph, step: Step, x: Source, mul: Array, add: Array, suffix: str = "") -> Rule:
    """``x * mul + add`` per channel. Levels stay levels under a factor; with an offset they become real."""

    def emit(emitted: Emitted) -> Emitted:
        emitted = unpadded(graph, emitted, step.where)
        scale, offset = mul * emitted.scale(), mul * emitted.offset() + add
        if emitted.packed and not add.any():
            return replace(emitted, mul=scale, add=offset)
        value = affine(graph, [emitted.value], [scale], offset, name_of(step, suffix), step.path)
        return Emitted(value, layout=emitted.layout)

    return Rule([x], emit)


def map_rule(graph: Graph, step: Step, op: Op, factor: float, constant: Array, want: Layout | None) -> Rule:
    """``factor * x`` plus, or times, a constant of its shape."""

    def emit(emitted: Emitted) -> Emitted:
        x = real(graph, emitted, step.where)
        if factor != 1.0:
            x = affine(graph, [x], [np.array([factor])], np.zeros(1), name_of(step, ".factor"), step.path)
        name = name_of(step, f".{op.name}")
        data = graph.constant(f"{name}.map", to_graph(constant, emitted.layout), DType.F64)
        return Emitted(graph.add(op, [x, data], name, source=step.path), layout=emitted.layout)

    return Rule([(step.inputs[0], want)], emit)


def broadcast_rule(graph: Graph, step: Step, layout: Layout | None, mul: Array, add: Array, suffix: str = "") -> Rule:
    """``x * mul + add`` of constants with more elements than x, which is repeated to their shape."""
    x, output = step.inputs[0], step.outputs[0]
    assert output is not None
    target = layout or (Layout.FIRST if fits(output.shape, Layout.FIRST) else Layout.LAST)

    def emit(emitted: Emitted) -> Emitted:
        plain = unpadded(graph, emitted, step.where)
        repeated = broadcast(graph, step, plain, x.shape, output.shape, target, vector=False)
        factors = (repeated.scale(), repeated.offset())
        scale, offset = mul * factors[0], mul * factors[1] + add
        value = affine(graph, [repeated.value], [scale], offset, name_of(step, suffix), step.path)
        return Emitted(value, layout=target)

    return Rule([(x, None)], emit)


def lines_rule(graph: Graph, step: Step, lines: TwoLines, want: Layout | None) -> Rule:
    """An affine or two-slope function."""
    source = (lines.source, lines.layout or want)
    if lines.affine:
        add = lines.bias + lines.shift * lines.positive
        return affine_rule(graph, step, source, lines.positive, add)

    def emit(emitted: Emitted) -> Emitted:
        x = real(graph, emitted, step.where)
        if lines.shift.any():
            x = affine(graph, [x], [np.ones(1)], lines.shift, name_of(step, ".shift"), step.path)
        parameters = {"positive": lines.positive, "negative": lines.negative, "bias": lines.bias}
        value = with_parameters(graph, TwoSlope(), x, parameters, name_of(step), step.path)
        return Emitted(value, layout=emitted.layout)

    return Rule([source], emit)


def limits_rule(graph: Graph, step: Step, limits: Limits, want: Layout | None) -> Rule:
    """A line between two limits."""

    def emit(emitted: Emitted) -> Emitted:
        x = real(graph, emitted, step.where)
        if np.any(limits.slope != 1.0) or limits.offset.any():
            x = affine(graph, [x], [limits.slope], limits.offset, name_of(step, ".line"), step.path)
        data = {"low": limits.low, "high": limits.high}
        return Emitted(with_parameters(graph, Clamp(), x, data, name_of(step), step.path), layout=emitted.layout)

    return Rule([(limits.source, limits.layout or want)], emit)


def unary_rule(graph: Graph, step: Step, function: str, want: Layout | None) -> Rule:
    """A function that the graph has by name."""

    def emit(emitted: Emitted) -> Emitted:
        x = real(graph, emitted, step.where)
        value = graph.add(Unary(function), [x], name_of(step), source=step.path)
        return Emitted(value, layout=emitted.layout)

    return Rule([(step.inputs[0], want)], emit)


def quantize_rule(graph: Graph, step: Step, quantizer: Quantizer, want: Layout | None) -> Rule:
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
            value = with_parameters(graph, Sign(dtype), x, bits, name_of(step, ".sign"), step.path)
            if quantizer.unsigned:
                mul, add = 2 * mul, 0 * add
        else:
            trits = {"low": quantizer.low, "high": quantizer.high}
            value = with_parameters(graph, Ternarize(), x, trits, name_of(step, ".ternary"), step.path)
        channels = (value.type.channels,)
        mul, add = np.broadcast_to(mul, channels), np.broadcast_to(add, channels)
        return Emitted(value, mul, add, padding, fill, tie=quantizer.tie, layout=emitted.layout)

    return Rule([(quantizer.source, quantizer.layout or want)], emit)


def staircase_rule(graph: Graph, step: Step, found: Staircase, want: Layout | None) -> Rule:
    """Integers and back: limits where the levels are fewer than the integers, and affine maps of what they stand for."""

    def emit(emitted: Emitted) -> Emitted:
        padding, fill = emitted.padding, found(emitted.pad_value)
        if emitted.padded and np.ptp(fill) == 0 and fill[0] in (-1.0, 0.0, 1.0):
            emitted = replace(emitted, padding=(0, 0, 0, 0))
        else:
            padding = (0, 0, 0, 0)
        x, name = real(graph, emitted, step.where), name_of(step)
        if found.shift.any():
            x = affine(graph, [x], [np.ones(1)], found.shift, f"{name}.shift", step.path)
        dtype, zero = found.integers
        if found.limited:
            ends = {"low": np.array([found.first * found.step]), "high": np.array([found.last * found.step])}
            x = with_parameters(graph, Clamp(), x, ends, f"{name}.limits", step.path)
        x = graph.add(Quantize(dtype, found.step, zero), [x], f"{name}.quantize", source=step.path)
        x = graph.add(Dequantize(), [x], f"{name}.dequantize", source=step.path)
        if np.any(found.after != 1.0) or found.offset.any():
            x = affine(graph, [x], [found.after], found.offset, f"{name}.levels", step.path)
        return Emitted(x, padding=padding, pad_value=float(fill[0]), layout=emitted.layout)

    return Rule([(found.source, found.layout or want)], emit)


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
