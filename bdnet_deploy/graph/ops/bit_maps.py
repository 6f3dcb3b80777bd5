"""Logic of bit maps, and sums of bits or trits over windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph.dtypes import Array, DType, TensorType
from bdnet_deploy.graph.op import Op, check, register
from bdnet_deploy.graph.ops.convolution import REPLICATE, Conv2d

LOGIC = ("and", "or", "xor", "xnor")


@register
@dataclass(frozen=True)
class BitLogic(Op):
    """``kind`` "and", "or", "xor" or "xnor" of two bit maps of one shape. The larger value counts as true.

    Of -1 and +1: and is the minimum, or the maximum, xnor the product a * b, xor its negative. Of 0 and 1 the same.
    """

    kind: str = "xnor"

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        a, b = types
        check(self.kind in LOGIC, f"no logic '{self.kind}'; {', '.join(LOGIC)} are possible")
        check(a.shape == b.shape, f"{a} and {b} differ in shape")
        check(a.dtype is b.dtype and a.dtype.planes == 1, f"needs two bit maps, got {a} and {b}")
        return TensorType(a.shape, a.dtype)

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        false, true = out.dtype.range
        a, b = (x == true for x in arrays)
        y = {"and": a & b, "or": a | b, "xor": a ^ b, "xnor": a == b}[self.kind]
        return np.where(y, true, false).astype(out.dtype.numpy)


@register
@dataclass(frozen=True)
class BoxSum(Op):
    """Sum of bits or trits over a window and the channels of a group: ``(1, H, W, C) -> (1, OH, OW, groups)``, i32.

    A convolution with one filter of ones per group. With weights alpha * t + beta (AdaBin, arXiv 2208.08084) a
    convolution is alpha times the one with t plus beta times this sum, which all filters of a group share:
    ``affine(conv, repeat(box_sum))``. Padding per side, with ``pad_value`` as in Conv2d. Of bits, trits and ubits.
    """

    kernel: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, bottom, left, right
    pad_value: int = 0
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def _conv(self) -> Conv2d:
        return Conv2d(self.strides, self.padding, self.pad_value, self.dilation, self.groups)

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        (x,) = types
        check(len(x.shape) == 4, f"needs NHWC, got {x}")
        check(x.dtype.is_packed, f"sums bits or trits, not {x.dtype.value}")
        check(min(self.kernel) > 0, "an empty window")
        check(self.groups > 0 and x.channels % self.groups == 0, f"{x.channels} channels in {self.groups} groups")
        ones = TensorType((self.groups, *self.kernel, x.channels // self.groups), DType.BIT)
        return self._conv().infer([x, ones])

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        _, oh, ow, groups = out.shape
        top, bottom, left, right = self.padding
        per_group = arrays[0].reshape(*arrays[0].shape[:3], groups, -1)
        # A padded pixel is pad_value in every channel.
        sides = ((0, 0), (top, bottom), (left, right), (0, 0))
        sums = per_group.sum(-1, dtype=np.int32)
        if self.pad_value == REPLICATE:
            sums = np.pad(sums, sides, mode="edge")
        else:
            sums = np.pad(sums, sides, constant_values=self.pad_value * per_group.shape[-1])
        y = np.zeros((len(sums), *out.shape[1:]), np.int32)
        for ky in range(self.kernel[0]):
            for kx in range(self.kernel[1]):
                y0, x0 = ky * self.dilation[0], kx * self.dilation[1]
                rows = slice(y0, y0 + (oh - 1) * self.strides[0] + 1, self.strides[0])
                columns = slice(x0, x0 + (ow - 1) * self.strides[1] + 1, self.strides[1])
                y += sums[:, rows, columns]
        return y
