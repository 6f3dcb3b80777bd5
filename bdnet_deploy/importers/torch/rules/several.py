"""Functions of several elements: moves, reductions, pools, softmax, normalizations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bdnet_deploy.graph import (
    Graph,
    GroupNorm,
    LayerNorm,
    Op,
    Reduce,
    Repeat,
    Reshape,
    Softmax,
    Unary,
    Value,
)
from bdnet_deploy.importers.torch.aten import SOFTMAXES
from bdnet_deploy.importers.torch.cone import layout_of_axis
from bdnet_deploy.importers.torch.emitted import Emitted, affine, real, unpadded
from bdnet_deploy.importers.torch.layers import array, max_pool, refuse
from bdnet_deploy.importers.torch.layout import Layout, along_channels
from bdnet_deploy.importers.torch.moves import Moved, emit_moves
from bdnet_deploy.importers.torch.reductions import Reduction
from bdnet_deploy.importers.torch.rules.rule import Rule, name_of
from bdnet_deploy.importers.torch.trace import Step


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
        np.full(1, default) if p is None else along_channels(array(step, p, what), x.shape, layout)
        for p, default, what in zip(parameters, (1.0, 0.0), ("weight", "bias"), strict=True)
    )

    def emit(emitted: Emitted) -> Emitted:
        name = name_of(step, f".{op.name}")
        value = graph.add(op, [real(graph, emitted, step.where)], name, source=step.path)
        if np.any(mul != 1.0) or add.any():
            value = affine(graph, [value], [mul], add, name_of(step), step.path)
        return Emitted(value, layout=layout)

    return Rule([(x, layout)], emit)
