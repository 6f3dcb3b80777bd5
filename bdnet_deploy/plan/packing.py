"""Bit planes: how bits and trits lie in 32-bit words.

A bit is 1 for -1, least significant bit first, 32 channels a word, tail bits 0. A trit is two planes a <= b:
+1 is (0,0), 0 is (0,1), -1 is (1,1).
"""

from __future__ import annotations

import numpy as np

from bdnet_deploy.graph import Array, DType


def words(channels: int) -> int:
    """Words of one pixel of one plane."""
    return -(-channels // 32)


def planes(dtype: DType) -> int:
    """Bit planes of a packed dtype: 1 for bits, 2 for trits."""
    return {DType.BIT: 1, DType.TRIT: 2}[dtype]


def split_planes(values: Array, dtype: DType) -> list[Array]:
    """Boolean planes of ``values`` (..., C)."""
    return [values < 0] if dtype is DType.BIT else [values < 0, values <= 0]


def pack_plane(bits: Array) -> Array:
    """Booleans (..., C) to uint32 words (..., words(C))."""
    channels = bits.shape[-1]
    padded = np.zeros((*bits.shape[:-1], words(channels) * 32), np.uint8)
    padded[..., :channels] = bits
    return np.packbits(padded, axis=-1, bitorder="little").view("<u4")


def unpack_plane(packed: Array, channels: int) -> Array:
    """uint32 words (..., words(C)) to booleans (..., C)."""
    octets = np.ascontiguousarray(packed, "<u4").view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little", count=None)[..., :channels].astype(bool)


def pack(values: Array, dtype: DType) -> Array:
    """Bits or trits (..., C) to words (..., planes, words(C))."""
    return np.stack([pack_plane(p) for p in split_planes(values, dtype)], axis=-2)


def unpack(packed: Array, channels: int, dtype: DType) -> Array:
    """Inverse of :func:`pack`: int8 values (..., C)."""
    decoded = [unpack_plane(packed[..., i, :], channels) for i in range(planes(dtype))]
    if dtype is DType.BIT:
        return np.where(decoded[0], np.int8(-1), np.int8(1))
    return (np.int8(1) - decoded[0] - decoded[1]).astype(np.int8)
