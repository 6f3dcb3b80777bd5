"""From numbers to bits and trits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph.dtypes import Array, DType, TensorType
from bdnet_deploy.graph.op import Op, check, register


def _check_threshold(x: TensorType, threshold: TensorType) -> None:
    check(threshold.shape == (x.channels,), f"thresholds of shape {threshold.shape} for {x.channels} channels")
    expected = x.dtype if x.dtype.is_float else DType.I32
    check(threshold.dtype is expected, f"{threshold.dtype.value} thresholds for {x}")


@register
@dataclass(frozen=True)
class Sign(Op):
    """``+1 if x >= threshold[c] else -1``; x ``(1, ..., C)``, threshold ``(C,)``; NaN gives +1 (it is not below).

    ``out`` is bit, or ubit: then it is 0 below the threshold (a step function, for {0,1} activations). A strict comparison is the next larger threshold, so one rule serves every tie rule exactly.
    """

    out: DType = DType.BIT

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        x, threshold = types
        check(self.out in (DType.BIT, DType.UBIT), f"a sign is bits or ubits, not {self.out.value}")
        _check_threshold(x, threshold)
        return TensorType(x.shape, self.out)

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        x, threshold = arrays
        return np.where(x < threshold, np.int8(out.dtype.range[0]), np.int8(1))


@register
@dataclass(frozen=True)
class Ternarize(Op):
    """``-1 if x < low[c], +1 if x >= high[c], else 0``, low <= high: BD-Net's 1.58-bit activation.

    x ``(1, ..., C)``, low and high ``(C,)``. As two sign planes, ``(sign(x - low) + sign(x - high)) / 2``.
    """

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        x, low, high = types
        _check_threshold(x, low)
        _check_threshold(x, high)
        return TensorType(x.shape, DType.TRIT)

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        x, low, high = arrays
        return (np.int8(1) - (x < low) - (x < high)).astype(np.int8)
