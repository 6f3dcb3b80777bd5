"""Arithmetic of two tensors that comes down to less: terms that cancel, a choice between two numbers, a positive divisor."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bdnet_deploy.importers.torch.aten import IDENTITY
from bdnet_deploy.importers.torch.bounds import is_nonnegative
from bdnet_deploy.importers.torch.cone import NotElementwiseError, cones
from bdnet_deploy.importers.torch.constants import two_term_signs
from bdnet_deploy.importers.torch.quantizer import Quantizer
from bdnet_deploy.importers.torch.trace import Step, Traced

_DEEPEST = 12
_TINY = float(np.finfo(np.float32).smallest_subnormal)
_COMPARISONS = frozenset("ge gt le lt".split())

# -- sums ---------------------------------------------------------------------------------------------------------------


def find_remainder(target: Traced) -> tuple[Traced, float] | None:
    """The tensor and the factor that a sum comes down to where all others cancel: ``hard - soft.detach() + soft``.

    That is how straight-through code gives one function the gradient of another. In float32 it leaves rounding errors
    of the cancelled terms, which the original did not intend; they are dropped.
    """
    terms: dict[Traced, float] = {}
    if not _collect(target, 1.0, terms, _DEEPEST):
        return None
    left = [(term, factor) for term, factor in terms.items() if abs(factor) > 1e-9]
    return left[0] if len(left) == 1 and len(terms) > 1 else None


def _collect(traced: Traced, factor: float, terms: dict[Traced, float], depth: int) -> bool:
    """Add ``factor * traced`` to ``terms``; False where a constant is added."""
    step = traced.step
    if step is not None and depth and all(x.shape == traced.shape for x in step.inputs):
        if step.name in IDENTITY and len(step.inputs) == 1 and _same_numbers(step.inputs[0], traced):
            return _collect(step.inputs[0], factor, terms, depth - 1)
        if step.name == "neg":
            return _collect(step.inputs[0], -factor, terms, depth - 1)
        if step.name in ("add", "sub", "rsub"):
            left, right = step.argument("self"), step.argument("other")
            if isinstance(left, Traced) and isinstance(right, Traced):
                one, two = two_term_signs(step)
                return _collect(left, one * factor, terms, depth - 1) and _collect(
                    right, two * factor, terms, depth - 1
                )
            return False
    terms[traced] = terms.get(traced, 0.0) + factor
    return True


def _same_numbers(x: Traced, y: Traced) -> bool:
    """Whether a conversion keeps them: whole numbers and truth values become floats, floats stay floats."""
    return y.dtype.is_floating_point or x.dtype is y.dtype


# -- choices ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Choice:
    """``on`` where the comparison (of two tensors) holds, ``off`` elsewhere."""

    comparison: Step
    on: float
    off: float


def find_choice(target: Traced) -> Choice | None:
    """The two numbers between which a comparison of two tensors chooses, however that is written."""
    for cone in cones(target, booleans=True):
        step = cone.source.step
        if cone.axes or step is None or step.name not in _COMPARISONS or len(step.inputs) != 2:
            continue
        try:
            off, on = cone(np.array([[0.0], [1.0]]), double=True).ravel().tolist()
        except NotElementwiseError:
            return None
        return Choice(step, on, off) if np.isfinite([on, off]).all() and on != off else None
    return None


# -- quotients ----------------------------------------------------------------------------------------------------------


def positive_divisor(step: Step) -> Traced | None:
    """The activation that a step divides by, if it is known not to be negative."""
    if step.name == "div" and step.argument("rounding_mode") is None:
        divisor = step.argument("other")
    else:
        divisor = step.argument("self") if step.name == "reciprocal" else None
    return divisor if isinstance(divisor, Traced) and is_nonnegative(divisor) else None


def without_divisor(quantizer: Quantizer) -> Quantizer:
    """The sign of a quotient is that of the dividend, which need not be divided by a positive number."""
    while True:
        step = quantizer.source.step
        at_zero = bool((np.abs([quantizer.low, quantizer.high]) <= _TINY).all())
        if step is None or step.name != "div" or not at_zero or positive_divisor(step) is None:
            return quantizer
        dividend = step.argument("self")
        if not isinstance(dividend, Traced) or dividend.shape != quantizer.source.shape:
            return quantizer
        quantizer = replace(quantizer, source=dividend)


def without_lower_level(quantizer: Quantizer) -> Quantizer:
    """Of levels -a, 0 and +a on a tensor that is never negative only 0 and +a occur: bits instead of trits."""
    if quantizer.binary or not (np.abs(quantizer.low) <= _TINY).all() or not is_nonnegative(quantizer.source):
        return quantizer
    half = quantizer.mul / 2
    return replace(quantizer, low=quantizer.high, mul=half, add=quantizer.add + half, tie=False)
