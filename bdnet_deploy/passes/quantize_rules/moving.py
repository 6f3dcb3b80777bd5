"""Moves of elements and concatenation."""

from __future__ import annotations

import dataclasses
from typing import cast

import numpy as np

from bdnet_deploy.graph import (
    Array,
    Concat,
    DType,
    Flip,
    Gather,
    Node,
    Pad,
    PixelShuffle,
    PixelUnshuffle,
    Reshape,
    Shuffle,
    Slice,
    Transpose,
    Upsample,
    Value,
)
from bdnet_deploy.passes.quantizer import Quantizer, rule


def _follow(q: Quantizer, x: Value, y: Value, channels: Array) -> Value:
    """Bounds of the channels of ``x`` for those of ``y``; channel -1 is a fill value of at most a channel's bound."""
    for bounds in (q.magnitudes, q.typical):
        if x in bounds:
            bounds[y] = np.where(channels < 0, bounds[x].max(), bounds[x][channels])
    return y


@rule(Slice, Gather, Shuffle, Upsample, Flip)
def move(q: Quantizer, node: Node) -> Value:
    x = q.values[node.inputs[0]]
    y = q.same(node, x)
    return _follow(q, x, y, cast(Slice, node.op).tables(x.type)[2])


@rule(Pad)
def pad(q: Quantizer, node: Node) -> Value:
    old, op = node.inputs[0], cast(Pad, node.op)
    x = q.values[old]
    if op.mode != "constant" or x.type.dtype.is_packed:
        return _follow(q, x, q.same(node, x), op.tables(x.type)[2])
    real = float(op.value)
    if old.type.quant is not None:
        reals = old.type.quant.dequantize(np.full(old.type.channels, op.value))
        real = float(reals[0])
        if np.ptp(reals) != 0:
            raise q.unsupported(node, f"{op.value:g} stands for different numbers in different channels")
    fill = _fill(x, real, q.vectors(x), wider=any(op.padding[4:]))
    if fill is None:
        x = q.uniform(old, x, q.dtype_of(old))
        scale, zero = q.vectors(x)
        fill = int(np.clip(np.rint(real / scale[0] + zero[0]), *x.type.dtype.range))
    y = q.new.add(dataclasses.replace(op, value=fill), [x], node.name, source=node.source)
    _follow(q, x, y, op.tables(old.type)[2])
    for bounds in (q.magnitudes, q.typical):
        if y in bounds:
            bounds[y] = np.maximum(bounds[y], abs(fill))
    return y


def _fill(x: Value, real: float, quant: tuple[Array, Array], *, wider: bool) -> int | None:
    """The integer that stands for ``real`` in all channels, and in new ones if there are; None if there is no such."""
    scale, zero = quant
    low, high = x.type.dtype.range
    wanted = np.rint(real / scale + zero)
    exact = real != 0 or bool((wanted == zero).all())
    one = np.ptp(wanted) == 0 and low <= wanted[0] <= high and (real == 0 or not wider or np.ptp(scale) == 0)
    return int(wanted[0]) if exact and one else None


@rule(Reshape, Transpose, PixelShuffle, PixelUnshuffle)
def permute(q: Quantizer, node: Node) -> Value:
    """Where the channels do not stay, they must share scale and zero point."""
    old, x = node.inputs[0], q.values[node.inputs[0]]
    shape = node.output.type.shape
    stay = isinstance(node.op, Reshape) and shape[-1] == x.type.channels
    stay |= isinstance(node.op, Transpose) and node.op.perm[2] == 2
    quant = x.type.quant
    if not stay and quant is not None and (np.ndim(quant.scale) or np.ndim(quant.zero_point)):
        x = q.uniform(old, x, q.dtype_of(old))
    y = q.same(node, x)
    for bounds in (q.magnitudes, q.typical):
        if x in bounds:
            bounds[y] = bounds[x] if stay else np.full(y.type.channels, bounds[x].max())
    return y


@rule(Concat)
def concat(q: Quantizer, node: Node) -> Value:
    """Channels keep their scales; inputs that have another dtype than the rest become the trunk's."""
    xs = [q.values[v] for v in node.inputs]
    packed = xs[0].type.dtype.is_packed
    if not packed and len({x.type.dtype for x in xs}) > 1:
        dtype = q.dtype_of(node.output)
        xs = [_as(q, old, x, dtype) for old, x in zip(node.inputs, xs, strict=True)]
    y = q.same(node, *xs)
    if not packed:
        for bounds in (q.magnitudes, q.typical):
            if any(x in bounds for x in xs):
                bounds[y] = np.concatenate([bounds.get(x, q.magnitude(x)) for x in xs])
    return y


def _as(q: Quantizer, old: Value, x: Value, dtype: DType) -> Value:
    if x.type.dtype is dtype:
        return x
    one, zero = np.ones(x.type.channels), np.zeros(x.type.channels)
    return q.affine_to(f"{x.name}.{dtype.value}", [x], [one], zero, q.need(old, dtype), dtype, "", False)
