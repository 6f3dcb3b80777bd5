"""Affine maps, activations and thresholds that no convolution could take along: an epilogue of their own."""

from __future__ import annotations

from bdnet_deploy.graph import Affine, DType, Node, Sign, Ternarize, TwoSlope
from bdnet_deploy.plan.lowering import Lowering, rule
from bdnet_deploy.plan.plan import PlanStep, hwc


@rule(Affine, TwoSlope, Sign, Ternarize)
def pointwise(low: Lowering, node: Node) -> None:
    """An affine, two-slope or sign that no convolution could take along: an epilogue of its own."""
    first = low.acc_term(node) if isinstance(node.op, Affine) else 0
    value, repeats = low.unrepeated(node.inputs[first])
    source = low.tensors[value]
    step = PlanStep(
        kernel=None,
        epilogue_kernel="",
        nodes=[],
        inputs=[source],
        trunk=None,
        packed=None,
        out_shape=hwc(value.type.shape),
        acc_dtype=DType.I8 if source.dtype.is_packed else source.dtype,  # the format has no packed accumulators
    )
    low.fuse(step, node.inputs[first], head=node, repeats=repeats)
