"""Operators on single elements and channels: signs, affine maps, slopes, limits, products, quantization."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.export.tflite import convolution
from bdnet_deploy.export.tflite.encoding import FLOAT, Encoded, packed_like
from bdnet_deploy.graph import Affine, BitLogic, Dequantize, Node, Quant, Quantize, Value

if TYPE_CHECKING:
    from bdnet_deploy.export.tflite.lowering import Lowering


def _float(tensor: int) -> Encoded:
    return Encoded(FLOAT, (tensor,))


def _threshold(low: Lowering, node: Node) -> Encoded:
    """Signs and ternarized values: packed signs of x - threshold, a plane for each threshold."""
    x, *thresholds = node.inputs
    if x in low.pending:
        return packed_like(node.output, convolution.signs(low, low.pending[x], node))
    planes = []
    for threshold in thresholds:
        negated = _negated(low, x, threshold)
        # Where x equals the threshold the sum is +0.0, as LceQuantize needs it.
        shifted = low.b.add(low.f32(x), negated, f"{node.name}/shifted")
        planes.append(low.b.lce_quantize(shifted, f"{node.name}/plane"))
    low.forms.add(node, "ADD, LceQuantize")
    return packed_like(node.output, tuple(planes))


def _negated(low: Lowering, x: Value, threshold: Value) -> int:
    if threshold.type.dtype.is_float:
        return low.parameter(threshold, -1.0)
    # Beyond the values of x all thresholds are alike, and float32 has those up to 2**24.
    assert threshold.data is not None
    bound = low.bounds[x]
    exact = np.clip(threshold.data.astype(np.int64), -bound, bound + 1).astype(np.float32)
    negated = low.constant(f"{threshold.name}/negated", np.float32(0) - exact)
    low.stored.setdefault(threshold.name, {"form": "times", "factor": -1.0, "tensors": [low.b.name(negated)]})
    return negated


def _affine(low: Lowering, node: Node) -> Encoded:
    op = node.op
    assert isinstance(op, Affine)
    xs, muls, add = node.inputs[: op.terms], node.inputs[op.terms : -1], node.inputs[-1]
    # The first convolution that can takes the addend along.
    carrier = next((v for v in xs if v in low.pending and convolution.takes_addend(low, low.pending[v], node)), None)
    terms = []
    for x, mul in zip(xs, muls, strict=True):
        if x in low.pending:
            bias = add if x is carrier else None
            terms.append(convolution.scaled(low, low.pending[x], mul, bias))
            continue
        tensor = low.f32(x)
        if len(x.type.shape) > len(node.output.type.shape):  # a vector (1, 1, 1, C) beside one of two axes
            tensor = low.b.reshape(tensor, node.output.type.shape, f"{node.name}/vector")
        if not low.is_all(mul, 1.0):
            tensor = low.b.multiply(tensor, low.parameter(mul), f"{node.name}/term")
        terms.append(tensor)
    result = terms[0] if op.terms == 1 else low.b.add(terms[0], terms[1], f"{node.name}/sum")
    if carrier is None and not low.is_all(add, 0.0):
        result = low.b.add(result, low.parameter(add), f"{node.name}/biased")
    return _float(result)


def _two_slope(low: Lowering, node: Node) -> Encoded:
    x, positive, negative, bias = node.inputs
    tensor, b = low.f32(x), low.b
    if low.is_all(positive, 1.0):
        if low.is_all(negative, 0.0):
            tensor = b.unary("RELU", tensor, f"{node.name}/slope")
        elif not low.is_all(negative, 1.0):
            shape = b.shape(tensor)
            tensor = b.op("PRELU", (tensor, low.parameter(negative)), b.tensor(f"{node.name}/slope", shape))
    else:
        # One of the two products is zero, so their sum is exact.
        above = b.unary("RELU", tensor, f"{node.name}/above")
        below = b.binary("MINIMUM", tensor, low.number(0.0), f"{node.name}/below")
        above = b.multiply(above, low.parameter(positive), f"{node.name}/above")
        below = b.multiply(below, low.parameter(negative), f"{node.name}/below")
        tensor = b.add(above, below, f"{node.name}/slope")
    if not low.is_all(bias, 0.0):
        tensor = b.add(tensor, low.parameter(bias), f"{node.name}/biased")
    return _float(tensor)


_CLAMPS = {(0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}


def _clamp(low: Lowering, node: Node) -> Encoded:
    x, least, most = node.inputs
    tensor = low.f32(x)
    for (a, b), operator in _CLAMPS.items():
        if low.is_all(least, a) and low.is_all(most, b):
            return _float(low.b.unary(operator, tensor, f"{node.name}/clamped"))
    raised = low.b.binary("MAXIMUM", tensor, low.parameter(least), f"{node.name}/raised")
    return _float(low.b.binary("MINIMUM", raised, low.parameter(most), f"{node.name}/clamped"))


def _mul(low: Lowering, node: Node) -> Encoded:
    a, b = node.inputs
    gate = low.f32(b)
    if len(b.type.shape) > len(a.type.shape):
        gate = low.b.reshape(gate, a.type.shape, f"{node.name}/gate")
    return _float(low.b.multiply(low.f32(a), gate, f"{node.name}/product"))


def _add_map(low: Lowering, node: Node) -> Encoded:
    return _float(low.b.add(low.f32(node.inputs[0]), low.parameter(node.inputs[1]), f"{node.name}/sum"))


def _mul_map(low: Lowering, node: Node) -> Encoded:
    return _float(low.b.multiply(low.f32(node.inputs[0]), low.parameter(node.inputs[1]), f"{node.name}/product"))


def _quantize(low: Lowering, node: Node) -> Encoded:
    """A division, the nearest whole number with halves to even, limits: QUANTIZE itself rounds halves away from zero."""
    op, b = node.op, low.b
    assert isinstance(op, Quantize)
    least, most = op.dtype.range
    ratio = b.binary("DIV", low.f32(node.inputs[0]), low.number(op.scale), f"{node.name}/ratio")
    whole = b.unary("ROUND", ratio, f"{node.name}/whole")
    whole = b.binary("MAXIMUM", whole, low.number(least - op.zero_point), f"{node.name}/raised")
    whole = b.binary("MINIMUM", whole, low.number(most - op.zero_point), f"{node.name}/limited")
    return _float(b.add(whole, low.number(op.zero_point), f"{node.name}/level") if op.zero_point else whole)


def _dequantize(low: Lowering, node: Node) -> Encoded:
    assert isinstance(node.op, Dequantize)
    x, b = node.inputs[0], low.b
    quant = x.type.quant or Quant.of(1.0)
    tensor = low.f32(x)
    if np.any(quant.zero_point):
        zero = low.constant(f"{node.name}/zero", np.atleast_1d(quant.zero_point).astype(np.float32))
        tensor = b.subtract(tensor, zero, f"{node.name}/centered")
    scale = low.constant(f"{node.name}/scale", np.atleast_1d(quant.scale).astype(np.float32))
    return _float(b.multiply(tensor, scale, f"{node.name}/real"))


def _bit_logic(low: Lowering, node: Node) -> Encoded:
    """Of packed words their exclusive or, else of numbers: and is the minimum, or the maximum."""
    op, b = node.op, low.b
    assert isinstance(op, BitLogic)
    if op.kind in ("and", "or"):
        operator = "MINIMUM" if op.kind == "and" else "MAXIMUM"
        low.forms.add(node, "float operators")
        return _float(b.binary(operator, low.f32(node.inputs[0]), low.f32(node.inputs[1]), f"{node.name}/logic"))
    # A word has 1 where a value is -1 (or 0), so words that differ make -1: xnor.
    (first,), (second,) = (low.planes(v) for v in node.inputs)
    words = b.binary("BITWISE_XOR", first, second, f"{node.name}/different", b.model.tensors[first].kind)
    if op.kind == "xor":
        channels = node.output.type.channels
        ones = convolution.pack(-np.ones(channels, np.int8))
        words = b.binary(
            "BITWISE_XOR", words, low.constant("ones", ones), f"{node.name}/equal", b.model.tensors[first].kind
        )
    low.forms.add(node, "packed words")
    return packed_like(node.output, (words,))


EMIT = {
    "add_map": _add_map,
    "affine": _affine,
    "bit_logic": _bit_logic,
    "clamp": _clamp,
    "dequantize": _dequantize,
    "mul": _mul,
    "mul_map": _mul_map,
    "quantize": _quantize,
    "sign": _threshold,
    "ternarize": _threshold,
    "two_slope": _two_slope,
}
