"""Largest value of a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph.dtypes import Array, DType, TensorType
from bdnet_deploy.graph.op import Op, check, register


def least(dtype: DType) -> float:
    """The value that never wins."""
    return -np.inf if dtype.is_float else dtype.range[0]


def larger(a: Array, b: Array) -> Array:
    """Element-wise maximum; NaN wins over every number, and of equal values (+0, -0) ``a`` stays."""
    return np.where((b > a) | (b != b), b, a)


def _window_misses(size: int, positions: int, kernel: int, stride: int, dilation: int, before: int) -> bool:
    """Whether some position of a window along one axis has no tap in the map."""
    taps = np.arange(positions)[:, None] * stride - before + np.arange(kernel) * dilation
    return bool(((taps < 0) | (taps >= size)).all(1).any())


@register
@dataclass(frozen=True)
class MaxPool(Op):
    """Maximum over windows, ``(1, H, W, C) -> (1, OH, OW, C)``, of any dtype; quantization is unchanged.

    Padding (per side) never wins: taps outside the map are left out, and every window must reach into the map. A pool that
    rounds its output size up is one with more padding at the bottom and to the right.

    Real values: NaN wins over every number, as in ``torch.nn.MaxPool2d``; of equal values (+0 and -0) the first in
    ascending (ky, kx) stays. Bits and trits: the logical OR of "+1", in memory the AND of each plane.
    """

    kernel: tuple[int, int] = (2, 2)
    strides: tuple[int, int] = (2, 2)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, bottom, left, right
    dilation: tuple[int, int] = (1, 1)

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        (x,) = types
        check(len(x.shape) == 4, f"needs NHWC, got {x}")
        check(min(self.kernel) > 0 and min(self.strides) > 0 and min(self.dilation) > 0, "window, stride or dilation 0")
        check(min(self.padding) >= 0, "negative padding")
        size = []
        for axis in (0, 1):
            before, after = self.padding[2 * axis : 2 * axis + 2]
            reach = (self.kernel[axis] - 1) * self.dilation[axis] + 1
            positions = (x.shape[1 + axis] + before + after - reach) // self.strides[axis] + 1
            check(positions > 0, f"window {self.kernel} is larger than the padded map of {x}")
            window = (self.kernel[axis], self.strides[axis], self.dilation[axis], before)
            check(not _window_misses(x.shape[1 + axis], positions, *window), "a window lies in the padding altogether")
            size.append(positions)
        return TensorType((1, *size, x.channels), x.dtype, x.quant)

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        _, oh, ow, _ = out.shape
        top, bottom, left, right = self.padding
        sides = ((0, 0), (top, bottom), (left, right), (0, 0))
        padded = np.pad(arrays[0], sides, constant_values=least(out.dtype))
        y: Array = np.full((padded.shape[0], *out.shape[1:]), least(out.dtype), arrays[0].dtype)
        for ky in range(self.kernel[0]):
            for kx in range(self.kernel[1]):
                y0, x0 = ky * self.dilation[0], kx * self.dilation[1]
                rows = slice(y0, y0 + (oh - 1) * self.strides[0] + 1, self.strides[0])
                columns = slice(x0, x0 + (ow - 1) * self.strides[1] + 1, self.strides[1])
                y = larger(y, padded[:, rows, columns])
        return y
