"""Bit planes: how bits and trits lie in 32-bit words, in our files, in memory and in Larq's.

A bit is 1 for -1, least significant bit first, 32 channels a word, tail bits 0. A trit is two planes a <= b:
+1 is (0,0), 0 is (0,1), -1 is (1,1). A ubit, 0 or 1, is a trit that is never -1: its plane b alone, which
is the plane of a bit that is -1 where the ubit is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

WORD = 32


def words(channels: int) -> int:
    """32-bit words of one plane of one pixel."""
    return -(-channels // WORD)


def pack_plane(ones: Array) -> npt.NDArray[np.uint32]:
    """Booleans (..., C) to words (..., words(C)), tail bits 0."""
    padded = np.zeros((*ones.shape[:-1], words(ones.shape[-1]) * WORD), np.uint8)
    padded[..., : ones.shape[-1]] = ones
    return np.packbits(padded, axis=-1, bitorder="little").view("<u4").astype(np.uint32, copy=False)


def unpack_plane(packed: Array, channels: int) -> npt.NDArray[np.int8]:
    """Words (..., words(C)) to 0 and 1 (..., C)."""
    octets = np.ascontiguousarray(packed).view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little")[..., :channels].astype(np.int8)


def pack(values: Array, *, planes: int) -> npt.NDArray[np.uint32]:
    """-1/0/+1 (..., C) to words (..., planes, words(C)); one plane for bits, two for trits."""
    return np.stack([pack_plane(ones) for ones in (values < 0, values < 1)[:planes]], axis=-2)


def unpack(packed: Array, channels: int) -> npt.NDArray[np.int8]:
    """The inverse of :func:`pack`: (..., planes, words(C)) to -1/0/+1 (..., C)."""
    ones = unpack_plane(packed, channels)
    return np.int8(1) - ones[..., 0, :] - ones[..., -1, :]
