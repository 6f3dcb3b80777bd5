"""Whether ``sign(0) = 0`` can matter: a third level at one single float costs a layer ternary kernels.

Behind a convolution, a normalization or a sum the very float at the threshold occurs only by coincidence; it is a near tie
like any other, where two runtimes may differ anyway. It matters where zeros are made on purpose, which is looked for in
two ways: in what the module does (a ReLU or another limit, a padding, channels that were pruned to zero, or the input
itself stand before the sign), and in what happened in the recorded run, which finds what is not in that list (sums of
signs, which are integers; gates of what was zero).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from bdnet_deploy.graph import Array
from bdnet_deploy.importers.torch.aten import (
    BATCH_NORMS,
    CONSTANT_AFFINE,
    CONVOLUTIONS,
    IDENTITY,
    LINEARS,
    MAX_POOLS,
)
from bdnet_deploy.importers.torch.bounds import is_nonnegative
from bdnet_deploy.importers.torch.cone import is_elementwise
from bdnet_deploy.importers.torch.constants import constant_affine
from bdnet_deploy.importers.torch.layers import batch_norm
from bdnet_deploy.importers.torch.layout import Layout, to_graph
from bdnet_deploy.importers.torch.moves import find_moves, is_move
from bdnet_deploy.importers.torch.piecewise import find_limits, find_two_lines
from bdnet_deploy.importers.torch.quantizer import Quantizer
from bdnet_deploy.importers.torch.trace import Step, Trace, Traced

#: A larger share of elements at the threshold is no coincidence: floats meet a given one about once in ten million times.
_COINCIDENCE = 1e-4


def met_ties(trace: Trace, x: Tensor, quantizers: Sequence[Quantizer]) -> set[Traced]:
    """The sources of ``quantizers`` in which the float of the middle level was met, when the record runs on ``x``."""
    sources = [q.source for q in quantizers]
    found = set()
    for quantizer, tensor in zip(quantizers, trace.replay(x, sources) if sources else [], strict=True):
        values = to_graph(tensor.double().numpy(), quantizer.layout or Layout.LAST)
        if ((values >= quantizer.low) & (values < quantizer.high)).mean() > _COINCIDENCE:
            found.add(quantizer.source)
    return found


def is_structural(quantizer: Quantizer) -> bool:
    """Whether the float between two levels may come from more than coincidence."""
    pending = [(quantizer.source, np.unique(quantizer.low[quantizer.low != quantizer.high]))]
    seen = {quantizer.source}
    while pending:
        traced, ties = pending.pop()
        step = traced.step
        if step is None or (_among(np.zeros(1), ties) and is_nonnegative(traced)):
            return True  # an input may hold any number often, and what is cut off below zero holds many zeros
        before: list[Traced] = []
        if step.name == "constant_pad_nd" or is_move(traced):
            found = find_moves(traced)
            if any(_among(np.array([c]), ties) for i, c in enumerate(found.constants) if (found.ids == i).any()):
                return True
            before = found.sources
        elif step.name in MAX_POOLS or (step.name in IDENTITY and len(step.inputs) == 1):
            before = list(step.inputs)
        elif step.name in CONVOLUTIONS | LINEARS | BATCH_NORMS:
            if _has_dead_channel(step):
                return True
            if step.name in BATCH_NORMS:
                before, ties = list(step.inputs), _inverse(ties, *batch_norm(step))
        elif is_elementwise(step) and len(step.inputs) == 1:
            factors = constant_affine(step) if step.name in CONSTANT_AFFINE else None
            if factors is not None and factors[0].all():
                before, ties = list(step.inputs), _inverse(ties, *factors[:2])
            elif _is_flat(traced, ties):
                return True
        for source in before:
            if source not in seen:
                seen.add(source)
                pending.append((source, ties))
    return False


def _inverse(ties: Array, mul: Array, add: Array) -> Array:
    """The numbers of which ``x * mul + add`` makes one of ``ties`` in some channel."""
    mul, add = np.broadcast_arrays(mul, add)
    used = mul != 0
    return np.unique((ties[:, None] - add[used]) / mul[used])


def _among(values: Array, ties: Array) -> bool:
    """Whether one of the values is a tie, but for the rounding of float32."""
    near = np.abs(values[:, None] - ties) <= 1e-6 * np.maximum(np.abs(values[:, None]), np.abs(ties))
    return bool(near.any())


def _has_dead_channel(step: Step) -> bool:
    """Whether a channel does not depend on the input: a filter of zeros, or a normalization that multiplies by 0."""
    weight = step.argument("mat2" if step.name in ("addmm", "mm") else "weight")
    if not isinstance(weight, Tensor):
        return False
    if step.name in ("addmm", "mm"):
        weight = weight.t()
    return bool((weight.flatten(1) if weight.dim() > 1 else weight[:, None]).eq(0).all(1).any())


def _is_flat(traced: Traced, ties: Array) -> bool:
    """Whether a function of one tensor takes one of these values over an interval."""
    lines = find_two_lines(traced)
    if lines is not None:
        flat = (lines.positive == 0) | (lines.negative == 0)
        return _among(lines.bias[flat], ties)
    limits = find_limits(traced)
    if limits is not None:
        return _among(np.array([*limits.low, *limits.high]), ties)
    return True
