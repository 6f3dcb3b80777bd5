"""A value of the graph with what is still to be done to it: layout, levels' scale and offset, and padding."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.graph import Affine, Array, Concat, DType, Graph, Op, Pad, Reshape, Transpose, Value
from bdnet_deploy.importers.index_maps import FILL, operators, run
from bdnet_deploy.importers.torch.layout import Layout, from_graph, to_graph


@dataclass(frozen=True, eq=False)
class Emitted:
    """The real tensor is ``value * mul + add`` per channel (C,), then padded on each side with ``pad_value``.

    ``layout`` says which axis of the tensor the channel is. A quantizer leaves its levels in ``value`` (bit, ubit or
    trit) and their scale here, so that a convolution can move the scale behind itself; everything else calls
    :func:`real` first.
    """

    value: Value
    mul: Array | None = None
    add: Array | None = None
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, bottom, left, right
    pad_value: float = 0.0
    tie: bool = False  # a ternary value only because sign(0) = 0
    layout: Layout = Layout.FIRST

    @property
    def packed(self) -> bool:
        return self.value.type.dtype.is_packed

    @property
    def padded(self) -> bool:
        return any(self.padding)

    def scale(self) -> Array:
        return np.ones(self.value.type.channels) if self.mul is None else self.mul

    def offset(self) -> Array:
        return np.zeros(self.value.type.channels) if self.add is None else self.add


def unpadded(graph: Graph, emitted: Emitted, reader: str) -> Emitted:
    """``emitted`` without pending padding: what no convolution took becomes an operator."""
    if not emitted.padded:
        return emitted
    top, bottom, left, right = emitted.padding
    level = level_of(emitted, emitted.pad_value)
    plain = replace(emitted, padding=(0, 0, 0, 0))
    if level is None:
        plain, level = replace(plain, value=real(graph, plain, reader), mul=None, add=None), emitted.pad_value
    pad = Pad((top, bottom, left, right, 0, 0), "constant", level)
    name = f"{plain.value.name}.pad"
    return replace(plain, value=graph.add(pad, [plain.value], name, source=source_of(plain.value)))


def level_of(emitted: Emitted, number: float) -> float | None:
    """The value that stands for ``number`` in all channels; None where it is none of a packed tensor's levels."""
    if not emitted.packed:
        return number
    scale, offset = emitted.scale(), emitted.offset()
    if np.ptp(scale) or np.ptp(offset) or not scale[0]:
        return None
    level = float((number - offset[0]) / scale[0])
    low, high = emitted.value.type.dtype.range
    if level not in (low, high) and not (emitted.value.type.dtype is DType.TRIT and level == 0):
        return None
    return level


def real(graph: Graph, emitted: Emitted, reader: str) -> Value:
    """The real-valued tensor itself, with an Affine where scale or offset are pending or the levels are packed."""
    emitted = unpadded(graph, emitted, reader)
    value = emitted.value
    if not emitted.packed and emitted.mul is None and emitted.add is None:
        return value
    return affine(graph, [value], [emitted.scale()], emitted.offset(), f"{value.name}.levels", source_of(value))


def source_of(value: Value) -> str:
    return value.node.source if value.node is not None else ""


def affine(graph: Graph, xs: list[Value], muls: list[Array], add: Array, name: str, source: str) -> Value:
    """Append an Affine with double parameters, each (C,) or one number for all channels."""
    channels = xs[0].type.channels
    values = [
        graph.constant(f"{name}.mul{i}" if i else f"{name}.mul", np.broadcast_to(m, (channels,)), DType.F64)
        for i, m in enumerate(muls)
    ]
    offset = graph.constant(f"{name}.add", np.broadcast_to(add, (channels,)), DType.F64)
    return graph.add(Affine(len(xs)), [*xs, *values, offset], name, source=source)


# -- moves --------------------------------------------------------------------------------------------------------------


