"""Functions of two tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bdnet_deploy.graph import (
    BitLogic,
    DType,
    Graph,
    Matmul,
    Mul,
    Reshape,
    Sign,
    Unary,
    Value,
)
from bdnet_deploy.importers.torch.constants import two_term_signs
from bdnet_deploy.importers.torch.emitted import Emitted, affine, in_layout, real, unpadded
from bdnet_deploy.importers.torch.layout import Layout, fits, graph_shape
from bdnet_deploy.importers.torch.pairs import Logic
from bdnet_deploy.importers.torch.rules.rule import Rule, broadcast, name_of, with_parameters
from bdnet_deploy.importers.torch.trace import Step, Traced

_OPPOSITE = {"ge": "lt", "gt": "le", "le": "gt", "lt": "ge"}


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
                bits.append(with_parameters(graph, Sign(), value, data, f"{value.name}.bits", step.path))
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
        value = with_parameters(graph, Sign(dtype), difference, data, name_of(step), step.path)
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
        else broadcast(graph, step, e, shape, output.shape, layout, vector=any(whole))
        for e, shape in zip(plain, shapes, strict=True)
    ]
    swapped = not whole[0] and whole[1]
    first, second = reversed(aligned) if swapped else aligned
    return (first, second), swapped


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
