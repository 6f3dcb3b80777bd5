"""Padding that a file expresses by a constant map: bits padded with +1 or -1, and what that did to the border's sums added."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.graph import Affine, Array, Conv2d, DType, TensorType, Value
from bdnet_deploy.importers.tflite.source import Operation

if TYPE_CHECKING:
    from bdnet_deploy.importers.tflite.translator import Translator

#: What a correction may differ by from the exact one, of its largest: it was rounded to float32.
TOLERANCE = 1e-5


def with_border(t: Translator, op: Operation, x: Value, c: Array) -> Value | None:
    """``x + c`` where x is a scaled convolution of bits and c a map: with another padding, and a constant per channel.

    Padding with v' instead of v adds (v' - v) times the sum of the weights that lie outside of the map. None if no v'
    in {-1, 0, +1} explains the map.
    """
    node = x.node
    if node is None or not isinstance(node.op, Affine) or node.op.terms != 1:
        return None
    conv, mul, add = node.inputs[0].node, node.inputs[1].data, node.inputs[2].data
    if conv is None or not isinstance(conv.op, Conv2d) or mul is None or add is None or c.shape != x.type.shape:
        return None
    source, weights = conv.inputs
    if not all(v.type.dtype.is_packed for v in conv.inputs) or weights.data is None:
        return None
    outside = _outside(conv.op, source.type.shape, weights.data) * mul
    largest = float(np.abs(outside).max())
    for pad_value in (0, 1, -1):
        if pad_value == 0 and source.type.dtype is DType.UBIT:
            continue
        rest = c - (pad_value - conv.op.pad_value) * outside
        middle = rest.mean((0, 1, 2))
        if float(np.abs(rest - middle).max()) <= TOLERANCE * largest:
            sums = t.add(replace(conv.op, pad_value=pad_value), [source, weights], op, f"{conv.name}.padded")
            return t.affine([sums], [mul], add + middle, op.name, op.name)
    return None


def _outside(conv: Conv2d, shape: tuple[int, ...], weights: Array) -> Array:
    """Sum of the weights that lie on padding, per output: (1, OH, OW, O)."""
    taps = weights.astype(np.float64).sum(3, keepdims=True)
    plain = replace(conv, pad_value=0, groups=1)
    types = [TensorType((*shape[:3], 1), DType.F64), TensorType(taps.shape, DType.F64)]
    inside = plain.reference(types, [np.ones(types[0].shape), taps], plain.infer(types))
    return np.asarray(taps.sum((1, 2, 3)) - inside)
