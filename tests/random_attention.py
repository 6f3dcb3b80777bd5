"""Random stages of products of maps, functions, softmax and normalization."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.graph import DType, GroupNorm, LayerNorm, Matmul, Softmax, Unary, Value
from bdnet_deploy.graph.float_functions import REAL

if TYPE_CHECKING:
    from random_networks import Builder

#: Without those that are not finite everywhere.
FUNCTIONS = sorted(set(REAL) - {"log", "sqrt", "rsqrt"})


def function(b: Builder, y: Value) -> Value:
    """A function right on the map, or behind a batch normalization."""
    name = str(b.rng.choice(FUNCTIONS))
    if name in ("exp", "square") or b.chance(0.5):  # keep what grows fast in bounds
        y = b.affine(b.add(Unary("tanh"), y), gain=1.0)
    if b.chance(0.15):
        name, y = str(b.rng.choice(["log", "sqrt", "rsqrt"])), b.affine_above_zero(y)
    return b.add(Unary(name), y)


def normalization(b: Builder, y: Value) -> Value:
    """Layer, group and instance normalization with scale and shift."""
    channels = y.type.channels
    epsilon = float(b.rng.choice([1e-5, 1e-3, 1e-12]))
    if b.chance(0.5):
        z = b.add(LayerNorm(epsilon), y)
    else:
        groups = [g for g in range(1, channels + 1) if channels % g == 0]
        z = b.add(GroupNorm(int(b.rng.choice(groups)), epsilon), y)
    kind = b.rng.random()
    if kind < 0.15:
        return z
    if kind < 0.3:  # thresholds right on what is normalized
        return b.affine(b.conv(b.binarize(z), channels, plain=True))
    return b.activation(b.affine(z, gain=1.0))


def softmax(b: Builder, y: Value) -> Value:
    """Over the channels of the map."""
    z = b.add(Softmax(), y)
    return b.affine(z, gain=1.0) if b.chance(0.7) else z


def _projection(b: Builder, y: Value, outputs: int, *, real: float) -> Value:
    """Queries, keys or values: packed, or real with chance ``real``."""
    z = b.affine(b.conv(b.binarize(y), outputs, window=(1, 1), plain=True))
    return z if b.chance(real) else b.binarize(z)


def attention(b: Builder, y: Value) -> Value:
    """Each row of the map is a head, its pixels are the positions; residual around it all."""
    _, height, width, _ = y.type.shape
    outer = b.one_of(4, 17, 32, 33, 40)
    if height * width * width * outer > 40_000:
        return y
    b.macs += 4 * height * width * width * (outer + width)
    real = 0.2
    query, key = _projection(b, y, outer, real=real), _projection(b, y, outer, real=real)
    if query.type.channels != key.type.channels:
        return y
    scores = b.add(Matmul(), query, key)
    if b.chance(0.3) and scores.type.dtype is DType.I32:  # thresholds instead of softmax
        scores = b.affine(scores) if b.chance(0.5) else scores
        weights = b.binarize(scores) if b.chance(0.5) else b.sign(scores, DType.UBIT)
    else:
        root = np.full(width, 1.0 / np.sqrt(query.type.channels))
        if b.chance(0.6):
            scores = b.scaled(scores, root)
        else:
            scores = b.affine(scores, gain=float(root[0]))
        weights = b.add(Softmax(), scores)
    values = _projection(b, y, width, real=real)  # (1, H, W, positions): the second operand has them last
    if values.type.channels != width:
        return y
    mixed = b.add(Matmul(), weights, values)
    return b.activation(b.affine(mixed, gain=1.0))


STAGES = [function, normalization, softmax, attention, attention]
