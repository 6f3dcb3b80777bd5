"""``lanes16``: parameters of fixed-point epilogues in 16 bits, for processors that compute 16 channels at once.

The layout, and what each form computes, stand in ``runtime/kernels/bd_lanes16.h``. A form is taken where it is the same number
as the general epilogue for every value of the accumulators and of the residual; this module proves it from the step.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from bdnet_deploy.graph import Array, Conv2d, DType, Linear, Node
from bdnet_deploy.plan.packings.base import has_variant
from bdnet_deploy.plan.plan import Epilogue, PlanStep

LANES = 16
ONE = 1 << 16
_BLOCK = np.dtype(
    [("add", "<i4", LANES)]
    + [(n, "<i2", LANES) for n in ("mul", "twice", "once", "slope", "keep", "grow", "up", "low", "high")]
)


class Residual(IntEnum):
    """How the residual enters."""

    NONE = 0
    ONE = 1
    TWICE = 2
    BOTH = 3


class Slopes(IntEnum):
    """How the two slopes are computed."""

    FLAT = 0
    EVEN = 1
    HALF = 2
    ODD = 3
    ANY = 4


@dataclass(frozen=True)
class Lanes16:
    """The form of an epilogue, and its arrays by their names in ``bd_lanes16_block``, int64 (C,)."""

    residual: Residual
    slopes: Slopes
    arrays: dict[str, Array]


def lanes16(e: Epilogue, most: int, residual_channels: int) -> Lanes16 | None:
    """The cheapest form that is exactly ``e``; None where there is none.

    Args:
        e: a fixed-point epilogue to int16.
        most: largest absolute value of a shifted accumulator.
        residual_channels: of the residual, 0 without one.
    """
    if e.mul is None or e.add is None:
        return None
    mul, add = e.mul.astype(np.int64), e.add.astype(np.int64)
    channels = mul.size
    if most > 0x8000 or (np.abs(mul) > 0x7FFF).any():
        return None
    arrays = {"mul": mul, "add": add}
    sums = np.abs(add) + most * np.abs(mul)
    form = Residual.NONE
    if e.residual_mul is not None:
        factor = e.residual_mul.astype(np.int64)
        eight = residual_channels == 8 != channels
        # The product of a factor of 1 with -32768 ends one below 2**31: that is the same number where the sum before it does
        # not end in ones, and bits of `add` that no shifted accumulator reaches may be cleared.
        low = (1 << max(e.shift, 0)) - 1
        clears = (factor != ONE) | (low > 0)
        if (factor == ONE).all() and not eight:
            form = Residual.ONE
        elif (factor % 2 == 0).all() and (factor > -ONE).all() and (factor <= ONE).all() and clears.all() and not eight:
            form = Residual.TWICE
            arrays["twice"] = -(factor >> 1)
            arrays["add"] = np.where(factor == ONE, add & ~low, add)
        else:
            form = Residual.BOTH
            twice = np.clip(-(factor >> 1), -0x7FFF, 0x7FFF)
            once = factor + 2 * twice
            sums = sums + 0x8000 * np.abs(once)
            if (np.abs(once) > 0x7FFF).any():
                return None
            arrays |= {"twice": twice, "once": once}
    if (sums >= 2**31).any():
        return None
    slopes = _slopes(e, arrays)
    if slopes is None:
        return None
    for name, threshold in (("low", e.low), ("high", e.high)):
        if threshold is not None:
            if (threshold > 0x7FFF).any():
                return None
            arrays[name] = np.maximum(threshold.astype(np.int64), -0x8000)
    return Lanes16(form, slopes, arrays)


def _slopes(e: Epilogue, arrays: dict[str, Array]) -> Slopes | None:
    """The form of the two-slope, whose arrays are added."""
    if e.positive is None or e.negative is None:
        return Slopes.FLAT
    positive, negative = e.positive.astype(np.int64), e.negative.astype(np.int64)
    up = np.log2(np.maximum(positive, 1)).round().astype(np.int64) - 16
    if (up < 0).any() or (up > 7).any() or (ONE << up != positive).any() or (negative > positive).any():
        return None  # the larger one of both lines is not the result, or the upper one is no shift
    if (positive == ONE).all():
        if (negative % 2 == 0).all() and (negative >= -ONE).all() and (negative < ONE).all():
            arrays["slope"] = negative >> 1
            return Slopes.EVEN
        if (np.abs(negative) <= 0x7FFF).all():
            arrays["slope"] = negative
            return Slopes.HALF
        if (negative > 0).all() and (negative < ONE).all():
            arrays["slope"] = negative - 0x8000
            return Slopes.ODD
    whole, part = negative >> 16, negative & (ONE - 1)
    falls = (negative < 0) & (negative >= -0x7FFF)
    if not (falls | np.isin(whole, (0, 1, 2, 4))).all():
        return None
    plain = falls | (part == 0)  # the product alone; -32768 would be a factor that saturates
    arrays["slope"] = np.where(falls, negative, np.where(plain, 0, part - 0x8000))
    arrays["keep"] = np.where(plain, 0, -1)
    arrays["grow"] = np.where(falls | (whole == 0), -16, whole >> 1)
    arrays["up"] = up
    return Slopes.ANY


def pack_lanes16(form: Lanes16) -> bytes:
    """The records, as they lie at ``bd_epilogue.mul``."""
    channels = form.arrays["mul"].size
    blocks = np.zeros(-(-channels // LANES), _BLOCK)
    blocks["low"] = blocks["high"] = -0x8000
    for name, values in form.arrays.items():
        flat = np.full(blocks.size * LANES, blocks[name].flat[0])
        flat[:channels] = values
        if channels == LANES // 2:  # two pixels are computed at once
            flat[channels:] = values
        blocks[name] = flat.reshape(-1, LANES)
    head = np.zeros(LANES, np.uint8)
    head[:2] = form.residual, form.slopes
    return head.tobytes() + blocks.tobytes()


def largest(step: PlanStep) -> int | None:
    """Largest absolute value of a step's accumulators as its epilogue shifts them; None where nothing bounds it."""
    e = step.epilogue
    assert e is not None
    if step.acc_dtype is DType.I32:
        return 0x8000 if e.shift <= 0 else None
    node: Node | None = step.nodes[0]
    if step.kernel is None and node is not None:
        value = next((v for v in node.inputs if not v.is_constant and v.type.shape == node.output.type.shape), None)
        node = value.node if value is not None and step.inputs[0].dtype is not DType.I8 else None
    most = step.acc_dtype.range[1] + 1
    if node is not None and isinstance(node.op, Conv2d | Linear):
        x, w = node.inputs[:2]
        if x.type.dtype.is_packed and w.type.dtype.is_packed and w.data is not None:
            taps = int(np.prod(w.data.shape[1:]))
            plain = step.kernel is None or "__" not in step.kernel or step.kernel.endswith("__tile16")
            most = taps if plain else 2 * taps  # others may store counts
    shifted = most << e.shift if e.shift >= 0 else most
    return shifted if shifted <= 0x8000 else None


