"""Convolutions and linear layers as one thing, and what padding does to them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bdnet_deploy.export.tflite.schema import Array
from bdnet_deploy.graph import REPLICATE, BoxSum, Conv2d, DType, Linear, Node, TensorType, Value


@dataclass(frozen=True, eq=False)
class Product:
    """A convolution; a linear layer is one of 1 x 1 filters over one pixel, a sum over windows one with weights of 1.

    Attributes:
        node: the graph's.
        op: strides, padding, dilation and groups.
        weights: OHWI, int8 or float32.
        dtype: of the weights.
        constant: the graph's constant that has them, None for sums.
        shape: (1, H, W, C) of the input.
    """

    node: Node
    op: Conv2d
    weights: Array
    dtype: DType
    constant: Value | None
    shape: tuple[int, ...]

    @property
    def x(self) -> Value:
        return self.node.inputs[0]

    @property
    def outputs(self) -> int:
        return int(self.weights.shape[0])

    @property
    def taps(self) -> int:
        """Products of one sum."""
        return int(np.prod(self.weights.shape[1:]))

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(1, OH, OW, O)."""
        shape = self.node.output.type.shape
        return shape if len(shape) == 4 else (1, 1, 1, shape[-1])

    @property
    def macs(self) -> int:
        return int(np.prod(self.out_shape)) * self.taps

    @property
    def is_depthwise(self) -> bool:
        return self.op.groups == self.shape[3] > 1

    @property
    def repeats_border(self) -> bool:
        return self.op.pad_value == REPLICATE and any(self.op.padding)

    def repeated(self) -> tuple[list[int], list[int]]:
        """The rows and the columns of the padded input, where the padding repeats the border."""
        top, bottom, left, right = self.op.padding
        rows = np.clip(np.arange(-top, self.shape[1] + bottom), 0, self.shape[1] - 1)
        columns = np.clip(np.arange(-left, self.shape[2] + right), 0, self.shape[2] - 1)
        return rows.tolist(), columns.tolist()


def product_of(node: Node) -> Product:
    """The Product of a conv2d, linear or box_sum node."""
    op, x = node.op, node.inputs[0].type
    if isinstance(op, BoxSum):
        conv = Conv2d(op.strides, op.padding, op.pad_value, op.dilation, op.groups)
        weights = np.ones((op.groups, *op.kernel, x.channels // op.groups), np.int8)
        return Product(node, conv, weights, DType.BIT, None, x.shape)
    constant = node.inputs[1]
    assert constant.data is not None
    if isinstance(op, Linear):
        weights = constant.data[:, None, None, :]
        return Product(node, Conv2d(), weights, constant.type.dtype, constant, (1, 1, 1, x.channels))
    assert isinstance(op, Conv2d)
    return Product(node, op, constant.data, constant.type.dtype, constant, x.shape)


def _extent(p: Product) -> tuple[int, int]:
    """Height and width that the dilated filter covers."""
    kh, kw = p.weights.shape[1:3]
    return (kh - 1) * p.op.dilation[0] + 1, (kw - 1) * p.op.dilation[1] + 1


def is_same(p: Product) -> bool:
    """Whether the padding is that of TensorFlow's SAME.

    TensorFlow puts the odd pixel at the bottom and right, which at stride 2 differs from PyTorch's symmetric padding.
    """
    expected: list[int] = []
    for size, stride, taps in zip(p.shape[1:3], p.op.strides, _extent(p), strict=True):
        total = max((-(-size // stride) - 1) * stride + taps - size, 0)
        expected += [total // 2, total - total // 2]
    return tuple(expected) == p.op.padding


def fits(p: Product) -> bool:
    """Whether the dilated filter is no larger than the map without its padding."""
    return all(taps <= size for taps, size in zip(_extent(p), p.shape[1:3], strict=True))


def outside_sums(p: Product, weights: Array) -> Array:
    """Sum of the weights that lie on padding, per output: (1, OH, OW, O) int64."""
    op = replace(p.op, pad_value=0, groups=1)
    ones = np.ones((*p.shape[:3], 1), np.int8)
    summed = weights.astype(np.int64).sum(3, keepdims=True)
    types = [TensorType(ones.shape, DType.BIT), TensorType(summed.shape, DType.I16)]
    out = TensorType(p.out_shape, DType.I32)
    inside = op.reference(types, [ones, summed], out)
    return np.asarray(summed.sum((1, 2, 3)) - inside.astype(np.int64))
