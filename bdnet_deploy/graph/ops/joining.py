"""Concatenation of channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph.dtypes import Array, DType, Quant, TensorType
from bdnet_deploy.graph.op import Op, check, register


@register
@dataclass(frozen=True)
class Concat(Op):
    """The channels of two or more inputs of the same height and width, one behind the other.

    All inputs have one dtype; different packed ones become trits. Scales and zero points go with their channels.
    """

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        check(len(types) >= 2, f"needs two inputs or more, got {len(types)}")
        first = types[0]
        check(all(t.shape[:-1] == first.shape[:-1] for t in types), "the inputs differ in height or width")
        dtypes = {t.dtype for t in types}
        check(len(dtypes) == 1 or all(d.is_packed for d in dtypes), "the inputs differ in dtype")
        dtype = first.dtype if len(dtypes) == 1 else DType.TRIT
        channels = sum(t.channels for t in types)
        return TensorType((*first.shape[:-1], channels), dtype, _join(list(types)))

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        return np.concatenate(arrays, axis=-1)


def _join(types: list[TensorType]) -> Quant | None:
    if all(t.quant is None for t in types):
        return None
    quants = [t.quant or Quant.of(1.0) for t in types]
    if all(np.ndim(q.scale) == np.ndim(q.zero_point) == 0 and q.same(quants[0]) for q in quants):
        return quants[0]
    scales = [np.broadcast_to(q.scale, (t.channels,)) for q, t in zip(quants, types, strict=True)]
    zeros = [np.broadcast_to(q.zero_point, (t.channels,)) for q, t in zip(quants, types, strict=True)]
    return Quant.of(np.concatenate(scales), np.concatenate(zeros))
