"""How one recorded tensor becomes graph operators, given the tensors that it is made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bdnet_deploy.graph import (
    Array,
    BitLogic,
    Clamp,
    Dequantize,
    DType,
    Graph,
    GroupNorm,
    LayerNorm,
    Matmul,
    Mul,
    Op,
    Quantize,
    Reduce,
    Repeat,
    Reshape,
    Sign,
    Softmax,
    Ternarize,
    TwoSlope,
    Unary,
    Value,
)
from bdnet_deploy.importers.torch.aten import SOFTMAXES, shown
from bdnet_deploy.importers.torch.cone import layout_of_axis
from bdnet_deploy.importers.torch.constants import two_term_signs
from bdnet_deploy.importers.torch.emitted import Emitted, affine, in_layout, moved, real, unpadded
from bdnet_deploy.importers.torch.layers import array, max_pool, refuse
from bdnet_deploy.importers.torch.layout import Layout, fits, from_graph, graph_shape, to_graph
from bdnet_deploy.importers.torch.moves import Moved, emit_moves
from bdnet_deploy.importers.torch.pairs import Logic
from bdnet_deploy.importers.torch.piecewise import Limits, TwoLines
from bdnet_deploy.importers.torch.quantizer import Quantizer
from bdnet_deploy.importers.torch.reductions import Reduction
from bdnet_deploy.importers.torch.staircase import Staircase
from bdnet_deploy.importers.torch.trace import Step, Traced

Source = tuple[Traced, Layout | None]
_OPPOSITE = {"ge": "lt", "gt": "le", "le": "gt", "lt": "ge"}


@dataclass(frozen=True, eq=False)
class Rule:
    """``emit`` takes the emitted ``sources`` in their order; each in the layout asked for, or in any (None)."""

    sources: Sequence[Source]
    emit: Callable[..., Emitted]


def name_of(step: Step, suffix: str = "") -> str:
    return f"{step.path or shown(step.name)}{suffix}"


# -- functions of one tensor, element by element -----------------------------------------------------------------------


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
        repeated = _broadcast(graph, step, plain, x.shape, output.shape, target, vector=False)
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
        value = _with_parameters(graph, TwoSlope(), x, parameters, name_of(step), step.path)
        return Emitted(value, layout=emitted.layout)

    return Rule([source], emit)


def limits_rule(graph: Graph, step: Step, limits: Limits, want: Layout | None) -> Rule:
    """A line between two limits."""

    def emit(emitted: Emitted) -> Emitted:
        x = real(graph, emitted, step.where)
        if np.any(limits.slope != 1.0) or limits.offset.any():
            x = affine(graph, [x], [limits.slope], limits.offset, name_of(step, ".line"), step.path)
        data = {"low": limits.low, "high": limits.high}
        return Emitted(_with_parameters(graph, Clamp(), x, data, name_of(step), step.path), layout=emitted.layout)

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
            value = _with_parameters(graph, Sign(dtype), x, bits, name_of(step, ".sign"), step.path)
            if quantizer.unsigned:
                mul, add = 2 * mul, 0 * add
        else:
            trits = {"low": quantizer.low, "high": quantizer.high}
            value = _with_parameters(graph, Ternarize(), x, trits, name_of(step, ".ternary"), step.path)
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
            x = _with_parameters(graph, Clamp(), x, ends, f"{name}.limits", step.path)
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


def _with_parameters(graph: Graph, op: Op, x: Value, data: Mapping[str, Array], name: str, source: str) -> Value:
    channels = (x.type.channels,)
    constants = [graph.constant(f"{name}.{k}", np.broadcast_to(v, channels), DType.F64) for k, v in data.items()]
    return graph.add(op, [x, *constants], name, source=source)


# -- functions of two tensors -------------------------------------------------------------------------------------------


def sum_rule(graph: Graph, step: Step, want: Layout | None) -> Rule:
    """Sum or difference of two tensors; one may be a vector for all pixels."""
    factors = two_term_signs(step)

    def emit(*terms: Emitted) -> Emitted:
        (first, second), swapped = _operands(graph, step, terms)
        one, two = factors[::-1] if swapped else factors
        muls = [first.scale() * one, second.scale() * two]
        add = first.offset() * one + second.offset() * two
        values = [first.value, second.value]
        return Emitted(affine(graph, values, muls, add, name_of(step, ".add"), step.path), layout=first.layout)

    return Rule([(step.argument("self"), want), (step.argument("other"), want)], emit)


def product_rule(graph: Graph, step: Step, want: Layout | None) -> Rule:
    """Product of two tensors; one may be a gate for all pixels. Of two bits it is their xnor."""

    def emit(*factors: Emitted) -> Emitted:
        (first, second), _ = _operands(graph, step, factors)
        name = name_of(step, ".mul")
        bits = first.value.type.dtype is DType.BIT is second.value.type.dtype
        if (
            bits
            and first.value.type.shape == second.value.type.shape
            and not first.offset().any() | second.offset().any()
        ):
            value = graph.add(BitLogic("xnor"), [first.value, second.value], name, source=step.path)
            return Emitted(value, first.scale() * second.scale(), first.offset(), layout=first.layout)
        values = [real(graph, f, step.where) for f in (first, second)]
        return Emitted(graph.add(Mul(), values, name, source=step.path), layout=first.layout)

    return Rule([(step.argument("self"), want), (step.argument("other"), want)], emit)


def logic_rule(graph: Graph, step: Step, logic: Logic, want: Layout | None) -> Rule:
    """And, or, xor or xnor of two tensors of two levels, as bits."""

    def emit(*factors: Emitted) -> Emitted:
        plain = [unpadded(graph, e, step.where) for e in factors]
        layout = plain[0].layout
        bits = []
        for x, source, middle in zip(plain, logic.sources, logic.middles, strict=True):
            aligned = in_layout(graph, x, source.shape, layout, step.where)
            if aligned.value.type.dtype is DType.BIT and (aligned.scale() > 0).all():
                bits.append(aligned.value)
            else:
                value = real(graph, aligned, step.where)
                data = {"threshold": np.full(1, middle)}
                bits.append(_with_parameters(graph, Sign(), value, data, f"{value.name}.bits", step.path))
        value = graph.add(BitLogic(logic.kind), bits, name_of(step, f".{logic.kind}"), source=step.path)
        low, high = logic.levels
        channels = value.type.channels
        return Emitted(value, np.full(channels, (high - low) / 2), np.full(channels, (high + low) / 2), layout=layout)

    return Rule([(source, want) for source in logic.sources], emit)


def renumber_rule(source: Traced, mul: float, add: float, want: Layout | None) -> Rule:
    """Other numbers for the levels of a tensor of two: pending, like those that a quantizer leaves."""

    def emit(emitted: Emitted) -> Emitted:
        pad = mul * emitted.pad_value + add if emitted.padded else 0.0
        return replace(emitted, mul=mul * emitted.scale(), add=mul * emitted.offset() + add, pad_value=pad)

    return Rule([(source, want)], emit)


def comparison_rule(graph: Graph, step: Step, want: Layout | None, on: float = 1.0, off: float = 0.0) -> Rule:
    """A comparison of two tensors, or the choice between two numbers by one: bits, ubits where one number is 0."""
    name = step.name
    if on == 0.0:
        name, on, off = _OPPOSITE[name], off, on
    opposite = on == -off

    def emit(*terms: Emitted) -> Emitted:
        (first, second), swapped = _operands(graph, step, terms)
        sign = -1.0 if swapped ^ (name in ("le", "lt")) else 1.0
        muls = [first.scale() * sign, second.scale() * -sign]
        add = (first.offset() - second.offset()) * sign
        values = [first.value, second.value]
        difference = affine(graph, values, muls, add, name_of(step, ".difference"), step.path)
        # A strict comparison is one with the smallest number above zero.
        threshold = np.zeros(1) if name in ("ge", "le") else np.array([float(np.finfo(np.float32).smallest_subnormal)])
        data = {"threshold": threshold}
        dtype = DType.BIT if opposite else DType.UBIT
        value = _with_parameters(graph, Sign(dtype), difference, data, name_of(step), step.path)
        channels = (value.type.channels,)
        size, base = (on, 0.0) if opposite else (on - off, off)
        return Emitted(value, np.full(channels, size), np.full(channels, base), layout=first.layout)

    return Rule([(step.argument("self"), want), (step.argument("other"), want)], emit)


def _operands(graph: Graph, step: Step, emitted: Sequence[Emitted]) -> tuple[tuple[Emitted, Emitted], bool]:
    """Both operands in one layout, the first of the output's shape, the second too or a vector; whether they are swapped."""
    output = step.outputs[0]
    assert output is not None
    shapes = [step.argument("self").shape, step.argument("other").shape]
    plain = [unpadded(graph, e, step.where) for e in emitted]
    whole = [shape == output.shape for shape in shapes]
    layout = plain[0 if whole[0] or not whole[1] else 1].layout
    if not fits(output.shape, layout):
        layout = Layout.LAST
    aligned = [
        in_layout(graph, e, shape, layout, step.where)
        if shape == output.shape
        else _broadcast(graph, step, e, shape, output.shape, layout, vector=any(whole))
        for e, shape in zip(plain, shapes, strict=True)
    ]
    swapped = not whole[0] and whole[1]
    first, second = reversed(aligned) if swapped else aligned
    return (first, second), swapped


