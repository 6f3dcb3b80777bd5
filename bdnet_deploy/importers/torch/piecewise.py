"""Affine and two-slope functions (ReLU, PReLU, RPReLU, Maxout, however written), recognised by probing in double."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph import Array
from bdnet_deploy.importers.torch.cone import Cone, NotElementwiseError, cones
from bdnet_deploy.importers.torch.trace import Traced

_MAX_SOURCES = 6
_FAR = 1024.0
_GRID = np.concatenate([np.linspace(-6.1, 6.3, 63), *([s * 2.0**k] for k in range(-16, 13) for s in (-1, 1)), [0.0]])


@dataclass(frozen=True, eq=False)
class TwoLines:
    """``y = u * (positive if u >= 0 else negative) + bias`` with ``u = x + shift``; all (C,), x the cone's source."""

    source: Traced
    shift: Array
    positive: Array
    negative: Array
    bias: Array

    @property
    def affine(self) -> bool:
        return bool(np.array_equal(self.positive, self.negative))


def find_two_lines(target: Traced) -> TwoLines | None:
    """The nearest tensor of which ``target`` is a continuous function of at most two lines per channel, or None."""
    for n, cone in enumerate(cones(target)):
        if n >= _MAX_SOURCES:
            break
        try:
            found = _fit(cone)
        except NotElementwiseError:
            continue
        if found is not None:
            return found
    return None


def _fit(cone: Cone) -> TwoLines | None:
    channels = cone.channels

    def f(x: Array) -> Array:
        return cone(np.broadcast_to(x, (len(x), channels)), double=True)

    far = f(np.array([-2 * _FAR, -_FAR, 0.0, _FAR, 2 * _FAR])[:, None])
    if not np.isfinite(far).all():
        return None
    zero = np.zeros(channels)
    positive, negative = (far[3] - far[2]) / _FAR, (far[2] - far[1]) / _FAR
    negative = np.where(np.abs(positive - negative) <= 1e-12 * np.abs(positive), positive, negative)
    at_zero = TwoLines(cone.source, zero, positive, negative, far[2])
    if _holds(f, at_zero):
        return at_zero
    # The kink of each channel is where the two outer lines meet.
    positive, negative = (far[4] - far[3]) / _FAR, (far[1] - far[0]) / _FAR
    right, left = far[3] - positive * _FAR, far[1] + negative * _FAR
    bends = np.abs(positive - negative) > 1e-9 * (np.abs(positive) + np.abs(negative))
    kink = np.divide(left - right, positive - negative, out=zero.copy(), where=bends)
    negative = np.where(bends, negative, positive)
    elsewhere = TwoLines(cone.source, -kink, positive, negative, positive * kink + right)
    return elsewhere if np.abs(kink).max() < _FAR / 2 and _holds(f, elsewhere) else None


def _holds(f: Callable[[Array], Array], lines: TwoLines) -> bool:
    x = np.concatenate([np.broadcast_to(_GRID[:, None], (len(_GRID), len(lines.shift))), _GRID[:, None] - lines.shift])
    u = x + lines.shift
    model = u * np.where(u >= 0, lines.positive, lines.negative) + lines.bias
    y = f(x)
    return bool((np.abs(y - model) <= 1e-9 * (np.abs(x) + np.abs(y) + 1e-3)).all())
