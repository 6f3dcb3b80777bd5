"""Operators that move elements: on packed words where channels stay in their words, else on float32 numbers.

Numbers of a packed dtype are packed again only where a reader needs that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from bdnet_deploy.export.tflite.encoding import FLOAT, SHIFTS, Encoded
from bdnet_deploy.export.tflite.packing import WORD, words
from bdnet_deploy.graph import (
    Concat,
    DType,
    Flip,
    Node,
    Pad,
    PixelShuffle,
    PixelUnshuffle,
    Repeat,
    Reshape,
    Slice,
    Transpose,
)
from bdnet_deploy.graph.ops.moving import Move

if TYPE_CHECKING:
    from bdnet_deploy.export.tflite.lowering import Lowering

#: From a tensor and which plane of a packed value it is (None: numbers) to the moved tensor.
_Change = Callable[[int, int | None], int]


def _each(low: Lowering, node: Node, change: _Change, *, whole_words: bool) -> Encoded:
    """Apply ``change`` to the words of a packed value if that is possible, else to numbers."""
    x = node.inputs[0]
    encoded = Encoded(FLOAT, (low.f32(x),)) if x.is_constant else low.env[x]
    if encoded.encoding != FLOAT and whole_words:
        low.forms.add(node, "packed words")
        return Encoded(encoded.encoding, tuple(change(t, i) for i, t in enumerate(encoded.tensors)))
    if x.type.dtype.is_packed:
        low.forms.add(node, "float operators", note="unpacked: channels leave their words")
    return Encoded(FLOAT, (change(low.f32(x), None),))


def _channels_stay(node: Node) -> bool:
    """Whether the channels of the output are those of the input."""
    x = node.inputs[0].type
    assert isinstance(node.op, Move)
    return np.array_equal(node.op.tables(x)[2], np.arange(x.channels))


def _along_axes(low: Lowering, node: Node) -> Encoded:
    """Indices along each axis that are not the identity."""
    x = node.inputs[0].type
    assert isinstance(node.op, Move)
    tables = node.op.tables(x)
    if len(x.shape) == 2:
        tables = tables[2:]  # type: ignore[assignment]

    def change(tensor: int, plane: int | None) -> int:
        for axis, indices in enumerate(tables, start=1):
            if len(indices) != x.shape[axis] or not np.array_equal(indices, np.arange(x.shape[axis])):
                tensor = low.b.gather(tensor, indices, axis, f"{node.name}/moved")
        return tensor

    return _each(low, node, change, whole_words=_channels_stay(node))


def _slice(low: Lowering, node: Node) -> Encoded:
    op, x = node.op, node.inputs[0].type
    assert isinstance(op, Slice)
    first, last, step = op.begin[2], op.end[2], op.strides[2]
    whole_words = step == 1 and first % WORD == 0 and (last % WORD == 0 or last == x.channels)
    axes = slice(-(len(x.shape) - 1), None)

    def change(tensor: int, plane: int | None) -> int:
        begin = [0, *list(op.begin)[axes]]
        end = [1, *list(op.end)[axes]]
        strides = [1, *list(op.strides)[axes]]
        if plane is not None:
            begin[-1], end[-1], strides[-1] = first // WORD, words(last), 1
        return low.b.strided_slice(tensor, begin, end, strides, f"{node.name}/slice")

    return _each(low, node, change, whole_words=whole_words)


def _fill_word(value: float, dtype: DType, plane: int, channels: int) -> int | None:
    """The word of a padded pixel, if it is one for all words."""
    encoding = {DType.BIT: "bits", DType.UBIT: "ubits", DType.TRIT: "trits"}[dtype]
    if value + SHIFTS[encoding][plane] >= 0:
        return 0
    return -1 if channels % WORD == 0 else (1 << channels) - 1 if channels < WORD else None


def _pad(low: Lowering, node: Node) -> Encoded:
    op, x = node.op, node.inputs[0].type
    assert isinstance(op, Pad)
    if op.mode != "constant":
        return _along_axes(low, node)
    sides = [(0, 0), *zip(op.padding[::2], op.padding[1::2])][-len(x.shape) :]
    sides[0] = (0, 0)
    planes = range(x.dtype.planes)
    fills = [_fill_word(op.value, x.dtype, i, x.channels) for i in planes]

    def change(tensor: int, plane: int | None) -> int:
        value = op.value if plane is None else fills[plane]
        assert value is not None
        return low.b.pad_axes(tensor, sides, value, f"{node.name}/padded")

    return _each(low, node, change, whole_words=not any(op.padding[4:]) and None not in fills)


def _flip(low: Lowering, node: Node) -> Encoded:
    op, x = node.op, node.inputs[0].type
    assert isinstance(op, Flip)
    axes = {2: 1} if len(x.shape) == 2 else {0: 1, 1: 2, 2: 3}

    def change(tensor: int, plane: int | None) -> int:
        for axis in sorted(axes[a] for a in set(op.axes) if a in axes):
            index = low.constant("axis", np.array([axis], np.int32))
            output = low.b.like(tensor, low.b.shape(tensor), f"{node.name}/flipped")
            tensor = low.b.op("REVERSE_V2", (tensor, index), output)
        return tensor

    return _each(low, node, change, whole_words=2 not in op.axes)


def _transpose(low: Lowering, node: Node) -> Encoded:
    op = node.op
    assert isinstance(op, Transpose)
    if op.perm == (0, 1, 2):
        return low.env[node.inputs[0]]
    perm = [0, *(1 + axis for axis in op.perm)]
    return _each(
        low, node, lambda t, plane: low.b.transpose(t, perm, f"{node.name}/moved"), whole_words=op.perm[2] == 2
    )


def _reshape(low: Lowering, node: Node) -> Encoded:
    op, channels = node.op, node.inputs[0].type.channels
    assert isinstance(op, Reshape)
    if op.shape == node.inputs[0].type.shape:
        return low.env[node.inputs[0]]

    def change(tensor: int, plane: int | None) -> int:
        shape = op.shape if plane is None else (*op.shape[:-1], words(op.shape[-1]))
        return low.b.reshape(tensor, shape, f"{node.name}/reshaped")

    whole_words = op.shape[-1] == channels or (op.shape[-1] % WORD == 0 and channels % WORD == 0)
    return _each(low, node, change, whole_words=whole_words)


def _pixel_shuffle(low: Lowering, node: Node) -> Encoded:
    """TensorFlow's order of channels is "dcr"; they are brought into it for "crd"."""
    op = node.op
    assert isinstance(op, PixelShuffle | PixelUnshuffle)
    if op.block == 1:
        return low.env[node.inputs[0]]
    unshuffle = isinstance(op, PixelUnshuffle)
    wide = node.output.type.channels if unshuffle else node.inputs[0].type.channels
    order = np.arange(wide).reshape(-1, op.block**2).T.ravel()  # of channels c * area + i: those of i * C + c
    if unshuffle:
        order = np.argsort(order)

    def change(tensor: int, plane: int | None) -> int:
        if op.order == "crd" and not unshuffle:
            tensor = low.b.gather(tensor, order, 3, f"{node.name}/ordered")
        operator = "SPACE_TO_DEPTH" if unshuffle else "DEPTH_TO_SPACE"
        output = low.b.like(tensor, node.output.type.shape, f"{node.name}/blocks")
        tensor = low.b.op(operator, (tensor,), output, block_size=op.block)
        if op.order == "crd" and unshuffle:
            tensor = low.b.gather(tensor, order, 3, f"{node.name}/ordered")
        return tensor

    return _each(low, node, change, whole_words=False)


