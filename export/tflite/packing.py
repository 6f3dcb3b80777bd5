"""Bits as Larq Compute Engine packs them: 32 channels a word, least significant bit first, 1 for -1, tail bits 0."""

from __future__ import annotations

import numpy as np

from bdnet_deploy.errors import ModelFileError
from bdnet_deploy.export.tflite.schema import Array

WORD = 32


def words(channels: int) -> int:
    """Words that ``channels`` bits fill."""
    return -(-channels // WORD)


def pack(values: Array) -> Array:
    """Values (..., C) of {-1, +1} to int32 words (..., ceil(C / 32))."""
    channels = values.shape[-1]
    bits = np.zeros((*values.shape[:-1], words(channels) * WORD), np.uint8)
    bits[..., :channels] = values < 0
    return np.packbits(bits, axis=-1, bitorder="little").view("<i4")


def unpack(packed: Array, channels: int) -> Array:
    """The inverse of :func:`pack`: int8 values (..., C).

    Raises:
        ModelFileError: there are too few words, or bits are set beyond the last channel.
    """
    if packed.shape[-1] != words(channels):
        raise ModelFileError(f"{packed.shape[-1]} words cannot hold {channels} channels")
    raw = np.ascontiguousarray(packed, "<i4").view(np.uint8)
    bits = np.unpackbits(raw, axis=-1, bitorder="little")
    if bits[..., channels:].any():
        raise ModelFileError("packed weights have bits set beyond their last channel")
    return (1 - 2 * bits[..., :channels].astype(np.int8)).astype(np.int8)
