"""The integer arithmetic of TensorFlow Lite's int8 kernels.

A real factor is a 31-bit multiplier and a power of two (``QuantizeMultiplier`` of TensorFlow Lite's
``kernels/internal/quantization_util.cc``). A product with it is rounded twice: to 31 bits below the multiplier, then to an
integer. Two forms of it are in use, and they differ where the second rounding meets a tie:

``scale``
    ties away from zero: ``MultiplyByQuantizedMultiplier`` of ``kernels/internal/common.cc``.
``scale_vector``
    ties up: code written for NEON, which on x86 is compiled for SSE and gives the same. Matrix products use it throughout;
    other operators for whole vectors of 8 or 16 elements only, and ``scale`` for the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LOW, HIGH = -128, 127
_HALF = 1 << 30


def round_away(x: Any) -> Array:
    """To the nearest integer, ties away from zero, in the type of ``x``: C's ``round``."""
    # In double, because |x| + 0.5 may round up in float32.
    wide = np.asarray(x).astype(np.float64)
    return np.asarray(np.copysign(np.floor(np.abs(wide) + 0.5), wide).astype(np.asarray(x).dtype))


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
    """int64 ``x`` times the factor, ties away from zero."""
    left, right = np.maximum(exponent, 0), np.maximum(-exponent, 0)
    product = (x << left) * multiplier
    nudged = product + np.where(product >= 0, _HALF, 1 - _HALF)
    high = np.where(nudged >= 0, nudged >> 31, -(-nudged >> 31))
    mask = (np.int64(1) << right) - 1
    return np.asarray((high >> right) + ((high & mask) > (mask >> 1) + (high < 0)))


def saturate(x: Array, low: int = LOW, high: int = HIGH) -> Array:
    """To int8, cut off at the limits."""
    return np.clip(x, low, high).astype(np.int8)


def scale_vector(x: Array, multiplier: Array, exponent: Array) -> Array:
    """int64 ``x`` times the factor, ties up."""
    left, right = np.maximum(exponent, 0), np.maximum(-exponent, 0)
    high = ((x << left) * multiplier + _HALF) >> 31
    return np.asarray((high + ((np.int64(1) << right) >> 1)) >> right)


def in_vectors(
    width: int, axes: int, vector: Callable[[Array], Array], single: Callable[[Array], Array], x: Array
) -> Array:
    """``vector`` of the elements that fill whole vectors, ``single`` of those behind them.

    Args:
        width: elements of a vector.
        axes: elements lie side by side along so many last axes.
        vector: of an array.
        single: of an array.
        x: the elements.
    """
    rows = x.reshape(*x.shape[: x.ndim - axes], -1)
    whole = rows.shape[-1] // width * width
    parts = [vector(rows[..., :whole]), single(rows[..., whole:])]
    return np.concatenate(parts, -1).reshape(x.shape)


def whole_vectors(width: int, axes: int, shape: tuple[int, ...]) -> Array:
    """Which elements of an array of ``shape`` :func:`in_vectors` gives to ``vector``, as something that broadcasts to it."""
    inner = shape[len(shape) - axes :]
    size = int(np.prod(inner))
    return np.asarray((np.arange(size) < size // width * width).reshape(inner))
