"""Which graph operators put the elements of a map into a given order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bdnet_deploy.graph import (
    Array,
    DType,
    Flip,
    Gather,
    GraphError,
    Op,
    PixelShuffle,
    PixelUnshuffle,
    Repeat,
    Reshape,
    Shuffle,
    Slice,
    TensorType,
    Transpose,
    Upsample,
)

#: Sides of the blocks of pixels that are looked for.
_BLOCKS = range(2, 9)


def operators(shape: tuple[int, ...], index: Array) -> list[Op] | None:
    """Operators that make a map (1, H, W, C) or vector (1, C) with the elements ``index`` of one of ``shape``.

    None if there are none. ``index`` has such a shape itself.
    """
    x = TensorType(shape, DType.F64)
    identity = np.arange(x.size).reshape(shape)
    if index.size == x.size and np.array_equal(index.ravel(), identity.ravel()):
        return [] if index.shape == shape else [Reshape(index.shape)]
    for reshaped in _shapes(shape, index):
        before: list[Op] = [] if reshaped == shape else [Reshape(reshaped)]
        found = _of_map(reshaped, index)
        if found is not None:
            return before + found
    return None


def _shapes(shape: tuple[int, ...], index: Array) -> Iterator[tuple[int, ...]]:
    """The map's own shape, then others that its elements could have been given before they were moved."""
    size = int(np.prod(shape))
    yield shape
    others = [(1, 1, 1, size)]
    if len(shape) == 4:
        others.append((1, 1, shape[1] * shape[2], shape[3]))
    if len(index.shape) == 4 and size % int(np.prod(index.shape[:3])) == 0:
        others.append((*index.shape[:3], size // int(np.prod(index.shape[:3]))))
    for other in dict.fromkeys(others):
        if other != shape:
            yield other


def _of_map(shape: tuple[int, ...], index: Array) -> list[Op] | None:
    tail: list[Op] = [] if len(index.shape) == len(shape) else [Reshape(index.shape)]
    target = index.reshape(index.shape if len(index.shape) == 4 else (1, 1, 1, index.shape[-1]))
    source = shape if len(shape) == 4 else (1, 1, 1, shape[-1])
    moves = _tables(source, target)
    if moves is not None:
        return moves + tail
    if len(shape) == 2:
        return None
    x = TensorType(shape, DType.F64)
    identity = np.arange(x.size).reshape(shape)
    for op in _permutations():
        try:
            out = op.infer([x])
        except GraphError:
            continue
        if out.shape != target.shape:
            continue
        if np.array_equal(op.reference([x], [identity], out), target):
            return [op, *tail]
    return None


def _permutations() -> Iterator[Op]:
    for perm in ((1, 0, 2), (2, 0, 1), (0, 2, 1), (1, 2, 0), (2, 1, 0)):
        yield Transpose(perm)
    for block in _BLOCKS:
        for order in ("dcr", "crd"):
            yield PixelShuffle(block, order)
            yield PixelUnshuffle(block, order)


def _tables(shape: tuple[int, ...], index: Array) -> list[Op] | None:
    """Operators of one index table per axis."""
    _, _, width, channels = shape
    rows, columns, places = index // (width * channels), index // channels % width, index % channels
    tables = [rows[0, :, 0, 0], columns[0, 0, :, 0], places[0, 0, 0, :]]
    whole = (tables[0][:, None, None] * width + tables[1][:, None]) * channels + tables[2]
    if not np.array_equal(whole, index[0]):
        return None
    ops: list[Op] = []
    sliced = [_slice(table, size) for table, size in zip(tables, shape[1:], strict=True)]
    begin, end, stride = [0, 0, 0], list(shape[1:]), [1, 1, 1]
    flips = []
    factors = [1, 1]
    for axis, (table, regular) in enumerate(zip(tables, sliced, strict=True)):
        if regular is not None:
            begin[axis], end[axis], stride[axis], flipped = regular
            flips += [axis] if flipped else []
        elif axis < 2:
            factors[axis] = len(table) // shape[1 + axis]
            if not np.array_equal(table, np.arange(len(table)) // max(factors[axis], 1)) or factors[axis] < 1:
                return None
    if (begin, end, stride) != ([0, 0, 0], list(shape[1:]), [1, 1, 1]):
        ops.append(Slice(tuple(begin), tuple(end), tuple(stride)))  # type: ignore[arg-type]
    if factors != [1, 1]:
        ops.append(Upsample((factors[0], factors[1])))
    if flips:
        ops.append(Flip(tuple(flips)))
    if sliced[2] is None:
        ops.append(_channels(tables[2], channels))
    return ops


def _slice(table: Array, size: int) -> tuple[int, int, int, bool] | None:
    """(begin, end, stride, whether it then runs backwards) of a regular table."""
    steps = np.diff(table)
    if len(table) == 1:
        return int(table[0]), int(table[0]) + 1, 1, False
    stride = int(steps[0])
    if stride == 0 or not (steps == stride).all():
        return None
    if len(table) == size:
        return 0, size, 1, stride < 0
    first, last = int(min(table[0], table[-1])), int(max(table[0], table[-1]))
    return first, last + 1, abs(stride), stride < 0


def _channels(table: Array, channels: int) -> Op:
    times, rest = divmod(len(table), channels)
    if rest == 0 and times > 1 and np.array_equal(table, np.tile(np.arange(channels), times)):
        return Repeat(times)
    if rest == 0 and times == 1:
        place = int(table[1])  # y[j * groups + i] = x[i * (C / groups) + j]
        if place > 1 and channels % place == 0:
            groups = channels // place
            i = np.arange(channels)
            if np.array_equal(table, (i % groups) * place + i // groups):
                return Shuffle(groups)
    return Gather(tuple(int(c) for c in table))
