"""Convolutions and linear layers by float32 operators, which are exact on integers.

Binary and ternary weights stay small: an operator in front makes float32 of their packed bits or int8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.export.tflite.builder import F32
from bdnet_deploy.export.tflite.depthwise import depthwise, padded_input, window_options
from bdnet_deploy.export.tflite.forms import BINARY, INT8, REAL
from bdnet_deploy.export.tflite.geometry import Product
from bdnet_deploy.export.tflite.packing import pack
from bdnet_deploy.export.tflite.schema import ABSENT
from bdnet_deploy.graph import DType, Linear

if TYPE_CHECKING:
    from bdnet_deploy.export.tflite.lowering import Lowering


def sums(low: Lowering, p: Product) -> int:
    """The sums as a float32 tensor."""
    b, name = low.b, p.node.name
    source = low.f32(p.x)
    quant = p.x.type.quant
    if quant is not None and np.any(quant.zero_point):
        zero = low.constant(f"{name}/zero", np.atleast_1d(quant.zero_point).astype(np.float32))
        source = b.subtract(source, zero, f"{name}/centered")
    if isinstance(p.node.op, Linear):
        weights, size = _weights(low, p, linear=True)
        _form(low, p, "FULLY_CONNECTED", size)
        return b.op("FULLY_CONNECTED", (source, weights, ABSENT), b.tensor(f"{name}/acc", p.node.output.type.shape))
    source, padding = padded_input(low, p, source)
    bias = low.constant("zeros", np.zeros(p.outputs, np.float32))
    weights, size = _weights(low, p)
    output = b.tensor(f"{name}/acc", p.out_shape)
    if p.is_depthwise:
        _form(low, p, "float DEPTHWISE_CONV_2D", size)
        return depthwise(low, p, (source, weights, bias), output, padding)
    _form(low, p, "float CONV_2D" if p.op.groups == 1 else "float CONV_2D of groups", size)
    return b.op("CONV_2D", (source, weights, bias), output, padding=padding, **window_options(p))


def _form(low: Lowering, p: Product, recipe: str, size: int) -> None:
    low.forms.add(p.node, recipe, {"float": p.macs}, weight_bytes=size)


def _weights(low: Lowering, p: Product, *, linear: bool = False) -> tuple[int, int]:
    """A float32 tensor of the filter, and the bytes that it takes in the file."""
    b, name = low.b, f"{p.node.name}/weights"
    key = ("float weights", p.constant, p.is_depthwise)
    if p.constant is not None and key in low.cache:
        known: tuple[int, int] = low.cache[key]
        return known
    values = p.weights[:, 0, 0, :] if linear else p.weights
    form = "same"
    if p.is_depthwise:
        values, form = values.transpose(3, 1, 2, 0), "depthwise"
    if p.dtype is DType.BIT and not p.is_depthwise:
        form, stored = "packed", b.constant(f"{name}/packed", pack(values))
        tensor = b.lce_dequantize(stored, values.shape[-1], F32, name)
        low.forms.kinds[stored] = BINARY
    elif not p.dtype.is_float:
        integers = values.astype(np.int8 if p.dtype.is_packed or p.dtype is DType.I8 else np.int32)
        if integers.dtype != np.int8:
            stored = tensor = b.constant(name, integers.astype(np.float32))
        else:
            stored = b.constant(f"{name}/int8", integers, np.ones(1, np.float32))
            tensor = b.op("DEQUANTIZE", (stored,), b.tensor(name, integers.shape))
        low.forms.kinds[stored] = INT8
    else:
        stored = tensor = b.constant(name, values.astype(np.float32))
        low.forms.kinds[stored] = REAL
    if p.constant is not None:
        low.stored.setdefault(p.constant.name, {"form": form, "tensors": [b.name(stored)]})
    data = b.model.tensors[stored].data
    found = tensor, (0 if data is None else data.nbytes)
    low.cache[key] = found
    return found
