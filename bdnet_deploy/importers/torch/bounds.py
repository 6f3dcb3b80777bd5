"""Whether a recorded tensor is never negative, whatever the input: then a sign has a level less, and a divisor no sign."""

from __future__ import annotations

import math

from torch import Tensor

from bdnet_deploy.importers.torch.aten import BATCH_NORMS, CONVOLUTIONS, FILLS, IDENTITY, LINEARS, MAX_POOLS, REDUCTIONS
from bdnet_deploy.importers.torch.moves import find_moves, is_move
from bdnet_deploy.importers.torch.piecewise import find_limits, find_two_lines
from bdnet_deploy.importers.torch.trace import Step, Traced

_DEEPEST = 24
#: Never negative, whatever they are taken of.
_ALWAYS = frozenset(
    "_safe_softmax _softmax abs exp linalg_vector_norm norm rsqrt sigmoid softmax softplus sqrt square std var".split()
)
_OF_SUCH = MAX_POOLS | REDUCTIONS | IDENTITY | frozenset("add maximum mul div clamp clamp_min reciprocal".split())


def is_nonnegative(traced: Traced, depth: int = _DEEPEST) -> bool:
    """Whether no element of it can be below zero (NaN aside); False where that cannot be told."""
    step = traced.step
    if step is None or depth == 0:
        return False
    if step.name in _ALWAYS or (step.name == "pow" and step.argument("exponent") in (2, 4, 0.5, -0.5)):
        return True
    if step.name == "mul" and step.argument("self") is step.argument("other"):
        return True
    if step.name in CONVOLUTIONS | LINEARS | BATCH_NORMS:
        return False
    if is_move(traced) or step.name == "constant_pad_nd":
        if step.name in FILLS:
            return False
        found = find_moves(traced)
        used = [c for i, c in enumerate(found.constants) if (found.ids == i).any()]
        return min(used, default=0.0) >= 0 and all(is_nonnegative(s, depth - 1) for s in found.sources)
    if step.name in _OF_SUCH and traced is step.outputs[0] and _keeps(step, depth):
        return True
    lines = find_two_lines(traced)
    if lines is not None:
        return bool((lines.bias >= 0).all() and (lines.positive >= 0).all() and (lines.negative <= 0).all())
    limits = find_limits(traced)
    return limits is not None and bool((limits.low >= 0).all())


def _keeps(step: Step, depth: int) -> bool:
    """Whether all of a step's operands are at least zero, activations and constants."""
    for name in ("self", "other", "min"):
        operand = step.argument(name)
        if isinstance(operand, Traced):
            fine = is_nonnegative(operand, depth - 1)
        elif isinstance(operand, Tensor):
            fine = bool((operand >= 0).all())
        else:
            fine = operand is None or (isinstance(operand, int | float) and not math.isnan(operand) and operand >= 0)
        if not fine:
            return False
    alpha = step.argument("alpha")
    return alpha is None or float(alpha) >= 0
