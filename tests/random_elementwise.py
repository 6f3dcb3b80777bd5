"""Stages of random networks: pools, limits, gates, sums over windows, logic of bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.graph import (
    REPLICATE,
    Affine,
    BitLogic,
    BoxSum,
    Clamp,
    Conv2d,
    DType,
    GlobalAvgPool,
    Linear,
    MaxPool,
    Mul,
    Reduce,
    Repeat,
    Value,
)
from bdnet_deploy.graph.ops.bit_maps import LOGIC

if TYPE_CHECKING:
    from random_networks import Builder


def _pool(b: Builder, x: Value, *, keep: bool = False) -> Value:
    """A max pool of random geometry; ``keep`` keeps the map's size."""
    rng = b.rng
    _, height, width, _ = x.type.shape
    kernel, strides, dilation, padding = [], [], [], []
    for size in (height, width):
        d = 2 if size > 4 and b.chance(0.2) else 1
        k = min(b.one_of(1, 2, 2, 3, 3), max(1, (size + d - 1) // d))
        reach = (k - 1) * d
        before = reach // 2 if keep else int(rng.integers(0, reach // 2 + 1))
        after = reach - before if keep else int(rng.integers(0, reach // 2 + 1))
        padding += [before, after + max(0, reach + 1 - size - before - after)]
        kernel, dilation = [*kernel, k], [*dilation, d]
        strides.append(1 if keep else b.one_of(1, 2, 2))
    return b.add(MaxPool(tuple(kernel), tuple(strides), tuple(padding), tuple(dilation)), x)  # type: ignore[arg-type]


def _clamp(b: Builder, x: Value, low: float, high: float) -> Value:
    channels = x.type.channels
    limits = [np.full(channels, low), np.full(channels, high)]
    if b.chance(0.3):
        limits = [b.rng.normal(low, 0.2, channels), b.rng.normal(max(high, low + 1.0), 0.1, channels)]
    if b.chance(0.1):
        limits[1][b.rng.integers(channels)] = np.inf
    return b.add(Clamp(), x, *map(b.parameter, limits))


def max_pool(b: Builder, y: Value) -> Value:
    """Of the trunk, of accumulators, or of bits before a convolution."""
    where = b.rng.integers(4)
    if where == 0:
        return _pool(b, y)
    if where == 1:
        return b.affine(_pool(b, b.conv(y, y.type.channels, dtype=DType.F64)))
    if where == 2:
        pooled = _pool(b, b.conv(b.binarize(y), y.type.channels))
        if b.chance(0.5):
            return b.affine(b.conv(b.binarize(b.affine(pooled)), y.type.channels))
        return b.activation(b.affine(pooled))
    return b.residual(b.conv(_pool(b, b.binarize(y), keep=b.chance(0.5)), y.type.channels, plain=True), y)


def clamp(b: Builder, y: Value) -> Value:
    """ReLU6 or Hardtanh, behind batch normalization or not; sometimes only a sign reads it."""
    low, high = [(0.0, 6.0), (-1.0, 1.0), (-0.5, 0.25)][int(b.rng.integers(3))]
    if b.chance(0.3):
        acc = b.conv(b.binarize(y), y.type.channels, depthwise=b.chance(0.5))
        limited = _clamp(b, b.affine(acc), low, high)
        return b.affine(b.conv(b.binarize(limited), y.type.channels))
    return _clamp(b, b.affine(y, gain=1.0) if b.chance(0.6) else y, low, high)


def _hard_sigmoid(b: Builder, x: Value) -> Value:
    channels = x.type.channels
    third = b.add(Affine(), x, b.parameter(np.full(channels, 1 / 6)), b.parameter(np.full(channels, 0.5)))
    return b.add(Clamp(), third, b.parameter(np.zeros(channels)), b.parameter(np.ones(channels)))


def squeeze_and_excitation(b: Builder, y: Value) -> Value:
    """gap, linear, two slopes, linear, hard sigmoid, product."""
    channels = y.type.channels
    hidden = max(1, channels // b.one_of(2, 4))
    squeezed = b.add(GlobalAvgPool(), y)
    h = b.two_slope(b.affine(b.add(Linear(), squeezed, b.weights((hidden, channels), DType.F64)), gain=1.0))
    gate = _hard_sigmoid(b, b.affine(b.add(Linear(), h, b.weights((channels, hidden), DType.F64)), gain=1.0))
    product = b.add(Mul(), y, gate)
    return b.affine(product, gain=1.0) if b.chance(0.4) else product


def products(b: Builder, y: Value) -> Value:
    """Of two maps: a gate per element, a square, or the trunk with another reader."""
    kind = b.rng.integers(3)
    if kind == 0:
        return b.add(Mul(), y, y)
    if kind == 1:
        return b.add(Mul(), b.two_slope(y), _hard_sigmoid(b, b.affine(y, gain=1.0)))
    return b.affine(b.add(Mul(), b.affine(y, gain=1.0), y), y, gain=1.0)


def dynamic_bias(b: Builder, y: Value) -> Value:
    """A vector that the map itself decides, added to every pixel."""
    reduced = b.add(Reduce("max" if b.chance(0.5) else "sum", "map"), y)
    if b.chance(0.5):
        reduced = b.add(Linear(), reduced, b.weights((y.type.channels, y.type.channels), DType.F64))
        b.macs += 8 * y.type.channels**2
    vector = b.affine(reduced, gain=0.1) if b.chance(0.7) else reduced
    if b.chance(0.5):
        acc = b.conv(b.binarize(y), y.type.channels, plain=True)
        if acc.type.channels == y.type.channels:
            return b.activation(b.affine(acc, vector))
    return b.affine(y, vector, gain=1.0)


def channel_reduction(b: Builder, y: Value) -> Value:
    """One channel from all, and back as a residual for every channel."""
    reduced = b.add(Reduce("max" if b.chance(0.5) else "sum", "channels"), y)
    return b.affine(y, b.add(Repeat(y.type.channels), b.affine(reduced, gain=0.2)), gain=1.0)


def asymmetric_conv(b: Builder, y: Value) -> Value:
    """Weights alpha * t + beta (AdaBin): a binary convolution and a sum of its input that all filters share."""
    x = b.binarize(y)
    acc = b.conv(x, y.type.channels, depthwise=b.chance(0.3))
    node = acc.node
    assert node is not None and isinstance(node.op, Conv2d)
    op, window = node.op, node.inputs[1].type.shape[1:3]
    groups = op.groups if op.groups == acc.type.channels else 1
    box = b.add(BoxSum((window[0], window[1]), op.strides, op.padding, op.pad_value, op.dilation, groups), x)
    total = box if groups == acc.type.channels else b.add(Repeat(acc.type.channels), box)
    out = b.affine(acc, total)
    return b.activation(out) if b.chance(0.5) else b.affine(b.conv(b.binarize(out), y.type.channels))


def box_sum(b: Builder, y: Value) -> Value:
    """By itself, of several groups, with thresholds right on it."""
    x = b.binarize(y)
    sizes = [g for g in range(1, x.type.channels + 1) if x.type.channels % g == 0]
    padding = tuple(int(p) for p in b.rng.integers(0, 3, 2)) + tuple(int(p) for p in b.rng.integers(0, 3, 2))
    kernel = tuple(
        min(b.one_of(1, 2, 3), size + padding[2 * i] + padding[2 * i + 1]) for i, size in enumerate(x.type.shape[1:3])
    )
    strides = (b.one_of(1, 1, 2), b.one_of(1, 1, 2))
    pad_value = b.one_of(0, 1, REPLICATE, 0 if x.type.dtype is DType.UBIT else -1)
    op = BoxSum(kernel, strides, padding, pad_value, (1, 1), b.one_of(*sizes))  # type: ignore[arg-type]
    sums = b.add(op, x)
    t = b.binarize(sums if b.chance(0.3) else b.affine(sums, gain=0.3))
    return b.affine(b.conv(t, y.type.channels))


def bit_logic(b: Builder, y: Value) -> Value:
    """Two signs of one map, combined."""
    kind, op = LOGIC[int(b.rng.integers(len(LOGIC)))], b.sign_op()
    limits = [b.parameter(b.rng.normal(0.0, 0.3, y.type.channels)) for _ in range(2)]
    bits = b.add(BitLogic(kind), b.add(op, y, limits[0]), b.add(op, b.affine(y, gain=1.0), limits[1]))
    return b.residual(b.conv(bits, y.type.channels, plain=True), y)


STAGES = [
    max_pool,
    clamp,
    squeeze_and_excitation,
    products,
    dynamic_bias,
    channel_reduction,
    asymmetric_conv,
    box_sum,
    bit_logic,
]