def _broadcast(
    graph: Graph, step: Step, x: Emitted, shape: tuple[int, ...], full: tuple[int, ...], layout: Layout, *, vector: bool
) -> Emitted:
    """An operand of ``shape`` beside one of shape ``full``: a vector where it can stay one, or repeated."""
    position = from_graph(np.arange(math.prod(shape)), shape, x.layout)
    aligned = position.reshape(*[1] * (len(full) - len(shape)), *shape)
    index = to_graph(aligned, layout)
    channels = graph_shape(full, layout)[-1]
    if not (vector and index.size == index.shape[-1] == channels):
        index = to_graph(np.broadcast_to(aligned, full), layout)
    name = name_of(step, ".broadcast")
    return moved(graph, x, index, layout, fill=0.0, where=step.where, name=name, source=step.path)


def quotient_rule(graph: Graph, step: Step, divisor: Traced, want: Layout | None) -> Rule:
    """One tensor over another that is never negative, or the reciprocal of such a one: 1 / y = rsqrt(y) ** 2."""
    name = name_of(step, ".div")

    def inverse(emitted: Emitted) -> Emitted:
        value = graph.add(Unary("rsqrt"), [real(graph, emitted, step.where)], f"{name}.rsqrt", source=step.path)
        return Emitted(graph.add(Unary("square"), [value], f"{name}.square", source=step.path), layout=emitted.layout)

    def quotient(dividend: Emitted, emitted: Emitted) -> Emitted:
        (first, second), _ = _operands(graph, step, (dividend, inverse(emitted)))
        values = [real(graph, f, step.where) for f in (first, second)]
        return Emitted(graph.add(Mul(), values, name, source=step.path), layout=first.layout)

    if step.name == "reciprocal":
        return Rule([(divisor, want)], inverse)
    return Rule([(step.argument("self"), want), (divisor, want)], quotient)


