"""Epilogues of Cortex-M: parameters as records in the order of use (``runtime/kernels/bd_records.h``).

``quad`` has two channels a record, for packed SIMD; ``word`` one, for Armv6-M. Which form a layer has, and whether its sums need
no saturation, is proved here from its integers.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

import numpy as np

from bdnet_deploy.graph import Affine, Array, DType
from bdnet_deploy.graph.ops.pointwise import FRACTION_BITS
from bdnet_deploy.passes.fixed_point import ONE, low_part
from bdnet_deploy.plan.intervals import Intervals
from bdnet_deploy.plan.packings.base import has_variant
from bdnet_deploy.plan.plan import PlanStep

NO_RESIDUAL, FACTOR_ONE, LOW, ALL, MIXED, WIDE = range(6)
FITS, TRITS, STEEP = 8, 16, 32
_HEAD = 16


def _wide_part(factor: Array) -> Array:
    """k of ``factor = k * 65536 + m``."""
    return (factor - low_part(factor)) >> FRACTION_BITS


def _accumulators(step: PlanStep) -> DType:
    return step.acc_dtype if step.kernel else step.inputs[0].dtype


def _packable(step: PlanStep) -> bool:
    """Whether both packings hold the step's parameters exactly, thresholds aside."""
    e = step.epilogue
    if e is None or step.epilogue_kernel not in ("bd_epilogue_i16", "bd_epilogue_i8"):
        return False
    if e.mul is None or e.add is None or e.repeats or e.bias is not None:
        return False
    acc, channels = _accumulators(step), step.out_shape[2]
    if acc not in (DType.U8, DType.I8, DType.I16, DType.I32) or np.any(_wide_part(e.mul.astype(np.int64))):
        return False
    if e.shift > 0 if acc is DType.I32 else e.shift < 0:
        return False
    if step.acc_order and channels % 32:
        return False
    if e.residual_mul is not None:
        residual = step.inputs[1]
        same = residual.dtype is e.dtype and e.residual_shift == 0
        if not same or not set(np.unique(_wide_part(e.residual_mul.astype(np.int64)))) <= {0, 1}:
            return False
    return e.positive is None or bool(np.all(e.positive == ONE))


def _fits(step: PlanStep) -> bool:
    """Whether the affine map of the step cannot saturate, whatever the input."""
    assert step.epilogue is not None
    node = next((n for n in step.nodes if isinstance(n.op, Affine)), None)
    if node is None or step.epilogue.dtype is not DType.I16:
        return False
    low, high = Intervals().affine(node)
    return bool(np.all(low >= DType.I16.range[0]) and np.all(high <= DType.I16.range[1]))


def _multipliers(step: PlanStep) -> Array:
    """Factors of the accumulators with the left shift, (C,) modulo 2**32."""
    e = step.epilogue
    assert e is not None and e.mul is not None
    return e.mul.astype(np.int64) << max(e.shift, 0)


def _slopes(step: PlanStep) -> Array:
    e = step.epilogue
    assert e is not None
    return np.full(step.out_shape[2], ONE, np.int64) if e.negative is None else e.negative.astype(np.int64)


def _thresholds(step: PlanStep, least: int, largest: int) -> list[Array]:
    """Low, and high where there is one; what is never reached without a packed output."""
    e = step.epilogue
    assert e is not None
    found = [t for t in (e.low, e.high) if t is not None] or [np.full(step.out_shape[2], least)]
    return [np.clip(t.astype(np.int64), least, largest) for t in found]


def _steep(step: PlanStep) -> bool:
    """Whether slopes need a saturation."""
    slopes = _slopes(step)
    return bool(np.any(slopes <= -ONE) or np.any(slopes > ONE))


def _residual_form(factor: Array | None) -> int:
    if factor is None:
        return NO_RESIDUAL
    if np.all(factor == ONE):
        return FACTOR_ONE
    k = _wide_part(factor.astype(np.int64))
    return ALL if np.all(k == 1) else MIXED if np.any(k) else LOW


def _halves(values: Array) -> Array:
    """(C,) numbers of 16 bits as (C / 2,) words."""
    return cast(Array, (values[0::2] & 0xFFFF) | ((values[1::2] & 0xFFFF) << 16))


def _head(form: int) -> bytes:
    return np.array([form, 0, 0, 0], "<u4").tobytes()


