"""The quantization that a model has of its own: an affine map straight to its integers, and nothing back.

What only it reads, a sum or a normalization and limits, is part of that map: accumulators are rounded once, to the model's own
grid. Limits hold as well on the integers, since rounding keeps the order.
"""

from __future__ import annotations

import dataclasses
from typing import cast

import numpy as np

from bdnet_deploy.graph import Affine, Array, Clamp, Dequantize, DType, Node, Quant, Quantize, Value
from bdnet_deploy.passes.quantizer import Quantizer, rule, signed


@rule(Quantize)
def quantize(q: Quantizer, node: Node) -> Value:
    """To integers of one scale, saturating where the model's own do: for u8 those of i8, with the zero point moved."""
    op, old = cast(Quantize, node.op), node.inputs[0]
    limits: list[Node] = []
    while old.node is not None and isinstance(old.node.op, Clamp) and q.own_integers(old):
        limits.insert(0, old.node)
        old = old.node.inputs[0]
    one, zero = np.ones(old.type.channels), np.zeros(old.type.channels)
    if old.node is not None and isinstance(old.node.op, Affine) and q.own_integers(old):
        terms = old.node.op.terms
        parameters = [cast(Array, v.data) for v in old.node.inputs[terms:]]
        xs, muls, add = [q.values[v] for v in old.node.inputs[:terms]], parameters[:-1], parameters[-1]
    else:
        xs, muls, add = [q.values[old]], [one], zero
        if _is(xs[0], op.dtype, Quant.of(op.scale, op.zero_point)) or _is(xs[0], *signed(op)):
            return _limited(q, limits, xs[0])
    return _limited(q, limits, _rounded(q, node, xs, muls, add, *signed(op)))


def _is(x: Value, dtype: DType, quant: Quant) -> bool:
    """Whether ``x`` is such integers already, but for the rounding of a scale to float32."""
    given = x.type.quant
    if x.type.dtype is not dtype or given is None or np.ndim(given.scale) or np.ndim(given.zero_point):
        return False
    return bool(given.zero_point == quant.zero_point and abs(given.scale - quant.scale) <= 1e-6 * quant.scale)


def _limited(q: Quantizer, limits: list[Node], x: Value) -> Value:
    """Limits on the integers ``x``."""
    quant = cast(Quant, x.type.quant)
    for node in limits:
        parameters = [
            np.clip(np.rint(cast(Array, v.data) / quant.scale + quant.zero_point), *x.type.dtype.range)
            for v in node.inputs[1:]
        ]
        x = _clamp(q, node.name, x, parameters, node.source)
    return x


def _clamp(q: Quantizer, name: str, x: Value, limits: list[Array], source: str) -> Value:
    constants = [q.constant(f"{name}.{n}", v, DType.I32) for n, v in zip(("low", "high"), limits, strict=True)]
    return q.new.add(Clamp(), [x, *constants], name, source=source)


def _rounded(
    q: Quantizer, node: Node, xs: list[Value], muls: list[Array], add: Array, dtype: DType, quant: Quant
) -> Value:
    """An affine map to the integers of ``quant``; where its factors do not fit 16 bits, what comes nearest.

    Where one unit of a wide sum is more than half a step, nearly all saturates: limited 16 bits are between. Integers of 16
    bits cannot be filled by factors of 16 bits: they become coarser ones, within the model's limits.
    """
    name, source = node.name, node.source
    y = _exactly(q, name, xs, muls, add, dtype, quant, source)
    low, high = (float(quant.scale * (end - quant.zero_point)) for end in dtype.range)
    if y is None and dtype is DType.I8:
        one, zeros = np.ones(len(add)), np.zeros(len(add))
        need = np.full(len(add), max(-low, high) / DType.I16.range[1])
        wide = q.affine_to(f"{name}.wide", xs, muls, add, need, DType.I16, source, True)
        ends = [np.floor(low / q.vectors(wide)[0]), np.ceil(high / q.vectors(wide)[0])]
        limited = _clamp(q, f"{name}.limits", wide, ends, source)
        q.magnitudes[limited] = np.abs(ends).max(0)
        y = _exactly(q, name, [limited], [one], zeros, dtype, quant, source)
    if y is not None:
        return y
    need = np.full(len(add), float(quant.scale))
    while True:
        zero = float(np.rint(quant.zero_point * quant.scale / need[0]))
        fixed = q.fit(q.terms(xs, muls), add + zero * need, need, source or name, keep=False)
        if fixed.scale.max() == need[0]:
            break
        need = np.full_like(need, fixed.scale.max())
    coarse = q.fixed(f"{name}.coarse", xs, fixed, dtype, Quant.of(need[0], zero), source)
    ends = [np.rint(end / need + zero) for end in (low, high)]
    return _clamp(q, name, coarse, [np.clip(end, *dtype.range) for end in ends], source)


def _exactly(
    q: Quantizer, name: str, xs: list[Value], muls: list[Array], add: Array, dtype: DType, quant: Quant, source: str
) -> Value | None:
    """An affine map to integers of exactly this scale and zero point; None where the factors do not fit 16 bits."""
    need = np.full(len(add), float(quant.scale))
    terms = q.terms(xs, muls)
    offset = add + quant.zero_point * quant.scale
    if len(terms) == 1:  # what saturates anyway need not be kept apart
        (term,) = terms
        span = (dtype.range[1] - dtype.range[0] + 1) * need + np.abs(offset)
        factor = np.maximum(np.abs(term.factor), 1e-300)
        typical = np.minimum(term.typical, span / factor + np.abs(term.zero_point) + 1)
        terms = [dataclasses.replace(term, typical=typical)]
    fixed = q.fit(terms, offset, need, source or name, keep=False)
    if (fixed.scale != need).any():
        return None
    return q.fixed(name, xs, fixed, dtype, quant, source)


@rule(Dequantize)
def dequantize(q: Quantizer, node: Node) -> Value:
    """Nothing: the integers carry their scale."""
    return q.values[node.inputs[0]]
