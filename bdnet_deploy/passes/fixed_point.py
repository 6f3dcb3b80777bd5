"""The arithmetic of fixed-point factors: how a real affine map becomes 16-bit factors, shifts and a 32-bit addend.

The form (see :class:`bdnet_deploy.graph.Affine`): ``(sum shift(x_i) * (k_i * 65536 + m_i) + add) >> 16``. A back end
with 32-bit arithmetic computes ``((sum shift(x_i) * m_i + add) >> 16) + sum k_i * x_i``; :func:`fit_affine` chooses
scales for which no intermediate sum can leave 32 bits, whatever the input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph import Array

ONE = 1 << 16
_INT16_MAX = (1 << 15) - 1
_INT32_MAX = (1 << 31) - 1


@dataclass(frozen=True, eq=False)
class Term:
    """One input of an affine map.

    Attributes:
        factor: (C,) real factor from the integer input to the real output.
        magnitude: (C,) largest absolute value that the integer input can take.
        typical: (C,) largest absolute value to keep apart; what lies beyond it may saturate.
        zero_point: (C,) of the input.
        whole: whether the factor may exceed one half of the output's unit: the residual, whose k part is added
            after the shift. Accumulators are shifted to 16 bits instead, and so are 8 bits that become finer ones.
    """

    factor: Array
    magnitude: Array
    typical: Array
    zero_point: Array
    whole: bool


@dataclass(frozen=True, eq=False)
class FixedAffine:
    """``scale`` (C,) of the output, whose zero point is 0; ``factors`` and ``shifts`` a term; ``add`` (C,) int32."""

    scale: Array
    factors: list[Array]
    shifts: tuple[int, ...]
    add: Array


def low_part(factor: Array) -> Array:
    """The 16-bit part m of ``factor = k * 65536 + m``."""
    return ((factor + (ONE >> 1)) & (ONE - 1)) - (ONE >> 1)


def _shift_of(term: Term, ratio: Array) -> int | None:
    """The smallest shift that brings the factors and the term to 16 bits, or None if both is impossible.

    Right shifts may saturate beyond ``typical``; a left shift must not overflow whatever the input is.
    """
    typical, largest = float(term.typical.max()), float(term.magnitude.max())
    shift = 0
    while typical * 2.0**shift > _INT16_MAX:
        shift -= 1
    while np.abs(ratio).max(initial=0.0) * ONE * 2.0**-shift > _INT16_MAX:
        shift += 1
    if shift > 0 and largest * 2.0**shift > _INT16_MAX:
        return None
    return shift if typical * 2.0**shift <= _INT16_MAX else None


def _attempt(terms: list[Term], add: Array, scale: Array) -> tuple[FixedAffine | None, Array]:
    """Try these output scales; the channels that need a coarser one are marked in the second result."""
    factors: list[Array] = []
    shifts: list[int] = []
    total = np.rint(add / scale * ONE) + (ONE >> 1)
    bound = np.zeros_like(scale)
    bad = np.zeros(scale.shape, bool)
    for term in terms:
        ratio = np.where(term.magnitude > 0, term.factor / scale, 0.0)  # an input that is always 0 asks for nothing
        if term.whole and not (term.magnitude.max() <= 128 and np.abs(ratio).max() >= 1.5):
            factor, shift, magnitude = 2 * np.rint(ratio * ONE / 2), 0, term.magnitude  # even: see lanes16
            k = (factor - low_part(factor.astype(np.int64))) / ONE
            bad |= (k != 0) & (k != 1)
        else:
            found = _shift_of(term, ratio)
            if found is None:
                # The channels with the largest factors stand in the way of a common shift.
                return None, np.abs(ratio) >= 0.5 * np.abs(ratio).max()
            shift = found
            factor = np.rint(ratio * ONE * 2.0**-shift)
            magnitude = np.minimum(np.ceil(term.magnitude * 2.0**shift), _INT16_MAX + 1)
            if shift < 0:  # the floor of the right shift loses one half on average
                total = total + np.rint(0.5 * factor)
        total = total - np.rint(term.zero_point * 2.0**shift * factor)
        bound = bound + magnitude * np.abs(low_part(factor.astype(np.int64)))
        factors.append(factor)
        shifts.append(shift)
    bad |= bound + np.abs(total) > _INT32_MAX
    if bad.any():
        return None, bad
    return FixedAffine(scale, [f.astype(np.int64) for f in factors], tuple(shifts), total.astype(np.int64)), bad


def fit_affine(terms: list[Term], add: Array, need: Array, *, keep: bool = True) -> FixedAffine:
    """Scales of at least ``need`` (C,) and the factors for them.

    Args:
        terms: one or two inputs.
        add: (C,) real addend.
        need: (C,) smallest scale at which the output's range fits its dtype.
        keep: a residual whose own scale is fine enough keeps it, so that it is added without rounding; False where ``need`` is
            wanted exactly.
    """
    scale = need.copy()
    for term in terms:
        if term.whole and keep:
            # 8 bits are too few to give some away; of 16 bits a residual that is too fine asks for a coarser scale anyway.
            fine = (term.factor >= need) & ((term.factor <= 1.5 * need) | (term.magnitude > 128))
            scale = np.where(fine, term.factor, scale)
    for _ in range(400):  # 1.125**400 is 10**20
        with np.errstate(invalid="ignore"):  # factors beyond 64 bits are among the bad ones
            fixed, bad = _attempt(terms, add, scale)
        if fixed is not None:
            return fixed
        scale = np.where(bad, scale * 1.125, scale)
    raise ArithmeticError("no fixed-point factors: a channel's parameters are not finite or differ beyond 32 bits")
