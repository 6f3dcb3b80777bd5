"""Operators that move elements and change none; of every element type."""

from __future__ import annotations

import numpy as np

from bdnet_deploy.tflite_reference.calls import Array, Call, Kernel, zero_point


def _ints(call: Call, index: int) -> list[int]:
    return [int(v) for v in np.atleast_1d(call.value(index)).ravel()]


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} of {rank}")
    return axis % rank


def _as_declared(call: Call) -> list[Array]:
    """The elements in the output's own shape."""
    x = call.value(0)
    return [x.reshape(call.out.shape)]


def _concatenation(call: Call) -> list[Array]:
    parts = [call.value(i) for i in range(len(call.values))]
    joined = np.concatenate(parts, _axis(call.option("axis"), parts[0].ndim))
    return [call.activated(joined) if call.is_float else joined]


def _pad(call: Call) -> list[Array]:
    x, amounts = call.value(0), np.asarray(call.value(1)).reshape(-1, 2)
    if len(amounts) != x.ndim or (amounts < 0).any():
        raise ValueError("amounts of padding that do not fit the map")
    if tuple(s + int(a) + int(b) for s, (a, b) in zip(x.shape, amounts)) != call.out.shape:
        raise ValueError("the padded map is not of its tensor's shape")
    fill = call.value(2).ravel()[0] if call.has(2) else (zero_point(call.ins[0]) if call.is_int8 else 0)
    return [np.pad(x, amounts.astype(int), constant_values=fill)]


def _mirror_pad(call: Call) -> list[Array]:
    x, amounts = call.value(0), np.asarray(call.value(1)).reshape(-1, 2).astype(int)
    if tuple(s + int(a) + int(b) for s, (a, b) in zip(x.shape, amounts)) != call.out.shape:
        raise ValueError("the padded map is not of its tensor's shape")
    return [np.pad(x, amounts, mode="symmetric" if call.option("mode") else "reflect")]


def _slice(call: Call) -> list[Array]:
    x, begins, sizes = call.value(0), _ints(call, 1), _ints(call, 2)
    if not len(begins) == len(sizes) == x.ndim or min(begins) < 0:
        raise ValueError("begins and sizes that do not fit the map")
    return [x[tuple(slice(b, n if s < 0 else b + s) for b, s, n in zip(begins, sizes, x.shape))]]


def _strided_slice(call: Call) -> list[Array]:
    x, begins, ends, strides = call.value(0), _ints(call, 1), _ints(call, 2), _ints(call, 3)
    if call.option("ellipsis_mask") or call.option("new_axis_mask") or call.option("offset"):
        raise call.unsupported("an ellipsis, a new axis or relative ends")
    masks = {name: call.option(f"{name}_mask") for name in ("begin", "end", "shrink_axis")}
    index: list[slice | int] = []
    for i, (begin, end, stride) in enumerate(zip(begins, ends, strides, strict=True)):
        if masks["shrink_axis"] >> i & 1:
            index.append(begin)
            continue
        first = None if masks["begin"] >> i & 1 else begin
        # numpy takes an end of -1 - n to mean "beyond the first element" as TensorFlow Lite does.
        last = None if masks["end"] >> i & 1 else end
        index.append(slice(first, last, stride))
    return [x[tuple(index)]]


def _gather(call: Call) -> list[Array]:
    x, axis = call.value(0), _axis(call.option("axis"), call.value(0).ndim)
    if call.option("batch_dims"):
        raise call.unsupported("batch dimensions")
    return [np.take(x, call.value(1).astype(np.int64), axis)]


def _transpose(call: Call) -> list[Array]:
    return [call.value(0).transpose(_ints(call, 1))]


def _tile(call: Call) -> list[Array]:
    x, times = call.value(0), _ints(call, 1)
    if tuple(s * t for s, t in zip(x.shape, times, strict=True)) != call.out.shape:
        raise ValueError("the repeated map is not of its tensor's shape")
    return [np.tile(x, times)]