@dataclass(frozen=True)
class Quad:
    """``quad``: records of channel pairs."""

    suffix: str = "quad"

    def takes(self, step: PlanStep, sets: Collection[str]) -> str | None:
        """The name of the epilogue for a step on a core with ``sets``; None where it has none that pays."""
        kernel = f"{step.epilogue_kernel}__{self.suffix}"
        if not has_variant(kernel, sets) or not _packable(step):
            return None
        e = step.epilogue
        assert e is not None
        limits = [t for t in (e.low, e.high) if t is not None]
        return kernel if all(np.all(t <= DType.I16.range[1]) for t in limits) else None

    def form(self, step: PlanStep) -> int:
        """The word in front of the records."""
        e = step.epilogue
        assert e is not None
        form = _residual_form(e.residual_mul)
        trits = TRITS if e.high is not None else 0
        if _steep(step):
            return (MIXED if form else NO_RESIDUAL) | trits | STEEP
        return form | (FITS if form in (FACTOR_ONE, ALL) and _fits(step) else 0) | trits

    def pack(self, step: PlanStep) -> bytes:
        """The records of the step's epilogue, as they lie at ``bd_epilogue.mul``."""
        e = step.epilogue
        assert e is not None and e.add is not None
        form = self.form(step)

        def padded(values: Array) -> Array:
            return np.pad(values.astype(np.int64), (0, len(values) % 2))

        mul, add, slope = (padded(v) for v in (_multipliers(step), e.add, _slopes(step)))
        columns = [mul[0::2], mul[1::2], add[0::2], add[1::2]]
        factor = None if e.residual_mul is None else padded(e.residual_mul)
        if factor is not None and form & 7 >= LOW:
            columns.append(_halves(low_part(factor)))
        columns += [slope[0::2], slope[1::2]]
        if factor is not None and form & 7 == MIXED:
            columns.append(_halves(-_wide_part(factor)))
        columns += [_halves(padded(t)) for t in _thresholds(step, *(int(n) for n in DType.I16.range))]
        records: Array = (np.stack(columns, axis=1) & 0xFFFFFFFF).astype("<u4")
        return _head(form) + bytes(records.tobytes())


@dataclass(frozen=True)
class Word:
    """``word``: records of single channels, the last of every 32 first."""

    suffix: str = "word"

    def takes(self, step: PlanStep, sets: Collection[str]) -> str | None:
        """The name of the epilogue for a step on a core with ``sets``; None where it has none that pays."""
        kernel = f"{step.epilogue_kernel}__{self.suffix}"
        if not has_variant(kernel, sets) or not _packable(step):
            return None
        return kernel if np.all(np.abs(_slopes(step)) < 2 * ONE) else None

    def form(self, step: PlanStep) -> int:
        """The word in front of the records."""
        e = step.epilogue
        assert e is not None
        form = _residual_form(e.residual_mul)
        if _steep(step):
            return (MIXED if form else NO_RESIDUAL) | (TRITS if e.high is not None else 0) | STEEP
        fits = (form == LOW and e.dtype is DType.I16) or (form != NO_RESIDUAL and _fits(step))
        if form in (LOW, ALL, MIXED):
            form = WIDE if fits else MIXED
        return form | (FITS if fits else 0) | (TRITS if e.high is not None else 0)

    def pack(self, step: PlanStep) -> bytes:
        """The records of the step's epilogue, as they lie at ``bd_epilogue.mul``."""
        e = step.epilogue
        assert e is not None and e.add is not None
        form = self.form(step)
        columns = [_multipliers(step)]
        factor = None if e.residual_mul is None else e.residual_mul.astype(np.int64)
        mixed = factor is not None and form & 7 == MIXED
        if factor is not None and form & 7 in (MIXED, WIDE):
            columns.append(low_part(factor) if mixed else factor)
        slopes = _slopes(step)
        columns += [low_part(slopes) if form & STEEP else slopes - ONE, e.add.astype(np.int64)]
        if factor is not None and mixed:
            columns.append(-_wide_part(factor))
        if form & STEEP:
            columns.append(_wide_part(slopes))
        columns += _thresholds(step, -(2**17), 2**17)
        records = (np.stack(columns, axis=1) & 0xFFFFFFFF).astype("<u4")
        blocks = [records[c : c + 32][::-1] for c in range(0, len(records), 32)]
        return _head(form) + bytes(np.concatenate(blocks).tobytes())


QUAD, WORD = Quad(), Word()
