"""Binary and ternary weights, recognised by their levels per output channel."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bdnet_deploy.graph import Array, DType

#: Levels closer than this fraction of the channel's largest |w| are one: straight-through code leaves rounding errors.
TOLERANCE = 1e-4
#: The middle of two levels -a and +a in float32, as a fraction of a, at most.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Weights:
    """``levels * alpha[o] + beta[o]`` are the weights.

    ``levels``: of ``dtype`` BIT or TRIT (int8, the weights' shape). ``alpha``, ``beta``: (O,); ``beta`` is not zero where
    the two levels are not -a and +a (AdaBin, arXiv 2208.08084).
    """

    dtype: DType
    levels: Array
    alpha: Array
    beta: Array

    @property
    def asymmetric(self) -> bool:
        return bool(self.beta.any())

    def reshaped(self, shape: tuple[int, ...]) -> Weights:
        return replace(self, levels=self.levels.reshape(shape).astype(np.int8))


def recognise_weights(w: Array) -> Weights | str:
    """The levels of weights ``w`` (O, ...) if each output channel has two, or three: -a, 0 and +a; else the reason.

    ``alpha`` is the mean of |w| (where not zero) in double. A channel of zeros has alpha 0. A channel of few taps has few
    levels whatever they are: one tap stays real, as do two that are not -a and +a and three that are not +-a or 0.
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
    none = np.zeros(len(rows))
    if not bool((at_level | at_zero).all()):
        two = _two_levels(rows, scale)
        return two.reshaped(w.shape) if two is not None and taps > 2 else _why_real(rows, scale)
    if not at_zero[~empty].any():
        if taps > 2 and (np.ptp(size, axis=1, keepdims=True)[~empty] > _ROUNDING * scale[~empty]).any():
            found = _two_levels(rows, scale)
            assert found is not None  # both levels are within the tolerance
            return found.reshaped(w.shape)
        return Weights(DType.BIT, np.where(rows < 0, -1, 1), size.mean(axis=1), none).reshaped(w.shape)
    if taps <= 3:
        return f"{taps} weights per output channel, too few to tell ternary from real"
    levels = np.where(at_zero, 0, np.where(rows < 0, -1, 1))
    kept = np.maximum((levels != 0).sum(axis=1), 1)
    alpha = (size * (levels != 0)).sum(axis=1) / kept
    return Weights(DType.TRIT, levels, alpha, none).reshaped(w.shape)


def _two_levels(rows: Array, scale: Array) -> Weights | None:
    """Of rows (O, taps) with two levels each, or one: +-1 for the upper and the lower one, half their distance, their middle.

    A channel whose levels are -a and +a, or that has a single one, keeps a middle of exactly 0. What counts as such is
    much finer than the tolerance of a level: the middle is multiplied by a sum over the whole window. It is told from
    rounding by how far the weights of one level lie apart.
    """
    single = np.ptp(rows, axis=1) <= TOLERANCE * scale[:, 0]
    middle = np.where(single, 0.0, (rows.max(1) + rows.min(1)) / 2)
    above = rows >= middle[:, None]
    upper, upper_spread = _level(rows, above)
    lower, lower_spread = _level(rows, ~above)
    middle = (upper + lower) / 2
    rounding = np.maximum(np.maximum(upper_spread, lower_spread), _ROUNDING * scale[:, 0])
    symmetric = single | (np.abs(middle) <= rounding)
    levels = np.where(above, 1, -1)
    alpha = np.where(symmetric, np.abs(rows).mean(1), (upper - lower) / 2)
    beta = np.where(symmetric, 0.0, middle)
    off = np.abs(levels * alpha[:, None] + beta[:, None] - rows)
    return Weights(DType.BIT, levels, alpha, beta) if (off <= 2 * TOLERANCE * scale).all() else None


def _level(rows: Array, members: Array) -> tuple[Array, Array]:
    """(O,) the mean of each row's members, and how far they lie apart; 0 without any."""
    count = members.sum(1)
    mean = (rows * members).sum(1) / np.maximum(count, 1)
    spread = np.where(members, rows, -np.inf).max(1) - np.where(members, rows, np.inf).min(1)
    return mean, np.where(count > 0, spread, 0.0)


def _count(rows: Array, scale: Array) -> int:
    """The largest number of levels that a row has."""
    ordered = np.sort(rows / scale, axis=1)
    # A new level wherever the gap is larger than the tolerance.
    return int((1 + (np.diff(ordered, axis=1) > TOLERANCE).sum(axis=1)).max())


def _why_real(rows: Array, scale: Array) -> str:
    most = _count(rows, scale)
    if most == 2:
        return "two weights per output channel of different size, whose levels say nothing"
    return f"weights have {most} levels"
