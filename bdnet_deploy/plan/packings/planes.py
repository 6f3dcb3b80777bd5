"""``planes``: depth-wise 3x3 convolutions that store packed bits, with their thresholds in bit planes beside the weights.

The layout stands in ``runtime/kernels/bd_dw_planes.h``.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from bdnet_deploy.bitplanes import pack_plane, unpack_plane, words
from bdnet_deploy.graph import Array, DType
from bdnet_deploy.plan.packings.base import Site, has_variant, site, store_packed, threshold
from bdnet_deploy.plan.plan import PlanStep

#: Taps inside of the map that a window can see.
TAPS = (9, 6, 4)


def pack_planes(weights: Array, low: Array, *, trits: bool) -> Array:
    """The blob of a ``bd_dw_*_bit__planes`` kernel, words.

    Args:
        weights: -1 and +1, (C, 3, 3, 1).
        low: (C,) thresholds on the accumulators: an output is negative below.
        trits: whether the input is trits.
    """
    by_tap = weights[..., 0].transpose(1, 2, 0)
    largest, planes = (18, 5) if trits else (9, 4)
    parts = [pack_plane(by_tap < 0).reshape(-1)]
    for taps in TAPS:
        room = taps - np.broadcast_to(low, weights.shape[:1]).astype(np.int64)
        least = (room if trits else room // 2) + 1  # the smallest count that is enough
        limit = 2**planes - 1 - np.clip(least, 0, largest + 1)
        parts += [pack_plane((limit >> plane) & 1 == 1) for plane in range(planes)]
    return np.concatenate(parts)


def unpack_planes(blob: bytes, shape: tuple[int, ...]) -> Array:
    """The weights (C, 3, 3, 1) of a blob of :func:`pack_planes`."""
    channels = shape[0]
    by_tap = np.frombuffer(blob, "<u4", 9 * words(channels)).reshape(3, 3, -1)
    return (1 - 2 * unpack_plane(by_tap, channels)).transpose(2, 0, 1)[..., None]


class _Planes:
    suffix = "planes"

    def take(self, step: PlanStep, sets: Collection[str]) -> bool:
        found, limits = site(step), threshold(step)
        if found is None or found.w is not DType.BIT or limits is None or not _fits(found):
            return False
        trits = found.x is DType.TRIT
        kernel = f"bd_dw_{'tb' if trits else 'bb'}_bit__planes"
        if not has_variant(kernel, sets):
            return False
        step.kernel = kernel
        step.weights = pack_planes(found.weights, limits, trits=trits)
        step.why = "only a sign reads the sums: its thresholds are added in bit planes"
        store_packed(step)
        return True

    def unpack(self, blob: bytes, shape: tuple[int, ...], step: PlanStep) -> Array:
        return unpack_planes(blob, shape)


PLANES = _Planes()


def _fits(found: Site) -> bool:
    """Whether the kernels with bodies of their own read this window of this map."""
    conv = found.conv
    channels, kh, kw, _ = found.weights.shape
    if not found.depthwise or found.x not in (DType.BIT, DType.TRIT) or channels % 128 or (kh, kw) != (3, 3):
        return False
    if conv.dilation != (1, 1) or conv.pad_value != 0 or conv.strides[1] not in (1, 2) or conv.padding[2] != 1:
        return False
    if found.out_size[1] != -(-found.in_size[1] // conv.strides[1]):
        return False
    pairs = zip(found.in_size, found.out_size, conv.strides, (conv.padding[0], conv.padding[2]), strict=True)
    return all(size >= 2 and pad <= 1 and (out - 1) * stride + 2 <= size + pad for size, out, stride, pad in pairs)
