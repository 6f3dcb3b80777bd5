"""Products of two maps, functions of elements, softmax and normalization."""

from __future__ import annotations

from typing import cast

import numpy as np

from bdnet_deploy.graph import Array, DType, GroupNorm, LayerNorm, Lut, Matmul, Node, Softmax, Unary
from bdnet_deploy.graph.ops.softmax import EXP2_TABLE
from bdnet_deploy.plan.limits import MATMUL_I16_CHANNELS
from bdnet_deploy.plan.lowering import LETTER, Lowering, rule


@rule(Matmul)
def matmul(low: Lowering, node: Node) -> None:
    x, y = (v.type for v in node.inputs)
    acc = node.output.type.dtype
    if x.dtype.is_packed and y.dtype.is_packed and x.channels <= MATMUL_I16_CHANNELS:
        acc = DType.I16
    low.fused(
        node,
        f"bd_matmul_{LETTER[x.dtype]}{LETTER[y.dtype]}_{acc.value}",
        acc_dtype=acc,
        zero_point=int(x.quant.zero_point) if x.quant else 0,
    )


@rule(Unary)
def unary(low: Lowering, node: Node) -> None:
    low.simple(node, f"bd_{cast(Unary, node.op).function}_f32")


@rule(Lut)
def lut(low: Lowering, node: Node) -> None:
    pair = f"{LETTER[node.inputs[0].type.dtype]}_{node.output.type.dtype.value}"
    low.simple(node, f"bd_lut_{pair}", weights=node.inputs[1].data)


@rule(Softmax)
def softmax(low: Lowering, node: Node) -> None:
    exp = cast(Softmax, node.op).exp
    if exp is None:
        low.simple(node, "bd_softmax_f32")
        return
    scale = np.array([exp.drop, exp.limit, exp.mul, exp.shift], "<u4")
    blob = np.frombuffer(scale.tobytes() + EXP2_TABLE.astype("<i2").tobytes() + bytes(2), np.uint8)
    stored = low.tensors[node.inputs[0]].dtype  # narrow sums are held in fewer than 32 bits
    low.simple(node, f"bd_softmax_{LETTER[stored]}_{node.output.type.dtype.value}", weights=blob)


def _statistics(node: Node) -> tuple[str, Array]:
    """The end of the kernel's name, and its parameters."""
    op = cast("LayerNorm | GroupNorm", node.op)
    dtype = node.inputs[0].type.dtype
    if dtype is DType.F32:
        return "f32", np.array([op.epsilon], np.float32)
    return f"{LETTER[dtype]}_i16", np.array([op.fraction, op.bias & 0xFFFFFFFF, op.bias >> 32], np.uint32)


@rule(LayerNorm)
def layer_norm(low: Lowering, node: Node) -> None:
    name, parameters = _statistics(node)
    kernel = f"bd_layer_norm_{name}"
    low.fused(node, kernel, acc_dtype=node.output.type.dtype, weights=parameters)


@rule(GroupNorm)
def group_norm(low: Lowering, node: Node) -> None:
    name, parameters = _statistics(node)
    groups, height = cast(GroupNorm, node.op).groups, node.output.type.shape[1]
    low.simple(node, f"bd_group_norm_{name}", kind="whole", groups=groups, rows_per_call=height, weights=parameters)
