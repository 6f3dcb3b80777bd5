"""Unary functions: in double, and in f32 with every operation in a stated order.

The f32 versions define the bytes of float numerics. They need no math library and no fused multiply-add:
``runtime/kernels/bd_math.h`` has the same operations in the same order. Polynomials are least-squares fits on Chebyshev
nodes with weights that level the relative error, rounded to f32; the argument of exp is reduced by ln 2 in two parts
(W. J. Cody and W. Waite, Software Manual for the Elementary Functions, 1980). No quotient is subnormal, because
soft-float divisions may flush those. ``tests/test_float_functions.py`` measures the errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from bdnet_deploy.graph.dtypes import Array

F32 = Array
_f = np.float32

LOG2E = _f(1.44269504)
#: ln 2 in two parts; the first has so few bits that its products with exponents are exact.
LN2_HIGH, LN2_LOW = _f(0.693359375), _f(-2.12194440e-4)
#: Adding and subtracting it rounds to a whole number, ties to even.
ROUNDER = _f(12582912.0)
#: exp(r) = 1 + r + r**2 * P(r), |r| <= ln(2) / 2.
EXP = (0.49999994, 0.16666515, 0.041668456, 0.008369419, 0.0013813145)
#: tanh(x) = x + x**3 * P(x**2), |x| < 0.625.
TANH = (-0.3333328, 0.13331442, -0.053739715, 0.020639086, -0.0057049864)
#: 2 atanh(s) = 2 s + s**3 * P(s**2), |s| <= 1/3: log(1 + e) with s = e / (2 + e).
ATANH = (0.6666641, 0.400217, 0.27999142, 0.2802446)
#: erf(x) = x + x * P(x**2), |x| < 1.
ERF = (0.12837917, -0.37612626, 0.112835854, -0.026853813, 0.0051883277, -0.00080101937, 7.853861e-05)
#: exp(z**2) erfc(z) = t * P(t), t = 1 / (1 + z / 2), 0 <= z <= 11.
ERFC = (0.28208503, 0.2823998, 0.24292558, 0.20339169, -0.028290538, 0.28048205, -0.48930883, 0.28559247, -0.0592773)  # fmt: skip
ROOT_HALF = _f(0.70710678)


def _horner(x: F32, coefficients: tuple[float, ...]) -> F32:
    """Ascending coefficients; from the last one on, product then sum."""
    y = np.full_like(x, _f(coefficients[-1]))
    for c in coefficients[-2::-1]:
        y = y * x + _f(c)
    return y


def _power_of_two(k: Array) -> F32:
    """2**k for -126 <= k <= 127."""
    return np.asarray((k + 127) << 23, np.int32).view(np.float32)


def _exp_sum(x: F32, low: F32) -> F32:
    """exp(x + low) for a small ``low``; one rounding at the very end makes subnormal results right."""
    clamped = np.where(x < _f(-104), _f(-104), x)
    clamped = np.where(clamped > _f(89), _f(89), clamped)
    clamped = np.where(x == x, clamped, _f(0))
    n = (clamped * LOG2E + ROUNDER) - ROUNDER
    r = ((clamped - n * LN2_HIGH) - n * LN2_LOW) + low
    y = (_horner(r, EXP) * (r * r) + r) + _f(1)
    k = n.astype(np.int32)
    half = k >> 1
    return np.asarray(np.where(x == x, (y * _power_of_two(half)) * _power_of_two(k - half), x), np.float32)


def exp(x: F32) -> F32:
    return _exp_sum(x, np.zeros_like(x))


def _magnitude(x: F32) -> F32:
    return np.where(x < _f(0), -x, x)


def sigmoid(x: F32) -> F32:
    e = exp(-_magnitude(x))
    p = _f(1) / (_f(1) + e)
    return np.where(x < _f(0), e * p, p)


def tanh(x: F32) -> F32:
    z = _magnitude(x)
    u = x * x
    small = _horner(u, TANH) * (u * x) + x
    big = _f(1) - _f(2) / (exp(z + z) + _f(1))
    return np.where(z < _f(0.625), small, np.where(x < _f(0), -big, big))


def _log1p(e: F32) -> F32:
    """log(1 + e) for 0 <= e <= 1."""
    s = e * (_f(1) / (_f(2) + e))
    u = s * s
    return np.asarray(_horner(u, ATANH) * (u * s) + (s + s))


def softplus(x: F32) -> F32:
    """log(1 + exp(x))."""
    positive = np.where(x < _f(0), _f(0), x)
    return positive + _log1p(exp(-_magnitude(x)))


def log(x: F32) -> F32:
    """Natural logarithm; -inf at 0, NaN below."""
    subnormal = x < _f(2.0**-126)
    scaled = np.where(subnormal, x * _f(2.0**24), x)
    bits = scaled.astype(np.float32).view(np.int32)
    k = (bits >> 23) - 127 - np.where(subnormal, 24, 0)
    m = ((bits & 0x007FFFFF) | 0x3F800000).astype(np.int32).view(np.float32)
    large = m > _f(1.41421356)
    m = np.where(large, m * _f(0.5), m)
    n = (k + large).astype(np.float32)
    f = m - _f(1)
    s = f * (_f(1) / (_f(2) + f))
    u = s * s
    y = n * LN2_HIGH + ((_horner(u, ATANH) * (u * s) + n * LN2_LOW) + (s + s))
    y = np.where(x == _f(np.inf), x, y)
    y = np.where(x == _f(0), _f(-np.inf), y)
    return np.where(x >= _f(0), y, _f(np.nan)).astype(np.float32)


def _erfc(z: F32, square: F32, low: F32) -> F32:
    """erfc(z) for 0 <= z <= 11, of which -z**2 = square + low."""
    t = _f(1) / (z * _f(0.5) + _f(1))
    return np.asarray(_exp_sum(square, low) * (_horner(t, ERFC) * t))


def _split(z: F32) -> F32:
    """The upper 12 bits of the significand: their square is exact."""
    return np.asarray(z.astype(np.float32).view(np.int32) & np.int32(-4096), np.int32).view(np.float32)


def erf(x: F32) -> F32:
    z = _magnitude(x)
    u = x * x
    small = _horner(u, ERF) * x + x
    z = np.where(z > _f(10), _f(10), z)
    high = _split(z)
    big = _f(1) - _erfc(z, -(high * high), -((z - high) * (z + high)))
    return np.where(z < _f(1), small, np.where(x < _f(0), -big, big))


def gelu(x: F32) -> F32:
    """x times the normal distribution function."""
    z = _magnitude(x)
    z = np.where(z > _f(15), _f(15), z)
    high = _split(z)
    square, low = high * high * _f(-0.5), (z - high) * (z + high) * _f(-0.5)
    tail = _f(0.5) * _erfc(z * ROOT_HALF, square, low)
    return np.asarray(x * np.where(x < _f(0), tail, _f(1) - tail))


def gelu_tanh(x: F32) -> F32:
    """The approximation 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3))), which is x sigmoid of twice the argument."""
    return x * sigmoid(_f(1.5957691) * (x + _f(0.044715) * (x * x * x)))


def silu(x: F32) -> F32:
    return x * sigmoid(x)


def mish(x: F32) -> F32:
    """x tanh(softplus(x)) = x w / (w + 2) with w = e (e + 2), e = exp(x)."""
    e = exp(np.where(x > _f(20), _f(20), x))
    w = e * (e + _f(2))
    return np.asarray(x * (w * (_f(1) / (w + _f(2)))))


def hard_sigmoid(x: F32) -> F32:
    y = x + _f(3)
    y = np.where(y < _f(0), _f(0), y)
    y = np.where(y > _f(6), _f(6), y)
    return y * _f(1.0 / 6.0)


def hard_swish(x: F32) -> F32:
    return x * hard_sigmoid(x)


def square(x: F32) -> F32:
    return x * x


def absolute(x: F32) -> F32:
    return np.asarray(x.astype(np.float32).view(np.int32) & np.int32(0x7FFFFFFF), np.int32).view(np.float32)


def sqrt(x: F32) -> F32:
    """Correctly rounded, as IEEE 754 has it."""
    return np.sqrt(x)


def rsqrt(x: F32) -> F32:
    """The rounded reciprocal of the rounded root."""
    return _f(1) / np.sqrt(x)


#: Name -> the function in f32.
FLOAT: dict[str, Callable[[F32], F32]] = {
    "abs": absolute,
    "erf": erf,
    "exp": exp,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "hard_sigmoid": hard_sigmoid,
    "hard_swish": hard_swish,
    "log": log,
    "mish": mish,
    "rsqrt": rsqrt,
    "sigmoid": sigmoid,
    "silu": silu,
    "softplus": softplus,
    "sqrt": sqrt,
    "square": square,
    "tanh": tanh,
}


def _real_sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, e, 1.0) / (1.0 + e))


def _real_softplus(x: Array) -> Array:
    return np.asarray(np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x))))


_real_erf = np.vectorize(math.erf, otypes=[np.float64])
_real_erfc = np.vectorize(math.erfc, otypes=[np.float64])

#: Name -> the function in double.
REAL: dict[str, Callable[[Array], Array]] = {
    "abs": np.abs,
    "erf": _real_erf,
    "exp": np.exp,
    "gelu": lambda x: x * 0.5 * _real_erfc(-x / math.sqrt(2.0)),
    "gelu_tanh": lambda x: x * _real_sigmoid(2.0 * math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)),
    "hard_sigmoid": lambda x: np.clip(x + 3.0, 0.0, 6.0) / 6.0,
    "hard_swish": lambda x: x * np.clip(x + 3.0, 0.0, 6.0) / 6.0,
    "log": np.log,
    "mish": lambda x: x * np.tanh(_real_softplus(x)),
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "sigmoid": _real_sigmoid,
    "silu": lambda x: x * _real_sigmoid(x),
    "softplus": _real_softplus,
    "sqrt": np.sqrt,
    "square": np.square,
    "tanh": np.tanh,
}


def apply(name: str, x: Array) -> Array:
    """The function on an f32 or f64 array, in its own arithmetic."""
    with np.errstate(all="ignore"):
        if x.dtype == np.float32:
            return np.asarray(FLOAT[name](np.atleast_1d(x)), np.float32).reshape(x.shape)
        return np.asarray(REAL[name](x.astype(np.float64)))
