"""Convolutions and linear layers for the stock Larq Compute Engine (LCE) runtime.

Packed operands go to LceBconv2d, depth-wise ones to the built-in int8 DEPTHWISE_CONV_2D, everything else to float
operators. LCE pads with +1 or, with restrictions, 0, aligned as TensorFlow does it; see :func:`_plane_padding` for
what is done instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.export.foreign import refuse
from bdnet_deploy.export.tflite.builder import I8, I32, SAME, VALID
from bdnet_deploy.export.tflite.encoding import Encoded
from bdnet_deploy.export.tflite.folding import FoldedSign
from bdnet_deploy.export.tflite.geometry import fits, is_same, outside_sums
from bdnet_deploy.export.tflite.packing import WORD, pack, words
from bdnet_deploy.export.tflite.schema import ABSENT, Array
from bdnet_deploy.graph import Conv2d, DType, Linear, Node, Value

if TYPE_CHECKING:
    from bdnet_deploy.export.tflite.lowering import Lowering

_TARGET = "TensorFlow Lite"
_INT8_MAX = 127


def is_packed_product(node: Node) -> bool:
    """Whether LceBconv2d computes it: bits or trits times binary weights, all channels in one group."""
    if not isinstance(node.op, (Conv2d, Linear)):
        return False
    x, w = node.inputs
    packed = x.type.dtype.is_packed and w.type.dtype is DType.BIT
    return packed and not (isinstance(node.op, Conv2d) and node.op.groups > 1)


def is_int8_depthwise(node: Node) -> bool:
    """Whether the int8 DEPTHWISE_CONV_2D computes it exactly: few enough taps that no sum saturates."""
    if not isinstance(node.op, Conv2d):
        return False
    x, w = node.inputs
    packed = x.type.dtype.is_packed and w.type.dtype.is_packed
    return packed and node.op.groups == x.type.channels > 1 and w.type.shape[1] * w.type.shape[2] <= _INT8_MAX


def plain(low: Lowering, node: Node) -> Encoded:
    """The accumulators as floats."""
    if is_packed_product(node):
        return Encoded("float", (packed_product(low, node, None, None),))
    if is_int8_depthwise(node):
        return Encoded("float", (_dequantized(low, node, _int8_depthwise(low, node)),))
    return Encoded("float", (_float_product(low, node),))


def folded(low: Lowering, node: Node, fold: FoldedSign) -> Encoded:
    """The bits of a convolution whose only reader is a sign."""
    name = fold.output.name
    if is_int8_depthwise(node):
        accumulators = _int8_depthwise(low, node, fold)
        return Encoded("bits", (low.b.lce_quantize(accumulators, f"{name}/bits"),))
    if not is_packed_product(node):
        return Encoded("bits", (low.folded_sign(_float_product(low, node, fold.flipped), fold),))
    operands = _operands(low, node)
    if len(operands) == 1:
        padding = _plane_padding(node, operands[0][1])
        if padding.correction is None and padding.pad_values != 0:
            return Encoded("bits", (_packed_bits(low, node, fold, operands[0][0], padding),))
    return Encoded("bits", (low.folded_sign(packed_product(low, node, None, None, fold.flipped), fold),))


# -- LceBconv2d -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Padding:
    """How a packed operand is padded: first ``fill`` words around it (None: not at all), then the operator's rule.

    The convolution is off by ``correction`` (1, OH, OW, O) times the multiplier, which is to be added.
    """

    padding: int = VALID
    pad_values: int = 1
    fill: int | None = None
    correction: Array | None = None


def _plane_padding(node: Node, value: int) -> _Padding:
    """Padding of a packed operand with ``value`` in {-1, 0, +1}.

    +1 is LCE's own; PyTorch's alignment at stride 2 needs PADV2 on the words. -1 is PADV2 with all bits of the channels
    set, possible where that is the same in every word. 0 is LCE's only where it agrees with SAME, and there its
    optimized kernels are wrong for filters larger than the map and its reference kernel refuses odd channel counts:
    elsewhere the map is padded with +1 and a constant map, minus the weights that lay on padding, is added.
    """
    if isinstance(node.op, Linear):
        return _Padding()
    assert isinstance(node.op, Conv2d)
    if not any(node.op.padding):
        return _Padding()
    channels, same = node.inputs[0].type.channels, is_same(node)
    if value == 1:
        return _Padding(SAME) if same else _Padding(fill=0)
    if value == -1 and channels % WORD == 0:
        return _Padding(fill=-1)
    if value == -1 and channels < WORD:
        return _Padding(fill=(1 << channels) - 1)
    if value == 0 and same and fits(node) and channels % 2 == 0:
        return _Padding(SAME, pad_values=0)
    weights = _weights(node)
    return _Padding(fill=0, correction=(value - 1) * outside_sums(node, weights))


def _operands(low: Lowering, node: Node) -> list[tuple[int, int]]:
    """The packed planes of the input, each with the value that pads it.

    A trit is the mean of its planes, so a trit of 0 is padded with +1 in the plane of the lower threshold and -1 in
    the other.
    """
    encoded = low.env[node.inputs[0]]
    value = node.op.pad_value if isinstance(node.op, Conv2d) else 0
    if encoded.encoding == "bits":
        return [(encoded.tensors[0], value)]
    values = (1, -1) if value == 0 else (value, value)
    return list(zip(encoded.tensors, values))


def packed_product(
    low: Lowering, node: Node, mul: Value | None, add: Value | None, flipped: Array | None = None
) -> int:
    """``acc * mul + add`` as a float tensor; without ``mul`` the accumulators themselves, exactly."""
    channels = node.output.type.channels
    operands = _operands(low, node)
    share = 1.0 / len(operands)
    zeros = low.constant("zeros", np.zeros(channels, np.float32))
    if mul is None:
        multiplier = low.constant("shares", np.full(channels, share, np.float32))
    else:
        multiplier = low.parameter(mul, share)
    parts = []
    for i, (plane, value) in enumerate(operands):
        padding = _plane_padding(node, value)
        bias = low.parameter(add) if add is not None and i == 0 else zeros
        part = low.b.tensor(f"{node.name}/part", _map_shape(node, channels))
        _bconv(low, node, plane, padding, part, flipped, multiplier=multiplier, bias=bias)
        if padding.correction is not None:
            factors = low.model.tensors[multiplier].data
            signs = 1.0 if flipped is None else np.where(flipped, -1.0, 1.0)
            assert factors is not None
            border = (padding.correction * signs * factors.astype(np.float64)).astype(np.float32)
            part = low.b.add(part, low.constant(f"{node.name}/border", border), f"{node.name}/padded")
        parts.append(part)
    result = parts[0] if len(parts) == 1 else low.b.add(parts[0], parts[1], f"{node.name}/sum")
    return _as_output(low, node, result)


def _packed_bits(low: Lowering, node: Node, fold: FoldedSign, plane: int, padding: _Padding) -> int:
    """Signs straight from LceBconv2d, which gives -1 where more than ``limit`` of the K products are negative.

    acc = K - 2 * negative, so acc >= threshold means negative <= (K - threshold) / 2.
    """
    taps = int(np.prod(node.inputs[1].type.shape[1:]))
    limit = (taps - fold.threshold) // 2
    threshold = low.b.constant(f"{fold.output.name}/threshold", limit.astype(np.int32))
    low.record_threshold(fold, "negative", threshold)
    output = low.b.tensor(f"{fold.output.name}/bits", _map_shape(node, words(node.output.type.channels)), I32)
    _bconv(low, node, plane, padding, output, fold.flipped, threshold=threshold)
    return _as_output(low, node, output)


def _bconv(
    low: Lowering,
    node: Node,
    plane: int,
    padding: _Padding,
    output: int,
    flipped: Array | None,
    *,
    multiplier: int = ABSENT,
    bias: int = ABSENT,
    threshold: int = ABSENT,
) -> None:
    op, b = node.op, low.b
    if isinstance(op, Linear):
        plane = b.reshape(plane, (1, 1, 1, b.shape(plane)[-1]), f"{node.name}/pixel")
    elif padding.fill is not None:
        assert isinstance(op, Conv2d)
        plane = b.pad(plane, op.padding, padding.fill, f"{node.name}/input")
    weights = _packed_weights(low, node, flipped)
    b.lce_bconv2d(
        plane,
        weights,
        output,
        node.inputs[0].type.channels,
        multiplier=multiplier,
        bias=bias,
        threshold=threshold,
        padding=padding.padding,
        pad_values=padding.pad_values,
        strides=op.strides if isinstance(op, Conv2d) else (1, 1),
        dilation=op.dilation if isinstance(op, Conv2d) else (1, 1),
    )


def _packed_weights(low: Lowering, node: Node, flipped: Array | None) -> int:
    values = _flip(_weights(node), flipped)
    tensor = low.constant(f"{node.name}/weights", pack(values))
    if not any(w["node"] == node.name for w in low.weights):
        _record_weights(low, node, "packed", tensor, flipped)
    return tensor


def _map_shape(node: Node, channels: int) -> tuple[int, ...]:
    shape = node.output.type.shape
    return (*(shape[:3] if len(shape) == 4 else (1, 1, 1)), channels)


def _as_output(low: Lowering, node: Node, tensor: int) -> int:
    """A linear layer ran as a 1x1 convolution: give its output two axes again."""
    if not isinstance(node.op, Linear):
        return tensor
    return low.b.reshape(tensor, (1, low.b.shape(tensor)[-1]), f"{node.name}/vector")


# -- depth-wise -------------------------------------------------------------------------------------------------------


def _int8_depthwise(low: Lowering, node: Node, fold: FoldedSign | None = None) -> int:
    """int8 tensor of the accumulators, or of acc' - threshold, whose sign survives saturation."""
    op, b = node.op, low.b
    assert isinstance(op, Conv2d)
    x, scale = low.int8(node.inputs[0])
    channels = node.output.type.channels
    padding = SAME if is_same(node) and (op.pad_value == 0 or not any(op.padding)) else VALID
    if padding == VALID and any(op.padding):
        x = b.pad(x, op.padding, op.pad_value, f"{node.name}/input")
    flipped = fold.flipped if fold else None
    values = _flip(_weights(node), flipped).transpose(3, 1, 2, 0)
    # The scales of input and filter cancel, so integers stay what they are.
    weights = b.constant(f"{node.name}/weights", values, np.full(channels, 1 / scale, np.float32), 3)
    _record_weights(low, node, "depthwise_int8", weights, flipped)
    shift = np.zeros(channels, np.int32) if fold is None else -fold.threshold.astype(np.int32)
    bias = b.constant(f"{node.name}/shift", shift, np.ones(channels, np.float32), 0)
    if fold:
        low.record_threshold(fold, "bias", bias)
    output = b.tensor(f"{node.name}/acc", node.output.type.shape, I8, 1.0)
    return _depthwise(low, node, (x, weights, bias), output, padding)