def matmul_rule(graph: Graph, step: Step) -> Rule:
    """A product of two activations, row by row: attention."""
    first, second = step.inputs_of_product
    assert step.outputs[0] is not None
    shape = graph_shape(step.outputs[0].shape, Layout.LAST)

    def emit(x: Emitted, y: Emitted) -> Emitted:
        scale, operands = 1.0, []
        for operand in (x, y):
            size = operand.scale()
            if operand.packed and not np.ptp(size) and not operand.offset().any():
                operands.append(operand.value)
                scale *= float(size[0])
            else:
                operands.append(real(graph, operand, step.where))
        maps = [v if len(v.type.shape) == 4 else _as_map(graph, v) for v in operands]
        value = graph.add(Matmul(), maps, name_of(step, ".matmul"), source=step.path)
        if len(shape) == 2:
            value = graph.add(Reshape(shape), [value], name_of(step, ".vector"), source=step.path)
        if scale != 1.0 or not value.type.dtype.is_float:
            value = affine(graph, [value], [np.array([scale])], np.zeros(1), name_of(step, ".scale"), step.path)
        return Emitted(value, layout=Layout.LAST)

    return Rule([(first, Layout.LAST), (second, Layout.SWAPPED)], emit)


def _as_map(graph: Graph, x: Value) -> Value:
    return graph.add(Reshape((1, 1, 1, x.type.channels)), [x], f"{x.name}.map", source="")


# -- functions of several elements --------------------------------------------------------------------------------------


def pad_rule(graph: Graph, step: Step) -> Rule:
    """Padding of a map stays pending until a convolution takes it."""
    left, right, top, bottom = (*(int(a) for a in step.argument("pad")), 0, 0)[:4]
    fill = float(step.argument("value") or 0.0)

    def emit(emitted: Emitted) -> Emitted:
        plain = unpadded(graph, emitted, step.where)
        return replace(plain, padding=(top, bottom, left, right), pad_value=fill)

    return Rule([(step.inputs[0], Layout.FIRST)], emit)


def move_rule(graph: Graph, found: Moved, want: Layout | None) -> Rule:
    """Elements in other places, levels and all."""

    def emit(*parts: Emitted) -> Emitted:
        return emit_moves(graph, found, parts, want)

    return Rule([(source, None) for source in found.sources], emit)


