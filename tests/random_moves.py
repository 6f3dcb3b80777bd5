"""Stages of moves for the random networks: slices, padding, channel orders, concatenation, permutations, quantization."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bdnet_deploy.graph import (
    Concat,
    Dequantize,
    DType,
    Flip,
    Gather,
    GroupMean,
    Op,
    Pad,
    PixelShuffle,
    PixelUnshuffle,
    Quantize,
    Reshape,
    Shuffle,
    Slice,
    Transpose,
    Upsample,
    Value,
)

if TYPE_CHECKING:
    from random_networks import Builder

#: Elements of a map beyond which nothing is made larger.
MAX_ELEMENTS = 6000


def a_move(b: Builder, x: Value) -> Op:
    """Some operator of the family that ``x`` of any dtype takes, and that does not make a large map larger."""
    rng, shape = b.rng, x.type.shape[1:]
    small = x.type.size < MAX_ELEMENTS // 4 and shape[2] <= 70
    kind = b.one_of(0, 0, 1, 1, 2, 3, 4, 5)
    if kind == 0:
        begin = [int(rng.integers(0, (n + 1) // 2)) for n in shape]
        end = [int(rng.integers(a + 1, n + 1)) for a, n in zip(begin, shape, strict=True)]
        return Slice(tuple(begin), tuple(end), (b.one_of(1, 1, 2), b.one_of(1, 2), b.one_of(1, 1, 2, 3)))  # type: ignore[arg-type]
    if kind == 1 and small:
        mode = str(rng.choice(["constant", "constant", "replicate", "reflect"]))
        padding = [int(p) for n in shape for p in rng.integers(0, min(n, 3) if mode == "reflect" else 3, 2)]
        value = {DType.BIT: b.one_of(1, -1), DType.UBIT: b.one_of(0, 1)}.get(x.type.dtype, b.one_of(0, 0, 1, -1))
        return Pad(tuple(padding), mode, value)  # type: ignore[arg-type]
    if kind == 2:
        return Shuffle(int(rng.choice([g for g in range(1, shape[2] + 1) if shape[2] % g == 0])))
    if kind == 3:
        return Gather(tuple(int(i) for i in rng.integers(0, shape[2], rng.integers(1, 40))))
    if kind == 4 and small:
        return Upsample((b.one_of(1, 2), b.one_of(1, 2)))
    return Flip(tuple(a for a in range(3) if b.chance(0.5)))


def a_permutation(b: Builder, x: Value) -> Op:
    h, w, c = x.type.shape[1:]
    block, order = b.one_of(2, 3), "crd" if b.chance(0.5) else "dcr"
    if c % block**2 == 0 and b.chance(0.7):
        return PixelShuffle(block, order)
    if h % block == 0 and w % block == 0 and c <= 16 and b.chance(0.7):
        return PixelUnshuffle(block, order)
    if b.chance(0.5) or h * c > 70:
        return (
            Transpose((1, 0, 2)) if max(h, w) > 70 or b.chance(0.5) else Transpose((1, 2, 0) if h <= 70 else (1, 0, 2))
        )
    return Reshape([(1, w, 1, h * c), (1, h * w, c, 1), (1, c, h, w)][b.one_of(0, 1, 2)])


def _move(b: Builder, y: Value) -> Value:
    return b.add(a_move(b, y), y)


def _permute(b: Builder, y: Value) -> Value:
    return b.add(a_permutation(b, y), y)


def _packed(b: Builder, y: Value) -> Value:
    """Moves of bits and trits in front of a convolution."""
    t = b.binarize(y)
    for _ in range(b.one_of(1, 2)):
        t = b.add(a_permutation(b, t) if b.chance(0.3) else a_move(b, t), t)
    if b.chance(0.4):
        t = b.add(Concat(), t, b.add(Flip((1,)), t) if b.chance(0.5) else t)
    if b.chance(0.3) and t.type.shape[1:3] == y.type.shape[1:3]:
        t = b.add(Concat(), t, b.binarize(y))
    return b.affine(b.conv(t, b.one_of(3, 16, 33)))


def _accumulators(b: Builder, y: Value) -> Value:
    """Moves of integers of several widths in memory."""
    acc = b.conv(b.binarize(y), b.one_of(5, 16, 33), window=(3, 3), plain=True)
    if b.chance(0.6):
        other = b.conv(b.binarize(y), y.type.channels, depthwise=b.chance(0.5), window=(1, 1), plain=True)
        acc = b.add(Concat(), acc, other) if acc.type.shape[1:3] == other.type.shape[1:3] else acc
    acc = b.add(a_move(b, acc), acc)
    if b.chance(0.3):
        return b.affine(b.conv(b.binarize(acc), b.one_of(3, 8)))
    return b.affine(acc)


def _joined(b: Builder, y: Value) -> Value:
    """Dense connections: the map beside what was made of it."""
    if y.type.channels > 40:
        y = b.add(Slice.channels(y.type, 0, b.one_of(8, 24, 40)), y)
    new = b.affine(b.conv(b.binarize(y), b.one_of(4, 12, 33), window=(3, 3), plain=True))
    if new.type.shape[1:3] != y.type.shape[1:3]:
        return new
    parts = [y, new, b.two_slope(y)] if b.chance(0.4) else [new, y]
    return b.add(Concat(), *parts)


def _option_a(b: Builder, y: Value) -> Value:
    """A residual block that halves the map: subsampled, padded shortcut."""
    h, w, c = y.type.shape[1:]
    outputs = min(c + b.one_of(0, 1, 7, c), 70)
    acc = b.conv(b.binarize(y), outputs, window=(1, 1), plain=True)
    acc = b.add(Slice((0, 0, 0), (h, w, acc.type.channels), (2, 2, 1)), acc)
    more = acc.type.channels - c
    shortcut = b.add(Slice((0, 0, 0), (h, w, c), (2, 2, 1)), y)
    if more < 0:
        return b.affine(acc)
    front = int(b.rng.integers(0, more + 1))
    return b.affine(acc, b.add(Pad((0, 0, 0, 0, front, more - front)), shortcut))


def _head_slice(b: Builder, y: Value) -> Value:
    """Channels that nobody reads behind a convolution, an affine map and slopes."""
    wide = b.two_slope(b.affine(b.conv(b.binarize(y), b.one_of(12, 33, 40), plain=True)))
    end = int(b.rng.integers(1, wide.type.channels + 1))
    return b.add(Slice.channels(wide.type, int(b.rng.integers(0, end)), end), wide)


def _quantized(b: Builder, y: Value) -> Value:
    """Integers of the model's own, and moves among them."""
    dtype = [DType.U8, DType.I8, DType.I16][b.one_of(0, 1, 2)]
    low, high = dtype.range
    scale = float(b.rng.choice([0.1, 0.03, 1e-3]))
    op = Quantize(dtype, scale, int(b.rng.integers(low // 2, high // 2)))
    q = b.add(op, y)
    if q.type.size < MAX_ELEMENTS // 4:
        q = b.add(Pad((0, 1, 0, 0, 1, 0), value=op.zero_point), q)
        q = b.add(Concat(), q, b.add(Flip((0, 2)), q)) if q.type.channels < 40 else q
    sizes = [s for s in range(2, q.type.channels + 1) if q.type.channels % s == 0]
    y = b.add(Dequantize(), b.add(a_permutation(b, q), q) if b.chance(0.5) else q)
    return (
        b.add(GroupMean(int(b.rng.choice(sizes))), y) if sizes and y.type.channels == q.type.channels else b.affine(y)
    )


STAGES: list[Callable[[Builder, Value], Value]] = [
    _move, _permute, _packed, _accumulators, _joined, _option_a, _head_slice, _quantized,
]  # fmt: skip
