"""What integers the values of a fixed-point graph can be, whatever the input: intervals per channel, by worst cases."""

from __future__ import annotations

from typing import cast

import numpy as np

from bdnet_deploy.graph import Affine, Array, AvgPool, Conv2d, DType, Linear, Node, Repeat, TwoSlope, Value
from bdnet_deploy.graph.ops.pointwise import FRACTION_BITS

#: (smallest, largest), each (C,) int64.
Interval = tuple[Array, Array]


class Intervals:
    """Intervals of a graph's values, computed where asked for."""

    def __init__(self) -> None:
        self._known: dict[Value, Interval] = {}

    def of(self, value: Value) -> Interval:
        """The interval of a value of integers."""
        if value not in self._known:
            self._known[value] = self._compute(value)
        return self._known[value]

    def affine(self, node: Node) -> Interval:
        """What a fixed-point affine node has before it saturates."""
        op = cast(Affine, node.op)
        total: list[Array] = [cast(Array, node.inputs[-1].data).astype(np.int64)] * 2
        for x, factor, shift in zip(node.inputs, node.inputs[op.terms :], op.shifts, strict=False):
            mul = cast(Array, factor.data).astype(np.int64)
            ends = [
                np.clip(end << shift if shift >= 0 else end >> -shift, *DType.I16.range) * mul for end in self.of(x)
            ]
            total = [total[0] + np.minimum(*ends), total[1] + np.maximum(*ends)]
        return total[0] >> FRACTION_BITS, total[1] >> FRACTION_BITS

    def _whole(self, value: Value) -> Interval:
        shape = value.type.channels
        low, high = (-1, 1) if value.type.dtype.is_packed else value.type.dtype.range
        return np.full(shape, int(low), np.int64), np.full(shape, int(high), np.int64)

    def _compute(self, value: Value) -> Interval:
        node, whole = value.node, self._whole(value)
        if node is None or not np.all(whole[1] > 0):
            return whole
        found = self._found(node)
        if found is None:
            return whole
        return np.clip(found[0], whole[0], whole[1]), np.clip(found[1], whole[0], whole[1])

    def _found(self, node: Node) -> Interval | None:
        op = node.op
        if isinstance(op, Affine) and not op.out.is_float:
            return self.affine(node)
        if isinstance(op, TwoSlope) and not op.out.is_float:
            ends = self.of(node.inputs[0])
            positive, negative = (cast(Array, v.data).astype(np.int64) for v in node.inputs[1:3])
            found = [(np.where(end >= 0, positive, negative) * end) >> FRACTION_BITS for end in (*ends, 0 * ends[0])]
            return np.minimum.reduce(found), np.maximum.reduce(found)
        if isinstance(op, AvgPool):
            low, high = self.of(node.inputs[0])
            return low - 1, high + 1
        if isinstance(op, Repeat):
            low, high = self.of(node.inputs[0])
            return np.tile(low, op.times), np.tile(high, op.times)
        if isinstance(op, Conv2d | Linear) and all(v.type.dtype.is_packed for v in node.inputs[:2]):
            weights = cast(Array, node.inputs[1].data)
            taps = np.abs(weights.reshape(len(weights), -1)).sum(axis=1, dtype=np.int64)
            return -taps, taps
        return None
