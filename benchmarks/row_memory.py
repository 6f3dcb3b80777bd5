"""The structures of ``bd_format.h`` and ``bd_kernel.h`` as a 32-bit core sees them, and a data area that holds them."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
from row_build import DATA_ADDRESS

U8, I8, I16, I32, BIT, TRIT = 1, 2, 3, 4, 5, 6
NONE, ABSENT = 0xFFFF, 0xFFFFFFFF

_GAP = 32  # bytes between two places
_PATTERN = 0xA5

Bytes = npt.NDArray[np.uint8]


def bd_step(
    shape: tuple[int, int, int], *, groups: int, kernel: int, acc_dtype: int, weights: tuple[int, int], epilogue_at: int
) -> bytes:
    """A step of accumulator shape (H, W, C) with stride 1 and zero padding that keeps the size; weights: offset and bytes."""
    operands = (0, 0, 0, NONE, 0, NONE)
    geometry = (kernel, kernel, 1, 1, 1, 1, kernel // 2, kernel // 2)
    rest = (0, acc_dtype, 1, 0, 1, 0, *weights, epilogue_at, 0, 0)
    packed = struct.pack("<10H8BbBBBHhIIIII", *operands, *shape, groups, *geometry, *rest)
    assert len(packed) == 56
    return packed


def bd_epilogue(*, records: int, shift: int, channels: int) -> bytes:
    """Parameters of an epilogue whose records lie at an offset of the constants."""
    packed = struct.pack("<8IbbBBHH", records, *[ABSENT] * 7, shift, 0, I16, 0, channels, 0)
    assert len(packed) == 40
    return packed


class Memory:
    """A data area: places, one behind the other with gaps between them, filled with a pattern until they are written."""

    def __init__(self) -> None:
        self._bytes = bytearray(_GAP * bytes([_PATTERN]))
        self._written: list[tuple[int, int]] = []

    def place(self, content: bytes | int, *, writable: bool = False) -> int:
        """The address of a new place of these contents, or of this many bytes; kernels may write ``writable`` ones only."""
        self._bytes += bytes(-len(self._bytes) % 16)
        at = len(self._bytes)
        self._bytes += bytes([_PATTERN]) * content if isinstance(content, int) else content
        if writable:
            self._written.append((at, len(self._bytes)))
        self._bytes += bytes([_PATTERN]) * _GAP
        return DATA_ADDRESS + at

    @property
    def content(self) -> bytes:
        return bytes(self._bytes)

    def stray_writes(self, after: bytes) -> int:
        """How many bytes outside the writable places differ afterwards."""
        before, now = np.frombuffer(self.content, np.uint8), np.frombuffer(after, np.uint8)
        changed = before != now
        for start, end in self._written:
            changed[start:end] = False
        return int(changed.sum())


class Map:
    """A feature map in a :class:`Memory`, of which some rows are held, and the ``bd_view`` for it.

    Args:
        shape: (H, W, C).
        rows: the bytes of every row, (H, bytes); what an output must become.
        held: slots; row y lies in slot ``y % held``, like in a ring buffer.
        present: rows that are there before the call; the rest is pattern.
        gap: bytes between slots.
    """

    def __init__(
        self,
        memory: Memory,
        shape: tuple[int, int, int],
        dtype: int,
        rows: Bytes,
        *,
        held: int,
        present: range = range(0),
        order: int = 0,
        gap: int = 0,
        writable: bool = False,
    ) -> None:
        self.row_bytes = rows.shape[1]
        self.stride, self.held = self.row_bytes + gap, held
        content = bytearray(bytes([_PATTERN]) * (self.stride * held))
        for y in present:
            at = y % held * self.stride
            content[at : at + self.row_bytes] = rows[y].tobytes()
        self.base = memory.place(bytes(content), writable=writable)
        self.view = struct.pack("<IIHHHHBBH", self.base, self.stride, held, *shape, dtype, order, 0)
        assert len(self.view) == 20

    def row(self, after: bytes, y: int) -> Bytes:
        """Row y in the data area after a call."""
        at = self.base - DATA_ADDRESS + y % self.held * self.stride
        return np.frombuffer(after[at : at + self.row_bytes], np.uint8)


def pack_planes(bits: npt.NDArray[np.bool_], order: npt.NDArray[np.int64]) -> Bytes:
    """Bits (rows, planes, W, C), C a multiple of 32, to rows of bytes; channel c is bit ``order[c % 32]`` of its word."""
    rows, planes, width, channels = bits.shape
    words = bits.reshape(rows, planes, width, channels // 32, 32)
    values = (words.astype(np.uint32) << order.astype(np.uint32)).sum(-1, dtype=np.uint32)
    return np.ascontiguousarray(values.reshape(rows, -1).astype("<u4")).view(np.uint8)
