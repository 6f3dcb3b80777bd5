"""Padding: what TensorFlow calls SAME, and what padding does to a sum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bdnet_deploy.export.tflite.schema import Array
from bdnet_deploy.graph import Conv2d, Node


def extent(node: Node) -> tuple[int, int]:
    """Height and width that the dilated filter of a Conv2d node covers."""
    op, w = _conv(node), node.inputs[1].type.shape
    return (w[1] - 1) * op.dilation[0] + 1, (w[2] - 1) * op.dilation[1] + 1


def is_same(node: Node) -> bool:
    """Whether the node pads as TensorFlow's SAME does.

    TensorFlow puts the odd pixel at the bottom and right, which at stride 2 differs from PyTorch's symmetric padding.
    """
    op, shape = _conv(node), node.inputs[0].type.shape
    expected: list[int] = []
    for size, stride, taps in zip(shape[1:3], op.strides, extent(node)):
        total = max((-(-size // stride) - 1) * stride + taps - size, 0)
        expected += [total // 2, total - total // 2]
    return tuple(expected) == op.padding


def fits(node: Node) -> bool:
    """Whether the dilated filter is no larger than the map without its padding."""
    shape = node.inputs[0].type.shape
    return all(taps <= size for taps, size in zip(extent(node), shape[1:3]))


def outside_sums(node: Node, weights: Array) -> Array:
    """Sum of the weights that lie on padding, per output: (1, OH, OW, O) int64."""
    op = replace(_conv(node), pad_value=0)
    x, out = node.inputs[0].type, node.output.type
    ones = np.ones(x.shape, np.int8)
    inside = op.reference([v.type for v in node.inputs], [ones, weights], out)
    total = weights.astype(np.int64).sum((1, 2, 3))
    return np.asarray(total - inside.astype(np.int64))


def _conv(node: Node) -> Conv2d:
    assert isinstance(node.op, Conv2d)
    return node.op
