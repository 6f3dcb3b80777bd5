"""Spatial pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph.dtypes import Array, DType, Quant, TensorType
from bdnet_deploy.graph.op import Op, check, register
from bdnet_deploy.graph.ops.pointwise import FRACTION_BITS, saturate


def reciprocal(count: int) -> int:
    """``1 / count`` with 16 fractional bits, the factor by which fixed-point means are taken."""
    return (2 * (1 << FRACTION_BITS) + count) // (2 * count)


def mean_of(total: Array, count: int, dtype: DType) -> Array:
    """Mean from an exact sum: ``(sum * reciprocal + 2**15) >> 16`` (round half up) in fixed point."""
    scaled = total.astype(np.int64) * reciprocal(count) + (1 << (FRACTION_BITS - 1))
    return saturate(scaled >> FRACTION_BITS, dtype)


@register
@dataclass(frozen=True)
class AvgPool(Op):
    """Mean over windows without padding; windows that would leave the map are dropped.

    Real: sum ascending in (ky, kx), then one multiplication by the rounded reciprocal of the window's size. Fixed
    point (i16, i8): exact sum times the 16-bit reciprocal, rounded half up. Quantization is unchanged.
    """

    kernel: tuple[int, int] = (2, 2)
    strides: tuple[int, int] = (2, 2)

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        (x,) = types
        check(len(x.shape) == 4, f"needs NHWC, got {x}")
        check(not x.dtype.is_packed and x.dtype is not DType.I32, f"no average pooling of {x.dtype.value}")
        oh = (x.shape[1] - self.kernel[0]) // self.strides[0] + 1
        ow = (x.shape[2] - self.kernel[1]) // self.strides[1] + 1
        check(oh > 0 and ow > 0, f"window {self.kernel} is larger than the map of {x}")
        return TensorType((1, oh, ow, x.channels), x.dtype, x.quant)

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        x = arrays[0]
        _, oh, ow, _ = out.shape
        total = np.zeros((x.shape[0], *out.shape[1:]), x.dtype if out.dtype.is_float else np.int64)
        for ky in range(self.kernel[0]):
            for kx in range(self.kernel[1]):
                total = (
                    total
                    + x[
                        :,
                        ky : ky + (oh - 1) * self.strides[0] + 1 : self.strides[0],
                        kx : kx + (ow - 1) * self.strides[1] + 1 : self.strides[1],
                    ]
                )
        count = self.kernel[0] * self.kernel[1]
        if out.dtype.is_float:
            mean: Array = total * out.dtype.numpy.type(1.0 / count)
            return mean
        return mean_of(total, count, out.dtype)


@register
@dataclass(frozen=True)
class GlobalAvgPool(Op):
    """Mean over the map, ``(1, H, W, C) -> (1, C)``.

    Real: one accumulator per channel over ascending pixels, then one multiplication by the rounded 1/(H*W). Integer
    inputs give the exact i32 *sum*; 1/(H*W) lies in the output's scale and the zero point grows by H*W.
    """

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        (x,) = types
        check(len(x.shape) == 4, f"needs NHWC, got {x}")
        check(not x.dtype.is_packed, f"no global average pooling of {x.dtype.value}")
        if x.dtype.is_float:
            return TensorType((1, x.channels), x.dtype)
        pixels = x.shape[1] * x.shape[2]
        quant = None if x.quant is None else Quant.of(x.quant.scale / pixels, x.quant.zero_point * pixels)
        return TensorType((1, x.channels), DType.I32, quant)

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        x = arrays[0].reshape(arrays[0].shape[0], -1, out.channels)
        if not out.dtype.is_float:
            return np.asarray(x.sum(1, dtype=np.int64).astype(np.int32))
        total = np.zeros((x.shape[0], out.channels), x.dtype)
        for pixel in range(x.shape[1]):
            total = total + x[:, pixel]
        mean: Array = total * out.dtype.numpy.type(1.0 / x.shape[1])
        return mean
