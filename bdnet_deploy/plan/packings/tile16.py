"""``tile16``: weights of binary convolutions in the order in which 16 outputs at once read them.

The layout stands in ``runtime/kernels/bd_tile16.h``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.bitplanes import pack_plane, unpack_plane, words
from bdnet_deploy.graph import Array, DType
from bdnet_deploy.plan.packings.base import Site, has_variant, site, store_packed, threshold
from bdnet_deploy.plan.plan import PlanStep

#: Outputs that one pass of a ``tile16`` kernel computes.
OUTPUTS = 16


@dataclass(frozen=True)
class Tile16:
    """How ``runtime/kernels/bd_tile16.h`` divides a window: ``halves`` of 64 channels, ``chunks`` of ``vectors``.

    ``order`` lists the halves, as ``tap * (channels / 64) + half of the tap``; ``shared`` says that the last one is alone;
    ``half`` is its size in bytes: 8, or that of all channels if they are fewer.
    """

    order: tuple[int, ...]
    chunks: int
    vectors: int
    shared: bool
    half: int = 8


def tile16(taps: int, channels: int) -> Tile16 | None:
    """The division of a window of 1 or 9 taps; None where the packing does not take it."""
    if taps == 1 and channels in (8, 16, 32):
        return Tile16((0,), 0, 0, True, channels // 8)
    if taps not in (1, 9) or channels % 64 or not channels:
        return None
    each = channels // 64
    halves = taps * each
    order = tuple(range(halves))
    if halves % 2:
        if taps == 9 and each == 1:
            return Tile16((0, 1, 3, 4, 6, 7, 2, 5, 8), 1, 4, True)
        return Tile16(order, int(halves > 1), halves // 2, True) if halves <= 5 else None
    row = 3 * each // 2 if taps == 9 else each // 2
    vectors = 2 if row == 2 else next(n for n in (3, 4, 1) if row % n == 0)
    return Tile16(order, halves // 2 // vectors, vectors, False)


def pack_tile16(weights: Array, low: Array | None = None) -> Array:
    """The blob of a ``__tile16`` kernel, bytes.

    Args:
        weights: -1 and +1, (O, kh, kw, C), as :func:`tile16` takes them, O a multiple of 16.
        low: thresholds of the outputs on their accumulators, for a kernel that packs them.
    """
    outputs, taps = weights.shape[0], weights.shape[1] * weights.shape[2]
    form = tile16(taps, weights.shape[3])
    assert form is not None and outputs % OUTPUTS == 0
    octets = pack_plane(weights < 0).astype("<u4").view(np.uint8).reshape(outputs, -1)
    octets = octets[:, : len(form.order) * form.half]  # words hold no more than the channels
    halves = octets.reshape(outputs, -1, form.half)[:, list(form.order)]
    whole = form.chunks * form.vectors
    if form.shared:
        vectors = halves[:, : 2 * whole].reshape(outputs // 4, -1)
        blob = np.concatenate([vectors, halves[:, 2 * whole].reshape(outputs // 4, -1)], axis=1)
    else:
        blob = halves.reshape(outputs // OUTPUTS, OUTPUTS, form.chunks, -1).transpose(0, 2, 1, 3)
    parts = [blob.tobytes()]
    if taps == 9:
        parts.append((weights < 0).sum(axis=3).reshape(outputs, taps).T.astype("<u2").tobytes())
    if low is not None:
        parts.append(np.clip(low, -0x8000, 0x7FFF).astype("<i2").tobytes())
    return np.frombuffer(b"".join(parts), np.uint8)


def unpack_tile16(blob: bytes, shape: tuple[int, ...]) -> Array:
    """The weights (O, kh, kw, C) of a blob of :func:`pack_tile16`."""
    outputs, kh, kw, channels = shape
    form = tile16(kh * kw, channels)
    assert form is not None
    size = outputs * len(form.order) * form.half
    octets = np.frombuffer(blob[:size], np.uint8)
    if form.half != 8:
        padded = np.pad(octets.reshape(outputs, form.half), ((0, 0), (0, 4 - form.half)))
        return 1 - 2 * unpack_plane(padded.view("<u4").reshape(outputs, 1, 1, 1), channels)
    whole = form.chunks * form.vectors
    if form.shared:
        fours = octets.reshape(outputs // 4, -1)
        vectors = fours[:, : 4 * whole * 16].reshape(outputs, 2 * whole, 8)
        ordered = np.concatenate([vectors, fours[:, 4 * whole * 16 :].reshape(outputs, 1, 8)], axis=1)
    else:
        ordered = octets.reshape(outputs // OUTPUTS, form.chunks, OUTPUTS, -1).transpose(0, 2, 1, 3)
        ordered = ordered.reshape(outputs, -1, 8)
    halves = np.empty_like(ordered)
    halves[:, list(form.order)] = ordered
    planes = np.ascontiguousarray(halves).view("<u4").reshape(outputs, kh, kw, words(channels))
    return 1 - 2 * unpack_plane(planes, channels)


class _Tile16:
    suffix = "tile16"

    def take(self, step: PlanStep, sets: Collection[str]) -> bool:
        found = site(step)
        if found is None or found.x is not DType.BIT or found.w is not DType.BIT or not _fits(found):
            return False
        outputs = found.weights.shape[0]
        limits = threshold(step)
        packs = limits is not None and outputs % (2 * OUTPUTS) == 0
        kernel = "bd_conv_bb_bit__tile16" if packs else "bd_conv_bb_i16__tile16"
        if (not packs and step.acc_dtype is not DType.I16) or not has_variant(kernel, sets):
            return False
        if found.weights.shape[3] % 64 and "neon64" not in sets:
            return False  # no other variant has a body for a part of a vector
        step.kernel = kernel
        step.weights = pack_tile16(found.weights, limits if packs else None)
        step.why = "channels in halves of vectors, 16 outputs share a tree of additions"
        if packs:
            store_packed(step)
        return True

    def unpack(self, blob: bytes, shape: tuple[int, ...], step: PlanStep) -> Array:
        return unpack_tile16(blob, shape)


TILE16 = _Tile16()


def _fits(found: Site) -> bool:
    """Whether the kernels read this window of this map."""
    outputs, kh, kw, channels = found.weights.shape
    conv = found.conv
    if (
        kh != kw
        or conv.groups != 1
        or conv.dilation != (1, 1)
        or outputs % OUTPUTS
        or tile16(kh * kw, channels) is None
    ):
        return False
    if conv.pad_value not in (-1, 0, 1) or kh * kw * channels > 0x7FFF:
        return False
    top, _, left, _ = conv.padding
    for size, out, stride, pad in zip(found.in_size, found.out_size, conv.strides, (top, left), strict=True):
        reach = (out - 1) * stride
        if (pad or reach >= size) if kh == 1 else (pad > 1 or reach + 3 > size + pad + 1):
            return False
    return True
