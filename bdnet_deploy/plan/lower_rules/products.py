"""Convolutions and matrix products, fused with what follows them."""

from __future__ import annotations

from typing import cast

import numpy as np

from bdnet_deploy.bitplanes import pack
from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.graph import Array, Conv2d, DType, Linear, Node, TensorType
from bdnet_deploy.plan.lowering import LETTER, Lowering, rule

_CONV_PAIRS = {"ff", "bf", "tf", "uq", "qq", "hq", "bq", "tq", "zf", "zq"}


@rule(Conv2d, Linear)
def product(low: Lowering, node: Node) -> None:
    x, w, *border = node.inputs
    conv = node.op if isinstance(node.op, Conv2d) else Conv2d()
    data = cast(Array, w.data)
    weights = data if data.ndim == 4 else data.reshape(data.shape[0], 1, 1, data.shape[1])
    channels = x.type.channels
    pair = LETTER[x.type.dtype] + LETTER[w.type.dtype]
    packed = w.type.dtype.is_packed
    taps = int(np.prod(weights.shape[1:]))
    depthwise = packed and conv.groups == channels == weights.shape[0] and conv.groups > 1 and taps <= 127
    depthwise = depthwise and x.type.dtype is not DType.UBIT
    if packed and x.type.dtype.is_packed:
        if w.type.dtype is DType.UBIT:
            raise UnsupportedError(
                "weights of 0 and 1 have no kernel for packed inputs",
                where=node.source or node.name,
                fix="make their constant one of trits, which have the same values",
            )
        acc = DType.I8 if depthwise else DType.I16 if taps <= 32767 else DType.I32
        kernel = f"bd_{'dw' if depthwise else 'conv'}_{pair}_{acc.value}"
        if depthwise:  # [kh][kw][plane][words(C)]
            by_tap = weights[..., 0].transpose(1, 2, 0)
            blob = pack(by_tap, planes=w.type.dtype.planes)
        else:  # [O][kh][kw][plane][words(C / groups)]
            blob = pack(weights, planes=w.type.dtype.planes)
    elif x.type.dtype is DType.F32 or pair in _CONV_PAIRS:
        if packed:  # real inputs: the weights as they are, not as bits
            pair, packed, weights = "ff", False, weights.astype(np.float32)
        acc = node.output.type.dtype
        kernel = f"bd_conv_{pair}_{acc.value}"
        blob = weights
        if border:
            kernel += "__border"
            if max(border[0].type.shape[:2]) > 256:
                raise low.unsupported(node, "more than 256 classes of border rows or columns")
            blob = _with_border(conv, x.type, w.type, cast(Array, border[0].data), weights)
    else:
        raise low.unsupported(node, f"no kernel for a {x.type.dtype.value} x {w.type.dtype.value} convolution")
    low.fused(
        node,
        kernel,
        acc_dtype=acc,
        groups=conv.groups,
        window=(weights.shape[1], weights.shape[2]),
        strides=conv.strides,
        dilation=conv.dilation,
        pad_top_left=(conv.padding[0], conv.padding[2]),
        pad_value=conv.pad_value,
        zero_point=int(x.type.quant.zero_point) if x.type.quant and not border else 0,
        weights=np.ascontiguousarray(blob),
        weight_planes=w.type.dtype.planes if packed else 0,
    )


def _with_border(conv: Conv2d, x: TensorType, w: TensorType, border: Array, weights: Array) -> Array:
    """The blob of a ``__border`` kernel: see ``runtime/kernels/generic/conv_i8.c``."""
    rows, columns = conv.classes(x, w)
    parts = [
        np.array(border.shape[:2], "<u2").tobytes(),
        border.astype("<i4").tobytes(),
        rows.astype(np.uint8).tobytes(),
        columns.astype(np.uint8).tobytes(),
        weights.tobytes(),
    ]
    return np.frombuffer(b"".join(parts), np.uint8)
