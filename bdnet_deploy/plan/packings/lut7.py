"""``lut7``: weights of point-wise binary convolutions as indices into tables over 7 pixels.

The layout stands in ``runtime/kernels/bd_lut7.h``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from bdnet_deploy.graph import Array, DType
from bdnet_deploy.plan.packings.base import (
    Site,
    can_fold,
    fold_counts,
    has_variant,
    site,
    store_packed,
    thresholds,
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

#: Accumulators of more rows than necessary may take so many bytes.
ROOM = 6144


def slabs(channels: int) -> Iterator[int]:
    """How so many channels are divided."""
    left = channels
    while left > 0:
        slab = 64 if left > 48 else 32 if left > 16 else 16 if left > 8 else 8
        yield slab
        left -= slab


def pack_lut7(weights: Array, limits: Array | None = None) -> Array:
    """The blob of a ``__lut7`` kernel, bytes.

    Args:
        weights: -1 and +1, (O, 1, 1, C).
        limits: per output, the mismatches from which a packed bit is 1; for a kernel that packs.
    """
    outputs, channels = weights.shape[0], weights.shape[3]
    bits = np.zeros((outputs, sum(slabs(channels))), np.uint32)
    bits[:, :channels] = weights.reshape(outputs, channels) < 0
    parts, at = [], 0
    for slab in slabs(channels):
        index = []
        for group, start in zip(*SLABS[slab], strict=True):
            index.append((bits[:, at : at + group] << np.arange(group, dtype=np.uint32)).sum(axis=1) + start)
            at += group
        parts.append(np.stack(index, axis=1).astype(np.uint8).tobytes())
    if limits is not None:
        parts.append((0x8000 - np.clip(limits, 0, 0x7FFF)).astype("<u2").tobytes())
    return np.frombuffer(b"".join(parts), np.uint8)


def unpack_lut7(blob: bytes, shape: tuple[int, ...]) -> Array:
    """The weights (O, 1, 1, C) of a blob of :func:`pack_lut7`."""
    outputs, channels = shape[0], shape[3]
    octets = np.frombuffer(blob, np.uint8)
    bits, at = [], 0
    for slab in slabs(channels):
        groups, starts = SLABS[slab]
        index = octets[at : at + outputs * len(groups)].reshape(outputs, len(groups)).astype(np.int64)
        at += outputs * len(groups)
        for i, (group, start) in enumerate(zip(groups, starts, strict=True)):
            bits.append((index[:, i : i + 1] - start) >> np.arange(group) & 1)
    levels: Array = (1 - 2 * np.concatenate(bits, axis=1)[:, :channels]).astype(np.int8)
    return levels.reshape(shape)


def limits_of(low: Array, channels: int) -> Array:
    """Mismatches n from which ``channels - 2 n < low``."""
    return (channels - low.astype(np.int64)) // 2 + 1


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
        outputs, channels = found.weights.shape[0], found.weights.shape[3]
        limits = thresholds(step)
        kernel = "bd_conv_bb_bit__lut7"
        if limits is not None and len(limits) == 1 and outputs % 32 == 0 and has_variant(kernel, sets):
            step.kernel, step.weights = kernel, pack_lut7(found.weights, limits_of(limits[0], channels))
            store_packed(step)
            step.rows_per_call = rows_of(*found.out_size, 0)
            step.why = f"tables over {PIXELS} pixels, which pay from {FEWEST_OUTPUTS} outputs on"
            return True
        kernel = "bd_conv_bb_i16__lut7"
        if step.acc_dtype is DType.I16 and has_variant(kernel, sets) and can_fold(step) and step.epilogue is not None:
            step.kernel, step.weights = kernel, pack_lut7(found.weights)
            fold_counts(step.epilogue, channels, 2)
            step.rows_per_call = rows_of(*found.out_size, 2 * outputs)
            step.why = f"tables over {PIXELS} pixels, which pay from {FEWEST_OUTPUTS} outputs on; counts are folded into the affine"
            return True
        return False

    def unpack(self, blob: bytes, shape: tuple[int, ...], step: PlanStep) -> Array:
        return unpack_lut7(blob, shape)


LUT7 = _Lut7()


def _fits(found: Site) -> bool:
    """Whether the kernels read this map, and tables pay."""
    outputs, kh, kw, channels = found.weights.shape
    conv = found.conv
    if kh != 1 or kw != 1 or conv.groups != 1 or any(conv.padding) or channels > 0x7FFE:
        return False
    if outputs % 2 or outputs < FEWEST_OUTPUTS or found.out_size[0] * found.out_size[1] < PIXELS:
        return False
    return all((out - 1) * s < size for size, out, s in zip(found.in_size, found.out_size, conv.strides, strict=True))
