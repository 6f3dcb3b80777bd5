"""Uniform quantizers of many levels, recognised by probing the function before a layer.

A staircase saturates at both ends and has n levels at equal distances over intervals of equal width: Brevitas' ``Quant``,
pairs of QuantizeLinear and DequantizeLinear, ``torch.fake_quantize_per_tensor_affine``, DoReFa-Net's activations
(arXiv 1606.06160), however written. Its numbers come from bisection in double and are verified in float32 between and around
the thresholds. What happens *at* a threshold is not asked: the graph rounds halves to even, another rule differs at that
single float, which is a near tie.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph import Array, DType
from bdnet_deploy.importers.torch.aten import DISCRETE
from bdnet_deploy.importers.torch.cone import Cone, NotElementwiseError, cones
from bdnet_deploy.importers.torch.layout import Layout
from bdnet_deploy.importers.torch.trace import Traced

_MAX_SOURCES = 16
_FEWEST, _MOST = 4, 1 << 16
#: Levels are sought between these numbers.
_BOUND = 2.0**20
#: Of float32 arithmetic around a threshold, as a share of it: a few units in the last place.
_NEAR = 2.0**-20
#: Thresholds that are probed, at most: all of the steps of most quantizers, and a sample of wider ones.
_PROBES = 1024


@dataclass(frozen=True, eq=False)
class Staircase:
    """``y = clip(round((x + shift) / step), first, first + count - 1) * step * after + offset``, x the source.

    ``shift``, ``after`` and ``offset`` are (C,) in ``layout``, or (1,) and the same in any (None). A step that differs from
    channel to channel is not found here: code divides by it first, and the quotient is the source.
    """

    source: Traced
    count: int
    first: int
    step: float
    shift: Array
    after: Array
    offset: Array
    layout: Layout | None = None

    @property
    def cost(self) -> int:
        """How many affine maps it takes around the quantizer."""
        return int(self.shift.any()) + int(bool(np.any(self.after != 1.0) or self.offset.any()))

    @property
    def last(self) -> int:
        return self.first + self.count - 1

    @property
    def reason(self) -> str:
        """Why a layer behind it is not binary."""
        return f"activation has {self.count} levels ({math.ceil(math.log2(self.count))} bits)"

    @property
    def limited(self) -> bool:
        """Whether the levels are fewer than the integers."""
        dtype, zero = self.integers
        return (self.first + zero, self.last + zero) != dtype.range

    @property
    def integers(self) -> tuple[DType, int]:
        """The dtype and the zero point with which the levels are integers."""
        found = _integers(self.first, self.last)
        assert found is not None
        return found

    def __call__(self, x: Array | float) -> Array:
        """(..., C) the values at real numbers, (..., C) or one."""
        k = np.clip(np.rint((x + self.shift) / self.step), self.first, self.last)
        return np.asarray(k * self.step * self.after + self.offset)


def find_staircase(target: Traced) -> Staircase | str | None:
    """The staircase whose output is ``target``; the reason where it is nearly one; None where there is none.

    Of the sources that it can be a function of, the one with the fewest affine maps around the quantizer, and of these
    the farthest: what only cuts off (a ReLU before) is then among the limits. A division in front of steps of 1 is part of
    the quantizer, where it rounds as the division does.
    """
    reason: str | None = None
    found: Staircase | None = None
    for n, cone in enumerate(cones(target)):
        if n >= _MAX_SOURCES:
            break
        if not any(step.name in DISCRETE for step in cone.steps):
            continue
        try:
            result = _fit(cone)
        except NotElementwiseError:
            continue
        if isinstance(result, Staircase):
            found = result if found is None or _is_better(result, found) else found
        elif found is not None:
            break
        else:
            reason = reason or result
        if found is not None and any(reader not in cone.steps for reader in cone.source.readers):
            break
    return found or reason


def _is_better(farther: Staircase, found: Staircase) -> bool:
    divided = found.step == 1.0 and not farther.shift.any()
    return farther.cost <= found.cost + int(divided)


def _fit(cone: Cone) -> Staircase | str | None:
    channels = cone.channels

    def f(x: Array) -> Array:
        return cone(x, double=True)

    far = f(np.repeat(np.array([-_BOUND, -_BOUND / 4, _BOUND / 4, _BOUND])[:, None], channels, 1))
    if not np.isfinite(far).all():
        return None
    low, high = far[0], far[3]
    size = np.maximum(np.abs(low), np.abs(high))
    rise = high - low
    # Straight-through code adds and subtracts the input: what is left of it in double.
    noise = 1e-7 * size
    if (np.abs(far[1] - low) > noise).any() or (np.abs(far[2] - high) > noise).any() or (np.abs(rise) <= noise).any():
        return None
    bottom, top = _ends(f, low, high, 0.5 * np.abs(rise) / _MOST)
    if (top <= bottom).any():
        return None
    low, second, high = f(np.stack([2 * bottom - top, bottom, 2 * top - bottom]))  # near by: exacter
    rise = high - low
    if (np.abs(rise) <= noise).any() or (np.abs(second - low) <= 0.5 * np.abs(rise) / _MOST).any():
        return None
    steps = rise / (second - low)
    count = int(np.rint(steps[0])) + 1
    if not _FEWEST <= count <= _MOST or (np.abs(steps - (count - 1)) > 1e-3 * count).any():
        return None
    rise = rise / (count - 1)
    width = (top - bottom) / (count - 2)
    found = _arithmetic(cone, count, bottom, width, low, rise)
    return found if isinstance(found, str) or _holds(cone, found, bottom, width) else None


def _ends(f: Callable[[Array], Array], low: Array, high: Array, apart: Array) -> tuple[Array, Array]:
    """Where f leaves its value at the far left, and where it takes the one at the far right, per channel."""
    left, right = np.full((2, len(low)), -_BOUND), np.full((2, len(low)), _BOUND)
    for _ in range(80):
        middle = (left + right) / 2
        y = f(middle)
        reached = np.stack([np.abs(y[0] - low) > apart, np.abs(y[1] - high) <= apart])
        right = np.where(reached, middle, right)
        left = np.where(reached, left, middle)
    return right[0], right[1]


def _arithmetic(cone: Cone, count: int, bottom: Array, width: Array, low: Array, rise: Array) -> Staircase | str:
    """Thresholds ``bottom + k * width`` and levels ``low + k * rise`` as a quantizer of one step with maps around it."""
    size = np.abs(rise)
    steps = np.where(np.abs(width - size) <= _NEAR * width, size, width)
    step = _rounded(float(steps[0]))
    if (np.abs(steps - step) > _NEAR * step).any():
        return "activation: the width of its steps differs from channel to channel"
    at = bottom / step  # the lowest threshold
    first = int(np.rint(at[0] - 0.5))
    shift = np.zeros_like(at)
    if (np.abs(at - 0.5 - first) > _NEAR * (np.abs(at) + 1)).any() or _integers(first, first + count - 1) is None:
        first = int(np.clip(np.rint(low[0] / rise[0]), 1 - count, 0))  # so that level 0 is 0, if it is one
        shift = (first + 0.5 - at) * step
    after = rise / step
    exact = np.sign(after) * 2.0 ** np.rint(np.log2(np.abs(after)))
    after = np.where(np.abs(after - exact) <= _NEAR * np.abs(exact), exact, after)
    offset = low - first * step * after
    offset = np.where(np.abs(offset) <= 1e-4 * size, 0.0, offset)
    return Staircase(cone.source, count, first, step, shift, after, offset, cone.layout)


def _integers(first: int, last: int) -> tuple[DType, int] | None:
    """The narrowest dtype and a zero point, 0 if possible, that hold these integers; u8 only where 0 is the first."""
    unsigned = [DType.U8] if first == 0 else []
    for dtypes in ([*unsigned, DType.I8], [DType.I16]):
        for zero in (0, None):
            for dtype in dtypes:
                low, high = dtype.range
                z = low - first if zero is None else zero
                if low <= z <= high and low <= first + z and last + z <= high:
                    return dtype, z
    return None


def _rounded(step: float) -> float:
    """The step as float32 has it, if that is as near as bisection: most are float32 parameters."""
    single = float(np.float32(step))
    return single if abs(single - step) <= 1e-8 * step else step


def _holds(cone: Cone, found: Staircase, bottom: Array, width: Array) -> bool:
    """Whether the float32 function is ``found`` in the middle of its steps, next to the thresholds, and beyond."""
    count = found.count
    probes = max(min(_PROBES, (1 << 18) // len(bottom)), 16)
    k = np.unique(np.linspace(0, count - 2, min(count - 1, probes)).astype(np.int64))[:, None]
    threshold = bottom + k * width
    # Code may add a zero point first, which is as large as the other end.
    largest = np.maximum(np.abs(bottom), np.abs(threshold[-1]))
    margin = _NEAR * (np.abs(threshold) + width + largest / 4)
    beyond = 4.0 ** np.arange(8)[:, None] * count * width
    x = [threshold - margin, threshold + margin, threshold - width / 2, threshold + width / 2]
    x = np.concatenate([*x, threshold[:1] - beyond, threshold[-1:] + beyond]).astype(np.float32)
    expected = found(x.astype(np.float64))
    apart = np.abs(cone(x, double=False) - expected)
    # Straight-through code leaves the last places of the input.
    size = np.maximum(np.abs(x), np.abs(expected)).astype(np.float32)
    rise = np.abs(found.step * found.after)
    allowed = np.minimum(1e-3 * rise + 4 * np.spacing(size), 0.25 * rise)
    return bool((apart <= allowed)[np.abs(x) <= _BOUND].all())
