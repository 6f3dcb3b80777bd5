"""Products of packed operands by LceBconv2d, with float32 or packed output.

A trit is the mean of its two planes and a ubit is (bit + 1) / 2, so that every product of packed operands is a sum of products
of planes. LCE pads with +1 or, with restrictions, 0, aligned as TensorFlow does it; see :func:`_plane_padding`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.export.tflite.builder import I32, SAME, VALID
from bdnet_deploy.export.tflite.forms import BINARY, TERNARY
from bdnet_deploy.export.tflite.geometry import Product, fits, is_same, outside_sums
from bdnet_deploy.export.tflite.packing import WORD, pack, words
from bdnet_deploy.export.tflite.schema import ABSENT, Array
from bdnet_deploy.export.tflite.storage import limit_record
from bdnet_deploy.graph import DType, Linear, Node, Value

if TYPE_CHECKING:
    from bdnet_deploy.export.tflite.lowering import Lowering


@dataclass(frozen=True, eq=False)
class _Padding:
    """How a packed operand is padded: first ``fill`` words around it (None: not at all), then the operator's rule.

    The convolution is off by ``correction`` (1, OH, OW, O) times the multiplier, which is to be added.
    """

    padding: int = VALID
    pad_values: int = 1
    fill: int | None = None
    correction: Array | None = None


def _plane_padding(p: Product, value: int, weights: Array) -> _Padding:
    """Padding of a packed operand with ``value`` in {-1, 0, +1}.

    +1 is LCE's own; PyTorch's alignment at stride 2 needs PADV2 on the words. -1 is PADV2 with all bits of the channels
    set, possible where that is the same in every word. 0 is LCE's only where it agrees with SAME, and there its
    optimized kernels are wrong for filters larger than the map and its reference kernel refuses odd channel counts:
    elsewhere the map is padded with +1 and a constant map, minus the weights that lay on padding, is added.
    """
    if not any(p.op.padding) or p.repeats_border:
        return _Padding()
    channels, same = p.shape[3], is_same(p)
    if value == 1:
        return _Padding(SAME) if same else _Padding(fill=0)
    if value == -1 and channels % WORD == 0:
        return _Padding(fill=-1)
    if value == -1 and channels < WORD:
        return _Padding(fill=(1 << channels) - 1)
    if value == 0 and same and fits(p) and channels % 2 == 0:
        return _Padding(SAME, pad_values=0)
    return _Padding(fill=0, correction=(value - 1) * outside_sums(p, weights))


def _pad_values(p: Product) -> list[int]:
    """What pads each plane of the input: a trit of 0 is +1 in the plane of the lower threshold, -1 in the other."""
    value = p.op.pad_value
    if p.x.type.dtype is DType.TRIT:
        return [1, -1] if value == 0 else [value, value]
    return [2 * value - 1] if p.x.type.dtype is DType.UBIT else [value]


def _weight_planes(p: Product) -> list[Array]:
    """The weights as planes of -1 and +1, of which they are the mean."""
    if p.dtype is DType.BIT:
        return [p.weights]
    return [np.where(p.weights >= level, np.int8(1), np.int8(-1)) for level in (0, 1)]


def makes_signs(p: Product) -> bool:
    """Whether LceBconv2d can compare the sums itself: one pair of planes, and no true zeros (which its kernels refuse)."""
    if p.x.type.dtype is DType.TRIT or p.dtype is DType.TRIT:
        return False
    padding = _plane_padding(p, _pad_values(p)[0], p.weights)
    return padding.correction is None and padding.pad_values != 0


def packed_signs(low: Lowering, p: Product, sign: Node) -> int:
    """Signs straight from LceBconv2d, which gives -1 where more than ``limit`` of the K products are negative.

    acc = K - 2 * negative, so acc >= threshold means negative <= (K - threshold) / 2. For ubits
    acc = (K - 2 * negative + sum of weights) / 2.
    """
    threshold = sign.inputs[1]
    assert threshold.data is not None
    numbers = threshold.data.astype(np.int64)
    if p.x.type.dtype is DType.UBIT:
        total = p.weights.astype(np.int64).sum((1, 2, 3))
        limit = np.clip((p.taps + total - 2 * numbers) // 2, -1, p.taps)
    else:
        limit = (p.taps - numbers) // 2
    tensor = low.b.constant(f"{sign.name}/limits", limit.astype(np.int32))
    if p.x.type.dtype is not DType.UBIT:
        low.stored[threshold.name] = limit_record(low.b.name(tensor), p.taps, numbers)
    plane = _sources(low, p)[0]
    weights = _stored_weights(low, p, [p.weights])[0]
    output = low.b.tensor(f"{sign.name}/bits", (*p.out_shape[:3], words(p.outputs)), I32)
    _bconv(low, p, plane, weights, _plane_padding(p, _pad_values(p)[0], p.weights), output, threshold=tensor)
    _form(low, p, "LceBconv2d, bits out", 1, 0)
    return output


def float_sums(low: Lowering, p: Product, mul: Value | None = None, add: Value | None = None) -> int:
    """``sums * mul + add`` as a float tensor; without ``mul`` the sums themselves, exactly."""
    planes, pads, filters = _sources(low, p), _pad_values(p), _weight_planes(p)
    stored = _stored_weights(low, p, filters)
    share = 1.0 / (len(planes) * len(filters))
    bias: int | None = None
    if p.x.type.dtype is DType.UBIT:
        assert mul is None
        share /= 2
        half = p.weights.astype(np.float64).sum((1, 2, 3)) / 2
        bias = low.constant(f"{p.node.name}/half", half.astype(np.float32))
    elif add is not None:
        bias = low.parameter(add)
    zeros = low.constant("zeros", np.zeros(p.outputs, np.float32))
    if mul is None:
        multiplier = low.constant("shares", np.full(p.outputs, share, np.float32))
    else:
        multiplier = low.parameter(mul, share)
    factors = low.model.tensors[multiplier].data
    assert factors is not None
    parts: list[int] = []
    extra = 0
    for plane, value in zip(planes, pads, strict=True):
        for weights, tensor in zip(filters, stored, strict=True):
            padding = _plane_padding(p, value, weights)
            part = low.b.tensor(f"{p.node.name}/part", p.out_shape)
            this_bias = bias if bias is not None and not parts else zeros
            _bconv(low, p, plane, tensor, padding, part, multiplier=multiplier, bias=this_bias)
            if padding.correction is not None:
                border = (padding.correction * factors.astype(np.float64)).astype(np.float32)
                extra += border.nbytes
                part = low.b.add(part, low.constant(f"{p.node.name}/border", border), f"{p.node.name}/padded")
            parts.append(part)
    result = parts[0]
    for part in parts[1:]:
        result = low.b.add(result, part, f"{p.node.name}/sum")
    recipe = "LceBconv2d, float out" if len(parts) == 1 else f"{len(parts)} LceBconv2d, float out"
    _form(low, p, recipe, len(parts), extra)
    return result


def grouped_sums(low: Lowering, p: Product) -> int:
    """The sums of a convolution of several groups, each a convolution of its own: LCE's default kernel refuses groups."""
    size, outputs = p.shape[3] // p.op.groups, p.outputs // p.op.groups
    node, aligned = p.node, size % WORD == 0
    sources = low.planes(p.x) if aligned else (low.f32(p.x),)
    unit = words(size) if aligned else size
    parts: list[int] = []
    names: list[str] = []
    first = len(low.forms.layers)
    for g in range(p.op.groups):
        group_input = []
        for source in sources:
            shape = low.b.shape(source)
            begin, end = [0, 0, 0, g * unit], [*shape[:3], (g + 1) * unit]
            group_input.append(low.b.strided_slice(source, begin, end, [1, 1, 1, 1], f"{node.name}/group{g}"))
        weights = p.weights[g * outputs : (g + 1) * outputs]
        part = _Group(
            node, replace(p.op, groups=1), weights, p.dtype, None, (*p.shape[:3], size),
            tuple(group_input) if aligned else low.pack_float(group_input[0], p.x.type.dtype, f"{node.name}/group{g}"),
            names,
        )  # fmt: skip
        parts.append(float_sums(low, part))
    if p.constant is not None:
        form = "packed" if p.dtype is DType.BIT else "planes"
        low.stored[p.constant.name] = {"form": form, "tensors": names}
    forms, low.forms.layers[first:] = low.forms.layers[first:], []
    low.forms.add(
        node,
        "LceBconv2d per group, float out",
        {"binary": sum(f.macs["binary"] for f in forms)},
        weight_bytes=sum(f.weight_bytes for f in forms),
        extra_bytes=sum(f.extra_bytes for f in forms),
        note=f"{p.op.groups} groups"
        + ("" if aligned else ", unpacked and packed again, as a group is not whole words"),
    )
    return low.b.concatenate(parts, f"{node.name}/groups")


