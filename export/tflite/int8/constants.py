"""Constants as int8 and int32."""

from __future__ import annotations

import numpy as np

from bdnet_deploy.export.tflite.int8.choice import HIGH, LOW, Levels
from bdnet_deploy.export.tflite.schema import Array

#: What is less than so small a part of a step above a whole number is that number, and not rounding's next.
_NEARLY = 1e-6
_MOST = 1 << 30


def levels_of(values: Array, levels: Levels) -> Array:
    """int8 levels nearest to the values."""
    return np.asarray(
        np.clip(np.rint(values.astype(np.float64) / levels.scale) + levels.zero, LOW, HIGH).astype(np.int8)
    )


def weights(values: Array, axis: int | None, bias: Array | None, source: float) -> tuple[Array, Array]:
    """Symmetric int8 weights and their float32 scales, per channel of ``axis`` or one.

    Whole numbers up to 127 stay themselves. Scales are so large that the bias, in units of ``source`` times them, fits
    30 bits.
    """
    real = values.astype(np.float64)
    others = tuple(i for i in range(real.ndim) if i != axis)
    largest = np.abs(real).max(others if axis is not None else None)
    whole = (real == np.rint(real)).all(others if axis is not None else None) & (largest <= HIGH)
    scales = np.where(whole | (largest == 0), 1.0, largest / HIGH)
    if bias is not None:
        need = np.abs(bias.astype(np.float64)) / (source * _MOST)
        scales = np.maximum(scales, need if axis is not None else need.max(initial=0))
    scales = np.maximum(np.atleast_1d(scales), np.finfo(np.float32).tiny).astype(np.float32)
    shape = [1] * real.ndim
    if axis is not None:
        shape[axis] = real.shape[axis]
    return np.clip(np.rint(real / scales.astype(np.float64).reshape(shape)), -HIGH, HIGH).astype(np.int8), scales


def bias_levels(bias: Array, units: Array, *, sign_only: bool) -> Array:
    """int32 in whole ``units``; rounded down where the sign of the sum decides, which keeps sum >= 0 exact."""
    real = bias.astype(np.float64) / units
    rounded = np.floor(real + _NEARLY) if sign_only else np.rint(real)
    return np.asarray(np.clip(rounded, -_MOST, _MOST).astype(np.int32))


def shift_levels(addend: Array, source: Levels) -> tuple[Array, Levels]:
    """A constant whose sum with levels of ``source`` has exactly the sign of the sum of the real numbers.

    x + c >= 0 is n + floor(c / scale) >= 0 with n = level - zero. What no level can reach is cut off.
    """
    levels = Levels(source.scale, int(np.clip(-source.zero, LOW, HIGH)))
    steps = np.floor(addend.astype(np.float64) / source.scale + _NEARLY)
    return np.clip(steps + levels.zero, LOW, HIGH).astype(np.int8), levels
