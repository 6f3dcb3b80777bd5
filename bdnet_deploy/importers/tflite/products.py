"""Convolutions and fully connected layers, of real maps and of bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bdnet_deploy.export.tflite.schema import Tensor
from bdnet_deploy.graph import Array, Conv2d, DType, Linear, Value
from bdnet_deploy.importers.tflite.entries import NO_PADDING, Entry, Sides, graph_shape
from bdnet_deploy.importers.tflite.levels import Levels, weight_levels
from bdnet_deploy.importers.tflite.source import Operation, real_constant, scale_of
from bdnet_deploy.importers.tflite.translator import Translator, declared_shape, rule

_SAME, _VALID = 0, 1


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """What TensorFlow's SAME puts before and after: the odd pixel comes after."""
    reach = (kernel - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def window_padding(
    op: Operation, shape: tuple[int, ...], kernel: tuple[int, int], strides: tuple[int, int], dilation: tuple[int, int],
    padding: int,
) -> Sides:  # fmt: skip
    """Padding of a window over a map (1, H, W, C) by the schema's ``Padding``."""
    if padding == _VALID:
        return NO_PADDING
    if padding != _SAME:
        raise op.damaged(f"its padding has the unknown number {padding}")
    rows, columns = (same_padding(shape[1 + i], kernel[i], strides[i], dilation[i]) for i in (0, 1))
    return (*rows, *columns)


def strides_of(op: Operation) -> tuple[int, int]:
    return op.positive(op.option("stride_h"), "stride"), op.positive(op.option("stride_w"), "stride")


def padded_input(t: Translator, op: Operation, x: Entry, conv: Conv2d) -> tuple[Entry, Conv2d]:
    """A map with its own padding moved into the convolution, where the two can be one."""
    if x.padding == NO_PADDING:
        return x, conv
    fill = x.fill / x.factor
    if fill not in (-1.0, 0.0, 1.0) or (any(conv.padding) and conv.pad_value != fill):
        return t.settled(op, x), conv
    top, bottom, left, right = (a + b for a, b in zip(x.padding, conv.padding, strict=True))
    conv = replace(conv, padding=(top, bottom, left, right), pad_value=int(fill))
    return x.bare(), conv


def product(t: Translator, op: Operation, x: Entry, w: Array, bias: Array | None, conv: Conv2d | None) -> Value:
    """``conv`` (None: a linear layer) of a map and constant weights (O, kh, kw, I) or (O, I), real numbers.

    Bits times weights of two or three levels are integers, which an affine map then scales; everything else is real.
    """
    if conv is not None:
        x, conv = padded_input(t, op, x, conv)
    levels = weight_levels(w)
    name = op.name
    if x.is_bits and isinstance(levels, Levels):
        value, scale = t.ordered(op, x), levels.scale * x.factor
        weights = t.graph.constant(f"{name}.weight", levels.signs, levels.dtype)
    else:
        if isinstance(levels, Levels):
            t.graph.reasons[name] = "its input is real; its weights are binary or ternary"
        else:
            t.graph.reasons[name] = (
                f"weights: {levels}" if x.is_bits else "full precision in the file: input and weights"
            )
        value, scale = (t.ordered(op, x), np.full(len(w), x.factor)) if x.is_bits else (t.real(op, x), np.ones(len(w)))
        weights = t.graph.constant(f"{name}.weight", w, DType.F64)
    y = t.add(conv or Linear(), [value, weights], op)
    if bias is not None or (scale != 1.0).any() or not y.type.dtype.is_float:
        y = t.affine([y], [scale], 0.0 if bias is None else bias, f"{name}.scale", name)
    return y


def _bias(t: Translator, op: Operation, outputs: int, weights: Tensor) -> Array | None:
    if not op.has(2):
        return None
    tensor = op.tensor(2)
    if tensor.data is None:
        data = t.constants(op, 2)
    else:
        x = scale_of(op, op.tensor(0))
        default = None if x is None or weights.scale is None else np.asarray(weights.scale, np.float64) * x.scale
        data = real_constant(op, tensor, default)
    if data.shape != (outputs,):
        raise op.damaged(f"a bias of shape {data.shape} for {outputs} channels")
    return data


@rule("CONV_2D", "DEPTHWISE_CONV_2D")
def conv2d(t: Translator, op: Operation) -> None:
    x, w = t.image(op, 0), t.constants(op, 1)
    if w.ndim != 4:
        raise op.damaged(f"a filter of shape {w.shape}")
    if op.kind == "DEPTHWISE_CONV_2D":
        if w.shape[0] != 1 or w.shape[3] % x.channels:
            raise op.damaged(f"a filter of shape {w.shape} for {x.channels} channels")
        w, groups = w.transpose(3, 1, 2, 0), x.channels
    else:
        if x.channels % w.shape[3]:
            raise op.damaged(f"a filter of {w.shape[3]} channels for {x.channels}")
        groups = x.channels // w.shape[3]
    for size in w.shape[1:3]:
        op.positive(size, "window")
    strides = strides_of(op)
    dilation = op.positive(op.option("dilation_h"), "dilation"), op.positive(op.option("dilation_w"), "dilation")
    padding = window_padding(op, x.shape, (w.shape[1], w.shape[2]), strides, dilation, op.option("padding"))
    conv = Conv2d(strides, padding, 0, dilation, groups)
    y = product(t, op, x, np.ascontiguousarray(w), _bias(t, op, len(w), op.tensor(1)), conv)
    t.computed(op, t.activated(op, y, op.option("activation")))


@rule("FULLY_CONNECTED")
def fully_connected(t: Translator, op: Operation) -> None:
    x, w = t.map(op, 0), t.constants(op, 1)
    if op.option("weights_format"):
        raise op.refuse("its weights are shuffled")
    if w.ndim != 2 or x.channels == 0:
        raise op.damaged(f"weights of shape {w.shape}")
    rows, rest = divmod(int(np.prod(x.shape)), w.shape[1])
    if rest:
        raise op.damaged(f"{w.shape[1]} weights for an input of shape {x.shape}")
    if x.padding != NO_PADDING:
        x = t.settled(op, x)
    bias = _bias(t, op, len(w), op.tensor(1))
    if rows == 1:
        y = product(t, op, x.with_shape((1, w.shape[1])), w, bias, None)
    else:
        y = product(t, op, x.with_shape((1, 1, rows, w.shape[1])), w[:, None, None, :], bias, Conv2d())
    y = t.activated(op, y, op.option("activation"))
    t.computed(op, t.shaped(op, y, graph_shape(declared_shape(op.output(), op.where))))
