"""Binary and ternary weights among the constants of a file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph import Array, DType

#: Levels this near to each other, as a fraction of the channel's largest |w|, are one: converters fold scales in float32.
TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Levels:
    """``signs * scale[o]`` are the weights: signs of ``dtype`` BIT or TRIT (int8, the weights' shape), scale (O,)."""

    dtype: DType
    signs: Array
    scale: Array


def weight_levels(w: Array) -> Levels | str:
    """The levels of weights (O, ...) whose filters are -a and +a, or -a, 0 and +a; else why they are not.

    The scale is the mean of |w| without zeros. Too few weights per filter always have so few levels: they stay real.
    """
    rows = w.reshape(len(w), -1)
    size = np.abs(rows)
    largest = size.max(1, keepdims=True)
    taps = rows.shape[1]
    if taps == 1:
        return "one weight per output channel, whose levels say nothing"
    near = TOLERANCE * largest
    zero = size <= near
    if not ((largest - size <= near) | zero).all():
        return "full-precision weights in the file"
    if not zero.any():
        return Levels(DType.BIT, np.where(rows < 0, -1, 1).astype(np.int8).reshape(w.shape), size.mean(1))
    if taps <= 3 or not largest.any():
        return "full-precision weights in the file"
    signs = np.where(zero, 0, np.sign(rows)).astype(np.int8)
    scale = (size * ~zero).sum(1) / np.maximum((~zero).sum(1), 1)
    return Levels(DType.TRIT, signs.reshape(w.shape), scale)
