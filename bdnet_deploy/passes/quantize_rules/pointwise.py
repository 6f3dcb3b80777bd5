"""Affine maps, two-slope activations and thresholds."""

from __future__ import annotations

from typing import cast

import numpy as np

from bdnet_deploy.graph import Affine, Array, DType, Node, Quant, Sign, Ternarize, TwoSlope, Value
from bdnet_deploy.passes.fixed_point import ONE
from bdnet_deploy.passes.quantizer import Quantizer, rule


@rule(Affine)
def affine(q: Quantizer, node: Node) -> Value:
    op = cast(Affine, node.op)
    parameters = [cast(Array, v.data) for v in node.inputs[op.terms :]]
    terms = [q.values[v] for v in node.inputs[: op.terms]]
    return q.affine(node.name, node.output, terms, parameters[:-1], parameters[-1], node.source)


@rule(Sign, Ternarize)
def threshold(q: Quantizer, node: Node) -> Value:
    x = q.values[node.inputs[0]]
    scale, zero = q.vectors(x)
    limits = (-(2**31), 2**31 - 1)
    thresholds = [
        q.constant(v.name, np.clip(np.ceil(cast(Array, v.data) / scale + zero), *limits), DType.I32)
        for v in node.inputs[1:]
    ]
    return q.same(node, x, *thresholds)


@rule(TwoSlope)
def two_slope(q: Quantizer, node: Node) -> Value:
    dtype = q.dtype_of(node.output)
    x = q.narrow(node.inputs[0], q.values[node.inputs[0]], dtype, node.source)  # the slopes take 16 bits, bend at q = 0
    positive, negative, bias = (cast(Array, v.data) for v in node.inputs[1:])
    need = q.after_slopes(node, dtype)
    scale, _ = q.vectors(x)
    # The positive slope becomes 1 where the output can take the input's scale times it: a finer one would only serve the
    # negative side. Of 16 bits an affine in front has made the scale for that; else four may be given away, of 8 bits two.
    natural = scale * positive
    coarser = np.maximum(need, scale * np.abs(positive) / 4)
    producer = node.inputs[0].node
    made = dtype is DType.I16 and producer is not None and isinstance(producer.op, Affine)
    most = np.inf if made else (16 if dtype is DType.I16 else 4) * need
    out = np.where((natural >= need * (1 - 1e-9)) & (natural <= most), natural, coarser)
    out = np.maximum(out, scale * np.abs(negative) / 4)
    slopes = [  # even, so that a doubling product of 16-bit numbers does: see lanes16
        q.constant(f"{node.name}.{n}", 2 * np.rint(s * scale / out * ONE / 2), DType.I32)
        for n, s in (("positive", positive), ("negative", negative))
    ]
    y = q.new.add(TwoSlope(dtype), [x, *slopes], node.name, source=node.source, quant=Quant.of(out, -bias / out))
    q.record(node.output, y)
    return y
