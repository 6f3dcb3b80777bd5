"""Random models of one operator, for comparing interpreters of TensorFlow Lite files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from flatbuffers import flexbuffers

from bdnet_deploy.export.tflite.builder import F32, I8, I32, Builder
from bdnet_deploy.export.tflite.packing import pack, words
from bdnet_deploy.export.tflite.schema import ABSENT, Model, Operator, TensorKind


@dataclass
class Case:
    name: str
    model: Model
    inputs: list[np.ndarray]


class One:
    """A model of one operator that grows; random numbers come from ``rng``."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.model = Model(description="test")
        self.b = Builder(self.model)
        self.inputs: list[np.ndarray] = []
        self.samples = 3

    def quantized(self, index: int, scale: float | None = None, zero: int | None = None) -> int:
        tensor = self.model.tensors[index]
        tensor.scale = np.array([self.scale() if scale is None else scale], np.float32)
        tensor.zero_point = np.array([int(self.rng.integers(-128, 128)) if zero is None else zero], np.int64)
        return index

    def scale(self) -> float:
        """Of any size; half of them are ranges of few digits in 255 parts, whose products lie at or near ties."""
        if self.rng.random() < 0.5:
            return int(self.rng.integers(1, 40)) / 255 / int(self.rng.choice([1, 2, 4, 8]))
        return float(np.exp(self.rng.uniform(np.log(0.002), np.log(0.5))))

    def near(self, value: float) -> float:
        """A scale near to ``value``, a range of few digits in half of the cases."""
        if self.rng.random() < 0.5:
            return max(1, round(value * 255 * 8)) / 255 / 8
        return value

    def same(self, index: int, other: int) -> int:
        self.model.tensors[index].scale = self.model.tensors[other].scale
        self.model.tensors[index].zero_point = self.model.tensors[other].zero_point
        return index

    def input(self, shape: tuple[int, ...], kind: TensorKind = I8) -> int:
        index = self.b.tensor("x", shape, kind)
        self.model.inputs.append(index)
        full = (self.samples, *shape[1:])
        if kind is F32:
            x = self.rng.normal(size=full).astype(np.float32)
            x[self.rng.random(full) < 0.05] = 0
        elif kind is I8:
            x = self.rng.integers(-128, 128, full).astype(np.int8)
            self.quantized(index)
        else:
            x = self.rng.integers(-(1 << 31), 1 << 31, full).astype(np.int32)
        self.inputs.append(x)
        return index

    def packed(self, *shape: int) -> int:
        """Packed bits of NHWC maps; bits behind the last channel are 0."""
        index = self.b.tensor("x", (*shape[:-1], words(shape[-1])), I32)
        self.model.inputs.append(index)
        self.inputs.append(pack(self.rng.choice([-1, 1], (self.samples, *shape[1:]))))
        return index

    def output(self, shape: tuple[int, ...], kind: TensorKind = I8) -> int:
        return self.b.tensor("y", shape, kind)

    def levels(self, *shape: int, low: int = -128) -> int:
        return self.b.constant("c", self.rng.integers(low, 128, shape).astype(np.int8))

    def floats(self, *shape: int) -> int:
        return self.b.constant("c", self.rng.normal(size=shape).astype(np.float32))

    def done(self, name: str, *outputs: int) -> Case:
        self.model.outputs = list(outputs)
        return Case(name, self.model, self.inputs)


def _shape(rng: np.random.Generator) -> tuple[int, int, int, int]:
    return (1, int(rng.integers(1, 7)), int(rng.integers(1, 7)), int(rng.integers(1, 40)))


def _pair(name: str, kind: TensorKind) -> Callable[[int], Case]:
    def make(seed: int) -> Case:
        one = One(seed)
        shape = _shape(one.rng)
        x = one.input(shape, kind)
        form = one.rng.integers(3)
        if form == 0:
            other = one.input(shape, kind)
        else:
            size = shape if form == 1 else shape[-1:]
            other = one.quantized(one.levels(*size)) if kind is I8 else one.floats(*size)
        y = one.output(shape, kind)
        if kind is I8:
            both = [float(one.model.tensors[i].scale[0]) for i in (x, other)]
            natural = sum(both) * 128 if name != "MUL" else both[0] * both[1] * 128 * 128
            one.quantized(y, one.near(natural / 128 * float(np.exp(one.rng.uniform(-3, 0.5)))))
            if name in ("MINIMUM", "MAXIMUM"):
                one.same(other, x)
                one.same(y, x)
        options = {"pot_scale_int16": 0} if name in ("ADD", "SUB") else {}
        if name in ("ADD", "MUL", "SUB"):
            options["activation"] = int(one.rng.choice([0, 0, 1, 3]))
        one.b.op(name, (x, other), y, **options)
        return one.done(name, y)

    return make


