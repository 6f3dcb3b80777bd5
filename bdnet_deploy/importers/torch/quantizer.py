"""Sign and ternary activations, recognised by probing the function before a layer.

A quantizer is a function of one tensor, element by element, that saturates, takes two or three levels and is monotone.
Its thresholds are found by bisection over the float32 numbers in their order, so they are exact for the expression that
PyTorch evaluates, tie rule included: the first float32 at which the level is reached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bdnet_deploy.graph import Array
from bdnet_deploy.importers.torch.cone import Cone, NotElementwiseError, cones, is_discrete
from bdnet_deploy.importers.torch.layout import Layout
from bdnet_deploy.importers.torch.trace import Traced

_MAX_SOURCES = 16
_MOST_LEVELS = 256
_UNEQUAL = "activation: its three levels are not equally spaced"
# Thresholds are looked for within: beyond, straight-through code x + (sign(x) - x) no longer holds +-1 in float32.
_BOUND = np.float32(2.0**20)
# Where levels must have been reached; the last is farther out than thresholds are looked for.
_ENDS = np.array([1e6, 2.5e5, 2.0**30])
# Levels closer than this share of the largest are one, in double.
_EXACT = 1e-6
# Thresholds of channels that never change: finite, so that later arithmetic stays finite.
_NEVER = float(np.finfo(np.float32).max)
_GRID = np.unique(
    np.concatenate([np.linspace(-4, 4, 97), [0, 1e3, -1e3], *([s * 2.0**k] for k in range(-12, 10) for s in (-1, 1))])
)


@dataclass(frozen=True, eq=False)
class Quantizer:
    """``mul * t + add`` with t = -1 below ``low``, +1 from ``high`` on, 0 between; all (C,), of ``source``'s channels.

    ``low == high`` everywhere makes it binary. ``tie`` says that the middle level is met at a single float only
    (``sign(0) = 0``).
    """

    source: Traced
    low: Array
    high: Array
    mul: Array
    add: Array
    tie: bool
    layout: Layout | None = None  # of the channels; None: one function for all, arrays (1,)

    @property
    def binary(self) -> bool:
        return bool((self.low == self.high).all())

    @property
    def unsigned(self) -> bool:
        """Whether it has two levels of which the one below the threshold is 0."""
        return self.binary and bool((np.abs(self.add - self.mul) <= 1e-6 * np.abs(self.mul)).all())

    def without_tie(self) -> Quantizer:
        """The same with +1 for the single float of the middle level."""
        return replace(self, high=self.low, tie=False)


def find_quantizer(target: Traced) -> Quantizer | str | None:
    """The quantizer whose output is ``target``; the reason where it is nearly one; None where nothing quantizes."""
    reason: str | None = None
    found: Quantizer | None = None
    for n, cone in enumerate(cones(target)):
        if n >= _MAX_SOURCES:
            break
        if not any(map(is_discrete, cone.steps)):
            continue
        try:
            result = _probe(cone)
        except NotElementwiseError as error:
            result = str(error)
        if isinstance(result, Quantizer):
            found = result
        elif found is not None:
            break
        elif result:
            reason = reason or result
        # What nothing else reads (shifts, clamps, an RPReLU) is part of the thresholds.
        if found is not None and any(reader not in cone.steps for reader in cone.source.readers):
            break
    return found or reason


def _probe(cone: Cone) -> Quantizer | str | None:
    channels = cone.channels

    def f(x: Array) -> Array:
        return cone(x, double=False)

    # In double, where straight-through code is not blurred by rounding.
    ends = cone(np.repeat(np.array([*-_ENDS, *_ENDS])[:, None], channels, 1), double=True)
    if not np.isfinite(ends).all():
        return None
    lo, hi = ends[0], ends[len(_ENDS)]
    probes = np.concatenate([np.repeat(_GRID[:, None], channels, 1), cone.landmarks()])
    probes = np.sort(probes, axis=0).astype(np.float32)
    grid = f(probes).astype(np.float64)
    size = np.maximum(np.abs(ends).max(0), np.abs(grid).max(0))
    near = 1e-3 * np.maximum(size, 1e-30)
    if (np.abs(ends - np.repeat([lo, hi], len(_ENDS), 0)) > _EXACT * size).any():
        return None
    states = np.where(np.abs(grid - lo) <= near, 0, np.where(np.abs(grid - hi) <= near, 2, 1))
    steps = np.abs(hi - lo) > _EXACT * size
    if (np.abs(hi - lo)[steps] <= near[steps]).any():
        return "activation: its levels differ too little to tell them apart"
    middle = grid[states == 1]
    if (states[:, ~steps] == 1).any() or (np.diff(states[:, steps], axis=0) < 0).any():
        return "activation: the function before this layer is not monotone" if len(middle) == 0 else None
    if not steps.any():
        return None
    spread = np.where(states == 1, grid, np.nan)
    counts = (states == 1).any(0)
    if counts.any() and (np.nanmax(spread[:, counts], 0) - np.nanmin(spread[:, counts], 0) > near[counts]).any():
        levels = _count_levels(f, *_thresholds(f, lo, hi, channels), near)
        return f"activation: it takes {levels} levels, not 2 or 3" if levels <= _MOST_LEVELS else None
    found = _levels(cone, *_thresholds(f, lo, hi, channels), steps)
    if isinstance(found, Quantizer):
        t = (probes >= found.low).astype(np.float64) + (probes >= found.high) - 1
        exact = cone(probes, double=True)
        # Thresholds are those of float32: beside them double may decide otherwise.
        beside = np.minimum(np.abs(probes - found.low), np.abs(probes - found.high)) <= 1e-5 * (1 + np.abs(probes))
        if ((np.abs(found.mul * t + found.add - exact) > 2 * _EXACT * size) & ~beside).any():
            return _UNEQUAL
    return found


def _levels(cone: Cone, low: Array, high: Array, steps: Array) -> Quantizer | str:
    """The real values of the levels, in double where rounding does not blur them, and what they mean."""
    with np.errstate(over="ignore"):
        below = np.where(steps, low - (1 + np.abs(low)), 0.0)
        above = np.where(steps, high + (1 + np.abs(high)), 0.0)
    lo, hi = cone(np.stack([below, above]), double=True)
    between = high > low
    middle = np.where(between, (lo + hi) / 2, 0.0)
    if between.any():
        first, last = low.astype(np.float32), np.nextafter(high.astype(np.float32), np.float32(-np.inf))
        inside, exact = cone(np.stack([first, last]), double=False), cone((low + last)[None] / 2, double=True)
        size = np.maximum(np.abs(lo), np.abs(hi))
        equal = (np.abs(inside - middle) <= 1e-3 * size).all(0)
        equal &= (first == last) | (np.abs(exact[0] - middle) <= _EXACT * size)  # a single float is met in float32 only
        if not equal[between].all():
            return _UNEQUAL
    mul, add = (hi - lo) / 2, (hi + lo) / 2
    always_middle = False
    if not steps.all():
        # A channel that never changes: on one of the levels of the others if it can be, else by an offset of its own.
        common, centre = float(np.median(np.abs(mul[steps]))), float(np.median(add[steps]))
        level = np.where(lo > centre, 1.0, -1.0)
        if between.any():
            level = np.where(np.abs(lo - centre) <= _EXACT * common, 0.0, level)
        always_middle = bool((level == 0)[~steps].any())
        own = lo - level * common
        own = np.where(np.abs(own - centre) <= _EXACT * common, centre, own)
        low, high = np.where(steps, low, -level * _NEVER), np.where(steps, high, -level * _NEVER)
        low, high = np.where(steps | (level != 0), low, -_NEVER), np.where(steps | (level != 0), high, _NEVER)
        mul, add = np.where(steps, mul, common), np.where(steps, add, own)
    exact = np.round(np.stack([mul, add]) * 4) / 4
    mul, add = np.where(np.abs(exact - [mul, add]) < 1e-6 * np.abs(mul), exact, [mul, add])
    with np.errstate(over="ignore"):
        single = np.nextafter(low[between].astype(np.float32), np.float32(np.inf)) == high[between].astype(np.float32)
    tie = bool(between.any() and single.all()) and not always_middle
    return Quantizer(cone.source, low, high, mul, add, tie, cone.layout)


def _count_levels(f: Callable[[Array], Array], low: Array, high: Array, near: Array) -> int:
    """Levels of the channel that has the most, from the value below ``low`` to that from ``high`` on."""
    values = np.sort(f(np.linspace(low - (high - low), high + (high - low), 3073).astype(np.float32)), axis=0)
    return int(1 + (np.diff(values.astype(np.float64), axis=0) > near).sum(axis=0).max())


def _thresholds(f: Callable[[Array], Array], lo: Array, hi: Array, channels: int) -> tuple[Array, Array]:
    """The first float32 at which f leaves ``lo``, and the first at which it is ``hi``, per channel."""
    quarter = 0.25 * np.abs(hi - lo)
    first = np.full((2, channels), _to_order(-_BOUND), np.int64)
    last = np.full((2, channels), _to_order(_BOUND), np.int64)
    for _ in range(33):
        middle = (first + last) // 2
        y = f(_from_order(middle)).astype(np.float64)
        reached = np.stack([np.abs(y[0] - lo) > quarter, np.abs(y[1] - hi) <= quarter])
        last = np.where(reached, middle, last)
        first = np.where(reached, first, middle)
    low, high = _from_order(last).astype(np.float64)
    return low, high


def _to_order(x: np.float32) -> int:
    """float32 -> an integer such that integers are in the order of the numbers; both zeros are 0."""
    bits = int(np.asarray(x, np.float32).view(np.int32))
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


def _from_order(i: Array) -> Array:
    bits = np.where(i >= 0, i, -i | 0x80000000).astype(np.uint32)
    return bits.view(np.float32)
