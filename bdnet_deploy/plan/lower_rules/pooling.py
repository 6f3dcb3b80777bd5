"""Pools and repetition of channels."""

from __future__ import annotations

from typing import cast

import numpy as np

from bdnet_deploy.graph import AvgPool, GlobalAvgPool, GroupMean, MaxPool, Node, Reduce, Repeat
from bdnet_deploy.plan.kernels import kernel_names
from bdnet_deploy.plan.lower_rules.moving import gather_channels
from bdnet_deploy.plan.lowering import LETTER, Lowering, rule
from bdnet_deploy.plan.plan import PlanTensor


@rule(AvgPool)
def avg_pool(low: Lowering, node: Node) -> None:
    assert isinstance(node.op, AvgPool)
    low.simple(node, f"bd_avgpool_{node.output.type.dtype.value}", window=node.op.kernel, strides=node.op.strides)


@rule(GlobalAvgPool)
def global_avg_pool(low: Lowering, node: Node) -> None:
    pair = f"{LETTER[low.tensors[node.inputs[0]].dtype]}_{node.output.type.dtype.value}"
    low.simple(node, f"bd_gap_{pair}", kind="accumulate")


@rule(MaxPool)
def max_pool(low: Lowering, node: Node) -> None:
    op, source = cast(MaxPool, node.op), low.tensors[node.inputs[0]]
    step = low.simple(
        node,
        f"bd_max_pool_{source.dtype.value}",
        window=op.kernel,
        strides=op.strides,
        dilation=op.dilation,
        pad_top_left=(op.padding[0], op.padding[2]),
    )
    cast(PlanTensor, step.trunk).dtype = source.dtype  # accumulators may be stored narrower than i32
    if not source.dtype.is_packed:
        step.acc_dtype = source.dtype


@rule(Reduce)
def reduce(low: Lowering, node: Node) -> None:
    op, x, y = cast(Reduce, node.op), node.inputs[0].type.dtype, node.output.type.dtype
    kind = "accumulate" if op.over == "map" else "window"
    if op.kind == "max":
        low.simple(node, f"bd_{'map' if op.over == 'map' else 'channel'}_max_{y.value}", kind=kind)
    elif op.over == "map" and not y.is_float:  # the sum of which a global average pool is the mean
        low.simple(node, f"bd_gap_{LETTER[x]}_{y.value}", kind=kind)
    else:
        low.simple(node, f"bd_{'map' if op.over == 'map' else 'channel'}_sum_{LETTER[x]}_{y.value}", kind=kind)


@rule(GroupMean)
def group_mean(low: Lowering, node: Node) -> None:
    low.simple(node, f"bd_group_mean_{node.output.type.dtype.value}")


@rule(Repeat)
def repeat(low: Lowering, node: Node) -> None:
    if low.absorbed(node):
        low.done.add(node)
        return
    dtype = low.tensors[node.inputs[0]].dtype  # accumulators are narrower in memory than in the graph
    if f"bd_repeat_{dtype.value}" in kernel_names():
        step = low.simple(node, f"bd_repeat_{dtype.value}")
        step.acc_dtype = cast(PlanTensor, step.trunk).dtype = dtype
    else:
        channels = np.tile(np.arange(node.inputs[0].type.channels), cast(Repeat, node.op).times)
        gather_channels(low, node, channels)