def _single(name: str, kind: TensorKind) -> Callable[[int], Case]:
    def make(seed: int) -> Case:
        one = One(seed)
        shape = _shape(one.rng)
        x = one.input(shape, kind)
        y = one.output(shape, kind)
        operands, options = [x], {}
        if kind is I8:
            one.quantized(y, one.near(float(one.model.tensors[x].scale[0]) * float(np.exp(one.rng.uniform(-1.5, 0.5)))))
            if name in ("LOGISTIC", "TANH"):
                one.quantized(y, 1 / 256 if name == "LOGISTIC" else 1 / 128, -128 if name == "LOGISTIC" else 0)
        if name == "PRELU":
            alpha = (1, 1, shape[-1])
            operands.append(one.quantized(one.levels(*alpha)) if kind is I8 else one.floats(*alpha))
        if name == "LEAKY_RELU":
            options["alpha"] = float(one.rng.uniform(0.01, 0.9))
        if name == "SOFTMAX":
            options["beta"] = 1.0
        if name in ("SQRT", "LOG", "RSQRT"):
            one.inputs[0] = np.abs(one.inputs[0]) + np.float32(0.01)
        one.b.op(name, operands, y, **options)
        return one.done(name, y)

    return make


def _convolution(name: str, kind: TensorKind) -> Callable[[int], Case]:
    def make(seed: int) -> Case:
        one = One(seed)
        rng = one.rng
        h, w = (int(v) for v in rng.integers(3, 9, 2))
        k, stride, dilation = int(rng.integers(1, 4)), int(rng.integers(1, 3)), int(rng.choice([1, 1, 2]))
        stride = 1 if dilation > 1 else stride
        padding = int(rng.integers(2))
        c = int(rng.integers(1, 40))
        outputs = int(rng.integers(1, 40))
        times = 1
        if name == "DEPTHWISE_CONV_2D":
            times = int(rng.choice([1, 1, 2]))
            outputs = c * times
        covered = (k - 1) * dilation + 1
        if padding and covered > min(h, w):
            padding = 0
        size = [-(-n // stride) if padding == 0 else (n - covered) // stride + 1 for n in (h, w)]
        filter_shape = (1, k, k, outputs) if times != 1 or name == "DEPTHWISE_CONV_2D" else (outputs, k, k, c)
        x = one.input((1, h, w, c), kind)
        y = one.output((1, *size, outputs), kind)
        axis = 3 if name == "DEPTHWISE_CONV_2D" else 0
        weights, bias = _weights(one, kind, filter_shape, axis, x, y, k * k * (1 if axis == 3 else c))
        options = {"padding": padding, "stride_h": stride, "stride_w": stride, "activation": int(rng.choice([0, 0, 1]))}
        options |= {"dilation_h": dilation, "dilation_w": dilation}
        if axis == 3:
            options["depth_multiplier"] = times
        one.b.op(name, (x, weights, bias), y, **options)
        return one.done(name, y)

    return make


def _weights(
    one: One, kind: TensorKind, shape: tuple[int, ...], axis: int, x: int, y: int, taps: int
) -> tuple[int, int]:
    outputs = shape[axis]
    if kind is F32:
        return one.floats(*shape), one.floats(outputs)
    scales = np.exp(one.rng.uniform(np.log(0.001), np.log(0.05), outputs)).astype(np.float32)
    if one.rng.random() < 0.5:
        scales = (one.rng.integers(1, 20, outputs) / 508).astype(np.float32)
    weights = one.b.constant("w", one.rng.integers(-127, 128, shape).astype(np.int8), scales, axis)
    source = float(one.model.tensors[x].scale[0])
    bias = one.b.constant("b", one.rng.integers(-3000, 3000, outputs).astype(np.int32), scales * np.float32(source))
    one.quantized(y, one.near(float(np.median(scales)) * source * 74 * 74 * np.sqrt(taps) / 60))
    return weights, bias


def _linear(kind: TensorKind) -> Callable[[int], Case]:
    def make(seed: int) -> Case:
        one = One(seed)
        k, outputs = (int(v) for v in one.rng.integers(1, 300, 2))
        x, y = one.input((1, k), kind), one.output((1, outputs), kind)
        if kind is I8:
            scale = np.array([one.scale()], np.float32)
            weights = one.b.constant("w", one.rng.integers(-127, 128, (outputs, k)).astype(np.int8), scale)
            source = float(one.model.tensors[x].scale[0])
            bias = one.b.constant(
                "b", one.rng.integers(-9000, 9000, outputs).astype(np.int32), scale * np.float32(source)
            )
            one.quantized(y, one.near(float(scale[0]) * source * 74 * 74 * np.sqrt(k) / 60))
        else:
            weights, bias = one.floats(outputs, k), one.floats(outputs)
        one.b.op("FULLY_CONNECTED", (x, weights, bias if one.rng.random() < 0.8 else ABSENT), y)
        return one.done("FULLY_CONNECTED", y)

    return make


def _pool(name: str, kind: TensorKind) -> Callable[[int], Case]:
    def make(seed: int) -> Case:
        one = One(seed)
        rng = one.rng
        h, w, c = int(rng.integers(3, 9)), int(rng.integers(3, 9)), int(rng.integers(1, 40))
        k, stride, padding = int(rng.integers(1, 4)), int(rng.integers(1, 3)), int(rng.integers(2))
        size = [-(-n // stride) if padding == 0 else (n - k) // stride + 1 for n in (h, w)]
        x, y = one.input((1, h, w, c), kind), one.output((1, *size, c), kind)
        if kind is I8:
            one.same(y, x)
        one.b.op(name, (x,), y, padding=padding, stride_h=stride, stride_w=stride, filter_h=k, filter_w=k)
        return one.done(name, y)

    return make


def _reduce(name: str, kind: TensorKind) -> Callable[[int], Case]:
    def make(seed: int) -> Case:
        one = One(seed)
        shape = _shape(one.rng)
        axes, keep = [(1, 2), (3,), (1, 2)][one.rng.integers(3)], int(one.rng.integers(2))
        size = [1 if i in axes else n for i, n in enumerate(shape) if keep or i not in axes]
        x, y = one.input(shape, kind), one.output(tuple(size), kind)
        if kind is I8:
            count = np.prod([shape[a] for a in axes])
            factor = (1 if name == "MEAN" else count) * float(np.exp(one.rng.uniform(-1.5, 0.3)))
            one.quantized(y, one.near(float(one.model.tensors[x].scale[0]) * factor))
            if name == "REDUCE_MAX":
                one.same(y, x)
        one.b.op(name, (x, one.b.constant("axes", np.array(axes, np.int32))), y, keep_dims=keep)
        return one.done(name, y)

    return make


def _convert(source: TensorKind, target: TensorKind) -> Callable[[int], Case]:
    def make(seed: int) -> Case:
        one = One(seed)
        shape = _shape(one.rng)
        x, y = one.input(shape, source), one.output(shape, target)
        if target is I8:
            scale = one.scale() if source is F32 else float(one.model.tensors[x].scale[0]) * one.rng.uniform(0.3, 3)
            one.quantized(y, 0.25 if one.rng.random() < 0.3 else scale)
            if source is F32:
                one.inputs[0] = (np.round(one.inputs[0] * 64) / 64).astype(np.float32)
        name = "DEQUANTIZE" if target is F32 else "QUANTIZE"
        one.b.op(name, (x,), y)
        return one.done(name, y)

    return make


def _moves(name: str, kind: TensorKind) -> Callable[[int], Case]:
    def make(seed: int) -> Case:
        one = One(seed)
        h, w, c = (2 * int(v) for v in one.rng.integers(1, 5, 3))
        x = one.input((1, h, w, c), kind)
        ints = lambda *v: one.b.constant("i", np.array(v, np.int32))  # noqa: E731
        operands, options, shape = [x], {}, (1, h, w, c)
        if name == "CONCATENATION":
            operands, options, shape = [x, x], {"axis": 3}, (1, h, w, 2 * c)
        elif name == "TRANSPOSE":
            operands, shape = [x, ints(0, 3, 1, 2)], (1, c, h, w)
        elif name == "RESHAPE":
            operands, shape = [x, ints(1, h * w, c)], (1, h * w, c)
        elif name == "SLICE":
            operands, shape = [x, ints(0, 1, 0, 0), ints(1, h - 1, w, c // 2)], (1, h - 1, w, c // 2)
        elif name == "STRIDED_SLICE":
            operands, shape = [x, ints(0, 1, 0, 0), ints(1, h, w, c), ints(1, 2, 2, 1)], (1, h // 2, w // 2, c)
        elif name in ("PAD", "PADV2"):
            amounts = one.b.constant("i", np.array([[0, 0], [1, 2], [0, 1], [0, 0]], np.int32))
            operands, shape = [x, amounts], (1, h + 3, w + 1, c)
            if name == "PADV2":
                operands.append(one.b.constant("v", np.array(5, kind.numpy)))
                if kind is I8:
                    one.same(operands[2], x)
        elif name == "TILE":
            operands, shape = [x, ints(1, 1, 2, 2)], (1, h, 2 * w, 2 * c)
        elif name == "GATHER":
            operands, options, shape = [x, ints(1, 0, 1)], {"axis": 3}, (1, h, w, 3)
        elif name == "RESIZE_NEAREST_NEIGHBOR":
            operands, shape = [x, ints(3 * h, 2 * w)], (1, 3 * h, 2 * w, c)
            options = {"half_pixel_centers": int(one.rng.integers(2))}
        elif name == "SPACE_TO_DEPTH":
            options, shape = {"block_size": 2}, (1, h // 2, w // 2, 4 * c)
        elif name == "DEPTH_TO_SPACE":
            x4 = one.model.tensors[x]
            x4.shape, shape, options = (1, h, w, 4 * c), (1, 2 * h, 2 * w, c), {"block_size": 2}
            one.inputs[0] = np.repeat(one.inputs[0], 4, -1)
        elif name == "REVERSE_V2":
            operands = [x, ints(2)]
        y = one.output(shape, kind)
        if kind is I8:
            one.same(y, x)
        one.b.op(name, operands, y, **options)
        return one.done(name, y)

    return make


def _bconv(kind: TensorKind) -> Callable[[int], Case]:
    """Larq's convolution with float, int8 or packed (I32) output."""

    def make(seed: int) -> Case:
        one = One(seed)
        rng = one.rng
        h, w = (int(v) for v in rng.integers(3, 9, 2))
        c, outputs = (int(v) for v in rng.integers(1, 80, 2))
        k, stride, padding = int(rng.integers(1, 4)), int(rng.integers(1, 3)), int(rng.integers(2))
        pad_values = int(rng.integers(2)) if kind is F32 and c % 2 == 0 else 1
        activation = int(rng.choice([0, 0, 1, 2, 3])) if pad_values else 0
        x = one.packed(1, h, w, c)
        size = [-(-n // stride) if padding == 0 else (n - k) // stride + 1 for n in (h, w)]
        y = one.output((1, *size, words(outputs) if kind is I32 else outputs), kind)
        weights = one.b.constant("w", pack(rng.choice([-1, 1], (outputs, k, k, c))))
        given = {"multiplier": one.floats(outputs), "bias": one.floats(outputs)}
        if kind is I32:
            given = {"threshold": one.b.constant("t", rng.integers(0, k * k * c + 1, outputs).astype(np.int32))}
        elif kind is I8:
            one.quantized(y, float(rng.choice([0.25, 0.5, one.scale()])) * np.sqrt(k * k * c) / 10)
        one.b.lce_bconv2d(
            x,
            weights,
            y,
            c,
            padding=padding,
            pad_values=pad_values,
            strides=(stride, stride),
            activation=activation,
            **given,
        )
        return one.done(f"LceBconv2d {kind.name}", y)

    return make


def _lce_quantize(kind: TensorKind) -> Callable[[int], Case]:
    def make(seed: int) -> Case:
        one = One(seed)
        return one.done("LceQuantize", one.b.lce_quantize(one.input(_shape(one.rng), kind), "y"))

    return make


def _lce_dequantize(kind: TensorKind) -> Callable[[int], Case]:
    def make(seed: int) -> Case:
        one = One(seed)
        shape = _shape(one.rng)
        y = one.b.lce_dequantize(one.packed(*shape), shape[-1], kind, "y")
        if kind is I8:
            one.quantized(y, float(one.rng.choice([1.0, 0.3, 0.01])))
        return one.done("LceDequantize", y)

    return make


def _lce_pool(seed: int) -> Case:
    one = One(seed)
    rng = one.rng
    h, w, c = int(rng.integers(3, 9)), int(rng.integers(3, 9)), int(rng.integers(1, 70))
    k, stride, padding = int(rng.integers(1, 4)), int(rng.integers(1, 3)), int(rng.integers(2))
    x = one.packed(1, h, w, c)
    size = [-(-n // stride) if padding == 0 else (n - k) // stride + 1 for n in (h, w)]
    y = one.output((1, *size, words(c)), I32)
    options = {
        "filter_height": k,
        "filter_width": k,
        "padding": padding,
        "stride_height": stride,
        "stride_width": stride,
    }
    one.model.operators.append(Operator("LceBMaxPool2d", (x,), (y,), custom_options=bytes(flexbuffers.Dumps(options))))
    return one.done("LceBMaxPool2d", y)


_MOVES = ("CONCATENATION", "TRANSPOSE", "RESHAPE", "SLICE", "STRIDED_SLICE", "PAD", "PADV2", "TILE", "GATHER")
_MOVES += ("RESIZE_NEAREST_NEIGHBOR", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "REVERSE_V2")
_SINGLES = ("RELU", "RELU6", "RELU_N1_TO_1", "PRELU", "LEAKY_RELU", "LOGISTIC", "TANH")
_FLOAT_SINGLES = ("ABS", "EXP", "GELU", "HARD_SWISH", "LOG", "NEG", "RSQRT", "SOFTMAX", "SQRT", "SQUARE")

#: Operators whose results are equal bit for bit.
EXACT: dict[str, Callable[[int], Case]] = {
    **{f"{n} int8": _pair(n, I8) for n in ("ADD", "SUB", "MUL", "MINIMUM", "MAXIMUM")},
    **{f"{n} int8": _single(n, I8) for n in _SINGLES},
    **{f"{n} int8": _convolution(n, I8) for n in ("CONV_2D", "DEPTHWISE_CONV_2D")},
    "FULLY_CONNECTED int8": _linear(I8),
    **{f"{n} int8": _pool(n, I8) for n in ("AVERAGE_POOL_2D", "MAX_POOL_2D")},
    **{f"{n} int8": _reduce(n, I8) for n in ("MEAN", "SUM", "REDUCE_MAX")},
    "QUANTIZE float32": _convert(F32, I8),
    "QUANTIZE int8": _convert(I8, I8),
    "DEQUANTIZE": _convert(I8, F32),
    **{f"{n} int8": _moves(n, I8) for n in _MOVES},
    **{f"{n} int32": _moves(n, I32) for n in ("CONCATENATION", "RESHAPE", "SLICE", "PADV2", "TILE", "GATHER")},
    **{f"{n} float32": _moves(n, F32) for n in _MOVES},
    **{f"LceBconv2d {k.name}": _bconv(k) for k in (F32, I8, I32)},
    **{f"LceQuantize {k.name}": _lce_quantize(k) for k in (F32, I8)},
    **{f"LceDequantize {k.name}": _lce_dequantize(k) for k in (F32, I8)},
    "LceBMaxPool2d": _lce_pool,
}
#: Operators of float32, which round in other orders.
ROUNDED: dict[str, Callable[[int], Case]] = {
    **{f"{n} float32": _pair(n, F32) for n in ("ADD", "SUB", "MUL", "DIV", "MINIMUM", "MAXIMUM")},
    **{f"{n} float32": _single(n, F32) for n in (*_SINGLES, *_FLOAT_SINGLES)},
    **{f"{n} float32": _convolution(n, F32) for n in ("CONV_2D", "DEPTHWISE_CONV_2D")},
    "FULLY_CONNECTED float32": _linear(F32),
    **{f"{n} float32": _pool(n, F32) for n in ("AVERAGE_POOL_2D", "MAX_POOL_2D")},
    **{f"{n} float32": _reduce(n, F32) for n in ("MEAN", "SUM", "REDUCE_MAX")},
}
