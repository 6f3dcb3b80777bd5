"""Arithmetic of single elements with parameters per channel, with gates and with constant maps."""

from __future__ import annotations

from collections.abc import Callable

from bdnet_deploy.export.onnx.body import TO_NCHW, Body, Call
from bdnet_deploy.graph import Affine
from bdnet_deploy.graph.ops.maps import FRACTION


def _beside(b: Body, call: Call, index: int) -> str:
    """A computed operand that is of the first one's shape, or a vector for all pixels."""
    x, vector, name = call.operand(), call.operand(index), call.inputs[index]
    if len(vector.shape) == len(x.shape):
        return name
    return b.op("Unsqueeze", name, b.ints([2, 3]))


def _affine(b: Body, call: Call) -> str:
    """Factors of integers come first: a factor that comes second is moved by onnxruntime into the weights of the convolution before
    it, whose sums are then rounded, so that a sum of exactly 0 falls on the other side of a threshold of 0.
    """
    terms, like = call.as_op(Affine).terms, call.operand()
    total = ""
    for i in range(terms):
        factors = (call.inputs[0] if i == 0 else _beside(b, call, 1), b.channels(call, terms + i, like))
        product = b.op("Mul", *(factors if call.operand(i).dtype.is_float else factors[::-1]))
        total = b.op("Add", total, product) if total else product
    return b.op("Add", total, b.channels(call, 2 * terms, like))


def _two_slope(b: Body, call: Call) -> str:
    """With a Where and not a PRelu, so that -0.0 and NaN take the slope that the reference takes."""
    x, (positive, negative, bias) = call.inputs[0], (b.channels(call, i, call.operand()) for i in (1, 2, 3))
    slope = b.where(b.op("GreaterOrEqual", x, b.const(0.0)), positive, negative)
    return b.op("Add", b.op("Mul", x, slope), bias)


def below(b: Body, call: Call, index: int) -> str:
    """``x < threshold``; a NaN is not below.

    Integers are smaller than 2**24, so a threshold that float32 rounds is beyond them before and after.
    """
    return b.op("Less", call.inputs[0], b.channels(call, index, call.operand()))


def _sign(b: Body, call: Call) -> str:
    low, high = (b.const(float(v)) for v in call.out.dtype.range)
    return b.where(below(b, call, 1), low, high)


def _ternarize(b: Body, call: Call) -> str:
    """1 - (x < low) - (x < high)."""
    low, high = (b.op("Cast", below(b, call, i), to=b.onnx.TensorProto.FLOAT) for i in (1, 2))
    return b.op("Sub", b.op("Sub", b.const(1.0), low), high)


def limited(b: Body, x: str, low: str, high: str) -> str:
    """``min(max(x, low), high)`` in which NaN and -0.0 stay."""
    raised = b.where(b.op("Less", x, low), low, x)
    return b.where(b.op("Greater", raised, high), high, raised)


def _clamp(b: Body, call: Call) -> str:
    low, high = (b.channels(call, i, call.operand()) for i in (1, 2))
    return limited(b, call.inputs[0], low, high)


def _mul(b: Body, call: Call) -> str:
    return b.op("Mul", call.inputs[0], _beside(b, call, 1))


def _map(b: Body, call: Call) -> str:
    return b.op("Transpose", b.number(call, 1), perm=TO_NCHW)


def _add_map(b: Body, call: Call) -> str:
    x = call.inputs[0]
    if not call.operand().dtype.is_float and FRACTION[call.operand().dtype]:
        x = b.op("Mul", x, b.const(float(1 << FRACTION[call.operand().dtype])))
    return b.op("Add", x, _map(b, call))


def _mul_map(b: Body, call: Call) -> str:
    return b.op("Mul", call.inputs[0], _map(b, call))


EMIT: dict[str, Callable[[Body, Call], str]] = {
    "add_map": _add_map,
    "affine": _affine,
    "clamp": _clamp,
    "mul": _mul,
    "mul_map": _mul_map,
    "sign": _sign,
    "ternarize": _ternarize,
    "two_slope": _two_slope,
}
