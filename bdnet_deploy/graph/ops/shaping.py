"""Broadcast residuals: repetition of channels, and means over groups of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph.dtypes import Array, DType, Quant, TensorType
from bdnet_deploy.graph.op import Op, check, register
from bdnet_deploy.graph.ops.pooling import mean_of


@register
@dataclass(frozen=True)
class Repeat(Op):
    """Tile the channels: ``y[..., r*C + c] = x[..., c]`` for r < times (broadcast residual, channel expansion)."""

    times: int = 2

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        (x,) = types
        check(self.times > 0, "times must be positive")
        quant = x.quant
        if quant is not None:
            quant = Quant.of(*(np.tile(a, self.times) if np.ndim(a) else a for a in (quant.scale, quant.zero_point)))
        return TensorType((*x.shape[:-1], x.channels * self.times), x.dtype, quant)

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        return np.concatenate([arrays[0]] * self.times, axis=-1)


@register
@dataclass(frozen=True)
class GroupMean(Op):
    """Mean over groups of ``size`` adjacent channels: ``y[..., c] = mean x[..., c*size : (c+1)*size]``.

    The broadcast residual where the width shrinks. Real: sum ascending, then times the rounded 1/size. Fixed point:
    as AvgPool; the channels of a group must share scale and zero point.
    """

    size: int = 2

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        (x,) = types
        check(self.size > 0 and x.channels % self.size == 0, f"{x.channels} channels in groups of {self.size}")
        check(not x.dtype.is_packed and x.dtype is not DType.I32, f"no group mean of {x.dtype.value}")
        quant = x.quant
        if quant is not None:
            parts = []
            for a in (quant.scale, quant.zero_point):
                groups = np.broadcast_to(a, (x.channels,)).reshape(-1, self.size)
                check(bool((groups == groups[:, :1]).all()), "channels of a group differ in quantization")
                parts.append(groups[:, 0] if np.ndim(a) else a)
            quant = Quant.of(*parts)
        return TensorType((*x.shape[:-1], x.channels // self.size), x.dtype, quant)

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        x = arrays[0].reshape(*arrays[0].shape[:-1], out.channels, self.size)
        if not out.dtype.is_float:
            return mean_of(x.sum(-1, dtype=np.int64), self.size, out.dtype)
        total = np.zeros(x.shape[:-1], x.dtype)
        for i in range(self.size):
            total = total + x[..., i]
        mean: Array = total * out.dtype.numpy.type(1.0 / self.size)
        return mean
