"""Operators that only move elements, pad and join."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bdnet_deploy.bitplanes import WORD, words
from bdnet_deploy.export.tflite.schema import TensorKind
from bdnet_deploy.graph import Array, Concat, Pad, Transpose, Value
from bdnet_deploy.importers.tflite.entries import NO_PADDING, Entry, constant, graph_shape
from bdnet_deploy.importers.tflite.source import Operation, scale_of
from bdnet_deploy.importers.tflite.translator import MAX_INDEX, Translator, declared_shape, rule

_MAX_PARTS = 1024


# -- shapes -----------------------------------------------------------------------------------------------------------


@rule("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
def reshape(t: Translator, op: Operation) -> None:
    x = t.entry(op, 0)
    shape = declared_shape(op.output(), op.where)
    if x.packed:
        shape = _unpacked(op, x, shape)
    if int(np.prod(shape)) != int(np.prod(x.shape)):
        raise op.damaged(f"it makes {shape} of {x.shape}")
    if x.data is not None:
        t.define(op, constant(x.data.reshape(shape)))
        return
    if x.padding != NO_PADDING:
        x = t.settled(op, x)
    t.define(op, x.with_shape(shape))


def _unpacked(op: Operation, x: Entry, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the bits for a shape of their words."""
    if shape[-1] == words(x.channels):
        return (*shape[:-1], x.channels)
    if x.channels % WORD:
        raise op.refuse(f"it joins words of {x.channels} channels, which are not full")
    return (*shape[:-1], shape[-1] * WORD)


# -- orders -----------------------------------------------------------------------------------------------------------


def _reorder(t: Translator, op: Operation, i: int, order: Callable[[Array], Array], k: int = 0) -> None:
    """Output ``k`` is input ``i`` with its elements moved as ``order`` moves an array."""
    x = t.entry(op, i)
    if x.packed:
        raise op.refuse("its input is packed bits")
    size = int(np.prod(x.shape))
    if size > MAX_INDEX:
        raise op.refuse(f"it moves {size} elements; at most {MAX_INDEX} are possible")
    t.moved(op, x, np.ascontiguousarray(order(np.arange(size).reshape(x.shape))), k)


@rule("TRANSPOSE")
def transpose(t: Translator, op: Operation) -> None:
    axes = op.numbers(1)
    if sorted(axes) != list(range(len(t.entry(op, 0).shape))):
        raise op.damaged(f"it orders the axes {axes}")
    _reorder(t, op, 0, lambda x: x.transpose(axes))


@rule("STRIDED_SLICE")
def strided_slice(t: Translator, op: Operation) -> None:
    shape = t.entry(op, 0).shape
    begin, end, strides = (op.numbers(i) for i in (1, 2, 3))
    if op.option("ellipsis_mask") or op.option("new_axis_mask") or op.option("offset"):
        raise op.refuse("it has an ellipsis, new axes or an offset")
    if not len(begin) == len(end) == len(strides) <= len(shape) or 0 in strides:
        raise op.damaged(f"slices {begin}, {end}, {strides} of a tensor of shape {shape}")
    picks: list[slice | int] = []
    for axis, (first, last, stride) in enumerate(zip(begin, end, strides)):
        bit = 1 << axis
        if op.option("shrink_axis_mask") & bit:
            picks.append(first)
        else:
            low = None if op.option("begin_mask") & bit else first
            picks.append(slice(low, None if op.option("end_mask") & bit else last, stride))
    _reorder(t, op, 0, lambda x: x[tuple(picks)])


@rule("SLICE")
def slice_(t: Translator, op: Operation) -> None:
    shape = t.entry(op, 0).shape
    begin, size = op.numbers(1), op.numbers(2)
    if len(begin) != len(shape) or len(size) != len(shape) or min(begin, default=0) < 0:
        raise op.damaged(f"a slice {begin}, {size} of a tensor of shape {shape}")
    picks = tuple(slice(b, None if s == -1 else b + s) for b, s in zip(begin, size))
    _reorder(t, op, 0, lambda x: x[picks])


