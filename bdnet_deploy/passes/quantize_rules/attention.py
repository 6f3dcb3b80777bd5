"""Products of two maps, functions of elements, softmax and normalization."""

from __future__ import annotations

import dataclasses
import math
from typing import cast

import numpy as np

from bdnet_deploy.graph import (
    Affine,
    Array,
    DType,
    GroupNorm,
    LayerNorm,
    Lut,
    Matmul,
    Node,
    Quant,
    Softmax,
    Unary,
    Value,
)
from bdnet_deploy.graph.float_functions import REAL
from bdnet_deploy.graph.ops.functions import KNOTS, TABLE_SIZE
from bdnet_deploy.graph.ops.normalization import LARGEST_BIAS, LARGEST_COUNT
from bdnet_deploy.graph.ops.softmax import ExpScale
from bdnet_deploy.passes.quantizer import HEADROOM, Quantizer, rule

_ELEMENTS = (DType.I8, DType.I16)


def _is_uniform(x: Value) -> bool:
    """One scale and one whole zero point."""
    quant = x.type.quant
    if quant is None:
        return True
    return np.ndim(quant.scale) == 0 and np.ndim(quant.zero_point) == 0 and float(quant.zero_point) % 1 == 0


def _uniform(q: Quantizer, old: Value, x: Value, dtype: DType) -> Value:
    """``x`` with one scale and zero point 0, in ``dtype``."""
    need = np.full(x.type.channels, float(q.need(old, dtype).max()))
    one, zero = np.ones(len(need)), np.zeros(len(need))
    return q.affine_to(f"{x.name}.uniform", [x], [one], zero, need, dtype, "", True)


def _elements(q: Quantizer, old: Value, dtype: DType | None = None) -> Value:
    """The new value of ``old`` as i8 or i16 of one scale and whole zero point; ``dtype`` where none will do."""
    x = q.values[old]
    if x.type.dtype in _ELEMENTS and x.type.quant is not None and _is_uniform(x):
        return x
    return _uniform(q, old, x, dtype or q.trunk)


def _largest(x: Value) -> float:
    zero = float(x.type.quant.zero_point) if x.type.quant else 0.0
    low, high = x.type.dtype.range
    return max(high - zero, zero - low)


@rule(Matmul)
def matmul(q: Quantizer, node: Node) -> Value:
    old_x, old_y = node.inputs
    x, y = (q.values[v] if q.values[v].type.dtype.is_packed else _elements(q, v) for v in node.inputs)
    if y.type.quant is not None and (np.any(y.type.quant.zero_point) or x.type.dtype is y.type.dtype is DType.I16):
        y = _uniform(q, old_y, y, DType.I8)
    channels, most = x.type.channels, 2**31 - 1
    if _largest(x) * _largest(y) * channels > most and x.type.dtype is DType.I16:
        x = _uniform(q, old_x, x, DType.I8)
    if _largest(x) * _largest(y) * channels > most and y.type.dtype is DType.I16:
        y = _uniform(q, old_y, y, DType.I8)
    product = q.same(node, x, y)
    q.magnitudes[product] = np.full(product.type.channels, _largest(x) * _largest(y) * channels)
    if not (x.type.dtype.is_packed and y.type.dtype.is_packed):
        q.expect(product, node.output)
    return product


@rule(Unary)
def unary(q: Quantizer, node: Node) -> Value:
    """A table over the input's integers, of the real function in double."""
    name, old = cast(Unary, node.op).function, node.inputs[0]
    low, high = _finite_range(q, node)
    dtype = q.dtype_of(node.output)
    x = _elements(q, old, dtype)
    if x.type.dtype is DType.I16 and dtype is DType.I8:
        x = _uniform(q, old, x, DType.I8)
    if dtype is DType.I8:  # the whole range of 8 bits, with a zero that is exact
        scale = max(high - low, 1e-12) / 255
        quant = Quant.of(scale, np.clip(np.rint(-128 - low / scale), -128, 127))
    else:
        quant = Quant.of(max(high, -low, 1e-12) * HEADROOM[DType.I16] / dtype.range[1])
    table = q.constant(f"{node.name}.table", _table(name, x, dtype, quant), dtype)
    y = q.new.add(Lut(), [x, table], node.name, source=node.source, quant=quant)
    q.record(node.output, y)
    return y


