"""Where tensors lie in the arena: tensors whose lives overlap must not."""

from __future__ import annotations

from bdnet_deploy.plan.plan import Plan, PlanTensor, align


def lifetimes(plan: Plan) -> dict[PlanTensor, tuple[int, int]]:
    """First and last step that touches each tensor of the arena."""
    lives: dict[PlanTensor, tuple[int, int]] = {}
    for i, step in enumerate(plan.steps):
        for tensor in (*step.inputs, *step.outputs):
            if tensor.place == "arena":
                lives[tensor] = (lives.get(tensor, (i, i))[0], i)
    return lives


def place_tensors(plan: Plan) -> None:
    """Give every arena tensor its offset; largest first, each at the lowest place that is free during its life."""
    lives = lifetimes(plan)
    placed: list[PlanTensor] = []
    for tensor in sorted(lives, key=lambda t: (-t.size, lives[t], t.values[0].name)):
        first, last = lives[tensor]
        rivals = sorted((t for t in placed if lives[t][0] <= last and first <= lives[t][1]), key=lambda t: t.offset)
        offset = 0
        for rival in rivals:
            if offset + tensor.size <= rival.offset:
                break
            offset = max(offset, align(rival.offset + rival.size))
        tensor.offset = offset
        placed.append(tensor)
    plan.tensor_bytes = align(max((t.offset + t.size for t in placed), default=0))
    plan.lower_bound = max(
        (sum(align(t.size) for t in lives if lives[t][0] <= i <= lives[t][1]) + step.scratch)
        for i, step in enumerate(plan.steps)
    )
