"""``lut7``: weights of binary convolutions as indices into tables over 7 pixels.

The layout stands in ``runtime/kernels/bd_lut7.h``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from bdnet_deploy.bitplanes import words
from bdnet_deploy.graph import Array, DType
from bdnet_deploy.plan.packings.base import (
    Site,
    can_fold,
    fold_counts,
    has_variant,
    site,
    store_packed,
    threshold,
)
from bdnet_deploy.plan.plan import PlanStep

#: Channels of a slab -> channels of its groups, and where the groups' indices start.
SLABS: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {
    64: ((7, 6, 6, 7, 6, 6, 7, 6, 6, 7), (0, 128, 192, 0, 128, 192, 0, 128, 192, 0)),
    32: ((7, 6, 6, 7, 6), (0, 128, 192, 0, 128)),
    16: ((4, 4, 4, 4), (0, 16, 32, 48)),
    8: ((4, 4), (0, 16)),
}

#: Pixels of a table word.
PIXELS = 7

#: Below so many outputs the tables of 7 pixels cost more than they save.
FEWEST_OUTPUTS = 12

#: The same of windows of more than 16 channels: plain C counts their words as quickly as those of one pixel.
FEWEST_OUTPUTS_OF_WINDOWS = 24

#: Accumulators of more rows than necessary may take so many bytes.
ROOM = 6144


def slabs(channels: int) -> Iterator[int]:
    """How so many channels are divided."""
    left = channels
    while left > 0:
        slab = 64 if left > 48 else 32 if left > 16 else 16 if left > 8 else 8
        yield slab
        left -= slab


def _tap(channels: int) -> int:
    """Channels that a tap takes in a window."""
    return 8 if channels <= 8 else 16 if channels <= 16 else 32 * words(channels)


def pack_lut7(weights: Array, limits: Array | None = None) -> Array:
    """The blob of a ``__lut7`` kernel, bytes.

    Args:
        weights: -1 and +1, (O, kh, kw, C), O even.
        limits: per output, the mismatches from which a packed bit is 1; for a kernel that packs.
    """
    outputs, kh, kw, channels = weights.shape
    taps = kh * kw
    each = channels if taps == 1 else _tap(channels)
    negative = (weights < 0).reshape(outputs, taps, channels)
    window = np.zeros((outputs, taps, each), np.uint32)
    window[:, :, :channels] = negative
    bits = np.zeros((outputs, sum(slabs(taps * each))), np.uint32)
    bits[:, : taps * each] = window.reshape(outputs, -1)
    parts, at = [], 0
    for slab in slabs(taps * each):
        index = []
        for group, start in zip(*SLABS[slab], strict=True):
            index.append((bits[:, at : at + group] << np.arange(group, dtype=np.uint32)).sum(axis=1) + start)
            at += group
        parts.append(np.stack(index, axis=1).astype(np.uint8).tobytes())
    if taps > 1:
        border = channels // 2 - negative.sum(axis=2, dtype=np.int64).T
        parts.append((border[:, ::2] + 65536 * border[:, 1::2]).astype("<i4").tobytes())
    if limits is not None:
        parts.append((0x8000 - np.clip(limits, 0, 0x7FFF)).astype("<u2").tobytes())
    return np.frombuffer(b"".join(parts), np.uint8)


def unpack_lut7(blob: bytes, shape: tuple[int, ...]) -> Array:
    """The weights (O, kh, kw, C) of a blob of :func:`pack_lut7`."""
    outputs, kh, kw, channels = shape
    each = channels if kh * kw == 1 else _tap(channels)
    octets = np.frombuffer(blob, np.uint8)
    bits, at = [], 0
    for slab in slabs(kh * kw * each):
        groups, starts = SLABS[slab]
        index = octets[at : at + outputs * len(groups)].reshape(outputs, len(groups)).astype(np.int64)
        at += outputs * len(groups)
        for i, (group, start) in enumerate(zip(groups, starts, strict=True)):
            bits.append((index[:, i : i + 1] - start) >> np.arange(group) & 1)
    window = np.concatenate(bits, axis=1)[:, : kh * kw * each].reshape(outputs, kh, kw, each)
    levels: Array = (1 - 2 * window[..., :channels]).astype(np.int8)
    return levels


def limits_of(low: Array, taps: int) -> Array:
    """Mismatches n from which ``taps - 2 n < low``."""
    limits: Array = (taps - low.astype(np.int64)) // 2 + 1
    return limits


def rows_of(height: int, width: int, pixel_bytes: int) -> int:
    """Rows that one call makes: as few as give 7 pixels, more where that fills the last 7 of them better."""
    least = min(height, -(-PIXELS // width))
    most = max(least, min(height, 4, ROOM // (width * max(pixel_bytes, 1))))

    def computed(rows: int) -> float:
        """Pixels computed for one that is wanted."""
        calls = [rows] * (height // rows) + [height % rows] * (height % rows > 0)
        return sum(-(-r * width // PIXELS) * PIXELS for r in calls) / (height * width)

    return min(range(least, most + 1), key=lambda rows: (round(computed(rows), 2), rows))


class _Lut7:
    suffix = "lut7"

    def take(self, step: PlanStep, sets: Collection[str]) -> bool:
        found = site(step)
        if found is None or found.x is not DType.BIT or found.w is not DType.BIT or not _fits(found):
            return False
        outputs = found.weights.shape[0]
        limits = threshold(step)
        kernel = "bd_conv_bb_bit__lut7"
        if limits is not None and outputs % 32 == 0 and has_variant(kernel, sets):
            step.kernel, step.weights = kernel, pack_lut7(found.weights, limits_of(limits, found.taps))
            store_packed(step)
            step.rows_per_call = rows_of(*found.out_size, 0)
            step.why = f"tables over {PIXELS} pixels, which pay from {FEWEST_OUTPUTS} outputs on"
            return True
        if step.epilogue is None or not can_fold(step) or not self.store_counts(step, sets):
            return False
        fold_counts(step.epilogue, found.taps, 2)
        return True

    def store_counts(self, step: PlanStep, sets: Collection[str]) -> bool:
        """Let the step's accumulators be counts of mismatches, where a core with ``sets`` has a kernel for it; what reads them
        stays as it is."""
        found, kernel = site(step), "bd_conv_bb_i16__lut7"
        if found is None or step.acc_dtype is not DType.I16 or not _fits(found) or not has_variant(kernel, sets):
            return False
        step.kernel, step.weights = kernel, pack_lut7(found.weights)
        step.rows_per_call = rows_of(*found.out_size, 2 * found.weights.shape[0])
        step.why = f"tables over {PIXELS} pixels, which pay from {FEWEST_OUTPUTS} outputs on; counts are folded into the affine"
        return True

    def unpack(self, blob: bytes, shape: tuple[int, ...], step: PlanStep) -> Array:
        return unpack_lut7(blob, shape)


LUT7 = _Lut7()


def _fits(found: Site) -> bool:
    """Whether the kernels read this map, and tables pay."""
    outputs, kh, kw, channels = found.weights.shape
    conv, pixels = found.conv, found.out_size[0] * found.out_size[1]
    if conv.groups != 1 or found.taps > 0x7FFE or outputs % 2 or pixels < PIXELS:
        return False
    if kh == kw == 1:
        inside = zip(found.in_size, found.out_size, conv.strides, strict=True)
        return (
            outputs >= FEWEST_OUTPUTS and not any(conv.padding) and all((out - 1) * s < size for size, out, s in inside)
        )
    if conv.pad_value == 0 and channels % 2 and any(conv.padding):
        return False  # half a tap is no number of mismatches
    indices = outputs * sum(len(SLABS[slab][0]) for slab in slabs(kh * kw * _tap(channels)))
    return indices % 4 == 0 and outputs >= (FEWEST_OUTPUTS if channels <= 16 else FEWEST_OUTPUTS_OF_WINDOWS)