@rule("SPLIT", "SPLIT_V", "UNPACK")
def split(t: Translator, op: Operation) -> None:
    data = 1 if op.kind == "SPLIT" else 0
    shape, outputs = t.entry(op, data).shape, len(op.operator.outputs)
    if op.kind == "UNPACK":
        axis, sizes = int(op.option("axis")), [1] * outputs
    elif op.kind == "SPLIT":
        axis = op.numbers(0)[0]
        axis = axis if -len(shape) <= axis < len(shape) else 0
        sizes = [shape[axis] // max(outputs, 1)] * outputs
    else:
        axis, sizes = op.numbers(2)[0], op.numbers(1)
    if not -len(shape) <= axis < len(shape) or outputs > _MAX_PARTS:
        raise op.damaged(f"it splits axis {axis} of a tensor of shape {shape} into {outputs}")
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = shape[axis] - sum(sizes) - 1
    if len(sizes) != outputs or min(sizes) < 1 or sum(sizes) != shape[axis]:
        raise op.damaged(f"parts of {sizes} of a tensor of shape {shape}")
    first = 0
    for k, size in enumerate(sizes):
        indices = np.arange(first, first + size)
        first += size
        if op.kind == "UNPACK":
            _reorder(t, op, data, lambda x, at=int(indices[0]): x.take(at, axis), k)  # type: ignore[misc]
        else:
            _reorder(t, op, data, lambda x, at=indices: x.take(at, axis), k)  # type: ignore[misc]


@rule("GATHER")
def gather(t: Translator, op: Operation) -> None:
    shape, axis = t.entry(op, 0).shape, int(op.option("axis"))
    indices = op.numbers(1)
    if op.option("batch_dims") or len(op.tensor(1).shape) > 1:
        raise op.refuse("its indices are no simple list")
    if not -len(shape) <= axis < len(shape) or any(not 0 <= i < shape[axis] for i in indices):
        raise op.damaged(f"it gathers {indices[:8]} along axis {axis} of a tensor of shape {shape}")
    one = len(op.tensor(1).shape) == 0
    _reorder(t, op, 0, lambda x: x.take(indices[0] if one else indices, axis))


@rule("TILE")
def tile(t: Translator, op: Operation) -> None:
    x, times = t.entry(op, 0), op.numbers(1)
    expected = tuple(a * b for a, b in zip(x.shape, times))
    if len(times) != len(x.shape) or expected != declared_shape(op.output(), op.where):
        raise op.damaged(f"it repeats a tensor of shape {x.shape} {times} times")
    _reorder(t, op, 0, lambda a: np.tile(a, times))


@rule("REVERSE_V2")
def reverse(t: Translator, op: Operation) -> None:
    axes, rank = op.numbers(1), len(t.entry(op, 0).shape)
    if any(not -rank <= a < rank for a in axes):
        raise op.damaged(f"it reverses the axes {axes}")
    _reorder(t, op, 0, lambda x: np.flip(x, axes))


@rule("SPACE_TO_DEPTH", "DEPTH_TO_SPACE")
def blocks(t: Translator, op: Operation) -> None:
    b, x = op.positive(int(op.option("block_size")), "block"), t.image(op, 0)
    _, h, w, c = x.shape
    if op.kind == "SPACE_TO_DEPTH":
        if h % b or w % b:
            raise op.damaged(f"blocks of {b} of a map of {h}x{w}")
        _reorder(
            t, op, 0,
            lambda a: a.reshape(h // b, b, w // b, b, c).transpose(0, 2, 1, 3, 4).reshape(1, h // b, w // b, b * b * c),
        )  # fmt: skip
        return
    if c % (b * b):
        raise op.damaged(f"blocks of {b} of {c} channels")
    _reorder(
        t, op, 0,
        lambda a: a.reshape(h, w, b, b, c // b**2).transpose(0, 2, 1, 3, 4).reshape(1, h * b, w * b, c // b**2),
    )  # fmt: skip


@rule("RESIZE_NEAREST_NEIGHBOR")
def resize(t: Translator, op: Operation) -> None:
    x, size = t.image(op, 0), op.numbers(1)
    shape = declared_shape(op.output(), op.where)
    if len(size) != 2 or tuple(size) != shape[1:3]:
        raise op.damaged(f"it makes {size} of a map of shape {x.shape}")
    factors = [new // old for new, old in zip(size, x.shape[1:3])]
    if op.option("align_corners") or any(f * old != new for f, old, new in zip(factors, x.shape[1:3], size)):
        raise op.refuse("it enlarges by no whole number", fix="use UpSampling2D with whole factors")
    _reorder(t, op, 0, lambda a: a.repeat(factors[0], 1).repeat(factors[1], 2))


# -- padding ----------------------------------------------------------------------------------------------------------


@rule("PAD", "PADV2")
def pad(t: Translator, op: Operation) -> None:
    x = t.entry(op, 0)
    if x.data is not None:
        raise op.refuse("it pads a constant", fix="convert the model with constants folded")
    amounts = np.array(op.numbers(1)).reshape(-1, 2)
    if len(amounts) != len(x.shape) or amounts.min() < 0:
        raise op.damaged(f"it pads a tensor of shape {x.shape} by {amounts.tolist()}")
    declared = declared_shape(op.output(), op.where)
    before = (*x.shape[:-1], words(x.channels)) if x.packed else x.shape
    if tuple(int(s + a.sum()) for s, a in zip(before, amounts)) != declared:
        raise op.damaged(f"it pads a tensor of shape {x.shape} by {amounts.tolist()} to {declared}")
    if not amounts.any():
        t.define(op, x)
        return
    fill = _packed_fill(op, x) if x.packed else _fill(t, op)
    (first, *_), shape = amounts, tuple(int(s + a.sum()) for s, a in zip(x.shape, amounts))
    if first.any() and len(x.shape) > 1:
        raise op.refuse("it pads the batch")
    if len(x.shape) == 4 and not amounts[3].any():
        x = x if x.padding == NO_PADDING or x.fill == fill else t.settled(op, x)
        if x.index is not None:
            x = t.settled(op, x)
        sides = [int(a) for a in amounts[1:3].ravel()]
        top, bottom, left, right = (a + b for a, b in zip(x.padding, sides, strict=True))
        t.define(op, replace(x, shape=shape, padding=(top, bottom, left, right), fill=fill))
        return
    if x.packed:
        raise op.refuse("it pads the channels of packed bits")
    value = t.real(op, x)
    # Axes of the file's tensor as rows, columns and channels of the graph's.
    sides = [0] * (6 - 2 * min(len(amounts), 3)) + [int(a) for a in amounts[-3:].ravel()]
    if len(amounts) in (2, 3):
        sides[-2 * len(amounts) : -2 * len(amounts) + 2] = [0, 0]
    t.define(op, Entry(shape, t.add(Pad(tuple(sides), value=fill), [value], op)))  # type: ignore[arg-type]


def _fill(t: Translator, op: Operation) -> float:
    if op.kind == "PAD" or not op.has(2):
        return 0.0
    data = t.constants(op, 2)
    if data.size != 1:
        raise op.damaged(f"{data.size} values to pad with")
    return float(data.ravel()[0])


def _packed_fill(op: Operation, x: Entry) -> float:
    """What a word beside the map's is in all of its channels: +1 or -1."""
    word = op.numbers(2)[0] if op.kind == "PADV2" and op.has(2) else 0
    if word == 0:
        return 1.0
    if (x.channels % WORD == 0 and word == -1) or (x.channels < WORD and word == (1 << x.channels) - 1):
        return -1.0
    raise op.refuse(f"it pads words of {x.channels} channels with {word:#x}")


# -- joining ----------------------------------------------------------------------------------------------------------


@rule("CONCATENATION", "PACK")
def concatenation(t: Translator, op: Operation) -> None:
    inputs = [t.entry(op, i) for i in range(len(op.operator.inputs))]
    if not inputs or len(inputs) > _MAX_PARTS:
        raise op.damaged(f"it joins {len(inputs)} tensors")
    rank = len(inputs[0].shape) + (op.kind == "PACK")
    axis = int(op.option("axis"))
    if not -rank <= axis < rank or any(e.packed != inputs[0].packed for e in inputs):
        raise op.damaged(f"it joins axis {axis} of {[e.shape for e in inputs]}")
    axis %= rank
    if op.kind == "PACK":
        inputs = [e.with_shape((*e.shape[:axis], 1, *e.shape[axis:])) if e.data is None else e for e in inputs]
        if any(e.data is not None for e in inputs):
            raise op.refuse("it stacks constants")
    inputs = [t.settled(op, e) if e.padding != NO_PADDING else e for e in inputs]
    if inputs[0].packed and axis == rank - 1 and any(e.channels % WORD for e in inputs[:-1]):
        raise op.refuse("it joins words that are not full")
    if all(e.data is not None for e in inputs):
        t.define(op, constant(np.concatenate([e.data for e in inputs if e.data is not None], axis)))
        return
    shape = _joined_shape(op, inputs, axis)
    one = inputs[0].value is not None and all(e.value is inputs[0].value for e in inputs)
    plain = not op.operator.options.get("activation", 0)
    if one and plain and len({e.factor for e in inputs}) == 1 and int(np.prod(shape)) <= MAX_INDEX:
        order = np.concatenate([e.order() for e in inputs], axis)
        t.define(op, inputs[0].in_order(order))
        return
    _join(t, op, inputs, axis, shape)


def _joined_shape(op: Operation, inputs: list[Entry], axis: int) -> tuple[int, ...]:
    shape = list(inputs[0].shape)
    others = [(*e.shape[:axis], *e.shape[axis + 1 :]) for e in inputs]
    if any(len(e.shape) != len(shape) for e in inputs) or len(set(others)) != 1:
        raise op.damaged(f"it joins axis {axis} of {[e.shape for e in inputs]}")
    shape[axis] = sum(e.shape[axis] for e in inputs)
    return tuple(shape)


def _join(t: Translator, op: Operation, inputs: list[Entry], axis: int, shape: tuple[int, ...]) -> None:
    activation = op.operator.options.get("activation", 0)
    factors = {e.factor for e in inputs}
    bits = all(e.is_bits for e in inputs) and len(factors) == 1 and not activation
    parts: list[Value | float] = []
    for e in inputs:
        if e.data is None:
            parts.append(t.ordered(op, e) if bits else t.real(op, e))
        elif (e.data == e.data.ravel()[0]).all():
            parts.append(float(e.data.ravel()[0]))
        else:
            raise op.refuse("it joins a map and a constant that is not one number")
    place = 3 - (len(shape) - 1 - axis)
    joined = _joined(t, op, parts, inputs, axis, 3 if axis == len(shape) - 1 else place)
    if graph_shape(shape) != joined.type.shape:
        raise op.refuse(f"it joins axis {axis} of tensors of shape {inputs[0].shape}")
    if bits:
        t.define(op, Entry(shape, joined, factor=inputs[0].factor, packed=inputs[0].packed))
    elif activation or not _same_scales(op):
        t.computed(op, t.activated(op, joined, activation), shape=shape)
    else:
        t.define(op, Entry(shape, joined))


def _joined(
    t: Translator, op: Operation, parts: list[Value | float], inputs: list[Entry], axis: int, place: int
) -> Value:
    """The parts one behind the other along axis ``place`` of (1, H, W, C); numbers become padding."""
    perm = {1: (2, 1, 0), 2: (0, 2, 1)}.get(place)
    if not 1 <= place <= 3 or (perm and any(not isinstance(p, float) and len(p.type.shape) != 4 for p in parts)):
        raise op.refuse(f"it joins axis {axis} of tensors of shape {inputs[0].shape}")
    joined: Value | None = None
    waiting: list[tuple[int, float]] = []
    run: list[Value] = []

    def pad(value: Value, front: int, back: int, fill: float) -> Value:
        return t.add(Pad((0, 0, 0, 0, front, back), value=fill), [value], op, f"{op.name}.pad")

    def flush() -> Value | None:
        return t.add(Concat(), run, op, f"{op.name}.joined") if len(run) > 1 else run[0] if run else None

    for entry, part in zip(inputs, parts, strict=True):
        if isinstance(part, float):
            joined = flush()
            if joined is None:
                waiting.insert(0, (entry.shape[axis], part))
            else:
                run = [pad(joined, 0, entry.shape[axis], part)]
            continue
        value = t.add(Transpose(perm), [part], op, f"{op.name}.turned") if perm else part
        for size, fill in waiting:
            value = pad(value, size, 0, fill)
        waiting = []
        run.append(value)
    joined = flush()
    assert joined is not None
    return t.add(Transpose(perm), [joined], op) if perm else joined


def _same_scales(op: Operation) -> bool:
    """Whether the integers of all tensors stand for the same numbers, so that nothing is limited."""
    out = scale_of(op, op.output()) if op.output().kind is not TensorKind.INT32 else None
    for i in range(len(op.operator.inputs)):
        tensor = op.tensor(i)
        if out is not None and scale_of(op, tensor) != out:
            return False
    return True