def reduce_rule(graph: Graph, step: Step, found: Reduction) -> Rule:
    """Means, sums and maxima of real values."""

    def emit(emitted: Emitted) -> Emitted:
        value = real(graph, emitted, step.where)
        for op in found.ops:
            value = graph.add(op, [value], name_of(step, f".{op.name}"), source=step.path)
        if found.factor != 1.0:
            factor = np.array([found.factor])
            value = affine(graph, [value], [factor], np.zeros(1), name_of(step, ".sum"), step.path)
        return Emitted(value, layout=found.after)

    return Rule([(found.source, found.before)], emit)


def operator_rule(graph: Graph, step: Step, ops: Sequence[Op], suffix: str) -> Rule:
    """Operators on the real values of a map."""

    def emit(emitted: Emitted) -> Emitted:
        value = real(graph, emitted, step.where)
        for op in ops:
            value = graph.add(op, [value], name_of(step, suffix), source=step.path)
        return Emitted(value, layout=Layout.FIRST)

    return Rule([(step.inputs[0], Layout.FIRST)], emit)


def max_pool_rule(graph: Graph, step: Step) -> Rule:
    """Maxima of windows; of levels too, where a larger level is a larger number."""
    op = max_pool(step)

    def emit(emitted: Emitted) -> Emitted:
        plain = unpadded(graph, emitted, step.where)
        if plain.packed and (plain.scale() <= 0).any():
            plain = Emitted(real(graph, plain, step.where), layout=plain.layout)
        return replace(plain, value=graph.add(op, [plain.value], name_of(step, ".max_pool"), source=step.path))

    return Rule([(step.inputs[0], Layout.FIRST)], emit)


def softmax_rule(graph: Graph, step: Step) -> Rule:
    """Softmax, or its logarithm: the input less its largest element, less the logarithm of the sum of its exponentials."""
    x = step.inputs[0]
    axis = int(step.argument("dim")) % len(x.shape)
    layout = layout_of_axis(x.shape, axis)
    if layout is None:
        raise refuse(step, f"it is over axis {axis} of a tensor of shape {x.shape}", "take it over the last axis")

    def emit(emitted: Emitted) -> Emitted:
        value = real(graph, emitted, step.where)
        name, source = name_of(step, ".softmax"), step.path
        if step.name in SOFTMAXES:
            return Emitted(graph.add(Softmax(), [value], name, source=source), layout=layout)
        shape, channels = value.type.shape, value.type.channels

        def less(y: Value, of: Value, what: str) -> Value:
            spread = graph.add(Repeat(channels), [of], f"{name}.{what}.repeat", source=source)
            ones = np.ones(channels)
            return affine(graph, [y, spread], [ones, -ones], 0 * ones, f"{name}.{what}.less", source)

        if len(shape) == 2:
            value = graph.add(Reshape((1, 1, 1, channels)), [value], f"{name}.map", source=source)
        largest = graph.add(Reduce("max", "channels"), [value], f"{name}.max", source=source)
        value = less(value, largest, "max")
        total = graph.add(Unary("exp"), [value], f"{name}.exp", source=source)
        total = graph.add(Reduce("sum", "channels"), [total], f"{name}.sum", source=source)
        total = graph.add(Unary("log"), [total], f"{name}.log", source=source)
        value = less(value, total, "sum")
        if len(shape) == 2:
            value = graph.add(Reshape(shape), [value], f"{name}.vector", source=source)
        return Emitted(value, layout=layout)

    return Rule([(x, layout)], emit)


def norm_rule(graph: Graph, step: Step) -> Rule:
    """Layer normalization over the last axis, or group normalization, and its scale and shift."""
    x = step.inputs[0]
    epsilon = float(step.argument("eps"))
    op: Op
    if step.name == "native_layer_norm":
        if len(step.argument("normalized_shape")) != 1:
            raise refuse(
                step, "it normalizes over several axes", "normalize over the last axis (the channels of a token)"
            )
        op, layout = LayerNorm(epsilon), Layout.LAST
    else:
        op, layout = GroupNorm(int(step.argument("group")), epsilon), Layout.FIRST
    parameters = [step.argument("weight"), step.argument("bias")]
    mul, add = (
        np.full(1, default) if p is None else array(step, p, what)
        for p, default, what in zip(parameters, (1.0, 0.0), ("weight", "bias"), strict=True)
    )

    def emit(emitted: Emitted) -> Emitted:
        name = name_of(step, f".{op.name}")
        value = graph.add(op, [real(graph, emitted, step.where)], name, source=step.path)
        if np.any(mul != 1.0) or add.any():
            value = affine(graph, [value], [mul], add, name_of(step), step.path)
        return Emitted(value, layout=layout)

    return Rule([(x, layout)], emit)
