"""The operators of Larq Compute Engine (LCE), as its optimized kernels compute them on x86.

Bits are packed along the last axis: 32 to a word, least significant first, 1 for -1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flatbuffers import flexbuffers

from bdnet_deploy.bitplanes import WORD, unpack_plane
from bdnet_deploy.export.tflite.packing import pack, words
from bdnet_deploy.export.tflite.schema import Operator, TensorKind
from bdnet_deploy.tflite_reference.calls import ACTIVATIONS, Array, Call, Kernel, zero_point
from bdnet_deploy.tflite_reference.fixed_point import HIGH, LOW, round_away, saturate
from bdnet_deploy.tflite_reference.windows import SAME, Window


def options(op: Operator, *names: str) -> list[int]:
    """Whole numbers of a FlexBuffer map.

    Raises:
        ValueError: one is missing, or no number.
    """
    try:
        loaded: Any = flexbuffers.Loads(op.custom_options)
    except Exception as error:
        raise ValueError(f"its options are damaged: {error}") from error
    if not isinstance(loaded, dict) or any(type(loaded.get(name)) is not int for name in names):
        raise ValueError(f"its options lack one of {', '.join(names)}")
    return [loaded[name] for name in names]


def padded_with_zeros(op: Operator) -> bool:
    """Whether an LceBconv2d corrects for padding that counts as 0."""
    padding, pad_values = options(op, "padding", "pad_values")
    return padding == SAME and pad_values == 0


def unpack_all(packed: Array) -> Array:
    """-1 and +1 as int8 of all bits, those behind the last channel too."""
    return np.int8(1) - 2 * unpack_plane(packed.astype("<i4", copy=False), packed.shape[-1] * WORD)


def _quantize(call: Call) -> list[Array]:
    x = call.value(0)
    tensor = call.ins[0]
    if tensor is not None and tensor.kind is TensorKind.BOOL:
        return [pack(np.where(x, 1, -1))]
    return [pack(np.where(x < (zero_point(tensor) if call.is_int8 else 0), -1, 1))]


def _dequantize(call: Call) -> list[Array]:
    x, channels = call.value(0), call.out.shape[-1]
    if words(channels) != x.shape[-1]:
        raise ValueError(f"{x.shape[-1]} words for {channels} channels")
    signs = unpack_all(x)[..., :channels]
    if call.out.kind is TensorKind.FLOAT32:
        return [signs.astype(np.float32)]
    if call.out.kind is TensorKind.BOOL:
        return [signs > 0]
    step, zero = int(round_away(np.float32(1) / np.float32(call.out_scale))), call.out_zero
    return [np.where(signs > 0, min(HIGH, zero + step), max(LOW, zero - step)).astype(np.int8)]


def _max_pool(call: Call) -> list[Array]:
    x = call.value(0)
    names = ("filter_height", "filter_width", "stride_height", "stride_width", "padding")
    height, width, down, across, padding = options(call.op, *names)
    window = Window(x.shape, (height, width), (down, across), (1, 1), padding)
    values = window.padded(x, -1)
    best = window.tap(values, 0, 0)
    for row in range(height):
        for column in range(width):
            best = best & window.tap(values, row, column)
    return [best]


def _bconv2d(call: Call) -> list[Array]:
    x, w = call.value(0), call.value(1)
    channels, padding, down, across = options(call.op, "channels_in", "padding", "stride_height", "stride_width")
    dilate_down, dilate_across, activation = options(
        call.op, "dilation_height_factor", "dilation_width_factor", "fused_activation_function"
    )
    if x.ndim != 4 or w.ndim != 4 or words(channels) != x.shape[3] or not w.shape[3] or x.shape[3] % w.shape[3]:
        raise ValueError(f"a filter of shape {w.shape} over packed maps of shape {x.shape}")
    groups = x.shape[3] // w.shape[3]
    if len(w) % groups or (groups > 1 and channels // groups % WORD):
        raise ValueError(f"{len(w)} outputs and {channels} channels do not divide into {groups} groups")
    window = Window(x.shape, (w.shape[1], w.shape[2]), (down, across), (dilate_down, dilate_across), padding)
    # Sums of +-1 are exact in float32.
    signs = window.padded(unpack_all(x).astype(np.float32), 1)
    filters = unpack_all(w).astype(np.float32).reshape(len(w), -1)
    share, each = signs.shape[3] // groups, len(w) // groups
    if filters.shape[1] >= 1 << 24:
        raise ValueError("too many taps")
    products = [
        window.columns(signs[..., g * share : (g + 1) * share]) @ filters[g * each : (g + 1) * each].T
        for g in range(groups)
    ]
    dots = np.concatenate(products, -1).reshape(len(x), *window.size, len(w)).astype(np.int64)
    negative = (filters.shape[1] - dots) // 2
    if call.out.kind is TensorKind.INT32:
        return [pack(np.where(negative > call.value(4), -1, 1))]
    taps = w.shape[1] * w.shape[2] * (channels // groups)
    y = _transformed(call, negative, taps, activation)
    if padded_with_zeros(call.op):
        y = _zero_padded(call, y, w, window, x, channels // groups, activation)
    if call.out.kind is TensorKind.FLOAT32:
        return [y]
    return [saturate(round_away(y))]


def _transformed(call: Call, negative: Array, taps: int, activation: int) -> Array:
    """``OutputTransform`` of LCE: constants in double, one product and one sum in float32."""
    is_int8 = call.out.kind is TensorKind.INT8
    scale, zero = (call.out_scale, float(call.out_zero)) if is_int8 else (1.0, 0.0)
    multiplier, bias = call.value(2).astype(np.float64), call.value(3).astype(np.float64)
    factor = (-1 * multiplier / scale).astype(np.float32)
    addend = ((bias + float(taps) * multiplier) / scale + zero).astype(np.float32)
    low, high = (int(np.clip(limit, -taps, taps)) for limit in ACTIVATIONS[activation])
    doubled = np.clip(2 * negative, taps - high, taps - low)
    return np.asarray(doubled.astype(np.float32) * factor + addend)


def _zero_padded(call: Call, y: Array, w: Array, window: Window, x: Array, channels: int, activation: int) -> Array:
    """What lay on padding counted as +1: take it away, as the optimized kernels do, behind the transformation."""
    if activation or call.out.kind is not TensorKind.FLOAT32:
        raise call.unsupported("zero padding with an activation or int8 runs in Larq's reference kernel only")
    covered = [(t - 1) * d + 1 for t, d in zip(window.taps, window.dilation)]
    if any(c > n for c, n in zip(covered, x.shape[1:3])):
        raise call.unsupported("Larq's optimized kernels are wrong where a zero-padded filter is larger than the map")
    bits = unpack_all(w).astype(np.int64)
    tail = w.shape[3] * WORD - channels
    # Bits behind the last channel are 0 in sound files, which counts as +1.
    sums = bits.sum(3) - tail
    outside = np.zeros((1, *window.size, len(w)), np.int64)
    inside = window.padded(np.ones((1, *x.shape[1:3], 1), np.int64), 0)
    for row in range(window.taps[0]):
        for column in range(window.taps[1]):
            outside += (1 - window.tap(inside, row, column)) * sums[:, row, column]
    correction = (np.float32(-1) * call.value(2).astype(np.float32)) * outside.astype(np.float32)
    return np.where(outside != 0, y + correction, y)


KERNELS: dict[str, Kernel] = {
    "LceBMaxPool2d": _max_pool,
    "LceBconv2d": _bconv2d,
    "LceDequantize": _dequantize,
    "LceQuantize": _quantize,
}
