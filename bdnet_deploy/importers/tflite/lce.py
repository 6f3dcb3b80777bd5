"""The operators of Larq Compute Engine: bit 1 is -1, packed 32 channels a word. Source: its ``tflite/kernels``."""

from __future__ import annotations

import numpy as np

from bdnet_deploy.bitplanes import words
from bdnet_deploy.export.tflite.packing import WORD, unpack
from bdnet_deploy.export.tflite.schema import TensorKind
from bdnet_deploy.graph import Affine, Array, Conv2d, DType, MaxPool, Sign, Value
from bdnet_deploy.importers.tflite.entries import NO_PADDING, Entry
from bdnet_deploy.importers.tflite.products import padded_input, window_padding
from bdnet_deploy.importers.tflite.source import Operation, scale_of
from bdnet_deploy.importers.tflite.translator import Translator, declared_shape, rule

_KNOWN_PAD_VALUES = (0, 1)


@rule("LceQuantize")
def quantize(t: Translator, op: Operation) -> None:
    """-1 where x < 0, so 0 becomes +1; integers compare with their zero point, which is the same."""
    x = t.map(op, 0)
    if x.is_bits and x.factor > 0 and x.padding == NO_PADDING and x.value and x.value.type.dtype is DType.BIT:
        t.define(op, Entry(x.shape, x.value, index=x.index, packed=True))
        return
    t.define(op, Entry(x.shape, sign(t, op, t.real(op, x)), packed=True))


def sign(t: Translator, op: Operation, x: Value) -> Value:
    """The bits of x >= 0. Of x + c with float32 numbers they are exactly those of x >= -c."""
    node, threshold = x.node, np.zeros(x.type.channels)
    if node is not None and isinstance(node.op, Affine) and node.op.terms == 1 and node.inputs[0].type.dtype.is_float:
        mul, add = node.inputs[1].data, node.inputs[2].data
        assert mul is not None and add is not None
        if (mul == 1.0).all():
            x, threshold = node.inputs[0], -add
    return t.add(Sign(), [x, t.graph.parameter(f"{op.name}.threshold", threshold)], op)


@rule("LceDequantize")
def dequantize(t: Translator, op: Operation) -> None:
    """-1.0 and +1.0, or the nearest integers to them."""
    x = t.map(op, 0, packed=True)
    scale = scale_of(op, op.output())
    factor = 1.0
    if scale is not None:
        factor = float(np.rint(1.0 / scale.scale)) * scale.scale
        low, high = scale.range(op.output().kind)
        if factor == 0.0 or factor > high or -factor < low:
            raise op.refuse(f"its output of scale {scale.scale} does not hold -1 and +1")
    t.define(op, Entry(x.shape, x.value, index=x.index, factor=factor, padding=x.padding, fill=x.fill * factor))


@rule("LceBMaxPool2d")
def max_pool(t: Translator, op: Operation) -> None:
    x = t.image(op, 0, packed=True)
    kernel = _pair(op, "filter_height", "filter_width", "window")
    strides = _pair(op, "stride_height", "stride_width", "stride")
    padding = window_padding(op, x.shape, kernel, strides, (1, 1), op.custom("padding"))
    y = t.add(MaxPool(kernel, strides, padding), [t.ordered(op, x)], op)
    t.define(op, Entry(y.type.shape, y, packed=True))


@rule("LceBconv2d")
def bconv2d(t: Translator, op: Operation) -> None:
    """``activation(products) * multiplier + bias``, or bits: -1 where more than ``threshold`` products are negative."""
    x = t.image(op, 0, packed=True)
    if op.custom("channels_in") != x.channels:
        raise op.damaged(f"it is for {op.custom('channels_in')} channels, its input has {x.channels}")
    signs, groups = _filter(op, x.channels)
    strides = _pair(op, "stride_height", "stride_width", "stride")
    dilation = _pair(op, "dilation_height_factor", "dilation_width_factor", "dilation")
    kernel = (signs.shape[1], signs.shape[2])
    padding = window_padding(op, x.shape, kernel, strides, dilation, op.custom("padding"))
    pad_value = op.custom("pad_values")
    if pad_value not in _KNOWN_PAD_VALUES:
        raise op.damaged(f"it pads with {pad_value}")
    bits = op.output().kind is TensorKind.INT32
    if bits and pad_value == 0 and any(padding):
        raise op.refuse("it pads with 0 and makes bits, which Larq Compute Engine itself cannot run")
    x, conv = padded_input(t, op, x, Conv2d(strides, padding, pad_value, dilation, groups))
    weights = t.graph.constant(f"{op.name}.weight", signs, DType.BIT)
    sums = t.add(conv, [t.ordered(op, x), weights], op)
    if bits:
        y = _signs(t, op, sums, int(np.prod(signs.shape[1:])))
        t.define(op, Entry(y.type.shape, y, packed=True))
        return
    activation = op.custom("fused_activation_function")
    if activation:
        sums = t.affine([sums], [1.0], 0.0, f"{op.name}.sums", op.name)
        sums = t.activated(op, sums, activation)
    factors = [_vector(t, op, i, len(signs)) for i in (2, 3)]
    t.computed(op, t.affine([sums], [factors[0]], factors[1], f"{op.name}.scale", op.name))


def _signs(t: Translator, op: Operation, sums: Value, taps: int) -> Value:
    """Bits of sums: of the K products n are negative, the sum is K - 2 n, and n <= limit gives +1.

    Limits beyond the possible n (INT32_MAX, INT32_MIN) are constant channels.
    """
    limit = np.asarray(op.numbers(4), np.int64)
    if limit.shape != (sums.type.channels,):
        raise op.damaged(f"{limit.size} thresholds for {sums.type.channels} channels")
    threshold = np.clip(taps - 2 * limit, -taps, taps + 1)
    return t.add(Sign(), [sums, t.graph.constant(f"{op.name}.threshold", threshold, DType.I32)], op, f"{op.name}.sign")


def _filter(op: Operation, channels: int) -> tuple[Array, int]:
    """The filter's signs (O, kh, kw, channels of a group) and the number of groups, which follows from its shape."""
    tensor = op.tensor(1)
    if tensor.data is None:
        raise op.refuse("its filter is computed, not a constant")
    shape = declared_shape(tensor, op.where)
    if tensor.kind is not TensorKind.INT32 or len(shape) != 4:
        raise op.damaged(f"a filter of {tensor.kind.name.lower()} and shape {shape}")
    for size in shape[1:3]:
        op.positive(size, "window")
    groups, rest = divmod(words(channels), shape[3])
    if rest or shape[0] % groups:
        raise op.damaged(f"a filter of shape {shape} for {channels} channels")
    if groups > 1 and channels % (groups * WORD):
        raise op.refuse(f"{groups} groups of {channels} channels: a group is no multiple of {WORD} channels")
    return unpack(tensor.data, channels // groups), groups


def _vector(t: Translator, op: Operation, i: int, channels: int) -> Array:
    data = t.constants(op, i)
    if data.shape != (channels,):
        raise op.damaged(f"input {i} has the shape {data.shape}, expected ({channels},)")
    return data


def _pair(op: Operation, height: str, width: str, what: str) -> tuple[int, int]:
    return op.positive(op.custom(height), what), op.positive(op.custom(width), what)
