"""Convolutions, linear layers and sums over windows: which of the runtime's operators computes them.

| input | weights | operator |
|---|---|---|
| bits, trits, ubits | bits, trits | LceBconv2d per pair of planes (:mod:`.binary`) |
| bits, trits, depth-wise | the same | in profile "extended", BdDepthwiseConv2d (:mod:`.extended`) |
| the same, depth-wise | the same | int8 DEPTHWISE_CONV_2D (:mod:`.depthwise`) |
| the same, groups of 16 channels or more | the same | LceBconv2d per group |
| all others | all others | CONV_2D, DEPTHWISE_CONV_2D or FULLY_CONNECTED of float32 (:mod:`.real`) |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bdnet_deploy.export.tflite import binary, depthwise, extended, real
from bdnet_deploy.export.tflite.encoding import FLOAT, Encoded
from bdnet_deploy.export.tflite.geometry import Product, product_of
from bdnet_deploy.export.tflite.packing import WORD, pack
from bdnet_deploy.graph import Affine, BoxSum, DType, Linear, Node, Value

if TYPE_CHECKING:
    from bdnet_deploy.export.tflite.lowering import Lowering

__all__ = ["EMIT", "makes_signs", "pack", "scaled", "signs", "takes_addend", "takes_affine"]

#: Sums of more products lose too much of float32 where LceBconv2d multiplies them with the factor at once.
_MAX_SCALED_TAPS = 1 << 13
#: Groups of fewer channels fill too little of a word.
_MIN_GROUP = WORD // 2


def _is_binary(p: Product) -> bool:
    """Whether LceBconv2d computes it, all channels in one group or group by group."""
    packed = p.x.type.dtype.is_packed and p.dtype.is_packed
    return packed and (p.op.groups == 1 or (not p.is_depthwise and p.shape[3] // p.op.groups >= _MIN_GROUP))


def _is_int8_depthwise(p: Product) -> bool:
    return p.x.type.dtype.is_packed and p.dtype.is_packed and p.is_depthwise and p.taps <= depthwise.MAX_TAPS


def makes_signs(low: Lowering, node: Node) -> bool:
    """Whether one operator gives the signs of the sums."""
    p = product_of(node)
    return (
        extended.takes(low, p)
        or _is_int8_depthwise(p)
        or (p.op.groups == 1 and _is_binary(p) and binary.makes_signs(p))
    )


def takes_affine(low: Lowering, node: Node, affine: Node) -> bool:
    """Whether LceBconv2d may multiply the sums with the factor of the Affine and add its addend."""
    p = product_of(node)
    if extended.takes(low, p):
        return True
    simple = p.op.groups == 1 and _is_binary(p) and p.x.type.dtype is not DType.UBIT
    return simple and p.taps <= _MAX_SCALED_TAPS


def takes_addend(low: Lowering, node: Node, affine: Node) -> bool:
    """Whether a node of which :func:`takes_affine` holds adds the addend of the Affine too.

    With two terms the addend is the last to be added in stock files with int8 layers: an extended file gives the same bytes.
    """
    assert isinstance(affine.op, Affine)
    return affine.op.terms == 1 or not extended.takes(low, product_of(node))


def makes_trits(low: Lowering, node: Node) -> bool:
    """Whether one operator gives the ternarized sums."""
    return extended.takes(low, product_of(node))


def signs(low: Lowering, node: Node, sign: Node) -> tuple[int, ...]:
    """The packed result of the Sign ``sign`` of a node of which :func:`makes_signs` holds, or of a Ternarize."""
    p = product_of(node)
    if extended.takes(low, p):
        return extended.signs(low, p, sign.inputs[1:], sign.name)
    if _is_int8_depthwise(p):
        return (low.b.lce_quantize(depthwise.sums(low, p, sign.inputs[1]), f"{sign.name}/bits"),)
    return (_as_output(low, p, binary.packed_signs(low, p, sign)),)


def scaled(low: Lowering, node: Node, mul: Value, add: Value | None) -> int:
    """``sums * mul + add`` of a node of which :func:`takes_affine` holds."""
    p = product_of(node)
    if extended.takes(low, p):
        return extended.sums(low, p, mul, add)
    return _as_output(low, p, binary.float_sums(low, p, mul, add))


def _product(low: Lowering, node: Node) -> Encoded:
    """The sums themselves."""
    p = product_of(node)
    if _is_binary(p):
        sums = binary.float_sums(low, p) if p.op.groups == 1 else binary.grouped_sums(low, p)
    elif extended.takes(low, p):
        sums = extended.sums(low, p)
    elif _is_int8_depthwise(p):
        sums = low.b.op(
            "DEQUANTIZE", (depthwise.sums(low, p, None),), low.b.tensor(f"{node.name}/f32", node.output.type.shape)
        )
    else:
        sums = real.sums(low, p)
    return Encoded(FLOAT, (_as_output(low, p, sums),))


def _box_sum(low: Lowering, node: Node) -> Encoded:
    op = node.op
    assert isinstance(op, BoxSum)
    if (
        op.kernel == (1, 1)
        and op.groups == node.inputs[0].type.channels
        and not any(op.padding)
        and op.strides == (1, 1)
    ):
        return Encoded(FLOAT, (low.f32(node.inputs[0]),))  # the bits as numbers
    return _product(low, node)


def _as_output(low: Lowering, p: Product, tensor: int) -> int:
    """A linear layer ran as a 1 x 1 convolution: its output has two axes again."""
    if not isinstance(p.node.op, Linear) or len(low.b.shape(tensor)) == 2:
        return tensor
    return low.b.reshape(tensor, (1, low.b.shape(tensor)[-1]), f"{p.node.name}/vector")


EMIT = {"conv2d": _product, "linear": _product, "box_sum": _box_sum}