def _broadcast_to(call: Call) -> list[Array]:
    return [np.broadcast_to(call.value(0), call.out.shape)]


def _split(call: Call) -> list[Array]:
    x, axis = call.value(1), _axis(_ints(call, 0)[0], call.value(1).ndim)
    return list(np.split(x, len(call.outs), axis))


def _split_v(call: Call) -> list[Array]:
    x, axis, sizes = call.value(0), _axis(_ints(call, 2)[0], call.value(0).ndim), _ints(call, 1)
    if sum(s < 0 for s in sizes) == 1:
        rest = x.shape[axis] - sum(s for s in sizes if s >= 0)
        sizes = [rest if s < 0 else s for s in sizes]
    if sum(sizes) != x.shape[axis] or min(sizes) < 0:
        raise ValueError("the parts are not the whole")
    return list(np.split(x, np.cumsum(sizes)[:-1], axis))


def _pack(call: Call) -> list[Array]:
    parts = [call.value(i) for i in range(len(call.values))]
    return [np.stack(parts, _axis(call.option("axis"), parts[0].ndim + 1))]


def _unpack(call: Call) -> list[Array]:
    x = call.value(0)
    axis = _axis(call.option("axis"), x.ndim)
    if x.shape[axis] != len(call.outs):
        raise ValueError("as many outputs as elements on the axis are expected")
    return [np.take(x, i, axis) for i in range(x.shape[axis])]


def _reverse(call: Call) -> list[Array]:
    x = call.value(0)
    return [np.flip(x, tuple(_axis(a, x.ndim) for a in _ints(call, 1)))]


def _depth_to_space(call: Call) -> list[Array]:
    x, b = call.value(0), call.option("block_size")
    n, h, w, c = x.shape
    cells = x.reshape(n, h, w, b, b, c // (b * b)).transpose(0, 1, 3, 2, 4, 5)
    return [cells.reshape(n, h * b, w * b, -1)]


def _space_to_depth(call: Call) -> list[Array]:
    x, b = call.value(0), call.option("block_size")
    n, h, w, c = x.shape
    cells = x.reshape(n, h // b, b, w // b, b, c).transpose(0, 1, 3, 2, 4, 5)
    return [cells.reshape(n, h // b, w // b, -1)]


def _resize_nearest(call: Call) -> list[Array]:
    x, target = call.value(0), _ints(call, 1)
    if (x.shape[0], *target, x.shape[3]) != call.out.shape:
        raise ValueError("the enlarged map is not of its tensor's shape")
    align, half = bool(call.option("align_corners")), bool(call.option("half_pixel_centers"))
    for axis, (size, new) in enumerate(zip(x.shape[1:3], target), 1):
        ratio = np.float32((size - 1) / (new - 1)) if align and new > 1 else np.float32(size / new)
        places = (np.arange(new, dtype=np.float32) + np.float32(0.5 if half else 0)) * ratio
        index = np.floor(places + np.float32(0.5)) if align else np.floor(places)
        x = np.take(x, np.clip(index.astype(np.int64), 0, size - 1), axis)
    return [x]


KERNELS: dict[str, Kernel] = {
    "BROADCAST_TO": _broadcast_to,
    "CONCATENATION": _concatenation,
    "DEPTH_TO_SPACE": _depth_to_space,
    "EXPAND_DIMS": _as_declared,
    "GATHER": _gather,
    "MIRROR_PAD": _mirror_pad,
    "PACK": _pack,
    "PAD": _pad,
    "PADV2": _pad,
    "RESHAPE": _as_declared,
    "RESIZE_NEAREST_NEIGHBOR": _resize_nearest,
    "REVERSE_V2": _reverse,
    "SLICE": _slice,
    "SPACE_TO_DEPTH": _space_to_depth,
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "SQUEEZE": _as_declared,
    "STRIDED_SLICE": _strided_slice,
    "TILE": _tile,
    "TRANSPOSE": _transpose,
    "UNPACK": _unpack,
}
