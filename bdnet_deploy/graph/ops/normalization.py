"""Normalization by statistics of the input itself. Scale and shift are an Affine behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph.dtypes import Array, DType, Quant, TensorType
from bdnet_deploy.graph.op import Op, check, register
from bdnet_deploy.graph.ops.pointwise import saturate

#: Elements that one mean may be taken over: sums and squares stay exact.
LARGEST_COUNT = {DType.I16: 65535, DType.I8: 1 << 20, DType.F32: 1 << 24, DType.F64: 1 << 24}
#: The term that keeps the root away from 0 is at most this.
LARGEST_BIAS = 1 << 62


def _check_input(x: TensorType, count: int, fraction: int, bias: int) -> TensorType:
    check(x.dtype in LARGEST_COUNT, f"no normalization of {x}")
    check(count <= LARGEST_COUNT[x.dtype], f"statistics of {count} elements; {LARGEST_COUNT[x.dtype]} are possible")
    if x.dtype.is_float:
        return TensorType(x.shape, x.dtype)
    check(0 <= fraction <= 15 and 1 <= bias <= LARGEST_BIAS, "a fixed normalization needs its fraction and bias")
    return TensorType(x.shape, DType.I16, Quant.of(2.0**-fraction))


def normalize(x: Array, dtype: DType, epsilon: float, fraction: int, bias: int) -> Array:
    """The rows of x (rows, count) by their own mean and standard deviation; see :class:`LayerNorm`."""
    count = x.shape[-1]
    if dtype is DType.F64:
        deviation = x - x.mean(-1, keepdims=True)
        return np.asarray(deviation / np.sqrt(np.square(deviation).mean(-1, keepdims=True) + epsilon))
    if dtype is DType.F32:
        with np.errstate(all="ignore"):
            factor = np.float32(1.0 / count)
            total = np.zeros(x.shape[0], np.float32)
            for i in range(count):
                total = total + x[:, i]
            deviation = x - (total * factor)[:, None]
            squares = np.zeros(x.shape[0], np.float32)
            for i in range(count):
                squares = squares + deviation[:, i] * deviation[:, i]
            root = np.sqrt(squares * factor + np.float32(epsilon))
            return np.asarray(deviation * (np.float32(1) / root)[:, None])
    exact = x.astype(np.int64)
    total = exact.sum(-1)
    squares = np.square(exact).sum(-1)
    deviation = count * exact - total[:, None]
    y = np.empty(x.shape, np.int64)
    for row, (s, q) in enumerate(zip(total.tolist(), squares.tolist(), strict=True)):
        n = count * q - s * s + bias
        k = (64 - n.bit_length()) // 2
        root = math.isqrt(n << (2 * k)) >> 1
        t = (deviation[row] << k) >> 16
        y[row] = (t * ((1 << 54) // root) + (1 << (38 - fraction))) >> (39 - fraction)
    return saturate(y, DType.I16)


@register
@dataclass(frozen=True)
class LayerNorm(Op):
    """``y = (x - mean) / sqrt(variance + epsilon)`` over the last axis; x ``(1, ..., C)``. Scale and shift: an Affine.

    Real: with f the rounded 1 / C, ``mean = sum * f`` (ascending), ``d = x - mean``, ``variance = (sum d * d) * f``
    (ascending), ``y = d * (1 / sqrt(variance + epsilon))``; the root is correctly rounded.

    Fixed (x is i8 or i16 of one scale; zero points cancel; y is i16 with ``fraction`` fractional bits). With exact sums
    ``s = sum x``, ``q = sum x**2``: ``d = C x - s``; ``n = C q - s**2 + bias`` (bias is epsilon C**2 / scale**2, at
    least 1); k the largest number with n * 4**k below 2**64; ``root = floor(sqrt(n * 4**k) / 2)``;
    ``y = saturate((((d << k) >> 16) * floor(2**54 / root) + half) >> (39 - fraction))``.
    """

    epsilon: float = 1e-5
    fraction: int = 0
    bias: int = 0

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        (x,) = types
        return _check_input(x, x.channels, self.fraction, self.bias)

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        x = arrays[0]
        y = normalize(x.reshape(-1, x.shape[-1]), types[0].dtype, self.epsilon, self.fraction, self.bias)
        return y.reshape(x.shape)


@register
@dataclass(frozen=True)
class GroupNorm(Op):
    """As :class:`LayerNorm`, over the map and a group of adjacent channels; x ``(1, H, W, C)``.

    ``groups == C`` is instance normalization. Sums ascend in (y, x, channel); C of the formulas is the number of
    elements of a group.
    """

    groups: int = 1
    epsilon: float = 1e-5
    fraction: int = 0
    bias: int = 0

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        (x,) = types
        check(len(x.shape) == 4, f"needs NHWC, got {x}")
        check(self.groups > 0 and x.channels % self.groups == 0, f"{x.channels} channels in {self.groups} groups")
        return _check_input(x, x.size // self.groups, self.fraction, self.bias)

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        x = arrays[0]
        n, height, width, channels = x.shape
        size = channels // self.groups
        grouped = x.reshape(n, height, width, self.groups, size).transpose(0, 3, 1, 2, 4)
        rows = normalize(grouped.reshape(n * self.groups, -1), types[0].dtype, self.epsilon, self.fraction, self.bias)
        back = rows.reshape(n, self.groups, height, width, size).transpose(0, 2, 3, 1, 4)
        return np.ascontiguousarray(back.reshape(x.shape))
