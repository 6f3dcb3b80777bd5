"""Index tables of the kernels that move elements: how they are packed, and which rows a call reads.

The layouts are those at the top of ``runtime/kernels/generic/gather.c`` and ``permute.c``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph import Array, DType

#: Index of an element that is not taken from the input but is the fill value.
FILL = 0xFFFF
_LARGEST = 0xFF  # of a window, stride or padding


def runs(table: Array) -> Array:
    """(n, 2) first index and length of the runs of adjacent indices (or of -1) that a table consists of."""
    step = np.diff(table)
    breaks = np.where(table[:-1] < 0, step != 0, (step != 1) | (table[1:] < 0))
    starts = np.concatenate([[0], np.flatnonzero(breaks) + 1])
    lengths = np.diff(np.concatenate([starts, [len(table)]]))
    return np.stack([np.where(table[starts] < 0, FILL, table[starts]), lengths], axis=1)


def fill_word(value: float, dtype: DType) -> int:
    """An element's bytes as a little-endian word; of a packed dtype, bit i is the element's bit in plane i."""
    if dtype.is_packed:
        return (value < 0) | (value < 1) << 1 if dtype.planes == 2 else int(value < 1)
    raw = np.array(value, dtype.numpy.newbyteorder("<")).tobytes()
    return int.from_bytes(raw, "little")


def gather_blob(rows: Array, columns: Array, channels: Array, fill: int) -> Array:
    """The parameters of ``bd_gather_*`` as bytes."""
    column_runs, channel_runs = runs(columns), runs(channels)
    head = [fill & 0xFFFF, fill >> 16, len(column_runs), len(channel_runs)]
    parts = [np.array(head), np.where(rows < 0, FILL, rows), column_runs.reshape(-1), channel_runs.reshape(-1)]
    return np.asarray(np.concatenate(parts).astype("<u2").view(np.uint8))


def permute_blob(digits: list[tuple[int, int, int, int]]) -> Array:
    """The parameters of ``bd_permute_*`` as bytes."""
    flat = [n for digit in digits for n in digit]
    return np.asarray(np.array([len(digits), *flat], "<u2").view(np.uint8))


@dataclass(frozen=True)
class RowWindow:
    """Output row y reads input rows from ``y * stride - pad`` to that plus ``size - 1``, or none."""

    stride: int
    size: int
    pad: int


def row_window(rows: Array) -> RowWindow | None:
    """The smallest window that holds a row table, so that its step can run row by row; None if the format has none."""
    y = np.flatnonzero(rows >= 0)
    if len(y) == 0:
        return RowWindow(1, 1, 0)
    taken = rows[y]
    slope = round((taken[-1] - taken[0]) / (y[-1] - y[0])) if len(y) > 1 else 1
    found = []
    for stride in {1, min(max(slope, 1), _LARGEST)}:
        offset = taken - y * stride
        pad = max(-int(offset.min()), 0)
        found.append(RowWindow(stride, int(offset.max()) + pad + 1, pad))
    best = min(found, key=lambda w: (w.size, w.pad, w.stride))
    return best if max(best.size, best.pad) <= _LARGEST else None