def _dequantized(low: Lowering, node: Node, tensor: int) -> int:
    return low.b.op("DEQUANTIZE", (tensor,), low.b.tensor(f"{node.name}/f32", low.b.shape(tensor)))


def _depthwise(low: Lowering, node: Node, inputs: tuple[int, ...], output: int, padding: int) -> int:
    op = node.op
    assert isinstance(op, Conv2d)
    multiplier = node.output.type.channels // op.groups
    return low.b.op(
        "DEPTHWISE_CONV_2D", inputs, output, padding=padding, depth_multiplier=multiplier, **_window_options(op)
    )


# -- float operators --------------------------------------------------------------------------------------------------


def _float_product(low: Lowering, node: Node, flipped: Array | None = None) -> int:
    """Float operators; exact on integers."""
    op, b = node.op, low.b
    x, w = node.inputs
    assert w.data is not None
    values = _flip(w.data, flipped).astype(np.float32)
    source = low.f32(x)
    output = b.tensor(f"{node.name}/acc", node.output.type.shape)
    if isinstance(op, Linear):
        weights = b.constant(f"{node.name}/weights", values)
        _record_weights(low, node, "float", weights, flipped)
        return b.op("FULLY_CONNECTED", (source, weights, ABSENT), output)
    assert isinstance(op, Conv2d)
    padding = SAME if is_same(node) and (op.pad_value == 0 or not any(op.padding)) else VALID
    if padding == VALID and any(op.padding):
        source = b.pad(source, op.padding, op.pad_value, f"{node.name}/input")
    bias = low.constant("zeros", np.zeros(node.output.type.channels, np.float32))
    if op.groups == x.type.channels and op.groups > 1:
        weights = b.constant(f"{node.name}/weights", values.transpose(3, 1, 2, 0))
        _record_weights(low, node, "depthwise_float", weights, flipped)
        return _depthwise(low, node, (source, weights, bias), output, padding)
    if op.groups > 1:
        why = f"it has {op.groups} groups; Larq Compute Engine's default kernel takes one, or one per channel"
        raise refuse(node, why, target=_TARGET, fix="export to onnx or bdn")
    weights = b.constant(f"{node.name}/weights", values)
    _record_weights(low, node, "float", weights, flipped)
    return b.op("CONV_2D", (source, weights, bias), output, padding=padding, **_window_options(op))


def _window_options(op: Conv2d) -> dict[str, int]:
    return {
        "stride_h": op.strides[0],
        "stride_w": op.strides[1],
        "dilation_h": op.dilation[0],
        "dilation_w": op.dilation[1],
    }


# -- weights ----------------------------------------------------------------------------------------------------------


def _weights(node: Node) -> Array:
    """Constant weights as OHWI, those of a linear layer as 1x1 filters."""
    data = node.inputs[1].data
    assert data is not None
    return data[:, None, None, :] if data.ndim == 2 else data


def _flip(weights: Array, flipped: Array | None) -> Array:
    if flipped is None:
        return weights
    return np.where(flipped.reshape(-1, *[1] * (weights.ndim - 1)), -weights, weights)


def _record_weights(low: Lowering, node: Node, form: str, tensor: int, flipped: Array | None) -> None:
    low.weights.append(
        {
            "node": node.name,
            "form": form,
            "tensor": low.b.name(tensor),
            "shape": list(node.inputs[1].type.shape),
            "flipped": [] if flipped is None else np.flatnonzero(flipped).tolist(),
        }
    )
