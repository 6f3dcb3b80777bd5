"""Weights of one bit as bit planes in an initializer, and the standard operators that unpack them.

A plane holds the elements in the graph's order (OHWI, or OI), eight a byte, the first in the lowest bit; what is left of the last
byte is 0. A value is 1 - b of a plane b for ubits, 1 - 2 b for bits, and 1 - a - b of two planes a <= b for trits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.graph import Array, DType, TensorType

if TYPE_CHECKING:
    from bdnet_deploy.export.onnx.body import Body


def pack(data: Array, dtype: DType) -> Array:
    """(planes, bytes) uint8 of bits, trits or ubits."""
    flat = data.reshape(-1).astype(np.int8)
    planes = [flat < 0, flat <= 0] if dtype is DType.TRIT else [flat <= 0]
    return np.stack([np.packbits(plane, bitorder="little") for plane in planes])


def unpack(planes: Array, type_: TensorType) -> Array:
    """The int8 values of ``type_.shape``.

    Raises:
        ValueError: not what :func:`pack` makes of any values of this type.
    """
    size = type_.size
    if planes.shape != (type_.dtype.planes, -(-size // 8)) or planes.dtype != np.uint8:
        raise ValueError(f"{planes.dtype} {planes.shape} holds no {type_}")
    bits = np.unpackbits(planes, axis=1, bitorder="little").astype(np.int8)
    if bits[:, size:].any() or (len(bits) == 2 and (bits[0] > bits[1]).any()):
        raise ValueError(f"the bit planes of {type_} are damaged")
    bits = bits[:, :size]
    factor = 2 if type_.dtype is DType.BIT else 1
    values = (1 - factor * bits.sum(0, dtype=np.int8)).astype(np.int8)
    return np.asarray(values.reshape(type_.shape))


def emit_unpack(body: Body, planes: str, type_: TensorType) -> str:
    """Nodes that turn the initializer into float32 values of ``type_.shape``; runtimes compute them once, when they load."""
    bits = body.op("Cast", body.op("Unsqueeze", planes, body.ints([2])), to=body.onnx.TensorProto.INT32)
    bits = body.op("Mod", body.op("Div", bits, body.const(1 << np.arange(8), "int32")), body.const(2, "int32"))
    total = body.op("ReduceSum", bits, body.ints([0]), keepdims=0)  # one plane, or a + b
    flat = body.op("Reshape", total, body.ints([-1]))
    if type_.size % 8:
        flat = body.op("Slice", flat, body.ints([0]), body.ints([type_.size]))
    number = body.op("Cast", flat, to=body.onnx.TensorProto.FLOAT)
    if type_.dtype is DType.BIT:
        number = body.op("Mul", number, body.const(2.0))
    return body.op("Reshape", body.op("Sub", body.const(1.0), number), body.ints(type_.shape))
