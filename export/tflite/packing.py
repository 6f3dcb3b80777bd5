"""Bits as Larq Compute Engine packs them: 32 channels a word, least significant bit first, 1 for -1, tail bits 0."""

from __future__ import annotations

import numpy as np

from bdnet_deploy.bitplanes import WORD, pack_plane, unpack_plane, words
from bdnet_deploy.errors import ModelFileError
from bdnet_deploy.export.tflite.schema import Array

__all__ = ["WORD", "pack", "unpack", "words"]


def pack(values: Array) -> Array:
    """Values (..., C) of {-1, +1} to int32 words (..., ceil(C / 32))."""
    return pack_plane(values < 0).view("<i4")


def unpack(packed: Array, channels: int) -> Array:
    """The inverse of :func:`pack`: int8 values (..., C).

    Raises:
        ModelFileError: there are too few words, or bits are set beyond the last channel.
    """
    if packed.shape[-1] != words(channels):
        raise ModelFileError("packed weights are damaged", why=f"{packed.shape[-1]} words for {channels} channels")
    bits = unpack_plane(packed.astype("<i4", copy=False), words(channels) * WORD)
    if bits[..., channels:].any():
        raise ModelFileError("packed weights are damaged", why="bits are set beyond their last channel")
    return np.int8(1) - 2 * bits[..., :channels]
