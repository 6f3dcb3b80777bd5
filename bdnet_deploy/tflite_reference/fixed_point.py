"""The integer arithmetic of TensorFlow Lite's int8 kernels.

A real factor is a 31-bit multiplier and a power of two (``QuantizeMultiplier`` of TensorFlow Lite's
``kernels/internal/quantization_util.cc``). Two ways to multiply by it are in use, and they differ in ties and near them:

``scale``
    rounds twice, ties away from zero (``MultiplyByQuantizedMultiplier`` of ``kernels/internal/common.cc``): everything but
    matrix products.
``scale_once``
    rounds once, ties up: matrix products on x86 and Arm, which the library ruy computes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LOW, HIGH = -128, 127
_HALF = 1 << 30


def round_away(x: Array) -> Array:
    """To the nearest integer, ties away from zero, in the type of ``x``: C's ``round``."""
    return np.copysign(np.floor(np.abs(x) + x.dtype.type(0.5)), x) if _exact_half(x) else _round_wide(x)


def _exact_half(x: Array) -> bool:
    return x.dtype == np.float64


def _round_wide(x: Array) -> Array:
    """float32 through float64: |x| + 0.5 might round up in float32."""
    wide = x.astype(np.float64)
    return np.copysign(np.floor(np.abs(wide) + 0.5), wide).astype(x.dtype)


def quantize_multiplier(real: Any) -> tuple[Array, Array]:
    """Multiplier in [2**30, 2**31) and exponent of positive factors, as int64; tiny factors become 0.

    factor = multiplier * 2**(exponent - 31).
    """
    fraction, exponent = np.frexp(np.asarray(real, np.float64))
    multiplier = round_away(fraction * 2.0**31).astype(np.int64)
    exponent = exponent.astype(np.int64)
    top = multiplier == 1 << 31
    multiplier, exponent = np.where(top, multiplier >> 1, multiplier), np.where(top, exponent + 1, exponent)
    tiny = exponent < -31
    return np.where(tiny, 0, multiplier), np.where(tiny, 0, exponent)


def scale(x: Array, multiplier: Array, exponent: Array) -> Array:
    """int64 ``x`` times the factor: rounded to 31 bits below the multiplier, then to an integer; ties away from zero."""
    left, right = np.maximum(exponent, 0), np.maximum(-exponent, 0)
    product = (x << left) * multiplier
    nudged = product + np.where(product >= 0, _HALF, 1 - _HALF)
    high = np.where(nudged >= 0, nudged >> 31, -(-nudged >> 31))
    mask = (np.int64(1) << right) - 1
    return np.asarray((high >> right) + ((high & mask) > (mask >> 1) + (high < 0)))


def scale_once(x: Array, multiplier: Array, exponent: Array) -> Array:
    """int64 ``x`` times the factor, rounded once; ties up."""
    total = 31 - exponent
    return np.asarray((x * multiplier + (np.int64(1) << (total - 1))) >> total)


def saturate(x: Array, low: int = LOW, high: int = HIGH) -> Array:
    """To int8, cut off at the limits."""
    return np.clip(x, low, high).astype(np.int8)
