"""Products of levels that are not -c and +c, exactly: offsets, asymmetric weights, and borders that are no level.

Inside the map an activation is ``x = s[c] * t + b[c]`` with t a bit, trit or ubit, outside it is a number v (0 where
PyTorch pads). Weights are ``w = alpha[o] * tau + beta[o]``. Where ``s[c] = s * f[c]`` with f = +-1, which goes into tau,

    y[o] = s alpha[o] conv(t, tau) + s beta[o] sum(f t) + sum over all taps of w b + sum over taps outside of w (v - b)

The first term is the binary layer. The second is one filter for all outputs of a group: a sum over the window. The third
is a constant per output. The fourth is zero in the middle of the map and, at its border, depends only on which taps lie
outside: it is computed on the smallest map that has all these cases, and spread by index lists. It is absent where v is a
level of all channels, which then is the padding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bdnet_deploy.graph import (
    Array,
    BoxSum,
    Conv2d,
    DType,
    Gather,
    Graph,
    Linear,
    Repeat,
    Reshape,
    Sign,
    Slice,
    Value,
)
from bdnet_deploy.importers.torch.emitted import Emitted, affine
from bdnet_deploy.importers.torch.weights import Weights

_TOLERANCE = 1e-6
#: Names of the nodes that belong to a layer but are not the layer itself.
BORDER, SUM = ".border", ".sum"


@dataclass(frozen=True, eq=False)
class Levels:
    """An input ``size * flip * t + offset``, padded with the level ``pad`` or, where ``border`` is set, with 0.

    ``size``: (O,) or (1,), positive, for each output; ``flip`` (C,) of +-1; ``offset`` (C,); ``border`` (C,): what the
    padding is more than the offset, or None.
    """

    value: Value
    size: Array
    flip: Array
    offset: Array
    pad: int
    border: Array | None


def levels_of(x: Emitted, groups: int, outputs: int, padded: bool) -> Levels | str:
    """``x`` as the input of a product with ``outputs`` filters in ``groups``, which pads it if ``padded``; else why not.

    A depth-wise layer can take another scale per channel, since each output sees one input channel.
    """
    scale, offset = x.scale(), x.offset()
    size, flip = np.abs(scale), np.where(scale < 0, -1.0, 1.0)
    if not size.any():
        return "activation: its levels are all the same"
    offset = np.where(np.abs(offset) <= _TOLERANCE * size.max(), 0.0, offset)
    if np.ptp(size) <= _TOLERANCE * size.max():
        after = np.full(outputs, float(size[0]) if np.ptp(size) == 0 else float(size.mean()))
    elif groups == len(size):
        after = np.repeat(size, outputs // groups)
    else:
        return "activation: its scale differs from channel to channel, and the layer sums over channels"
    if not padded:
        return Levels(x.value, after, flip, offset, 0, None)
    outside = x.pad_value if x.padded else 0.0
    for level in range(x.value.type.dtype.range[0], 2):
        if (np.abs(scale * level + offset - outside) <= _TOLERANCE * size.max()).all():
            return Levels(x.value, after, flip, offset, level, None)
    return Levels(x.value, after, flip, offset, 0, outside - offset)


def product(
    graph: Graph, op: Conv2d | Linear, levels: Levels, weights: Weights, bias: Array | None, source: str
) -> Value:
    """The layer ``op`` of ``levels`` and ``weights``, with its scale and bias."""
    groups = op.groups if isinstance(op, Conv2d) else 1
    shape = weights.levels.shape
    real = weights.levels * weights.alpha.reshape(-1, *[1] * (len(shape) - 1))
    real = real + weights.beta.reshape(-1, *[1] * (len(shape) - 1))
    add = _sums(real, levels.offset, groups) + (0.0 if bias is None else bias)
    border = None
    if isinstance(op, Conv2d):
        op = replace(op, pad_value=levels.pad)
        if levels.border is not None:
            border = _border(graph, op, levels, real, source)
    flipped = weights.levels * of_filters(levels.flip, groups, shape).astype(np.int8)
    terms: list[Value] = []
    muls: list[Array] = [levels.size * weights.alpha]
    if weights.asymmetric:
        terms.append(_window_sum(graph, op, levels, shape, groups, source))
        muls.append(levels.size * weights.beta * (1.0 if np.ptp(levels.flip) else levels.flip[0]))
    if border is not None:
        terms.append(border)
        muls.append(np.ones(shape[0]))
    constant = graph.constant(f"{source}.weight", flipped, weights.dtype)
    y = graph.add(op, [levels.value, constant], source, source=source)
    # An affine map has two terms at most.
    y = affine(graph, [y, *terms[:1]], muls[:2], add, f"{source}.scale", source)
    if len(terms) == 2:
        y = affine(graph, [y, terms[1]], [np.ones(shape[0])] * 2, np.zeros(shape[0]), f"{source}{BORDER}.add", source)
    return y


def of_filters(channels: Array, groups: int, shape: tuple[int, ...]) -> Array:
    """(O, [1, 1,] C / groups): of the input's channels (C,) those that each filter reads."""
    by_group = np.repeat(channels.reshape(groups, -1), shape[0] // groups, axis=0)
    return by_group.reshape(shape[0], *[1] * (len(shape) - 2), -1)


def _sums(real: Array, channels: Array, groups: int) -> Array:
    """(O,) sum over a filter's taps of weight times the channel's number."""
    products = real * of_filters(channels, groups, real.shape)
    return np.asarray(products.reshape(len(real), -1).sum(axis=1))


def _window_sum(
    graph: Graph, op: Conv2d | Linear, levels: Levels, shape: tuple[int, ...], groups: int, source: str
) -> Value:
    """The sum of the levels, with their flips if these differ, over each output's window and channels; per output."""
    x, name = levels.value, f"{source}{SUM}"
    if np.ptp(levels.flip):  # a filter of these signs instead of ones
        per_group = levels.flip.reshape(groups, *[1] * (len(shape) - 2), -1)
        signs = np.broadcast_to(per_group, (groups, *shape[1:]))
        total = graph.add(op, [x, graph.constant(f"{name}.weight", signs, DType.BIT)], name, source=source)
    elif isinstance(op, Conv2d):
        box = BoxSum((shape[1], shape[2]), op.strides, op.padding, op.pad_value, op.dilation, groups)
        total = graph.add(box, [x], name, source=source)
    else:
        pixel = graph.add(Reshape((1, 1, 1, shape[1])), [x], f"{name}.pixel", source=source)
        total = graph.add(BoxSum((1, 1)), [pixel], name, source=source)
        total = graph.add(Reshape((1, 1)), [total], f"{name}.vector", source=source)
    if groups == 1:
        return graph.add(Repeat(shape[0]), [total], f"{name}.repeat", source=source)
    if groups == shape[0]:
        return total
    channels = tuple(np.repeat(np.arange(groups), shape[0] // groups).tolist())
    return graph.add(Gather(channels), [total], f"{name}.groups", source=source)


def _border(graph: Graph, op: Conv2d, levels: Levels, real: Array, source: str) -> Value | None:
    """What the taps outside the map add: a map like the output, of few different pixels; None where it is 0.

    A map of zeros padded with 1 tells which taps lie outside.
    """
    assert levels.border is not None
    x, name = levels.value, f"{source}{BORDER}"
    height, width = x.type.shape[1:3]
    taps = (real * of_filters(levels.border, op.groups, real.shape)).sum(axis=3, keepdims=True)
    if not taps.any():
        return None
    (h, rows), (w, columns) = (
        _smallest((height, width)[i], real.shape[1 + i], op.strides[i], op.dilation[i], op.padding[2 * i :][:2])
        for i in (0, 1)
    )
    corner = graph.add(Slice((0, 0, 0), (h, w, 1)), [x], f"{name}.corner", source=source)
    numbers = graph.add(BoxSum((1, 1)), [corner], f"{name}.numbers", source=source)
    never = graph.constant(f"{name}.never", np.full(1, 2), DType.I32)
    bits = graph.add(Sign(DType.UBIT), [numbers, never], f"{name}.zeros", source=source)
    small = replace(op, groups=1, pad_value=1)
    y = graph.add(small, [bits, graph.parameter(f"{name}.weight", taps)], name, source=source)
    y = affine(graph, [y], [np.ones(len(real))], np.zeros(len(real)), f"{name}.scale", source)
    if (h, w) == (height, width):
        return y
    return graph.add(Gather((), rows, columns), [y], f"{name}.spread", source=source)


def _smallest(
    size: int, kernel: int, stride: int, dilation: int, padding: tuple[int, ...]
) -> tuple[int, tuple[int, ...]]:
    """The smallest side whose outputs have all the borders that the outputs of ``size`` have, and which one each has."""
    before, after = padding

    def inside(n: int) -> list[bytes]:
        outputs = (n + before + after - (kernel - 1) * dilation - 1) // stride + 1
        at = np.arange(max(outputs, 0))[:, None] * stride - before + np.arange(kernel) * dilation
        return [row.tobytes() for row in (at >= 0) & (at < n)]

    wanted = inside(size)
    smallest = next(n for n in range(1, size + 1) if set(wanted) <= set(inside(n)))
    there = inside(smallest)
    return smallest, tuple(there.index(w) for w in wanted)