class _Lanes16:
    suffix = "lanes16"

    def takes(self, step: PlanStep, sets: Collection[str]) -> str | None:
        name = f"bd_epilogue_i16__{self.suffix}"
        return name if has_variant(name, sets) and _form(step) is not None else None

    def pack(self, step: PlanStep) -> bytes:
        form = _form(step)
        assert form is not None
        return pack_lanes16(form)


LANES16 = _Lanes16()


def _form(step: PlanStep) -> Lanes16 | None:
    e = step.epilogue
    if e is None or e.dtype is not DType.I16 or e.bias is not None or e.repeats or e.residual_shift or step.acc_order:
        return None
    channels = step.out_shape[2]
    if step.acc_dtype not in (DType.I8, DType.I16, DType.I32) or (
        step.kernel is None and step.inputs[0].dtype.is_packed
    ):
        return None
    if not (8 if step.acc_dtype is DType.I8 else -15 if step.acc_dtype is DType.I16 else -31) <= e.shift <= 15:
        return None
    of = 0
    if e.residual_mul is not None:
        residual = step.inputs[-1]
        of = residual.channels
        if (
            residual.dtype is not DType.I16
            or step.acc_dtype is DType.I32
            or not (of == channels or (of % LANES == 0 and channels % of == 0) or (of == 8 and channels % LANES == 0))
        ):
            return None
    most = largest(step)
    return None if most is None else lanes16(e, most, of)
