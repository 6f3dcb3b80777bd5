"""Pools, and moves of whole channels."""

from __future__ import annotations

from bdnet_deploy.graph import AvgPool, GlobalAvgPool, GroupMean, Node, Repeat, Reshape
from bdnet_deploy.plan.lowering import LETTER, Lowering, rule
from bdnet_deploy.plan.plan import hwc


@rule(AvgPool)
def avg_pool(low: Lowering, node: Node) -> None:
    assert isinstance(node.op, AvgPool)
    low.simple(node, f"bd_avgpool_{node.output.type.dtype.value}", window=node.op.kernel, strides=node.op.strides)


@rule(GlobalAvgPool)
def global_avg_pool(low: Lowering, node: Node) -> None:
    pair = f"{LETTER[low.tensors[node.inputs[0]].dtype]}_{node.output.type.dtype.value}"
    low.simple(node, f"bd_gap_{pair}", kind="accumulate")


@rule(GroupMean)
def group_mean(low: Lowering, node: Node) -> None:
    low.simple(node, f"bd_group_mean_{node.output.type.dtype.value}")


@rule(Repeat)
def repeat(low: Lowering, node: Node) -> None:
    if low.absorbed(node):
        low.done.add(node)
    else:
        held = low.tensors[node.inputs[0]].dtype  # accumulators may lie in fewer bits than their i32
        step = low.simple(node, f"bd_repeat_{held.value}")
        step.acc_dtype = low.tensors[node.output].dtype = held


@rule(Reshape)
def reshape(low: Lowering, node: Node) -> None:
    """No code: another shape of the same tensor."""
    tensor = low.tensors[node.inputs[0]]
    if hwc(node.output.type.shape)[2] != tensor.channels:
        raise low.unsupported(node, "a reshape that moves channels has no kernel")
    tensor.values.append(node.output)
    low.tensors[node.output] = tensor
    low.done.add(node)
