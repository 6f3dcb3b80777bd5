"""Sums, means and maxima over a map or over channels, recognised by what they do to random numbers."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bdnet_deploy.graph import Array, AvgPool, GlobalAvgPool, GroupMean, Op, Reduce, Reshape, Shuffle
from bdnet_deploy.importers.index_maps import run
from bdnet_deploy.importers.torch.aten import REDUCTIONS
from bdnet_deploy.importers.torch.layout import Layout, fits, to_graph
from bdnet_deploy.importers.torch.moves import is_map_padding, is_move
from bdnet_deploy.importers.torch.trace import Step, Traced, run_step

_MAX_STEPS = 24
_LARGEST_WINDOW = 8
# Maxima over other axes agree by coincidence on up to half of all draws: the two largest elements decide.
_DRAWS_OF_MAXIMA = 32


@dataclass(frozen=True, eq=False)
class Reduction:
    """``target``, in layout ``after``, is ``ops`` applied to ``source``, in layout ``before``, times ``factor``."""

    source: Traced
    before: Layout
    ops: tuple[Op, ...]
    factor: float
    after: Layout


def find_reduction(target: Traced) -> Reduction | None:
    """What the reducing operators before ``target`` amount to; None where it is none of the graph's operators."""
    candidates = list(_sources(target))
    # The farthest source first: a mean over a view is one operator, though the view alone is none.
    for source, steps in reversed(candidates):
        generator = torch.Generator().manual_seed(2)
        draws = []
        for _ in range(1 if all(step.name not in ("amax", "max") for step in steps) else _DRAWS_OF_MAXIMA):
            x = torch.randn(source.shape, dtype=torch.float64, generator=generator)
            draws.append((x.numpy(), _run(source, target, steps, x).numpy()))
        found = _recognise(source, target, draws)
        if found is not None:
            return found
    return None


def _run(source: Traced, target: Traced, steps: list[Step], x: torch.Tensor) -> torch.Tensor:
    env = {source: x}

    def leaf(arg: object) -> object:
        if isinstance(arg, Traced):
            return env[arg]
        return torch.float64 if isinstance(arg, torch.dtype) and arg.is_floating_point else arg

    for step in steps:
        run_step(step, env, leaf)
    return env[target]


def _sources(target: Traced) -> Iterator[tuple[Traced, list[Step]]]:
    """Tensors that alone determine ``target`` through moves and reductions, nearest first."""
    body: list[Step] = []
    heap = [(-target.index, target)]
    pending = {target}
    while heap:
        _, traced = heapq.heappop(heap)
        pending.discard(traced)
        if not pending and body:
            yield traced, list(reversed(body))
        step = traced.step
        followed = is_move(traced) or (step is not None and (step.name in REDUCTIONS or is_map_padding(step)))
        if step is None or not followed or step.in_place or len(body) >= _MAX_STEPS:
            return
        if step not in body:
            body.append(step)
        for argument in step.inputs:
            if argument not in pending:
                pending.add(argument)
                heapq.heappush(heap, (-argument.index, argument))


def _recognise(source: Traced, target: Traced, draws: Sequence[tuple[Array, Array]]) -> Reduction | None:
    if len(source.shape) > 5:
        return None
    order = (Layout.FIRST, Layout.LAST) if len(source.shape) != 3 else (Layout.LAST, Layout.FIRST)
    for before in order:
        if not fits(source.shape, before):
            continue
        sources = [to_graph(x, before) for x, _ in draws]
        for ops, factor in _candidates(sources[0].shape, draws[0][1].size):
            made = [run(ops, x) * factor for x in sources]
            for after in dict.fromkeys((before, *order)):
                if not fits(target.shape, after):
                    continue
                wanted = [to_graph(y, after) for _, y in draws]
                if all(np.allclose(m.ravel(), w.ravel(), rtol=1e-9, atol=1e-9) for m, w in zip(made, wanted)):
                    shape = wanted[0].shape
                    last = () if made[0].shape == shape else (Reshape(shape),)
                    return Reduction(source, before, (*ops, *last), factor, after)
    return None


def _candidates(shape: tuple[int, ...], results: int) -> Iterator[tuple[tuple[Op, ...], float]]:
    """Operators, and factors behind them, that make so many results of a map of that shape."""
    channels, pixels = shape[-1], math.prod(shape[:-1])
    if results == channels * pixels:  # over axes of length 1
        yield (), 1.0
    if results == 1 and min(channels, pixels) > 1:
        yield (GlobalAvgPool(), GroupMean(channels)), 1.0
        yield (GlobalAvgPool(), GroupMean(channels)), float(channels * pixels)
    if results == channels and pixels > 1:
        yield (GlobalAvgPool(),), 1.0
        yield (GlobalAvgPool(),), float(pixels)
        yield (Reduce("max", "map"),), 1.0
    if len(shape) == 4 and results == pixels and channels > 1:
        yield (Reduce("sum", "channels"),), 1.0
        yield (Reduce("max", "channels"),), 1.0
    if results % pixels == 0 and results < channels * pixels and channels % (results // pixels) == 0:
        size = channels // (results // pixels)
        for ops in ((GroupMean(size),), (Shuffle(size), GroupMean(size))):
            yield ops, 1.0
            yield ops, float(size)
    if len(shape) == 4 and results % channels == 0 and 1 < results // channels < pixels:
        for kh in range(1, min(_LARGEST_WINDOW, shape[1]) + 1):
            for kw in range(1, min(_LARGEST_WINDOW, shape[2]) + 1):
                if shape[1] % kh == 0 and shape[2] % kw == 0 and kh * kw * results == channels * pixels and kh * kw > 1:
                    yield (AvgPool((kh, kw), (kh, kw)),), 1.0
