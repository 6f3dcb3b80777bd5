"""Limits, products of maps and gates, constant maps, logic and sums of bits."""

from __future__ import annotations

from typing import cast

import numpy as np

from bdnet_deploy.graph import AddMap, Array, BitLogic, BoxSum, Clamp, DType, Mul, MulMap, Node
from bdnet_deploy.plan.lowering import LETTER, Lowering, rule

#: Truth tables over words, whose 1 stands for the smaller value: bit 2 a + b is the result's.
_TABLES = {"and": 0b1110, "or": 0b1000, "xor": 0b1001, "xnor": 0b0110}


@rule(Clamp)
def clamp(low: Lowering, node: Node) -> None:
    dtype = node.output.type.dtype
    limits = np.stack([cast(Array, v.data) for v in node.inputs[1:]]).astype(dtype.numpy)
    low.simple(node, f"bd_clamp_{dtype.value}", weights=limits)


@rule(Mul)
def mul(low: Lowering, node: Node) -> None:
    acc = node.output.type.dtype
    low.fused(
        node,
        f"bd_mul_{''.join(LETTER[v.type.dtype] for v in node.inputs)}_{acc.value}",
        acc_dtype=acc,
    )


@rule(AddMap, MulMap)
def constant_map(low: Lowering, node: Node) -> None:
    x, constant = node.inputs
    acc = node.output.type.dtype
    low.fused(
        node,
        f"bd_{node.op.name}_{LETTER[x.type.dtype]}_{acc.value}",
        acc_dtype=acc,
        weights=cast(Array, constant.data)[0],
    )


@rule(BitLogic)
def bit_logic(low: Lowering, node: Node) -> None:
    table = np.array([_TABLES[cast(BitLogic, node.op).kind]], np.uint32)
    low.simple(node, f"bd_logic_{node.output.type.dtype.value}", weights=table)


@rule(BoxSum)
def box_sum(low: Lowering, node: Node) -> None:
    op, x = cast(BoxSum, node.op), node.inputs[0]
    taps = op.kernel[0] * op.kernel[1] * (x.type.channels // op.groups)
    acc = DType.I16 if taps <= 32767 else DType.I32
    low.fused(
        node,
        f"bd_box_sum_{LETTER[x.type.dtype]}_{acc.value}",
        acc_dtype=acc,
        groups=op.groups,
        window=op.kernel,
        strides=op.strides,
        dilation=op.dilation,
        pad_top_left=(op.padding[0], op.padding[2]),
        pad_value=op.pad_value,
    )
