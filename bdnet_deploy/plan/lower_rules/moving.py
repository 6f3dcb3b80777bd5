"""Moves of elements, concatenation, and the quantization that a model has of its own."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from bdnet_deploy.graph import (
    Array,
    Concat,
    Dequantize,
    DType,
    Flip,
    Gather,
    Move,
    Node,
    Pad,
    Permutation,
    PixelShuffle,
    PixelUnshuffle,
    Quant,
    Quantize,
    Reshape,
    Shuffle,
    Slice,
    Transpose,
    Upsample,
)
from bdnet_deploy.plan.lowering import LETTER, SHORTCUTS, Lowering, rule
from bdnet_deploy.plan.plan import PlanStep, PlanTensor, hwc
from bdnet_deploy.plan.tables import fill_word, gather_blob, permute_blob, row_window

SHORTCUTS |= {Concat, Flip, Gather, Pad, PixelShuffle, PixelUnshuffle, Shuffle, Slice, Transpose, Upsample}


def _step(low: Lowering, node: Node, op: str, dtype: DType, **fields: Any) -> PlanStep:
    """A step of ``bd_<op>_<dtype>``: the dtype in memory, which is narrower than i32 where accumulators are."""
    step = low.simple(node, f"bd_{op}_{dtype.value}", **fields)
    cast(PlanTensor, step.trunk).dtype = dtype
    if not dtype.is_packed:
        step.acc_dtype = dtype
    return step


def _gather(low: Lowering, node: Node, rows: Array, columns: Array, channels: Array, fill: float = 0.0) -> None:
    dtype = low.tensors[node.inputs[0]].dtype
    fields: dict[str, Any] = {"weights": gather_blob(rows, columns, channels, fill_word(fill, dtype))}
    window = row_window(rows)
    if window is None:
        fields.update(kind="whole", rows_per_call=len(rows))
    else:
        fields.update(window=(window.size, 1), strides=(window.stride, 1), pad_top_left=(window.pad, 0))
    _step(low, node, "gather", dtype, **fields)


def gather_channels(low: Lowering, node: Node, channels: Array) -> None:
    """A step that takes these channels of every pixel."""
    height, width, _ = hwc(node.output.type.shape)
    _gather(low, node, np.arange(height), np.arange(width), channels)


@rule(Slice, Pad, Shuffle, Gather, Upsample, Flip)
def move(low: Lowering, node: Node) -> None:
    op = cast(Move, node.op)
    _gather(low, node, *op.tables(node.inputs[0].type), op.fill)


@rule(Reshape, Transpose, PixelShuffle, PixelUnshuffle)
def permute(low: Lowering, node: Node) -> None:
    tensor = low.tensors[node.inputs[0]]
    shape = hwc(node.output.type.shape)
    if isinstance(node.op, Reshape) and shape == (tensor.height, tensor.width, tensor.channels):
        tensor.values.append(node.output)  # no code: the same tensor
        low.tensors[node.output] = tensor
        low.done.add(node)
        return
    blob = permute_blob(cast(Permutation, node.op).digits(node.inputs[0].type))
    _step(low, node, "permute", tensor.dtype, weights=blob, kind="whole", rows_per_call=shape[0])


@rule(Concat)
def concat(low: Lowering, node: Node) -> None:
    if len(node.inputs) != 2:
        raise low.unsupported(node, f"no kernel joins {len(node.inputs)} maps; passes.split_concat makes pairs of them")
    first, second = (low.tensors[v].dtype for v in node.inputs)
    _step(low, node, "concat", _wider(first, second))


def _wider(a: DType, b: DType) -> DType:
    """The dtype that holds both: accumulators of one graph dtype may differ in memory, packed values become trits."""
    if a is b:
        return a
    return DType.TRIT if a.is_packed else max(a, b, key=[DType.I8, DType.I16, DType.I32].index)


@rule(Quantize)
def quantize(low: Lowering, node: Node) -> None:
    op = cast(Quantize, node.op)
    blob = np.concatenate([np.array([op.scale], "<f4").view(np.uint8), np.array([op.zero_point], "<i4").view(np.uint8)])
    low.simple(node, f"bd_quantize_f_{op.dtype.value}", weights=blob)


@rule(Dequantize)
def dequantize(low: Lowering, node: Node) -> None:
    x = node.inputs[0].type
    quant = x.quant or Quant.of(1.0)
    blob = np.stack([np.broadcast_to(a, (x.channels,)) for a in (quant.scale, quant.zero_point)]).astype("<f4")
    low.simple(node, f"bd_dequantize_{LETTER[low.tensors[node.inputs[0]].dtype]}_f32", weights=blob)
