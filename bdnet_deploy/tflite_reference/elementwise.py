"""Operators on single elements, pairs of them, and along axes, in float32 and int8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bdnet_deploy.graph import float_functions
from bdnet_deploy.tflite_reference.calls import Array, Call, Kernel
from bdnet_deploy.tflite_reference.fixed_point import (
    HIGH,
    LOW,
    in_vectors,
    quantize_multiplier,
    round_away,
    saturate,
    scale,
    scale_vector,
    whole_vectors,
)

#: Bits by which ADD and SUB shift int8 values to the left before they bring them to one scale.
_LEFT_SHIFT = 20


def _pair(function: Callable[[Array, Array], Array]) -> Kernel:
    """Of two float or plain integer inputs."""

    def kernel(call: Call) -> list[Array]:
        if call.is_int8:
            raise call.unsupported("its int8 form is not known")
        y = function(call.value(0), call.value(1))
        return [call.activated(y) if call.is_float else y]

    return kernel


def _sum(sign: int) -> Kernel:
    def kernel(call: Call) -> list[Array]:
        if not call.is_int8:
            a, b = call.value(0), call.value(1)
            y = a + b if sign > 0 else a - b
            return [call.activated(y) if call.is_float else y]
        return [_int8_sum(call, sign)]

    return kernel


def _int8_sum(call: Call, sign: int) -> Array:
    """ADD has vector code, SUB has not. Both bring the terms to one scale, with 20 bits below their units."""
    twice = 2 * max(call.scale(0), call.scale(1))
    factors = [quantize_multiplier(call.scale(i) / twice) for i in range(2)]
    last = quantize_multiplier(twice / ((1 << _LEFT_SHIFT) * call.out_scale))
    levels = [call.centred(i) for i in range(2)]
    exact = [scale(x << _LEFT_SHIFT, *factor) for x, factor in zip(levels, factors)]
    y: Array = scale(exact[0] + sign * exact[1], *last) + call.out_zero
    if sign > 0:
        width, axes, spread = _vectors(levels[0].shape, levels[1].shape)
        terms = [_vector_term(x, *factor, spread) for x, factor in zip(levels, factors)]
        fast = scale(terms[0] + terms[1], *last) + call.out_zero
        y = np.where(whole_vectors(width, axes, y.shape), fast, y)
    return saturate(y, *call.limits())


def _vector_term(x: Array, multiplier: Array, exponent: Array, spread: bool) -> Array:
    """A term as vector code scales it: one shift to the left; where a single value is spread, one to each side."""
    if spread:
        return (((x << _LEFT_SHIFT) * multiplier + (1 << 30)) >> 31) >> -exponent
    shift = _LEFT_SHIFT + exponent
    return (((x << np.maximum(shift, 0)) >> np.maximum(-shift, 0)) * multiplier + (1 << 30)) >> 31


def _vectors(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, int, bool]:
    """Width of the vectors, axes in which elements lie side by side, and whether one operand is a single value there."""
    rank = max(len(a), len(b))
    pairs = list(zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b))
    alike = 0
    while alike < rank and pairs[rank - 1 - alike][0] == pairs[rank - 1 - alike][1]:
        alike += 1
    if alike == rank or any(n > 1 for n, _ in pairs[rank - alike :]):
        return 16, max(alike, 1), False
    narrow = 0 if pairs[rank - 1 - alike][0] == 1 else 1
    spread = alike
    while spread < rank and pairs[rank - 1 - spread][narrow] == 1:
        spread += 1
    return 8, spread, True


def _mul(call: Call) -> list[Array]:
    if not call.is_int8:
        product = call.value(0) * call.value(1)
        return [call.activated(product) if call.is_float else product]
    # The runtime multiplies and divides the scales in float32, here and below; ADD, means and convolutions take doubles.
    ratio = np.float32(call.scale(0)) * np.float32(call.scale(1)) / np.float32(call.out_scale)
    factor = quantize_multiplier(float(ratio))
    y = scale(call.centred(0) * call.centred(1), *factor) + call.out_zero
    return [saturate(y, *call.limits())]


def _extreme(function: Callable[[Array, Array], Array]) -> Kernel:
    def kernel(call: Call) -> list[Array]:
        return [function(call.value(0), call.value(1))]

    return kernel


def _relu(low: float, high: float) -> Kernel:
    def kernel(call: Call) -> list[Array]:
        if not call.is_int8:
            return [np.clip(call.value(0), np.float32(low), np.float32(high))]
        ratio = float(np.float32(call.scale(0)) / np.float32(call.out_scale))
        y = scale(call.centred(0), *quantize_multiplier(ratio)) + call.out_zero
        return [saturate(y, *call.quantized_limits(low, high))]

    return kernel


def _slopes(call: Call, negative: Any, negative_scale: float) -> Array:
    x = call.centred(0)
    source, target = np.float32(call.scale(0)), np.float32(call.out_scale)
    above = scale(x, *quantize_multiplier(float(source / target)))
    below = scale(x * negative, *quantize_multiplier(float(source * np.float32(negative_scale) / target)))
    return saturate(np.where(x >= 0, above, below) + call.out_zero)


def _prelu(call: Call) -> list[Array]:
    if call.is_int8:
        return [_slopes(call, call.centred(1), call.scale(1))]
    x = call.value(0)
    return [np.where(x >= 0, x, x * call.value(1))]


def _leaky_relu(call: Call) -> list[Array]:
    alpha = np.float32(call.option("alpha"))
    if call.is_int8:
        return [_slopes(call, np.int64(1), float(alpha))]
    x = call.value(0)
    return [np.where(x > 0, x, x * alpha)]


def _table(function: Callable[[Array], Array]) -> Kernel:
    """A function of one element: of float32, or by a table of all 256 int8 values."""

    def kernel(call: Call) -> list[Array]:
        if not call.is_int8:
            return [function(call.value(0))]
        levels = np.arange(LOW, HIGH + 1, dtype=np.float32)
        real = np.float32(call.scale(0)) * (levels - np.float32(call.zero(0)))
        results = function(real) * (np.float32(1) / np.float32(call.out_scale))
        table = saturate(round_away(results) + np.float32(call.out_zero))
        return [table[call.value(0).astype(np.int64) - LOW]]

    return kernel


def _float_only(function: Callable[[Array], Array]) -> Kernel:
    def kernel(call: Call) -> list[Array]:
        if call.is_int8:
            raise call.unsupported("its int8 form is not known")
        with np.errstate(all="ignore"):
            return [function(call.value(0))]

    return kernel


def _logistic(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.float32(1) / (np.float32(1) + np.exp(-x))


def _hard_swish(x: Array) -> Array:
    return x * np.clip(x + np.float32(3), np.float32(0), np.float32(6)) * np.float32(1 / 6)


def _gelu(call: Call) -> list[Array]:
    name = "gelu_tanh" if call.option("approximate") else "gelu"
    return _table(lambda x: float_functions.FLOAT[name](x))(call)


def _softmax(call: Call) -> list[Array]:
    if not call.is_float:
        raise call.unsupported("its int8 form is not known")
    x = call.value(0)
    powers = np.exp((x - x.max(-1, keepdims=True)) * np.float32(call.option("beta", 1.0)))
    return [powers / powers.sum(-1, keepdims=True)]


def _axes(call: Call) -> tuple[int, ...]:
    rank = call.value(0).ndim
    axes = sorted({int(a) + rank if a < 0 else int(a) for a in np.atleast_1d(call.value(1)).ravel()})
    if any(not 0 <= a < rank for a in axes):
        raise ValueError("an axis that does not exist")
    return tuple(axes)


def _reduce(function: Callable[..., Array]) -> Kernel:
    def kernel(call: Call) -> list[Array]:
        x = call.value(0)
        return [function(x, axis=_axes(call), keepdims=bool(call.option("keep_dims"))).astype(x.dtype)]

    return kernel


def _sum_over(call: Call) -> list[Array]:
    if not call.is_int8:
        return _reduce(np.sum)(call)
    _, total = _total(call)
    count = call.value(0).size // total.size
    factor = np.float32(call.scale(0)) / np.float32(call.out_scale)
    bias = np.float32(-call.zero(0)) * factor * np.float32(count)
    return [saturate(round_away(total.astype(np.float32) * factor + bias).astype(np.int64) + call.out_zero)]


def _mean(call: Call) -> list[Array]:
    if not call.is_int8:
        return _reduce(np.mean)(call)
    axes, total = _total(call)
    count = call.value(0).size // total.size
    if axes == (1, 2) and call.value(0).ndim == 4 and call.option("keep_dims"):
        return [_mean_of_map(call, total, count)]
    multiplier, exponent = quantize_multiplier(call.scale(0) / call.out_scale)
    shift = min(count.bit_length() - 1, 32, 31 + int(exponent))
    centred = total - call.zero(0) * count
    return [saturate(scale(centred, (multiplier << shift) // count, exponent - shift) + call.out_zero)]


def _mean_of_map(call: Call, total: Array, count: int) -> Array:
    """Height and width, which are kept: the zero points are rounded on their own, in float32."""
    source, target = np.float32(call.scale(0)), np.float32(call.out_scale)
    shift = np.float32(call.zero(0)) * source / target
    bias = call.out_zero - int(shift + np.float32(0.5 if shift > 0 else -0.5))
    factor = quantize_multiplier(float(source / (np.float32(count) * target)))
    scaled = in_vectors(16, 1, lambda x: scale_vector(x, *factor), lambda x: scale(x, *factor), total)
    return saturate(scaled + bias)


def _total(call: Call) -> tuple[tuple[int, ...], Array]:
    """The reduced axes, and the sum of the levels."""
    axes = _axes(call)
    return axes, call.value(0).astype(np.int64).sum(axis=axes, keepdims=bool(call.option("keep_dims")))


def _quantize(call: Call) -> list[Array]:
    x = call.value(0)
    if call.is_int8:
        factor = quantize_multiplier(call.scale(0) / call.out_scale)
        y = in_vectors(16, x.ndim, lambda v: scale_vector(v, *factor), lambda v: scale(v, *factor), call.centred(0))
        return [saturate(y + call.out_zero)]
    step = np.float32(call.out_scale)
    # Vectors are multiplied by the reciprocal, ties go to even; single elements are divided, ties go away from zero.
    y = in_vectors(
        8, x.ndim, lambda v: np.rint(v * (np.float32(1) / step)), lambda v: round_away(v.astype(np.float64) / step), x
    )
    return [saturate(y.astype(np.float64) + call.out_zero)]


def _dequantize(call: Call) -> list[Array]:
    x = call.value(0)
    if not call.is_int8:
        return [x.astype(np.float32)]
    step, zero = np.float32(call.scale(0)), np.float32(call.zero(0))
    return [in_vectors(8, x.ndim, lambda v: v * step + -zero * step, lambda v: (v - zero) * step, x.astype(np.float32))]


def _cast(call: Call) -> list[Array]:
    return [call.value(0).astype(call.out.kind.numpy)]


def _select(call: Call) -> list[Array]:
    return [np.where(call.value(0).astype(bool), call.value(1), call.value(2))]


def _function(name: str) -> Kernel:
    return _float_only(lambda x: float_functions.FLOAT[name](x))


def _divide(a: Array, b: Array) -> Any:
    limit = np.finfo(np.float32).max
    with np.errstate(all="ignore"):
        return np.clip(a / b, -limit, limit)


KERNELS: dict[str, Kernel] = {
    "ABS": _float_only(np.abs),
    "ADD": _sum(1),
    "CAST": _cast,
    "CEIL": _float_only(np.ceil),
    "COS": _float_only(np.cos),
    "DEQUANTIZE": _dequantize,
    "DIV": _pair(_divide),
    "EQUAL": _pair(np.equal),
    "EXP": _float_only(np.exp),
    "FLOOR": _float_only(np.floor),
    "GELU": _gelu,
    "GREATER": _pair(np.greater),
    "GREATER_EQUAL": _pair(np.greater_equal),
    "HARD_SWISH": _float_only(_hard_swish),
    "LEAKY_RELU": _leaky_relu,
    "LESS": _pair(np.less),
    "LESS_EQUAL": _pair(np.less_equal),
    "LOG": _float_only(np.log),
    "LOGICAL_AND": _extreme(np.logical_and),
    "LOGICAL_NOT": _float_only(np.logical_not),
    "LOGICAL_OR": _extreme(np.logical_or),
    "LOGISTIC": _table(_logistic),
    "MAXIMUM": _extreme(np.maximum),
    "MEAN": _mean,
    "MINIMUM": _extreme(np.minimum),
    "MUL": _mul,
    "NEG": _float_only(np.negative),
    "NOT_EQUAL": _pair(np.not_equal),
    "PRELU": _prelu,
    "QUANTIZE": _quantize,
    "REDUCE_MAX": _reduce(np.max),
    "REDUCE_MIN": _reduce(np.min),
    "RELU": _relu(0.0, np.inf),
    "RELU6": _relu(0.0, 6.0),
    "RELU_0_TO_1": _relu(0.0, 1.0),
    "RELU_N1_TO_1": _relu(-1.0, 1.0),
    "ROUND": _float_only(np.rint),
    "RSQRT": _float_only(lambda x: np.float32(1) / np.sqrt(x)),
    "SELECT": _select,
    "SELECT_V2": _select,
    "SIGN": _float_only(np.sign),
    "SIN": _float_only(np.sin),
    "SOFTMAX": _softmax,
    "SQRT": _float_only(np.sqrt),
    "SQUARE": _float_only(np.square),
    "SQUARED_DIFFERENCE": _pair(lambda a, b: np.square(a - b)),
    "SUB": _sum(-1),
    "SUM": _sum_over,
    "TANH": _table(np.tanh),
}
