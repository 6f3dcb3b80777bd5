"""Stages of random networks with constant maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.graph import AddMap, DType, Mul, MulMap, Value

if TYPE_CHECKING:
    from random_networks import Builder


def _map(b: Builder, y: Value, *, factor: bool) -> Value:
    """A constant map for ``y``: per pixel and channel, or per pixel; some channels 0, or of another magnitude."""
    shape = y.type.shape if b.chance(0.6) else (*y.type.shape[:3], 1)
    data = np.broadcast_to(b.rng.normal(1.0 if factor else 0.0, 0.5, shape), y.type.shape).copy()
    data[..., b.rng.integers(y.type.channels)] *= b.one_of(0, 1, 1, 40)
    return b.parameter(data)


def position_embedding(b: Builder, y: Value) -> Value:
    """Added to the trunk or to what a layer made, then read by one or several."""
    where = b.rng.integers(3)
    if where == 0:
        y = b.affine(b.conv(b.binarize(y), y.type.channels))
    elif where == 1:
        y = b.add(Mul(), y, y)
    y = b.add(AddMap(), y, _map(b, y, factor=False))
    return b.activation(b.affine(y, gain=1.0) if b.chance(0.6) else y)


def threshold_map(b: Builder, y: Value) -> Value:
    """A sign or ternarizer whose thresholds are per pixel."""
    bits = b.binarize(b.add(AddMap(), y, _map(b, y, factor=False)))
    return b.residual(b.conv(bits, y.type.channels, plain=True), y)


def scale_map(b: Builder, y: Value) -> Value:
    """Factors per pixel behind a convolution, with a residual or without."""
    acc = b.conv(y, y.type.channels, dtype=DType.F64, plain=True) if b.chance(0.3) else b.binarize(y)
    if acc.type.dtype.is_packed:
        acc = b.affine(b.conv(acc, y.type.channels, plain=True))
    scaled = b.add(MulMap(), acc, _map(b, acc, factor=True))
    if b.chance(0.5) and scaled.type.shape == y.type.shape:
        return b.affine(scaled, y, gain=1.0)
    return b.affine(scaled, gain=1.0) if b.chance(0.5) else scaled


STAGES = [position_embedding, threshold_map, scale_map]
