"""Where tensors lie in the arena: dynamic storage allocation with known lives.

Finding the smallest arena is NP-hard, but feature maps are few at a time. Tensors are placed one after the other, each
at the lowest place that is free during its life; only the order matters. Some fixed orders are tried, then the best is
improved: a tensor that reaches the arena's end, or one that it lies above, is put earlier. Every step is repeatable,
and the search ends as soon as the bound is met.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping
from typing import TypeVar

from bdnet_deploy.bdn_format import align

T = TypeVar("T", bound=Hashable)
#: Orders that are tried at most.
ATTEMPTS = 400


def lower_bound(spans: Mapping[T, tuple[int, int]], sizes: Mapping[T, int]) -> int:
    """The most bytes that are alive at once: no placement needs less."""
    moments = {first for first, _ in spans.values()}
    return max(
        (sum(align(sizes[t]) for t, (first, last) in spans.items() if first <= m <= last) for m in moments), default=0
    )


def total(offsets: Mapping[T, int], sizes: Mapping[T, int]) -> int:
    """Bytes of the arena."""
    return align(max((offsets[t] + sizes[t] for t in offsets), default=0))


def place(spans: Mapping[T, tuple[int, int]], sizes: Mapping[T, int]) -> dict[T, int]:
    """Offsets, multiples of 16, such that tensors that are alive at the same moment do not overlap.

    Args:
        spans: first and last moment of each life; the order of the mapping breaks ties.
        sizes: bytes.
    """
    bound = lower_bound(spans, sizes)
    tensors = list(spans)
    length = {t: spans[t][1] - spans[t][0] + 1 for t in tensors}
    orders = [
        sorted(tensors, key=lambda t: -sizes[t]),
        sorted(tensors, key=lambda t: -sizes[t] * length[t]),
        sorted(tensors, key=lambda t: (-length[t], -sizes[t])),
        sorted(tensors, key=lambda t: (spans[t][0], -sizes[t])),
        sorted(tensors, key=lambda t: (-spans[t][1], -sizes[t])),
    ]
    rivals = {
        t: [o for o in tensors if o is not t and spans[o][0] <= spans[t][1] and spans[t][0] <= spans[o][1]]
        for t in tensors
    }
    best: dict[T, int] = {}
    order: list[T] = []
    for candidate in orders:
        offsets = _lowest(candidate, rivals, sizes)
        if not order or total(offsets, sizes) < total(best, sizes):
            best, order = offsets, candidate
        if total(best, sizes) == bound:
            return best
    return _improve(order, best, rivals, sizes, bound)


def _improve(
    order: list[T], best: dict[T, int], rivals: Mapping[T, list[T]], sizes: Mapping[T, int], bound: int
) -> dict[T, int]:
    """Hill climbing over orders; sideways steps are taken, so that a plateau is left."""
    choose = random.Random(0)
    offsets = best
    for _ in range(ATTEMPTS):
        if total(best, sizes) == bound:
            break
        high = total(offsets, sizes)
        top = choose.choice([t for t in order if align(offsets[t] + sizes[t]) == high])
        below = [t for t in rivals[top] if offsets[t] < offsets[top]]
        moved = choose.choice([top, *below])
        candidate = [t for t in order if t is not moved]
        candidate.insert(choose.randrange(len(order)), moved)
        found = _lowest(candidate, rivals, sizes)
        if total(found, sizes) <= high:
            order, offsets = candidate, found
        if total(found, sizes) < total(best, sizes):
            best = found
    return best


def _lowest(order: list[T], rivals: Mapping[T, list[T]], sizes: Mapping[T, int]) -> dict[T, int]:
    """Each tensor in turn at the lowest place that is free during its life."""
    offsets: dict[T, int] = {}
    for tensor in order:
        offset = 0
        for rival in sorted((t for t in rivals[tensor] if t in offsets), key=offsets.__getitem__):
            if offset + sizes[tensor] <= offsets[rival]:
                break
            offset = max(offset, align(offsets[rival] + sizes[rival]))
        offsets[tensor] = offset
    return offsets
