"""Binary and ternary weights, recognised by their levels per output channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph import Array, DType

#: Levels closer than this fraction of the channel's largest |w| are one: straight-through code leaves rounding errors.
TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Weights:
    """``levels * alpha[o]`` are the weights: levels of ``dtype`` BIT or TRIT (int8, the weights' shape), alpha (O,)."""

    dtype: DType
    levels: Array
    alpha: Array


def recognise_weights(w: Array) -> Weights | str:
    """The levels of weights ``w`` (O, ...) whose output channels are -a and +a or -a, 0 and +a; else the reason.

    ``alpha`` is the mean of |w| (where not zero) in double. A channel of zeros has alpha 0. One tap per channel always
    has two levels at most, and three taps three: they stay real.
    """
    rows = np.asarray(w, np.float64).reshape(w.shape[0], -1)
    size = np.abs(rows)
    taps = rows.shape[1]
    largest = size.max(axis=1, keepdims=True)
    if not largest.any():
        return "weights are all zero"
    if taps == 1:
        return "one weight per output channel, whose levels say nothing"
    scale = np.where(largest > 0, largest, 1.0)
    at_level = np.abs(size / scale - 1) <= TOLERANCE
    at_zero = size / scale <= TOLERANCE
    empty = largest[:, 0] == 0
    if not bool((at_level | at_zero).all()):
        return _why_real(rows, scale)
    if not at_zero[~empty].any():
        levels = np.where(rows < 0, -1, 1)
        return Weights(DType.BIT, levels.reshape(w.shape).astype(np.int8), size.mean(axis=1))
    if taps <= 3:
        return f"{taps} weights per output channel, too few to tell ternary from real"
    levels = np.where(at_zero, 0, np.where(rows < 0, -1, 1))
    kept = np.maximum((levels != 0).sum(axis=1), 1)
    alpha = (size * (levels != 0)).sum(axis=1) / kept
    return Weights(DType.TRIT, levels.reshape(w.shape).astype(np.int8), alpha)


def _why_real(rows: Array, scale: Array) -> str:
    ordered = np.sort(rows / scale, axis=1)
    # A new level wherever the gap is larger than the tolerance.
    counts = 1 + (np.diff(ordered, axis=1) > TOLERANCE).sum(axis=1)
    most = int(counts.max())
    if most == 2 and rows.shape[1] > 2:
        return "weights have two levels of different size: asymmetric levels not supported yet"
    return f"weights have {most} levels"
