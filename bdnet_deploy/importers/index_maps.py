"""From an index map to the operators that move elements so.

Any chain of views, permutations, slices, repeats and paddings comes down to a table that says, for each element of the
result, which element of the source it is. :func:`operators` finds graph operators that do the same, whatever the chain
was written like: by one table per axis where there is one, by a list of digits (a transposition) otherwise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from bdnet_deploy.graph import (
    Array,
    DType,
    Flip,
    Gather,
    Op,
    Pad,
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
from bdnet_deploy.graph.ops.moving import map_shape

FILL = -1
_MAX_DIGITS = 6
_MAX_BLOCK = 8

Shape = tuple[int, ...]


def operators(index: Array, source: Shape, fill: float = 0.0) -> list[Op] | None:
    """Operators that make a map of ``index``'s shape from one of shape ``source``, or None where the graph has none.

    Args:
        index: (1, H, W, C) or (1, C); the source's element (row-major) that stands there, or :data:`FILL`.
        source: (1, H, W, C) or (1, C).
        fill: what stands where the index is :data:`FILL`.
    """
    target = index.shape
    if index.size == math.prod(source) and bool((index.ravel() == np.arange(index.size)).all()):
        return [] if target == source else [Reshape(target)]
    found: list[list[Op]] = []
    for from_shape, to_shape in itertools.product(_views(source), _views(target)):
        ops = _separable(index.reshape(to_shape), from_shape, fill)
        if ops is not None:
            found.append(_between(source, from_shape, ops, to_shape, target))
            if not any(isinstance(op, Transpose) for op in ops):
                break  # nothing is cheaper than moves along the axes
    else:
        if not (index == FILL).any() and (ops := _selected_and_permuted(index, source)) is not None:
            found.append(ops)
    return min(found, key=_cost, default=None)


def _cost(ops: list[Op]) -> int:
    """Passes over the map; a reshape mostly is none."""
    return sum(1 if isinstance(op, Reshape) else 8 for op in ops)


def run(ops: Sequence[Op], x: Array) -> Array:
    """What ``ops`` make of a map of integers."""
    for op in ops:
        type_ = op.infer([TensorType(x.shape, DType.F64)])
        x = op.reference([TensorType(x.shape, DType.F64)], [x], type_)
    return x


def _views(shape: Shape) -> Iterator[Shape]:
    """The map, and its pixels in one row and in one column."""
    height, width, channels = map_shape(shape)
    yield from dict.fromkeys(
        ((1, height, width, channels), (1, 1, height * width, channels), (1, height * width, 1, channels))
    )


def _between(source: Shape, first: Shape, ops: list[Op], last: Shape, target: Shape) -> list[Op]:
    before: list[Op] = [] if first == source else [Reshape(first)]
    after: list[Op] = [] if last == target else [Reshape(target)]
    if before and after and all(isinstance(op, _OF_CHANNELS) for op in ops):
        return [*ops, *after] if math.prod(source[:-1]) != math.prod(target[:-1]) or source[:-1] != target[:-1] else ops
    return [*before, *ops, *after]


_OF_CHANNELS = (Gather, Repeat, Shuffle)


# -- one table per axis -------------------------------------------------------------------------------------------------


def _separable(index: Array, source: Shape, fill: float) -> list[Op] | None:
    tables = _tables(index[0], source[1:])
    if tables is None:
        return None
    sizes = source[1:]
    padding = _padding(tables, sizes)
    if padding is None:
        return None
    pads, cores, mode = padding
    begin, end, strides = [0, 0, 0], list(sizes), [1, 1, 1]
    after: list[Op] = []
    factors, flips = [1, 1], []
    for axis, (core, size) in enumerate(zip(cores, sizes, strict=True)):
        if np.array_equal(core, np.arange(size)):
            continue
        steps = np.diff(core)
        if len(core) == 1 or ((steps == steps[0]).all() and steps[0] > 0):
            step = int(steps[0]) if len(core) > 1 else 1
            begin[axis], end[axis], strides[axis] = int(core[0]), int(core[-1]) + 1, step
        elif (steps == -1).all():
            begin[axis], end[axis] = int(core[-1]), int(core[0]) + 1
            flips.append(axis)
        elif axis < 2 and (repeated := _repeats(core)) is not None:
            first, last, factors[axis] = repeated
            begin[axis], end[axis] = first, last + 1
        elif axis == 2:
            after.append(_channels(core, size))
        else:
            there = (2, 1, 0) if axis == 0 else (0, 2, 1)
            after += [Transpose(there), _channels(core, size), Transpose(there)]
    ops: list[Op] = []
    if (tuple(begin), tuple(end), tuple(strides)) != ((0, 0, 0), tuple(sizes), (1, 1, 1)):
        ops.append(
            Slice((begin[0], begin[1], begin[2]), (end[0], end[1], end[2]), (strides[0], strides[1], strides[2]))
        )
    if flips:
        ops.append(Flip(tuple(flips)))
    if factors != [1, 1]:
        ops.append(Upsample((factors[0], factors[1])))
    ops += after
    if any(pads):
        ops.append(
            Pad((pads[0], pads[1], pads[2], pads[3], pads[4], pads[5]), mode, fill if mode == "constant" else 0.0)
        )
    return ops


def _tables(index: Array, sizes: Shape) -> tuple[Array, Array, Array] | None:
    """Rows, columns and channels (-1: fill) so that each element is the one at their crossing."""
    real = index != FILL
    kept = [real.any(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    if not np.array_equal(real, kept[0][:, None, None] & kept[1][:, None] & kept[2]) or not real.any():
        return None
    inner = index[np.ix_(*(np.flatnonzero(k) for k in kept))]
    parts = np.unravel_index(inner, sizes)
    tables = []
    for axis, (part, keep) in enumerate(zip(parts, kept, strict=True)):
        line = np.moveaxis(part, axis, 0).reshape(part.shape[axis], -1)
        if (line != line[:, :1]).any():
            return None
        table = np.full(len(keep), FILL)
        table[keep] = line[:, 0]
        tables.append(table)
    return tables[0], tables[1], tables[2]


def _padding(tables: Sequence[Array], sizes: Shape) -> tuple[list[int], list[Array], str] | None:
    """(top, bottom, left, right, front, back), the tables without it, and the mode; None where fill stands in between."""
    pads: list[int] = []
    cores = []
    if any((t == FILL).any() for t in tables):
        for table in tables:
            inside = np.flatnonzero(table != FILL)
            first, last = int(inside[0]), int(inside[-1])
            if len(inside) != last - first + 1:
                return None
            pads += [first, len(table) - 1 - last]
            cores.append(table[first : last + 1])
        return pads, cores, "constant"
    for mode in ("replicate", "reflect"):
        found = [_mirrored(t, size, mode) for t, size in zip(tables, sizes, strict=True)]
        if all(f is not None for f in found) and any(f != (0, 0) for f in found):
            return [p for f in found if f is not None for p in f], [np.arange(size) for size in sizes], mode
    return [0] * 6, list(tables), "constant"


def _mirrored(table: Array, size: int, mode: str) -> tuple[int, int] | None:
    """Elements before and behind if ``table`` is a whole axis padded in that mode."""
    start = np.flatnonzero(table == 0)
    if not len(start) or len(table) < size or (size == 1 and len(table) > 1):
        return None
    before = int(start[-1] if mode == "replicate" else start[0])
    if mode == "reflect" and len(start) > 1:
        before = next((int(s) for s in start if np.array_equal(table[s : s + size], np.arange(size))), before)
    after = len(table) - size - before
    if after < 0 or (mode == "reflect" and max(before, after) >= size):
        return None
    i = np.arange(-before, size + after)
    if mode == "replicate":
        expected = np.clip(i, 0, size - 1)
    else:
        expected = np.abs(i)
        expected = np.where(expected >= size, 2 * (size - 1) - expected, expected)
    return (before, after) if np.array_equal(table, expected) else None


def _repeats(core: Array) -> tuple[int, int, int] | None:
    """(first, last, times) if adjacent elements are each repeated so often."""
    first, last = int(core[0]), int(core[-1])
    count = last - first + 1
    if count < 1 or len(core) % count:
        return None
    times = len(core) // count
    return (first, last, times) if np.array_equal(core, np.repeat(np.arange(first, last + 1), times)) else None


def _channels(core: Array, size: int) -> Op:
    if len(core) % size == 0 and np.array_equal(core, np.tile(np.arange(size), len(core) // size)):
        return Repeat(len(core) // size)
    if len(core) == size:
        for groups in range(2, size):
            if size % groups == 0 and np.array_equal(core, np.arange(size).reshape(groups, -1).T.ravel()):
                return Shuffle(groups)
    return Gather(tuple(int(i) for i in core))


# -- other orders -------------------------------------------------------------------------------------------------------


def _selected_and_permuted(index: Array, source: Shape) -> list[Op] | None:
    """A selection of rows, columns and channels, all of whose elements come out in another order."""
    used = np.zeros(math.prod(source), np.bool_)
    used[index.ravel()] = True
    sizes = map_shape(source)
    kept = [np.flatnonzero(used.reshape(sizes).any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    count = math.prod(len(k) for k in kept)
    if count != used.sum() or count != index.size:
        return _with_copies(index, source)
    selected = np.full(used.shape, FILL)
    first = (1, *sizes)
    taken = np.arange(used.size).reshape(sizes)[np.ix_(*kept)]
    selected[taken.ravel()] = np.arange(count)
    ops = _separable(taken[None], first, 0.0)
    order = _permutation(selected[index], (1, *taken.shape))
    if ops is None or order is None:
        return None
    if order and isinstance(order[0], Reshape) and not ops:
        return order
    return [*([] if source == first else [Reshape(first)]), *ops, *order]


def _with_copies(index: Array, source: Shape) -> list[Op] | None:
    """Elements repeated along one axis of the result, behind an order of the others."""
    target = (1, *map_shape(index.shape))
    whole = index.reshape(target)
    for axis in (1, 2, 3):
        line = np.moveaxis(whole, axis, 0)
        period = next((p for p in range(1, len(line)) if len(line) % p == 0 and _tiled(line, p)), None)
        if period is None:
            continue
        once = np.moveaxis(line[:period], 0, axis)
        ops = operators(np.ascontiguousarray(once), source)
        again = np.arange(once.size).reshape(once.shape)
        tail = _separable(np.concatenate([again] * (len(line) // period), axis), once.shape, 0.0)
        if ops is not None and tail is not None:
            return [*ops, *tail, *([] if index.shape == target else [Reshape(index.shape)])]
    return None


def _tiled(line: Array, period: int) -> bool:
    parts = line.reshape(len(line) // period, period, *line.shape[1:])
    return bool((parts == parts[:1]).all())


def _permutation(index: Array, source: Shape) -> list[Op] | None:
    """A bijection by whole digits: reshapes and transpositions."""
    target = index.shape
    for op in _pixel_orders(source, target):
        made = run([op], np.arange(index.size, dtype=np.float64).reshape(source))
        if np.array_equal(made.astype(np.int64).ravel(), index.ravel()):
            return [op] if made.shape == target else [op, Reshape(target)]
    if index.size == math.prod(source) and bool((index.ravel() == np.arange(index.size)).all()):
        return [] if target == source else [Reshape(target)]
    digits = _digits(index.ravel())
    if digits is None or len(digits) > _MAX_DIGITS:
        return None
    # In the order of the source: the largest stride first.
    order = sorted(range(len(digits)), key=lambda i: -digits[i][1])
    expected = 1
    for i in reversed(order):
        if digits[i][1] != expected:
            return None
        expected *= digits[i][0]
    return _transposes([size for size, _ in digits], tuple(order), source, target)


def _pixel_orders(source: Shape, target: Shape) -> Iterator[Op]:
    if len(source) == 2 or len(target) == 2:
        return
    for block in range(2, _MAX_BLOCK + 1):
        for order in ("crd", "dcr"):
            if target[1:3] == (source[1] * block, source[2] * block) and source[3] % block**2 == 0:
                yield PixelShuffle(block, order)
            if source[1:3] == (target[1] * block, target[2] * block) and target[3] == source[3] * block**2:
                yield PixelUnshuffle(block, order)


def _digits(flat: Array) -> list[tuple[int, int]] | None:
    """(size, stride) of each digit of the position, outermost first, so that their sum is the index."""
    found: list[tuple[int, int]] = []
    block = 1
    while block < len(flat):
        stride = int(flat[block] - flat[0])
        starts = flat[::block]
        ramp = flat[0] + stride * np.arange(len(starts))
        wrong = np.flatnonzero(starts != ramp)
        count = int(wrong[0]) if len(wrong) else len(starts)
        while (len(flat) // block) % count:
            count -= 1
        if count < 2:
            return None
        found.append((count, stride))
        block *= count
    position = np.arange(len(flat))
    total = np.full(len(flat), flat[0])
    for size, stride in found:
        total = total + position % size * stride
        position = position // size
    return found[::-1] if np.array_equal(total, flat) and flat[0] == 0 else None


def _transposes(sizes: list[int], start: tuple[int, ...], source: Shape, target: Shape) -> list[Op] | None:
    """Transpositions of three groups of digits that sort ``start``, the fewest: breadth first."""
    goal = tuple(range(len(sizes)))
    paths: dict[tuple[int, ...], list[tuple[Shape, tuple[int, int, int]]]] = {start: []}
    frontier = [start]
    while frontier and goal not in paths:
        reached = []
        for state in frontier:
            for i, j in itertools.combinations(range(len(state) + 1), 2):
                groups = (state[:i], state[i:j], state[j:])
                shape = (1, *(math.prod(sizes[d] for d in g) for g in groups))
                for perm in ((1, 0, 2), (0, 2, 1), (2, 0, 1), (1, 2, 0), (2, 1, 0)):
                    after = tuple(itertools.chain.from_iterable(groups[p] for p in perm))
                    if after not in paths:
                        paths[after] = [*paths[state], (shape, perm)]
                        reached.append(after)
        frontier = reached
    if goal not in paths:
        return None
    ops: list[Op] = []
    shape = source
    for wanted, perm in paths[goal]:
        if shape != wanted:
            ops.append(Reshape(wanted))
        ops.append(Transpose(perm))
        shape = (1, *(wanted[1 + p] for p in perm))
    if shape != target:
        ops.append(Reshape(target))
    return ops