@dataclass(frozen=True, eq=False)
class _Group(Product):
    """One group of a convolution: its packed planes are there, and its weights are a part of the constant."""

    planes: tuple[int, ...] = ()
    names: list[str] | None = None

    @property
    def out_shape(self) -> tuple[int, ...]:
        return (*self.node.output.type.shape[:3], self.outputs)


def _sources(low: Lowering, p: Product) -> tuple[int, ...]:
    """The packed planes of the input, as a map, the border repeated where the padding does that."""
    planes = p.planes if isinstance(p, _Group) else low.planes(p.x)
    if isinstance(p.node.op, Linear):
        return tuple(low.b.reshape(t, (1, 1, 1, low.b.shape(t)[-1]), f"{p.node.name}/pixel") for t in planes)
    return tuple(low.repeat_border(t, p) for t in planes)


def _bconv(
    low: Lowering,
    p: Product,
    plane: int,
    weights: int,
    padding: _Padding,
    output: int,
    *,
    multiplier: int = ABSENT,
    bias: int = ABSENT,
    threshold: int = ABSENT,
) -> None:
    if padding.fill is not None:
        plane = low.padded(plane, p.op.padding, padding.fill, f"{p.node.name}/input")
    low.b.lce_bconv2d(
        plane,
        weights,
        output,
        p.shape[3],
        multiplier=multiplier,
        bias=bias,
        threshold=threshold,
        padding=padding.padding,
        pad_values=padding.pad_values,
        strides=p.op.strides,
        dilation=p.op.dilation,
    )


