"""``forms3``: weights of depth-wise 3x3 convolutions as sums of bits of their columns, for kernels that count in bit planes.

The layout stands in ``runtime/kernels/bd_forms3.h``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from bdnet_deploy.bitplanes import pack_plane, unpack_plane, words
from bdnet_deploy.graph import Array, DType
from bdnet_deploy.plan.packings.base import Site, can_fold, fold_counts, has_variant, site, store_packed, threshold
from bdnet_deploy.plan.packings.epilogues import EPILOGUES
from bdnet_deploy.plan.plan import PlanStep

#: Taps of a window; the value of an accumulator whose count is 0.
TAPS = 9


def pack_forms3(weights: Array, low: Array | None = None, *, trits: bool = False, pad_value: int = 0) -> Array:
    """The blob of a ``__forms3`` or ``__forms3n`` kernel, words.

    Args:
        weights: -1 and +1, (C, 3, 3, 1).
        low: thresholds of the channels on their accumulators, for a kernel that packs them.
        trits: of the input.
        pad_value: of the convolution.
    """
    w = pack_plane(weights[..., 0].transpose(1, 2, 0) < 0)  # (row, column, word)
    forms = np.stack([w[0] ^ w[1], w[0] ^ w[2], w[0] ^ w[1] ^ w[2]], axis=-1)  # (column, word, form)
    parts = [forms.transpose(1, 0, 2).reshape(-1)]
    if low is not None:
        # The largest count that is not below the threshold, for every class; -1 where all counts are.
        rest = TAPS - low.astype(np.int64)
        if trits:
            limits, planes = [rest], 5
        else:
            inside = (9, 6, 4) if pad_value == 0 else (9,)
            limits, planes = [(rest - TAPS + taps) >> 1 for taps in inside], 4
        parts.append(np.stack([_limit(k, planes) for k in limits], axis=1).reshape(-1))
    blob: Array = np.concatenate(parts).astype("<u4")
    return blob


def _limit(largest: Array, planes: int) -> Array:
    """(words, planes + 1): what makes "count > largest" the carry of an addition, see the header."""
    k = np.clip(largest, -1, 2 * TAPS if planes == 5 else TAPS)
    always = k < 0
    addend = 2**planes - 1 - np.maximum(k, 0)
    addend[always] = 2**planes - 1
    bits = [pack_plane(addend >> p & 1 == 1) for p in range(planes)]
    return np.stack([bits[0], pack_plane(always), *bits[1:]], axis=-1)


def unpack_forms3(blob: bytes, shape: tuple[int, ...]) -> Array:
    """The weights (C, 3, 3, 1) of a blob of :func:`pack_forms3`."""
    channels = shape[0]
    forms = np.frombuffer(blob, "<u4", 9 * words(channels)).reshape(-1, 3, 3)
    u, v, s = (forms[..., i] for i in range(3))  # (word, column)
    rows = np.stack([s ^ u ^ v, s ^ v, s ^ u]).transpose(0, 2, 1)  # (row, column, word)
    levels = 1 - 2 * unpack_plane(rows, channels)
    return levels.transpose(2, 0, 1)[..., None]


@dataclass(frozen=True)
class _Forms3:
    """Attributes: suffix; planes: whether accumulators stay in the order of the planes for the epilogue."""

    suffix: str
    planes: bool

    def take(self, step: PlanStep, sets: Collection[str]) -> bool:
        found = site(step)
        if found is None or not _fits(found):
            return False
        start = f"bd_dw_{'t' if found.x is DType.TRIT else 'b'}b"
        limits = threshold(step)
        if limits is not None and self.planes and has_variant(f"{start}_bit__forms3", sets):
            step.kernel = f"{start}_bit__forms3"
            step.weights = self._pack(found, limits)
            step.why = "32 channels a word in bit planes, thresholds as carries of an addition"
            store_packed(step)
            return True
        names = [f"{start}_{acc}__{self.suffix}" for acc in (("u8", "i8") if self.planes else ("i8",))]
        kernel = next((name for name in names if has_variant(name, sets)), None)
        if kernel is None or step.acc_dtype is not DType.I8:
            return False
        counts = "_u8_" in kernel
        if self.planes and not self._epilogue_reads_planes(step, found, sets, counts):
            return False
        step.kernel = kernel
        step.weights = self._pack(found)
        step.why = "32 channels a word in bit planes"
        if self.planes:
            _leave_planes(step, counts)
        return True

    def _pack(self, found: Site, low: Array | None = None) -> Array:
        trits = found.x is DType.TRIT
        return pack_forms3(found.weights, low, trits=trits, pad_value=found.conv.pad_value)

    def _epilogue_reads_planes(self, step: PlanStep, found: Site, sets: Collection[str], counts: bool) -> bool:
        if found.weights.shape[0] % 32 or step.epilogue is None or (counts and not can_fold(step)):
            return False
        trial = replace(step, epilogue=replace(step.epilogue))
        _leave_planes(trial, counts)
        return any(p.takes(trial, sets) for p in EPILOGUES)

    def unpack(self, blob: bytes, shape: tuple[int, ...], step: PlanStep) -> Array:
        return unpack_forms3(blob, shape)


#: Accumulators in the planes' order for a packed epilogue, or bits.
FORMS3 = _Forms3("forms3", planes=True)
#: Accumulators in natural order, for whoever reads them.
FORMS3N = _Forms3("forms3n", planes=False)


def _leave_planes(step: PlanStep, counts: bool) -> None:
    step.acc_order = 1
    if counts:
        assert step.epilogue is not None
        step.acc_dtype = DType.U8
        fold_counts(step.epilogue, TAPS, 1)


def _fits(found: Site) -> bool:
    """Whether the kernels read this window of this map."""
    conv = found.conv
    if not found.depthwise or found.weights.shape[1:] != (3, 3, 1) or found.w is not DType.BIT:
        return False
    if found.x not in (DType.BIT, DType.TRIT) or conv.dilation != (1, 1) or conv.pad_value not in (-1, 0, 1):
        return False
    top, _, left, _ = conv.padding
    return all(
        size >= 2 and stride <= 2 and pad <= 1 and (out - 1) * stride + 3 <= size + pad + 1
        for size, out, stride, pad in zip(found.in_size, found.out_size, conv.strides, (top, left), strict=True)
    )
