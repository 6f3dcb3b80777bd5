"""Depth-wise convolutions of packed operands: LCE has none, the built-in int8 operator is exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.export.tflite.builder import I8, SAME, VALID
from bdnet_deploy.export.tflite.forms import INT8
from bdnet_deploy.export.tflite.geometry import Product, is_same
from bdnet_deploy.graph import Value

if TYPE_CHECKING:
    from bdnet_deploy.export.tflite.lowering import Lowering

#: Sums of more products would saturate.
MAX_TAPS = 127


def sums(low: Lowering, p: Product, threshold: Value | None) -> int:
    """int8 tensor of the sums, or of sums - threshold, whose sign survives saturation."""
    b, name = low.b, p.node.name
    x, scale = low.int8(p.x)
    x, padding = padded_input(low, p, x)
    values = p.weights.transpose(3, 1, 2, 0).astype(np.int8)
    # The scales of input and filter cancel, so integers stay what they are; one for all channels is enough.
    weights = b.constant(f"{name}/weights", values, np.array([1 / scale], np.float32))
    low.forms.kinds[weights] = INT8
    if p.constant is not None:
        low.stored.setdefault(p.constant.name, {"form": "depthwise", "tensors": [b.name(weights)]})
    shift = np.zeros(p.outputs, np.int32)
    if threshold is not None:
        assert threshold.data is not None
        # Beyond the sums all thresholds are alike.
        shift = -np.clip(threshold.data.astype(np.int64), -p.taps, p.taps + 1).astype(np.int32)
    bias = b.constant(f"{name}/shift", shift, np.ones(1, np.float32))
    if threshold is not None:
        low.stored.setdefault(threshold.name, {"form": "times", "factor": -1.0, "tensors": [b.name(bias)]})
    recipe = "int8 DEPTHWISE_CONV_2D" if threshold is None else "int8 DEPTHWISE_CONV_2D, bits out"
    low.forms.add(p.node, recipe, {"int8": p.macs}, weight_bytes=values.nbytes, extra_bytes=4 * p.outputs)
    output = b.tensor(f"{name}/acc", p.out_shape, I8, 1.0)
    return depthwise(low, p, (x, weights, bias), output, padding)


def padded_input(low: Lowering, p: Product, x: int) -> tuple[int, int]:
    """The input with what the operator's own padding cannot do, and that padding."""
    if not any(p.op.padding):
        return x, VALID
    if p.repeats_border:
        return low.repeat_border(x, p), VALID
    if p.op.pad_value == 0 and is_same(p):
        return x, SAME
    return low.padded(x, p.op.padding, p.op.pad_value, f"{p.node.name}/input"), VALID


def depthwise(low: Lowering, p: Product, inputs: tuple[int, ...], output: int, padding: int) -> int:
    multiplier = p.outputs // p.op.groups
    options = window_options(p)
    return low.b.op("DEPTHWISE_CONV_2D", inputs, output, padding=padding, depth_multiplier=multiplier, **options)


def window_options(p: Product) -> dict[str, int]:
    (stride_h, stride_w), (dilation_h, dilation_w) = p.op.strides, p.op.dilation
    return {"stride_h": stride_h, "stride_w": stride_w, "dilation_h": dilation_h, "dilation_w": dilation_w}