def _stored_weights(low: Lowering, p: Product, filters: list[Array]) -> list[int]:
    """The packed filters as constants; trits as two planes."""
    tensors = []
    for i, values in enumerate(filters):
        suffix = "weights" if len(filters) == 1 else f"weights/{'low' if i == 0 else 'high'}"
        tensor = low.constant(f"{p.node.name}/{suffix}", pack(values))
        low.forms.kinds[tensor] = BINARY if p.dtype is DType.BIT else TERNARY
        tensors.append(tensor)
    names = [low.b.name(t) for t in tensors]
    if isinstance(p, _Group) and p.names is not None:
        p.names.extend(names)
    elif p.constant is not None:
        low.stored.setdefault(
            p.constant.name, {"form": "packed" if p.dtype is DType.BIT else "planes", "tensors": names}
        )
    return tensors


def _form(low: Lowering, p: Product, recipe: str, times: int, extra: int) -> None:
    size = p.outputs * p.weights.shape[1] * p.weights.shape[2] * words(p.shape[3]) * 4
    size *= 1 if p.dtype is DType.BIT else 2
    note = "the border is corrected by a constant map" if extra else ""
    low.forms.add(p.node, recipe, {"binary": times * p.macs}, weight_bytes=size, extra_bytes=extra, note=note)
