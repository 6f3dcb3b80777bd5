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

from bdnet_deploy.importers.torch.aten import (
    BATCH_NORMS,
    CONSTANT_AFFINE,
    CONVOLUTIONS,
    ELEMENTWISE,
    IDENTITY,
    LINEARS,
    MAX_POOLS,
)
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
    ties = quantizer.low[quantizer.low != quantizer.high]
    pending, seen = [quantizer.source], {quantizer.source}
    while pending:
        traced = pending.pop()
        step = traced.step
        if step is None:
            return True  # an input may hold any number often
        before: list[Traced] = []
        if step.name == "constant_pad_nd" or is_move(traced):
            found = find_moves(traced)
            if any(c in ties for c in found.constants if (found.ids == found.constants.index(c)).any()):
                return True
            before = found.sources
        elif step.name in MAX_POOLS or (step.name in IDENTITY and len(step.inputs) == 1):
            before = list(step.inputs)
        elif step.name in CONVOLUTIONS | LINEARS | BATCH_NORMS:
            if _has_dead_channel(step):
                return True
            before = list(step.inputs) if step.name in BATCH_NORMS else []
        elif step.name in ELEMENTWISE and len(step.inputs) == 1:
            if _is_flat(traced, ties):
                return True
            if step.name in CONSTANT_AFFINE:
                before = list(step.inputs)
        for source in before:
            if source not in seen:
                seen.add(source)
                pending.append(source)
    return False


def _has_dead_channel(step: Step) -> bool:
    """Whether a channel does not depend on the input: a filter of zeros, or a normalization that multiplies by 0."""
    weight = step.argument("mat2" if step.name in ("addmm", "mm") else "weight")
    if not isinstance(weight, Tensor):
        return False
    if step.name in ("addmm", "mm"):
        weight = weight.t()
    return bool((weight.flatten(1) if weight.dim() > 1 else weight[:, None]).eq(0).all(1).any())


def _is_flat(traced: Traced, ties: np.ndarray) -> bool:
    """Whether a function of one tensor takes one of these values over an interval."""
    lines = find_two_lines(traced)
    if lines is not None:
        flat = (lines.positive == 0) | (lines.negative == 0)
        return bool(np.isin(lines.bias[flat], ties).any())
    limits = find_limits(traced)
    if limits is not None:
        return bool(np.isin([*limits.low, *limits.high], ties).any())
    return True
