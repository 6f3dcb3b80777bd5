"""Stages of random networks that read bits, trits and ubits as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.graph import (
    Affine,
    AvgPool,
    Concat,
    DType,
    GlobalAvgPool,
    MaxPool,
    Mul,
    Reduce,
    Repeat,
    Ternarize,
    TwoSlope,
    Value,
)

if TYPE_CHECKING:
    from random_networks import Builder


def _levels(b: Builder, x: Value) -> Value:
    """Bits, trits or ubits of ``x``, sometimes the maxima of their neighbours."""
    t = b.sign(x, [DType.BIT, DType.UBIT][b.one_of(0, 1)]) if b.chance(0.6) else b.ternarize(x)
    return b.add(MaxPool((2, 2), (1, 1), (1, 0, 0, 1)), t) if b.chance(0.15) and len(t.type.shape) == 4 else t


def scaled_levels(b: Builder, y: Value) -> Value:
    """alpha * t + beta as the trunk, read by what takes no levels: products, pools, concatenations."""
    real = b.affine(_levels(b, y), gain=1.0)
    kind = b.rng.integers(5)
    if kind == 0:
        return b.add(Mul(), y, real)
    if kind == 1 and min(y.type.shape[1:3]) > 1:
        return b.add(AvgPool((2, 2), (2, 1)), real)
    if kind == 2 and y.type.channels <= 35:
        beside = b.add(Repeat(2), y) if y.type.channels <= 20 and b.chance(0.5) else y
        return b.add(Concat(), *([real, beside] if b.chance(0.5) else [beside, real]))
    if kind == 3:
        return b.affine(y, b.add(Reduce("max" if b.chance(0.5) else "sum", "map"), real), gain=1.0)
    return real


def sums_of_levels(b: Builder, y: Value) -> Value:
    """Levels as a term of a sum: beside the trunk, other levels, or accumulators, also as a vector or repeated."""
    kind = b.rng.integers(5)
    if kind == 0:
        terms = [_levels(b, y), y]
        return b.affine(*(terms if b.chance(0.5) else terms[::-1]), gain=1.0)
    if kind == 1:
        return b.affine(_levels(b, y), _levels(b, b.affine(y, gain=1.0)), gain=1.0)
    if kind == 2:
        acc = b.conv(b.binarize(y), y.type.channels, plain=True)
        return b.activation(b.affine(acc, _levels(b, y)) if acc.type.shape == y.type.shape else b.affine(acc))
    if kind == 3:
        vector = _levels(b, b.affine(b.add(GlobalAvgPool(), y), gain=1.0))
        return b.affine(y, vector, gain=1.0)
    if y.type.channels > 35:
        return b.two_slope(_levels(b, y))
    repeated = b.add(Repeat(2), _levels(b, y))
    return b.affine(b.add(Repeat(2), y), repeated, gain=1.0) if b.chance(0.5) else b.affine(repeated, gain=1.0)


def functions_of_levels(b: Builder, y: Value) -> Value:
    """Slopes of levels, and thresholds on levels."""
    t = _levels(b, y)
    if b.chance(0.5):
        slopes = [b.parameter(b.rng.normal(size=t.type.channels)) for _ in range(3)]
        return b.add(TwoSlope(), t, *slopes)
    low, high = np.sort(b.rng.integers(-1, 3, (2, t.type.channels)), 0)
    limits = [b.graph.constant("limit", v, DType.I32) for v in (low, high)]
    again = b.add(b.sign_op(), t, limits[0]) if b.chance(0.6) else b.add(Ternarize(), t, *limits)
    one, zero = np.ones(y.type.channels), np.zeros(y.type.channels)
    return b.add(Affine(2), y, again, *map(b.parameter, (one, one, zero)))


STAGES = [scaled_levels, sums_of_levels, functions_of_levels]