def moved(
    graph: Graph, emitted: Emitted, index: Array, layout: Layout, *, fill: float, where: str, name: str, source: str
) -> Emitted:
    """The elements of ``emitted`` in another order or shape.

    Args:
        graph: to append to.
        emitted: what is moved.
        index: as the graph has it; the element of ``emitted.value`` (row-major), or FILL.
        layout: of the result.
        fill: the real number where ``index`` is FILL.
        where: place for messages.
        name, source: of the new nodes.

    Raises:
        UnsupportedError: the graph has no operators for it.
    """
    emitted = _without_reshapes(unpadded(graph, emitted, where))
    level = level_of(emitted, fill) if (index == FILL).any() else 0.0
    if level is None:
        emitted, level = replace(emitted, value=real(graph, emitted, where), mul=None, add=None), fill
    shape = emitted.value.type.shape
    ops = operators(index, shape, level)
    if ops is None:
        raise UnsupportedError(
            f"elements are moved in a way that the graph has no operators for, from {_text(shape)} to {_text(index.shape)}",
            where=where,
            why="it is no composition of slices, repeats, paddings, concatenations, transposes and reshapes",
            fix="write it as one of these, or leave it out of the model to deploy",
        )
    parameters = [_carried(p, ops, shape) for p in (emitted.mul, emitted.add)]
    if any(p is not None and len(p) == 0 for p in parameters):  # channels of different scale are mixed
        emitted, parameters = replace(emitted, value=real(graph, emitted, where)), [None, None]
    value = emitted.value
    for op in ops:
        value = graph.add(op, [value], f"{name}.{op.name}", source=source)
    return replace(emitted, value=value, mul=parameters[0], add=parameters[1], layout=layout)


def _without_reshapes(emitted: Emitted) -> Emitted:
    """The value before a reshape, which has the same elements in the same order."""
    value = emitted.value
    while value.node is not None and isinstance(value.node.op, Reshape):
        before = value.node.inputs[0]
        if before.type.channels != value.type.channels and (emitted.mul is not None or emitted.add is not None):
            break
        value = before
    return replace(emitted, value=value)


def _carried(parameter: Array | None, ops: list[Op], shape: tuple[int, ...]) -> Array | None:
    """A parameter per channel behind the moves; empty where channels that differ in it are mixed."""
    if parameter is None or not ops:
        return parameter
    tracked = run(ops, np.broadcast_to(parameter, shape).astype(np.float64))
    if np.ptp(parameter) == 0:
        return np.full(tracked.shape[-1], parameter[0])
    lines = tracked.reshape(-1, tracked.shape[-1])
    return np.zeros(0) if (lines != lines[:1]).any() else lines[0]


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape[1:]))


def in_layout(graph: Graph, emitted: Emitted, shape: tuple[int, ...], layout: Layout, where: str) -> Emitted:
    """The tensor of ``shape`` in another layout."""
    if emitted.layout is layout:
        return emitted
    count = math.prod(shape)
    position = from_graph(np.arange(count), shape, emitted.layout)
    name, source = emitted.value.name, source_of(emitted.value)
    index = to_graph(position, layout)
    return moved(graph, emitted, index, layout, fill=0.0, where=where, name=name, source=source)


def joined(graph: Graph, parts: list[Emitted], axis: int, where: str, name: str, source: str) -> Emitted:
    """Maps (1, H, W, C) one behind the other along ``axis`` (1 to 3 of the graph's) or vectors along their channels."""
    layout = parts[0].layout
    if len({p.value.type.dtype for p in parts}) > 1:
        parts = [Emitted(real(graph, p, where), layout=layout) for p in parts]
    packed = parts[0].packed
    values = [p.value for p in parts]
    if packed and axis != len(parts[0].value.type.shape) - 1:
        first = parts[0]
        if any(
            not np.array_equal(p.scale(), first.scale()) or not np.array_equal(p.offset(), first.offset())
            for p in parts
        ):
            values, packed = [real(graph, p, where) for p in parts], False
    if axis == len(values[0].type.shape) - 1:
        value = graph.add(Concat(), values, name, source=source)
        if not packed:
            return Emitted(value, layout=layout)
        mul, add = (np.concatenate([getattr(p, f)() for p in parts]) for f in ("scale", "offset"))
        return Emitted(value, mul, add, layout=layout)
    there = Transpose((2, 1, 0) if axis == 1 else (0, 2, 1))
    turned = [graph.add(there, [v], f"{v.name}.transpose", source=source) for v in values]
    value = graph.add(Concat(), turned, name, source=source)
    value = graph.add(there, [value], f"{name}.transpose", source=source)
    return Emitted(value, parts[0].mul, parts[0].add, layout=layout) if packed else Emitted(value, layout=layout)
