"""Element-wise operators: sums, products, activation functions, and the ends of integer arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bdnet_deploy.graph import Array, Mul, Op, Repeat, Softmax, Unary, Value
from bdnet_deploy.importers.tflite.borders import with_border
from bdnet_deploy.importers.tflite.entries import NO_PADDING, Entry, constant
from bdnet_deploy.importers.tflite.planes import sum_of_bits, sum_of_products, sum_of_slopes
from bdnet_deploy.importers.tflite.source import Operation, real_constant, scale_of
from bdnet_deploy.importers.tflite.translator import Translator, declared_shape, rule

_FUNCTIONS = {
    "LOGISTIC": "sigmoid",
    "TANH": "tanh",
    "HARD_SWISH": "hard_swish",
    "EXP": "exp",
    "LOG": "log",
    "SQRT": "sqrt",
    "RSQRT": "rsqrt",
    "ABS": "abs",
    "SQUARE": "square",
}


# -- two operands -----------------------------------------------------------------------------------------------------


@rule("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM")
def binary(t: Translator, op: Operation) -> None:
    a, b = t.entry(op, 0), t.entry(op, 1)
    if a.packed or b.packed:
        raise op.refuse("its input is packed bits")
    if a.data is not None and b.data is not None:
        raise op.refuse("both of its operands are constants", fix="convert the model with constants folded")
    if b.data is None and a.data is None:
        _two_maps(t, op, a, b)
        return
    x, c = (b, a) if a.data is not None else (a, b)
    assert c.data is not None
    _with_constant(t, op, x, c.data, first=a.data is not None)


def _with_constant(t: Translator, op: Operation, x: Entry, c: Array, *, first: bool) -> None:
    if op.kind == "MUL" and c.size == 1 and _scaled_bits(t, op, x, float(c.ravel()[0])):
        return
    shape = declared_shape(op.output(), op.where)
    if np.broadcast_shapes(x.shape, c.shape) != x.shape:
        raise op.refuse("its constant is larger than the map", fix="convert the model with constants folded")
    value = t.real(op, x)
    vector = _per_channel(x.shape, c)
    if vector is None:
        bordered = with_border(t, op, value, c) if op.kind == "ADD" else None
        if bordered is None:
            raise op.refuse("its constant differs from pixel to pixel")
        t.computed(op, t.activated(op, bordered, op.option("activation")), shape=shape)
        return
    y = _affine(t, op, value, vector, first=first)
    t.computed(op, t.activated(op, y, op.operator.options.get("activation", 0)), shape=shape)


def _affine(t: Translator, op: Operation, x: Value, c: Array, *, first: bool) -> Value:
    name = op.name
    if op.kind == "MAXIMUM":
        if not c.any():
            return t.two_slope(x, 1.0, 0.0, name, name)
        return t.clamp(x, c, np.inf, name, name)
    if op.kind == "MINIMUM":
        if not c.any():
            return t.two_slope(x, 0.0, 1.0, name, name)
        return t.clamp(x, -np.inf, c, name, name)
    if op.kind == "ADD":
        return t.affine([x], [1.0], c, name, name)
    if op.kind == "SUB":
        return t.affine([x], [-1.0 if first else 1.0], c if first else -c, name, name)
    if op.kind == "MUL":
        return t.affine([x], [c], 0.0, name, name)
    if first:
        raise op.refuse("it divides a constant by a map")
    if not c.all():
        raise op.refuse("it divides by 0")
    return t.affine([x], [1.0 / c], 0.0, name, name)


def _scaled_bits(t: Translator, op: Operation, x: Entry, c: float) -> bool:
    """Bits times one number stay bits, where the output can hold them exactly."""
    if not x.is_bits or c == 0.0 or op.option("activation") or not _holds(op, x.factor * c):
        return False
    t.define(op, replace(x, factor=x.factor * c, fill=x.fill * c))
    return True


def _holds(op: Operation, number: float) -> bool:
    """Whether the output tensor has -number and number among its values."""
    scale = scale_of(op, op.output())
    if scale is None:
        return True
    low, high = scale.range(op.output().kind)
    steps = number / scale.scale
    return abs(number) <= min(-low, high) and abs(steps - round(steps)) <= 1e-6


def _per_channel(shape: tuple[int, ...], c: Array) -> Array | None:
    """A constant beside a map of ``shape`` as (C,), None if it differs from pixel to pixel."""
    channels = shape[-1] if shape else 1
    if c.size == 1 or (c.shape[-1] == c.size == channels):
        return np.broadcast_to(c.ravel(), (channels,))
    rows = np.broadcast_to(c, shape).reshape(-1, channels)
    return rows[0] if (rows == rows[0]).all() else None


def _two_maps(t: Translator, op: Operation, a: Entry, b: Entry) -> None:
    shape = declared_shape(op.output(), op.where)
    if np.broadcast_shapes(a.shape, b.shape) != shape:
        raise op.damaged(f"its output has the shape {shape}, its inputs {a.shape} and {b.shape}")
    activation = op.operator.options.get("activation", 0)
    if op.kind == "ADD" and not activation and _sum_of_bits(t, op, a, b):
        return
    swapped = a.shape != shape
    first, second = (b, a) if swapped else (a, b)
    x, y = t.real(op, first), t.real(op, second)
    if first.shape != shape:
        raise op.refuse(f"shapes {a.shape} and {b.shape} enlarge each other")
    y = _beside(t, op, x, y, second.shape)
    result = _sum(t, op, x, y, swapped) if op.kind in ("ADD", "SUB") else _product(t, op, x, y)
    t.computed(op, t.activated(op, result, activation), shape=shape)


def _beside(t: Translator, op: Operation, x: Value, y: Value, shape: tuple[int, ...]) -> Value:
    """The second operand as the graph takes it: a map of the same shape, or one vector for all pixels."""
    if y.type.shape == x.type.shape or (y.type.size == x.type.channels == shape[-1]):
        return y
    if shape[-1] == 1 and y.type.size * x.type.channels == x.type.size:  # one number a pixel
        if len(y.type.shape) != len(x.type.shape):
            y = t.shaped(op, y, (*x.type.shape[:-1], 1))
        y = t.add(Repeat(x.type.channels), [y], op, f"{op.name}.repeat")
    if y.type.shape != x.type.shape:
        raise op.refuse(f"a map of shape {x.type.shape} and one of {y.type.shape}")
    return y


def _sum(t: Translator, op: Operation, x: Value, y: Value, swapped: bool) -> Value:
    signs = [1.0, 1.0] if op.kind == "ADD" else [-1.0, 1.0] if swapped else [1.0, -1.0]
    if x is y:
        return t.affine([x], [sum(signs)], 0.0, op.name, op.name)
    if op.kind == "ADD":
        for rule_ in (sum_of_products, sum_of_slopes):
            found = rule_(t, op, x, y)
            if found is not None:
                return found
    return t.affine([x, y], signs, 0.0, op.name, op.name)


def _product(t: Translator, op: Operation, x: Value, y: Value) -> Value:
    if op.kind != "MUL":
        raise op.refuse("both of its operands are computed")
    step: Op = Unary("square") if x is y else Mul()
    return t.add(step, [x] if x is y else [x, y], op)


def _sum_of_bits(t: Translator, op: Operation, a: Entry, b: Entry) -> bool:
    """Two planes of bits become one map of trits, where the sum is exact."""
    plain = all(e.is_bits and e.padding == NO_PADDING and e.shape == a.shape for e in (a, b))
    if not plain or a.factor != b.factor or a.factor < 0 or not _holds(op, 2 * a.factor):
        return False
    if a.index is not None or b.index is not None:
        a, b = t.settled(op, a), t.settled(op, b)
    assert a.value is not None and b.value is not None
    trits = sum_of_bits(t, op, a.value, b.value)
    if trits is None:
        return False
    t.define(op, Entry(a.shape, trits, factor=2 * a.factor))
    return True


# -- one operand ------------------------------------------------------------------------------------------------------


@rule("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "LEAKY_RELU", "PRELU", "NEG", "SOFTMAX", "GELU", *_FUNCTIONS)
def function(t: Translator, op: Operation) -> None:
    t.computed(op, _function(t, op, t.real(op, t.map(op, 0))), shape=t.map(op, 0).shape)


def _function(t: Translator, op: Operation, x: Value) -> Value:
    name = op.name
    if op.kind == "RELU":
        return t.two_slope(x, 1.0, 0.0, name, name)
    if op.kind in ("RELU6", "RELU_N1_TO_1", "RELU_0_TO_1"):
        return t.clamp(x, -1.0 if "N1" in op.kind else 0.0, 6.0 if op.kind == "RELU6" else 1.0, name, name)
    if op.kind == "LEAKY_RELU":
        alpha = float(op.option("alpha"))
        if not np.isfinite(alpha):
            raise op.damaged(f"its slope is {alpha}")
        return t.two_slope(x, 1.0, alpha, name, name)
    if op.kind == "PRELU":
        slopes = t.constants(op, 1)
        if np.broadcast_shapes(x.type.shape, slopes.shape) != x.type.shape:
            raise op.damaged(f"slopes of shape {slopes.shape}")
        vector = _per_channel(x.type.shape, slopes)
        if vector is None:
            raise op.refuse("its slopes differ from pixel to pixel", fix="share them: PReLU(shared_axes=[1, 2])")
        return t.two_slope(x, 1.0, vector, name, name)
    if op.kind == "NEG":
        return t.affine([x], [-1.0], 0.0, name, name)
    if op.kind == "SOFTMAX":
        beta = float(op.option("beta"))
        if not 0 < beta < np.inf:
            raise op.damaged(f"its beta is {beta}")
        if beta != 1.0:
            x = t.affine([x], [beta], 0.0, f"{name}.beta", name)
        return t.add(Softmax(), [x], op)
    if op.kind == "GELU":
        return t.add(Unary("gelu_tanh" if op.option("approximate") else "gelu"), [x], op)
    return t.add(Unary(_FUNCTIONS[op.kind]), [x], op)


@rule("QUANTIZE")
def quantize(t: Translator, op: Operation) -> None:
    x = t.map(op, 0)
    if x.is_bits and x.padding == NO_PADDING and _holds(op, x.factor):
        t.define(op, x)
        return
    t.computed(op, t.real(op, x), shape=x.shape)


@rule("DEQUANTIZE")
def dequantize(t: Translator, op: Operation) -> None:
    """Values are real numbers here already."""
    tensor = op.tensor(0)
    if tensor.data is not None:
        t.define(op, constant(real_constant(op, tensor)))
        return
    if scale_of(op, op.output()) is not None:
        raise op.damaged("its output is no float")
    t.define(op, t.map(op, 0))