def _finite_range(q: Quantizer, node: Node) -> tuple[float, float]:
    """What calibration saw, and 0."""
    low, high = float(q.ranges.low[node.output.name].min()), float(q.ranges.high[node.output.name].max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise q.unsupported(
            node,
            f"{q.new.numerics} cannot carry a {node.op.name} whose values are not finite",
            why="a calibration sample made it NaN or infinite",
            fix="calibrate with samples of the model's domain, or export with numerics float",
        )
    return min(low, 0.0), max(high, 0.0)


def _table(name: str, x: Value, dtype: DType, quant: Quant) -> Array:
    """Entries for every i8; for i16 as few knots as keep the interpolation within one unit, or the most."""
    source = cast(Quant, x.type.quant)

    def exact(integers: Array) -> Array:
        """In units of the output; what is not a number counts as 0."""
        with np.errstate(all="ignore"):
            y = REAL[name](source.dequantize(integers)) / quant.scale + quant.zero_point
        return np.clip(np.nan_to_num(y, nan=float(quant.zero_point), posinf=1e9, neginf=-1e9), *dtype.range)

    if x.type.dtype is DType.I8:
        return np.rint(exact(np.arange(TABLE_SIZE) - 128))
    for count in KNOTS:
        size = 65536 // (count - 1)
        knots = np.rint(exact(np.arange(count) * size - 32768))
        middle = exact(np.arange(count - 1) * size + size // 2 - 32768)
        if np.abs((knots[1:] + knots[:-1]) / 2 - middle).max() <= 1.0:
            break
    return knots


@rule(Softmax)
def softmax(q: Quantizer, node: Node) -> Value:
    old, gain = node.inputs[0], 1.0
    affine = old.node
    if affine is not None and isinstance(affine.op, Affine) and affine.op.terms == 1:
        mul, add = (cast(Array, v.data) for v in affine.inputs[1:])
        before = q.values[affine.inputs[0]]
        exact = before.type.dtype in (*_ELEMENTS, DType.I32) and _is_uniform(before)
        if (
            exact and np.ptp(mul) == 0.0 and np.ptp(add) == 0.0 and mul[0] > 0
        ):  # softmax(s x + a) needs no rounding of x
            old, gain = affine.inputs[0], float(mul[0])
    x = q.values[old]
    if not (x.type.dtype in (*_ELEMENTS, DType.I32) and _is_uniform(x)):
        x = _uniform(q, old, x, q.trunk)
    scale = gain * (float(x.type.quant.scale) if x.type.quant else 1.0)
    try:
        op = Softmax(q.dtype_of(node.output), ExpScale.of(scale))
    except ValueError as error:
        raise q.unsupported(node, f"{q.new.numerics} has no softmax of such scores", why=str(error)) from error
    return q.new.add(op, [x], node.name, source=node.source)


@rule(LayerNorm, GroupNorm)
def normalization(q: Quantizer, node: Node) -> Value:
    op, old = cast("LayerNorm | GroupNorm", node.op), node.inputs[0]
    x = _elements(q, old)
    count = old.type.channels if isinstance(op, LayerNorm) else old.type.size // op.groups
    if x.type.dtype is DType.I16 and count > LARGEST_COUNT[DType.I16]:
        x = _uniform(q, old, x, DType.I8)
    if count > LARGEST_COUNT[x.type.dtype]:
        raise q.unsupported(
            node,
            f"{q.new.numerics} takes statistics of up to {LARGEST_COUNT[x.type.dtype]} elements, not {count}",
            fix="normalize a smaller map or more groups, or export with numerics float",
        )
    scale = float(cast(Quant, x.type.quant).scale)
    bias = max(round(op.epsilon * (count / scale) ** 2), 1)
    if bias > LARGEST_BIAS:
        raise q.unsupported(
            node,
            f"{q.new.numerics} has no normalization with an epsilon of {op.epsilon}",
            why=f"it is beyond the squares of the values, whose scale is {scale:g}",
            fix="export with numerics float",
        )
    seen = min(float(q.range_of(node.output).max()) * HEADROOM[DType.I16], math.sqrt(count))
    fraction = int(np.clip(math.floor(math.log2(32767 / max(seen, 1e-9))), 0, 15))
    fixed = dataclasses.replace(op, fraction=fraction, bias=bias)
    return q.new.add(fixed, [x], node.name, source=node.source)
