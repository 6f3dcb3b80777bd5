"""Convolutions, pools and matrix products, in float32 and int8."""

from __future__ import annotations

from typing import Any

import numpy as np

from bdnet_deploy.tflite_reference.calls import Array, Call, Kernel
from bdnet_deploy.tflite_reference.fixed_point import quantize_multiplier, saturate, scale, scale_vector

SAME = 0


def extents(size: int, taps: int, stride: int, dilation: int, padding: int) -> tuple[int, int, int]:
    """Output size and padding before and after, TensorFlow's way: the odd pixel lies behind."""
    if min(size, taps, stride, dilation) < 1:
        raise ValueError("sizes, strides and dilations start at 1")
    covered = (taps - 1) * dilation + 1
    if padding == SAME:
        count = -(-size // stride)
        total = max((count - 1) * stride + covered - size, 0)
        return count, total // 2, total - total // 2
    return (size - covered) // stride + 1, 0, 0


class Window:
    """Where a window of (rows, columns) taps lies over NHWC maps."""

    def __init__(
        self,
        shape: tuple[int, ...],
        taps: tuple[int, int],
        strides: tuple[int, int],
        dilation: tuple[int, int],
        padding: int,
    ) -> None:
        self.taps, self.strides, self.dilation = taps, strides, dilation
        sides = [extents(n, t, s, d, padding) for n, t, s, d in zip(shape[1:3], taps, strides, dilation)]
        self.size = (sides[0][0], sides[1][0])
        self.pads = (sides[0][1:], sides[1][1:])
        if min(self.size) < 1:
            raise ValueError("the window is larger than the map")

    def padded(self, x: Array, fill: Any) -> Array:
        if not any(p for pad in self.pads for p in pad):
            return x
        return np.pad(x, ((0, 0), *self.pads, (0, 0)), constant_values=fill)

    def tap(self, x: Array, row: int, column: int) -> Array:
        """What lies under one tap, of a padded map: (N, OH, OW, C)."""
        starts = (row * self.dilation[0], column * self.dilation[1])
        y, x0 = (slice(start, start + (n - 1) * s + 1, s) for start, n, s in zip(starts, self.size, self.strides))
        return x[:, y, x0]

    def columns(self, x: Array) -> Array:
        """All taps of a padded map: (N * OH * OW, KH * KW * C)."""
        taps = [self.tap(x, r, c) for r in range(self.taps[0]) for c in range(self.taps[1])]
        joined = taps[0] if len(taps) == 1 else np.concatenate(taps, -1)
        return joined.reshape(-1, joined.shape[-1])


def _window(call: Call, shape: tuple[int, ...], taps: tuple[int, int]) -> Window:
    strides = (call.option("stride_h", 1), call.option("stride_w", 1))
    dilation = (call.option("dilation_h", 1), call.option("dilation_w", 1))
    return Window(shape, taps, strides, dilation, call.option("padding"))


def _conv2d(call: Call) -> list[Array]:
    x, w = call.value(0), call.value(1)
    if x.ndim != 4 or w.ndim != 4 or not w.shape[3] or x.shape[3] % w.shape[3]:
        raise ValueError(f"a filter of shape {w.shape} over a map of shape {x.shape}")
    groups, outputs = x.shape[3] // w.shape[3], len(w)
    if outputs % groups:
        raise ValueError("the outputs do not divide into the groups")
    window = _window(call, x.shape, (w.shape[1], w.shape[2]))
    values = x.astype(np.float32) if call.is_float else call.centred(0).astype(np.float64)
    values = window.padded(values, 0)
    share, each = w.shape[3], outputs // groups
    parts = []
    for g in range(groups):
        columns = window.columns(values[..., g * share : (g + 1) * share])
        parts.append(columns @ w[g * each : (g + 1) * each].reshape(each, -1).T.astype(values.dtype))
    shape = (len(x), *window.size, outputs)
    return [_finish(call, np.concatenate(parts, -1).reshape(shape), vectors=0)]


def _depthwise(call: Call) -> list[Array]:
    x, w = call.value(0), call.value(1)
    if x.ndim != 4 or w.ndim != 4 or len(w) != 1 or w.shape[3] % x.shape[3]:
        raise ValueError(f"a filter of shape {w.shape} over a map of shape {x.shape}")
    window = _window(call, x.shape, (w.shape[1], w.shape[2]))
    values = x.astype(np.float32) if call.is_float else (x.astype(np.int32) - call.zero(0))
    values = window.padded(values, 0)
    times = w.shape[3] // x.shape[3]
    weights = w[0].astype(values.dtype)
    total = np.zeros((len(x), *window.size, w.shape[3]), values.dtype)
    for row in range(w.shape[1]):
        for column in range(w.shape[2]):
            tap = window.tap(values, row, column)
            total += (tap if times == 1 else np.repeat(tap, times, -1)) * weights[row, column]
    return [_finish(call, total, vectors=8)]


def _fully_connected(call: Call) -> list[Array]:
    x, w = call.value(0), call.value(1)
    if w.ndim != 2 or x.size % w.shape[1]:
        raise ValueError(f"weights of shape {w.shape} for values of shape {x.shape}")
    values: Array = x.astype(np.float32) if call.is_float else call.centred(0).astype(np.float64)
    product: Array = np.matmul(values.reshape(-1, w.shape[1]), w.astype(values.dtype).T)
    shape = (*x.shape[:-1], len(w)) if call.option("keep_num_dims") else product.shape
    return [_finish(call, product, vectors=0).reshape(shape)]


def _finish(call: Call, total: Array, *, vectors: int) -> Array:
    """Bias, scaling and activation; per channel of the last axis, ``vectors`` of which are scaled at a time (0: all)."""
    bias = call.value(2) if call.has(2) else None
    if call.is_float:
        return call.activated(total if bias is None else total + bias)
    weights = call.ins[1]
    if weights is None or weights.scale is None or (weights.zero_point is not None and np.any(weights.zero_point)):
        raise call.unsupported("its weights are not symmetric int8")
    scales = np.atleast_1d(weights.scale)
    if call.op.name == "FULLY_CONNECTED":
        # TensorFlow Lite multiplies in float32 here (GetQuantizedConvolutionMultipler), in double for convolutions.
        factors = (np.float32(call.scale(0)) * scales).astype(np.float64) / call.out_scale
    else:
        factors = call.scale(0) * scales.astype(np.float64) / call.out_scale
    integers = total.astype(np.int64)
    if bias is not None:
        integers = integers + bias.astype(np.int64)
    multipliers = [np.broadcast_to(v, integers.shape[-1:]) for v in quantize_multiplier(factors)]
    channels = integers.shape[-1]
    whole = channels // vectors * vectors if vectors else channels
    scaled = [
        rounding(integers[..., part], *(v[part] for v in multipliers))
        for rounding, part in ((scale_vector, slice(whole)), (scale, slice(whole, None)))
    ]
    return saturate(np.concatenate(scaled, -1) + call.out_zero, *call.limits())


def _pool(call: Call) -> tuple[Array, Window]:
    x = call.value(0)
    if x.ndim != 4:
        raise ValueError("a map has four axes")
    return x, _window(call, x.shape, (call.option("filter_h"), call.option("filter_w")))


def _average_pool(call: Call) -> list[Array]:
    x, window = _pool(call)
    values = window.padded(x if call.is_float else x.astype(np.int64), 0)
    ones = window.padded(np.ones((1, *x.shape[1:3], 1), values.dtype), 0)
    taps = [(r, c) for r in range(window.taps[0]) for c in range(window.taps[1])]
    total = sum((window.tap(values, *tap) for tap in taps[1:]), window.tap(values, *taps[0]))
    count = sum((window.tap(ones, *tap) for tap in taps[1:]), window.tap(ones, *taps[0]))
    if call.is_float:
        return [call.activated(total / count)]
    half = np.where(total > 0, count // 2, -(count // 2))
    return [saturate(np.trunc((total + half) / count).astype(np.int64), *call.limits())]


def _max_pool(call: Call) -> list[Array]:
    x, window = _pool(call)
    least = np.finfo(np.float32).min if call.is_float else np.iinfo(x.dtype).min
    values = window.padded(x, least)
    best = window.tap(values, 0, 0)
    for row in range(window.taps[0]):
        for column in range(window.taps[1]):
            best = np.maximum(best, window.tap(values, row, column))
    return [call.activated(best) if call.is_float else saturate(best, *call.limits())]


def _batch_matmul(call: Call) -> list[Array]:
    if not call.is_float:
        raise call.unsupported("only float32 products of maps")
    a, b = call.value(0), call.value(1)
    a = np.swapaxes(a, -1, -2) if call.option("adj_x") else a
    b = np.swapaxes(b, -1, -2) if call.option("adj_y") else b
    return [np.matmul(a, b)]


KERNELS: dict[str, Kernel] = {
    "AVERAGE_POOL_2D": _average_pool,
    "BATCH_MATMUL": _batch_matmul,
    "CONV_2D": _conv2d,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "MAX_POOL_2D": _max_pool,
}
