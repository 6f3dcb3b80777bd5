"""Arithmetic of two tensors that comes down to less: terms that cancel, a choice between two numbers, a positive divisor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bdnet_deploy.graph import Array
from bdnet_deploy.importers.torch.aten import IDENTITY, MAX_POOLS, MOVES
from bdnet_deploy.importers.torch.bounds import is_nonnegative
from bdnet_deploy.importers.torch.cone import NotElementwiseError, cones, is_elementwise
from bdnet_deploy.importers.torch.constants import two_term_signs
from bdnet_deploy.importers.torch.quantizer import Quantizer, find_quantizer
from bdnet_deploy.importers.torch.ties import is_structural
from bdnet_deploy.importers.torch.trace import Step, Traced, run_step

_DEEPEST = 12
_LONGEST = 24
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


# -- logic --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Logic:
    """A function of two tensors of two levels each, which takes two levels itself: ``kind`` as BitLogic knows it."""

    kind: str
    sources: tuple[Traced, Traced]
    middles: tuple[float, float]  # between the levels of each source
    levels: tuple[float, float]  # of the result


class Levels:
    """Which recorded tensors have two levels, the same in all channels, and which operators are logic of such ones."""

    def __init__(self) -> None:
        self._levels: dict[Traced, tuple[float, float] | None] = {}
        self._logic: dict[Traced, Logic | None] = {}

    def of(self, traced: Traced) -> tuple[float, float] | None:
        """The lower and the upper level of a tensor, or None."""
        if traced not in self._levels:
            self._levels[traced] = None  # also ends what goes too deep
            self._levels[traced] = self._find(traced)
        return self._levels[traced]

    def _find(self, traced: Traced) -> tuple[float, float] | None:
        step = traced.step
        if step is None:
            return None
        if step.name in MOVES | IDENTITY | MAX_POOLS:
            if step.name == "constant_pad_nd" or not traced.dtype.is_floating_point or not step.inputs:
                return None
            found = {self.of(x) for x in step.inputs}
            return found.pop() if len(found) == 1 else None
        if not is_elementwise(step):
            return None
        quantizer = find_quantizer(traced)
        if isinstance(quantizer, Quantizer):
            two = quantizer.binary or (quantizer.tie and not is_structural(quantizer))
            if not two or np.ptp(quantizer.mul) or np.ptp(quantizer.add):
                return None
            size, middle = abs(float(quantizer.mul[0])), float(quantizer.add[0])
            return middle - size, middle + size
        logic = self.logic(traced)
        if logic is not None:
            return logic.levels
        renumbered = self.renumbered(traced)
        if renumbered is None:
            return None
        source, mul, add = renumbered
        low, high = sorted(mul * level + add for level in self.of(source) or ())
        return low, high

    def logic(self, target: Traced) -> Logic | None:
        """The logic that ``target`` is of the nearest two tensors of two levels, however it is written."""
        if target not in self._logic:
            self._logic[target] = self._find_logic(target)
        return self._logic[target]

    def _find_logic(self, target: Traced) -> Logic | None:
        for steps, sources in _frontiers(target):
            levels = [found for x in sources if (found := self.of(x)) is not None]
            if len(levels) == len(sources):
                return None if len(sources) == 1 else _as_logic(steps, target, sources, levels)
        return None

    def renumbered(self, target: Traced) -> tuple[Traced, float, float] | None:
        """The nearest tensor of two levels that alone determines ``target``, and the line ``mul * x + add`` through both."""
        for steps, sources in _frontiers(target):
            levels = self.of(sources[0])
            if len(sources) == 1 and levels is not None:
                y = _run(steps, target, {sources[0]: list(levels)})
                if y is None or y[0] == y[1]:
                    return None
                mul = float(y[1] - y[0]) / (levels[1] - levels[0])
                return sources[0], mul, float(y[0]) - mul * levels[0]
        return None


def _as_logic(
    steps: list[Step], target: Traced, sources: tuple[Traced, ...], levels: list[tuple[float, float]]
) -> Logic | None:
    (a0, a1), (b0, b1) = levels
    y = _run(steps, target, {sources[0]: [a0, a0, a1, a1], sources[1]: [b0, b1, b0, b1]})
    if y is None:
        return None
    low, high = float(y.min()), float(y.max())
    near = 1e-6 * max(abs(low), abs(high))
    truth = y > (low + high) / 2
    if high - low <= near or bool((np.abs(y - np.where(truth, high, low)) > near).any()):
        return None
    kind = _KINDS.get(tuple(truth.tolist()))
    if kind is None:
        return None
    return Logic(kind, (sources[0], sources[1]), ((a0 + a1) / 2, (b0 + b1) / 2), (low, high))


_KINDS = {
    (False, False, False, True): "and",
    (False, True, True, True): "or",
    (False, True, True, False): "xor",
    (True, False, False, True): "xnor",
}


def _frontiers(target: Traced) -> Iterator[tuple[list[Step], tuple[Traced, ...]]]:
    """The elementwise steps that lead to ``target`` from one or two tensors of its shape, the nearest first."""
    body: list[Step] = []
    pending = {target}
    while pending and len(body) < _LONGEST:
        if body and len(pending) <= 2:
            yield body[::-1], tuple(sorted(pending, key=lambda t: t.index))
        latest = max(pending, key=lambda t: t.index)
        step = latest.step
        if step is None or not is_elementwise(step) or any(x.shape != target.shape for x in step.inputs):
            return
        pending.discard(latest)
        pending.update(step.inputs)
        body.append(step)


def _run(steps: list[Step], target: Traced, values: dict[Traced, list[float]]) -> Array | None:
    """The result for one element at a time; None where constants have several."""
    env = {t: torch.tensor(v, dtype=torch.float64) for t, v in values.items()}

    def leaf(arg: object) -> object:
        if isinstance(arg, Traced):
            return env[arg]
        if isinstance(arg, Tensor):
            if bool((arg != arg.flatten()[0]).any()):
                raise NotElementwiseError("its constants differ")
            return arg.flatten()[0].double() if arg.is_floating_point() else arg.flatten()[0]
        return torch.float64 if isinstance(arg, torch.dtype) and arg.is_floating_point else arg

    try:
        for step in steps:
            run_step(step, env, leaf)
    except (NotElementwiseError, RuntimeError, TypeError):
        return None
    return env[target].double().numpy()
