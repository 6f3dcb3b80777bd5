"""Convolutions and matrix products: exact integer accumulators."""

from __future__ import annotations

from typing import cast

import numpy as np

from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.graph import REPLICATE, Array, Conv2d, DType, Linear, Node, Quant, Value
from bdnet_deploy.passes.quantizer import Quantizer, rule

_WEIGHT_MAX = 127


@rule(Conv2d, Linear)
def product(q: Quantizer, node: Node) -> Value:
    x, weight = q.values[node.inputs[0]], node.inputs[1]
    data = cast(Array, weight.data)
    if weight.type.dtype.is_packed and x.type.dtype.is_packed:
        w = q.constant(weight.name, data, weight.type.dtype)
    else:
        if not x.type.dtype.is_packed:
            x = q.uniform(node.inputs[0], x, DType.I16 if len(x.type.shape) == 2 else DType.I8)
            if isinstance(node.op, Conv2d) and node.op.pad_value not in (0, REPLICATE) and any(node.op.padding):
                raise UnsupportedError(
                    f"{q.new.numerics} has no padding of {node.op.pad_value} for a real input",
                    where=node.source or node.name,
                    fix="pad with 0, or export with numerics float",
                )
        real = np.abs(data.astype(np.float64)).reshape(data.shape[0], -1)
        # Sums of products stay within 32 bits, whatever the input.
        most = (2**31 - 1) / _largest(x) - 0.5 * real.shape[1]
        scale = np.maximum(np.maximum(real.max(1), 1e-12) / _WEIGHT_MAX, real.sum(1) / most)
        quantized = np.rint(data / scale.reshape(-1, *[1] * (data.ndim - 1)))
        w = q.constant(weight.name, quantized, DType.I8, Quant.of(scale))
    y = q.new.add(node.op, [x, w], node.name, source=node.source)
    taps = np.abs(cast(Array, w.data).astype(np.float64)).reshape(data.shape[0], -1).sum(1)
    q.magnitudes[y] = taps * _largest(x)
    if not w.type.dtype.is_packed:
        q.expect(y, node.output)
    return y


def _largest(x: Value) -> float:
    """Largest factor that an input of a convolution puts into a product, its zero point taken off."""
    zero = float(x.type.quant.zero_point) if x.type.quant else 0.0
    low, high = x.type.dtype.range
    return max(high - zero, zero - low, 1.0)
