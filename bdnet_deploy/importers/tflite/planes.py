"""Three-level activations and two-slope functions that a file expresses by sums: what the two terms are together.

A trit is the mean of two bits of one number, by a lower and a higher threshold; a convolution of trits the mean of two.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.graph import (
    Affine,
    Array,
    Conv2d,
    DType,
    Move,
    Node,
    Permutation,
    Repeat,
    Sign,
    Ternarize,
    TwoSlope,
    Value,
)
from bdnet_deploy.importers.tflite.source import Operation

if TYPE_CHECKING:
    from bdnet_deploy.importers.tflite.translator import Translator


def sum_of_bits(t: Translator, op: Operation, a: Value, b: Value) -> Value | None:
    """Trits that are (a + b) / 2, where a and b are signs of one value, or the same moves of such."""
    first, second = a.node, b.node
    if first is None or second is None or first.op != second.op:
        return None
    if isinstance(first.op, Sign) and first.inputs[0] is second.inputs[0] and a.type.dtype is DType.BIT:
        thresholds = [_data(n.inputs[1]) for n in (first, second)]
        x = first.inputs[0]
        low, high = np.minimum(*thresholds), np.maximum(*thresholds)
        dtype = first.inputs[1].type.dtype
        constants = [t.graph.constant(f"{op.name}.{n}", d, dtype) for n, d in (("low", low), ("high", high))]
        return t.add(Ternarize(), [x, *constants], op, f"{op.name}.ternary")
    if isinstance(first.op, Move | Permutation | Repeat):
        trits = sum_of_bits(t, op, first.inputs[0], second.inputs[0])
        return None if trits is None else t.add(first.op, [trits], op, f"{op.name}.{first.op.name}")
    return None


def sum_of_products(t: Translator, op: Operation, a: Value, b: Value) -> Value | None:
    """One convolution of trits for two of their planes by the same weights, with the same factors."""
    one, two = _scaled_product(a), _scaled_product(b)
    if one is None or two is None:
        return None
    (first, mul, add), (second, other, more) = one, two
    assert isinstance(first.op, Conv2d) and isinstance(second.op, Conv2d)
    if replace(first.op, pad_value=second.op.pad_value) != second.op or not np.array_equal(mul, other):
        return None
    if not np.array_equal(_data(first.inputs[1]), _data(second.inputs[1])):
        return None
    low, high = (_lowest(n.inputs[0]) for n in (first, second))
    if low is None or high is None:
        return None
    values = first.op.pad_value, second.op.pad_value
    if (low > high).all():
        values = values[::-1]
    if values[0] == values[1] or not any(first.op.padding):
        pad_value = values[0]
    elif values == (1, -1) and ((low <= high).all() or (low > high).all()):
        pad_value = 0
    else:
        return None
    trits = sum_of_bits(t, op, first.inputs[0], second.inputs[0])
    if trits is None:
        return None
    sums = t.add(replace(first.op, pad_value=pad_value), [trits, first.inputs[1]], op, f"{op.name}.sums")
    return t.affine([sums], [2.0 * mul], add + more, op.name, op.name)


def _scaled_product(value: Value) -> tuple[Node, Array, Array] | None:
    node = value.node
    if node is None or not isinstance(node.op, Affine) or node.op.terms != 1:
        return None
    conv = node.inputs[0].node
    if conv is None or not isinstance(conv.op, Conv2d) or any(v.type.dtype is not DType.BIT for v in conv.inputs):
        return None
    return conv, _data(node.inputs[1]), _data(node.inputs[2])


def _lowest(bits: Value) -> Array | None:
    """The thresholds of the sign that makes them, through moves."""
    node = bits.node
    while node is not None and isinstance(node.op, Move | Permutation | Repeat):
        node = node.inputs[0].node
    return _data(node.inputs[1]) if node is not None and isinstance(node.op, Sign) else None


def sum_of_slopes(t: Translator, op: Operation, a: Value, b: Value) -> Value | None:
    """One function of two slopes for the sum of two."""
    first, second = _slopes(a), _slopes(b)
    if first is None or second is None or first[0] is not second[0]:
        return None
    return t.two_slope(first[0], first[1] + second[1], first[2] + second[2], op.name, op.name)


def _slopes(value: Value) -> tuple[Value, Array, Array] | None:
    node, mul = value.node, np.ones(1)
    if node is not None and isinstance(node.op, Affine) and node.op.terms == 1 and not _data(node.inputs[2]).any():
        mul, node = _data(node.inputs[1]), node.inputs[0].node
    if node is None or not isinstance(node.op, TwoSlope) or _data(node.inputs[3]).any():
        return None
    return node.inputs[0], _data(node.inputs[1]) * mul, _data(node.inputs[2]) * mul


def _data(value: Value) -> Array:
    assert value.data is not None
    return value.data