def _repeat(low: Lowering, node: Node) -> Encoded:
    op = node.op
    assert isinstance(op, Repeat)
    if op.times == 1:
        return low.env[node.inputs[0]]
    return _each(
        low,
        node,
        lambda t, plane: low.b.concatenate([t] * op.times, f"{node.name}/repeated"),
        whole_words=node.inputs[0].type.channels % WORD == 0,
    )


def _concat(low: Lowering, node: Node) -> Encoded:
    assert isinstance(node.op, Concat)
    encodings = {FLOAT if v.is_constant else low.env[v].encoding for v in node.inputs}
    aligned = all(v.type.channels % WORD == 0 for v in node.inputs[:-1])
    if len(encodings) == 1 and FLOAT not in encodings and aligned:
        low.forms.add(node, "packed words")
        planes = zip(*(low.env[v].tensors for v in node.inputs), strict=True)
        joined = tuple(low.b.concatenate(items, f"{node.name}/joined") for items in planes)
        return Encoded(encodings.pop(), joined)
    if node.output.type.dtype.is_packed:
        low.forms.add(node, "float operators", note="unpacked: channels leave their words")
    return Encoded(FLOAT, (low.b.concatenate([low.f32(v) for v in node.inputs], f"{node.name}/joined"),))


EMIT: dict[str, Callable[[Any, Node], Encoded]] = {
    "concat": _concat,
    "flip": _flip,
    "gather": _along_axes,
    "pad": _pad,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_shuffle,
    "repeat": _repeat,
    "reshape": _reshape,
    "shuffle": _along_axes,
    "slice": _slice,
    "transpose": _transpose,
    "upsample": _along_axes,
}
