"""Convolutions and matrix products: exact integer accumulators."""

from __future__ import annotations

import dataclasses
from typing import cast

import numpy as np

from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.graph import REPLICATE, Array, Conv2d, DType, Linear, Node, Quant, Value
from bdnet_deploy.graph.ops.convolution import border_classes
from bdnet_deploy.passes.quantizer import Quantizer, rule

_WEIGHT_MAX = 127
#: Of weights k * scale with k up to 127, divided by the scale.
_GRID_TOLERANCE = 1e-4


@rule(Conv2d, Linear)
def product(q: Quantizer, node: Node) -> Value:
    x, weight = q.values[node.inputs[0]], node.inputs[1]
    data = cast(Array, weight.data)
    if _is_raw(q, node, x):
        return _raw_pixels(q, node, x, data)
    if weight.type.dtype.is_packed and x.type.dtype.is_packed:
        w = q.constant(weight.name, data, weight.type.dtype)
    else:
        if not x.type.dtype.is_packed:
            x = q.uniform(node.inputs[0], x, DType.I16 if len(x.type.shape) == 2 else DType.I8)
            if isinstance(node.op, Conv2d) and node.op.pad_value not in (0, REPLICATE) and any(node.op.padding):
                raise UnsupportedError(
                    f"{q.new.numerics} has no padding of {node.op.pad_value} for a real input",
                    where=node.source or node.name,
                    fix="pad with 0, or export with numerics float",
                )
        real = np.abs(data.astype(np.float64)).reshape(data.shape[0], -1)
        # Sums of products stay within 32 bits, whatever the input.
        most = (2**31 - 1) / _largest(x) - 0.5 * real.shape[1]
        scale = np.maximum(np.maximum(_own_scale(real), 1e-12), real.sum(1) / most)
        quantized = np.rint(data / scale.reshape(-1, *[1] * (data.ndim - 1)))
        w = q.constant(weight.name, quantized, DType.I8, Quant.of(scale))
    y = q.new.add(node.op, [x, w], node.name, source=node.source)
    taps = np.abs(cast(Array, w.data).astype(np.float64)).reshape(data.shape[0], -1).sum(1)
    q.magnitudes[y] = taps * _largest(x)
    if not w.type.dtype.is_packed:
        q.expect(y, node.output)
    return y


def _own_scale(real: Array) -> Array:
    """(O,) scales of 8-bit weights of sizes (O, taps): where they are integers already, of the model's own, that scale.

    Else the largest becomes 127. A model that quantized its weights with one scale for all has filters whose largest is less.
    """
    largest = real.max(1)
    scale, left = largest / _WEIGHT_MAX, largest > 0
    for most in range(_WEIGHT_MAX, 0, -1):
        rows = np.flatnonzero(left)
        for taps in (32, real.shape[1]):  # most candidates fail at the first few
            rows = rows[_whole(real[rows, :taps] * (most / largest[rows, None]))]
        scale[rows], left[rows] = largest[rows] / most, False
    return np.asarray(scale)


def _whole(x: Array) -> Array:
    """(O,) whether all numbers of each row are whole, but for the rounding of float32."""
    return np.asarray((np.abs(x - np.rint(x)) <= _GRID_TOLERANCE).all(1))


def _is_raw(q: Quantizer, node: Node, x: Value) -> bool:
    """Pixels as the camera gives them, where one scale and a whole zero point would not say what they mean."""
    op = node.op
    if x not in q.new.inputs or x.type.dtype is not DType.U8 or x.type.quant is None or not isinstance(op, Conv2d):
        return False
    plain = np.ndim(x.type.quant.scale) == 0 and float(x.type.quant.zero_point) % 1 == 0
    return not plain and (op.pad_value == 0 or not any(op.padding))


def _raw_pixels(q: Quantizer, node: Node, x: Value, data: Array) -> Value:
    """A convolution of raw pixels: their scales lie in the weights, their means in the accumulators.

    A mean is worth ``sum w * mean`` over the taps inside the map. Where all lie inside, that is a zero point of the
    accumulators; elsewhere the border adds the difference, rounded to the accumulators' unit.
    """
    op = dataclasses.replace(cast(Conv2d, node.op), pad_value=0)
    scale, mean = q.vectors(x)
    groups = np.arange(data.shape[0]) * op.groups // data.shape[0]
    channels = groups[:, None] * data.shape[3] + np.arange(
        data.shape[3]
    )  # (O, C / groups): the channels of each filter
    real = data * scale[channels][:, None, None, :]
    step = np.maximum(np.abs(real).reshape(len(real), -1).max(1), 1e-12) / _WEIGHT_MAX
    weights = np.rint(real / step[:, None, None, None])
    w = q.constant(node.inputs[1].name, weights, DType.I8, Quant.of(step))
    worth = np.einsum("okli,oi->okl", weights, mean[channels])  # of each tap
    rows, columns = (_taps_inside(*side) for side in _sides(op, x.type.shape, w.type.shape))
    inside = np.einsum("rk,cl,okl->rco", rows, columns, worth)
    whole = worth.sum((1, 2))
    corrections = np.rint(whole - inside)
    border = q.constant(f"{node.name}.border", corrections, DType.I32)
    y = q.new.add(op, [x, w, border], node.name, source=node.source, quant=Quant.of(step, whole))
    q.magnitudes[y] = np.abs(weights).sum((1, 2, 3)) * 255 + np.abs(corrections).max((0, 1))
    q.expect(y, node.output)
    return y


def _sides(op: Conv2d, x: tuple[int, ...], w: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Height and width: size, kernel, stride, dilation, padding before, outputs."""
    outputs = op.output_size(*x[1:3], *w[1:3])
    return [(x[i + 1], w[i + 1], op.strides[i], op.dilation[i], op.padding[2 * i], outputs[i]) for i in (0, 1)]


def _taps_inside(size: int, kernel: int, stride: int, dilation: int, before: int, outputs: int) -> Array:
    """(classes, kernel) whether each tap lies in the map, as 0 and 1."""
    classes = border_classes(size, kernel, stride, dilation, before, outputs)
    first = np.unique(classes, return_index=True)[1]
    at = first[:, None] * stride - before + np.arange(kernel) * dilation
    return ((at >= 0) & (at < size)).astype(np.float64)


def _largest(x: Value) -> float:
    """Largest factor that an input of a convolution puts into a product, its zero point taken off."""
    zero = float(x.type.quant.zero_point) if x.type.quant else 0.0
    low, high = x.type.dtype.range
    return max(high - zero, zero - low, 1.0)
