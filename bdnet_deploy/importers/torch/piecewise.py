"""Functions of two lines (ReLU, PReLU, RPReLU, Maxout) and of a line between limits, however written, by probing in double."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from bdnet_deploy.graph import Array
from bdnet_deploy.importers.torch.cone import Cone, NotElementwiseError, cones
from bdnet_deploy.importers.torch.layout import Layout
from bdnet_deploy.importers.torch.trace import Traced

_Found = TypeVar("_Found")
_MAX_SOURCES = 6
# Where a function must have become a line or a limit; the larger one for bends that lie far out.
_FAR = (1024.0, 2.0**24)
_POWERS = 2.0 ** np.array([*range(-16, 13), *range(16, 64, 4)])
_GRID = np.concatenate([np.linspace(-6.1, 6.3, 63), _POWERS, -_POWERS, [0.0]])
# Functions that differ at single numbers, which probing does not meet.
_PICKY = frozenset(("eq", "ne"))


@dataclass(frozen=True, eq=False)
class TwoLines:
    """``y = u * (positive if u >= 0 else negative) + bias`` with ``u = x + shift``, x the cone's source.

    All are (C,) in ``layout``, or (1,) and the same in any (None).
    """

    source: Traced
    shift: Array
    positive: Array
    negative: Array
    bias: Array
    layout: Layout | None = None

    @property
    def affine(self) -> bool:
        return bool(np.array_equal(self.positive, self.negative))


@dataclass(frozen=True, eq=False)
class Limits:
    """``y = min(max(slope * x + offset, low), high)``, x the cone's source; parameters as of :class:`TwoLines`."""

    source: Traced
    slope: Array
    offset: Array
    low: Array
    high: Array
    layout: Layout | None = None


def find_two_lines(target: Traced) -> TwoLines | None:
    """The nearest tensor of which ``target`` is a continuous function of at most two lines per channel, or None."""
    return _first(target, _fit)


def find_limits(target: Traced) -> Limits | None:
    """The nearest tensor of which ``target`` is a line between two limits per channel, or None."""
    return _first(target, _fit_limits)


def _first(target: Traced, fit: Callable[[Cone, float], _Found | None]) -> _Found | None:
    for cone in itertools.islice(cones(target), _MAX_SOURCES):
        if any(step.name in _PICKY for step in cone.steps):
            return None
        for far in _FAR:
            try:
                found = fit(cone, far)
            except NotElementwiseError:
                break
            if found is not None:
                return found
    return None


def _probes(cone: Cone) -> Array:
    """(P, C), in order."""
    grid = np.broadcast_to(_GRID[:, None], (len(_GRID), cone.channels))
    return np.sort(np.concatenate([grid, cone.landmarks()]), axis=0)


def _fit_limits(cone: Cone, reach: float) -> Limits | None:
    channels = cone.channels

    def f(x: Array) -> Array:
        return cone(np.broadcast_to(x, (len(x), channels)), double=True)

    far = f(reach * np.array([-4.0, -2.0, 2.0, 4.0])[:, None])
    if not np.isfinite(far).all() or (far[0] != far[1]).any() or (far[2] != far[3]).any() or (far[0] == far[3]).any():
        return None
    low, high = np.minimum(far[0], far[3]), np.maximum(far[0], far[3])
    grid = _probes(cone)
    y = f(grid)
    inside = (y > low) & (y < high)
    if (inside.sum(0) < 2).any():
        return None
    columns = np.arange(channels)
    first, last = inside.argmax(0), len(grid) - 1 - inside[::-1].argmax(0)
    slope = (y[last, columns] - y[first, columns]) / (grid[last, columns] - grid[first, columns])
    offset = y[first, columns] - slope * grid[first, columns]
    exact = np.round(np.stack([slope, offset]) * 8) / 8
    slope, offset = np.where(np.abs(exact - [slope, offset]) < 1e-9, exact, [slope, offset])
    model = np.clip(slope * grid + offset, low, high)
    good = (np.abs(y - model) <= 1e-9 * (np.abs(grid) + np.abs(y) + 1e-3)).all()
    return Limits(cone.source, slope, offset, low, high, cone.layout) if good else None


def _fit(cone: Cone, reach: float) -> TwoLines | None:
    channels = cone.channels

    def f(x: Array) -> Array:
        return cone(np.broadcast_to(x, (len(x), channels)), double=True)

    far = f(reach * np.array([-2.0, -1.0, 0.0, 1.0, 2.0])[:, None])
    if not np.isfinite(far).all():
        return None
    zero, probes = np.zeros(channels), _probes(cone)
    positive, negative = (far[3] - far[2]) / reach, (far[2] - far[1]) / reach
    negative = np.where(np.abs(positive - negative) <= 1e-12 * np.abs(positive), positive, negative)
    at_zero = TwoLines(cone.source, zero, positive, negative, far[2], cone.layout)
    if _holds(f, probes, at_zero):
        return at_zero
    # The kink of each channel is where the two outer lines meet.
    positive, negative = (far[4] - far[3]) / reach, (far[1] - far[0]) / reach
    right, left = far[3] - positive * reach, far[1] + negative * reach
    bends = np.abs(positive - negative) > 1e-9 * (np.abs(positive) + np.abs(negative))
    kink = np.divide(left - right, positive - negative, out=zero.copy(), where=bends)
    negative = np.where(bends, negative, positive)
    elsewhere = TwoLines(cone.source, -kink, positive, negative, positive * kink + right, cone.layout)
    return elsewhere if np.abs(kink).max() < reach / 2 and _holds(f, probes, elsewhere) else None


def _holds(f: Callable[[Array], Array], probes: Array, lines: TwoLines) -> bool:
    x = np.concatenate([probes, _GRID[:, None] - lines.shift])
    u = x + lines.shift
    model = u * np.where(u >= 0, lines.positive, lines.negative) + lines.bias
    y = f(x)
    return bool((np.abs(y - model) <= 1e-9 * (np.abs(x) + np.abs(y) + 1e-3)).all())
