"""Pools, means, sums and maxima."""

from __future__ import annotations

from bdnet_deploy.graph import AvgPool, GlobalAvgPool, GroupMean, MaxPool, Op, Reduce, Reshape
from bdnet_deploy.importers.tflite.entries import NO_PADDING, Entry, graph_shape
from bdnet_deploy.importers.tflite.products import strides_of, window_padding
from bdnet_deploy.importers.tflite.source import Operation
from bdnet_deploy.importers.tflite.translator import Translator, declared_shape, rule


def _window(op: Operation) -> tuple[tuple[int, int], tuple[int, int]]:
    kernel = op.positive(op.option("filter_h"), "window"), op.positive(op.option("filter_w"), "window")
    return kernel, strides_of(op)


@rule("MAX_POOL_2D")
def max_pool(t: Translator, op: Operation) -> None:
    x = t.image(op, 0)
    kernel, strides = _window(op)
    pool = MaxPool(kernel, strides, window_padding(op, x.shape, kernel, strides, (1, 1), op.option("padding")))
    if x.is_bits and x.factor > 0 and x.padding == NO_PADDING and not op.option("activation"):
        y = t.add(pool, [t.ordered(op, x)], op)
        t.define(op, Entry(y.type.shape, y, factor=x.factor))
        return
    t.computed(op, t.activated(op, t.add(pool, [t.real(op, x)], op), op.option("activation")))


@rule("AVERAGE_POOL_2D")
def average_pool(t: Translator, op: Operation) -> None:
    x = t.image(op, 0)
    kernel, strides = _window(op)
    if any(window_padding(op, x.shape, kernel, strides, (1, 1), op.option("padding"))):
        raise op.refuse(
            "its windows reach over the border (padding SAME), where they divide by the number of pixels inside",
            fix="use padding 'valid', or a map whose size is a multiple of the stride",
        )
    value = t.real(op, x)
    if kernel == x.shape[1:3]:
        y = t.add(GlobalAvgPool(), [value], op)
        y = t.add(Reshape((1, 1, 1, x.channels)), [y], op, f"{op.name}.map")
    else:
        y = t.add(AvgPool(kernel, strides), [value], op)
    t.computed(op, t.activated(op, y, op.option("activation")))


@rule("MEAN", "SUM", "REDUCE_MAX")
def reduce(t: Translator, op: Operation) -> None:
    x = t.map(op, 0)
    rank = len(x.shape)
    given = op.numbers(1)
    if any(not -rank <= a < rank for a in given):
        raise op.damaged(f"axes {given} of a tensor of shape {x.shape}")
    if op.kind == "MEAN" and rank == 5 and {a % rank for a in given} == {4}:  # groups of adjacent channels
        value = t.real(op, x.with_shape((*x.shape[:3], x.shape[3] * x.shape[4])))
        y = t.add(GroupMean(x.shape[4]), [value], op)
        t.computed(op, t.shaped(op, y, graph_shape(declared_shape(op.output(), op.where))))
        return
    value = t.real(op, x)
    # As axes 1 to 3 of (1, H, W, C); those of size 1 make no difference.
    axes = {a % rank + 4 - rank for a in given if x.shape[a % rank] > 1}
    shape = value.type.shape
    if len(shape) == 2:
        value = t.shaped(op, value, (1, 1, 1, shape[1]))
    if 0 in axes:
        raise op.refuse("it reduces over the batch")
    for step in _steps(op, axes, value.type.shape):
        value = t.add(step, [value], op)
        value = t.shaped(op, value, (1, 1, 1, value.type.channels)) if len(value.type.shape) == 2 else value
    t.computed(op, t.shaped(op, value, graph_shape(declared_shape(op.output(), op.where))))


def _steps(op: Operation, axes: set[int], shape: tuple[int, ...]) -> list[Op]:
    kind = {"MEAN": "mean", "SUM": "sum", "REDUCE_MAX": "max"}[op.kind]
    steps: list[Op] = []
    over_map, over_channels = axes - {3}, 3 in axes
    one = {i for i in (1, 2) if shape[i] == 1}
    if over_map and over_map | one >= {1, 2}:
        steps.append(GlobalAvgPool() if kind == "mean" else Reduce(kind, "map"))
    elif over_map:
        window = (shape[1], 1) if over_map == {1} else (1, shape[2])
        if kind == "sum" or max(window) > 255:
            raise op.refuse(f"a {kind} over {max(window)} rows or columns alone")
        steps.append(AvgPool(window, window) if kind == "mean" else MaxPool(window, window))
    if over_channels:
        steps.append(GroupMean(shape[3]) if kind == "mean" else Reduce(kind, "channels"))
    return steps
