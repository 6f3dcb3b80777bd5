"""Repeats, means, pools and reshapes, recognised by what they do to a probe instead of how they are written."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.graph import AvgPool, GlobalAvgPool, GroupMean, Op, Repeat, Reshape
from bdnet_deploy.importers.torch.aten import IDENTITY, MOVES, shown
from bdnet_deploy.importers.torch.trace import Step, Traced, run_step

_MAX_STEPS = 24


@dataclass(frozen=True, eq=False)
class Move:
    """``target`` is ``ops`` applied to ``source`` one after the other, times ``factor``."""

    source: Traced
    ops: tuple[Op, ...]
    factor: float = 1.0


def find_move(target: Traced) -> Move:
    """What the moving operators before ``target`` amount to.

    Raises:
        UnsupportedError: it is none of the graph's operators.
    """
    step = target.step
    assert step is not None
    candidates = list(_sources(target))
    # The farthest source first: a mean over a view is one operator, though the view alone is none.
    for source, steps in reversed(candidates):
        found = _recognise(source, target, _run(source, target, steps))
        if found is not None:
            return found
    hint = _hint(candidates, target)
    raise UnsupportedError(
        f"'{shown(step.name)}' from {_shape(step.inputs[0].shape)} to {_shape(target.shape)} cannot be carried over",
        where=step.where,
        why=hint
        or "it is no repeat of all channels, mean of adjacent channels, pool over the map or flattening of a 1x1 map",
        fix="write it as one of these, or leave it out of the model to deploy",
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _sources(target: Traced) -> Iterator[tuple[Traced, list[Step]]]:
    """Tensors (1, C, H, W) or (1, C) that alone determine ``target`` through moves, nearest first."""
    body: list[Step] = []
    heap = [(-target.index, target)]
    pending = {target}
    while heap:
        _, traced = heapq.heappop(heap)
        pending.discard(traced)
        if not pending and body and len(traced.shape) in (2, 4) and traced.shape[0] == 1:
            yield traced, list(reversed(body))
        step = traced.step
        if step is None or step.name not in MOVES | IDENTITY or step.in_place or len(body) >= _MAX_STEPS:
            return
        if step not in body:
            body.append(step)
        for argument in step.inputs:
            if argument not in pending:
                pending.add(argument)
                heapq.heappush(heap, (-argument.index, argument))


def _probe(source: Traced) -> Tensor:
    return torch.randn(source.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def _run(source: Traced, target: Traced, steps: list[Step]) -> tuple[Tensor, Tensor]:
    env = {source: _probe(source)}

    def leaf(arg: object) -> object:
        if isinstance(arg, Traced):
            return env[arg]
        return torch.float64 if isinstance(arg, torch.dtype) and arg.is_floating_point else arg

    for step in steps:
        run_step(step, env, leaf)
    return env[source], env[target]


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-9, atol=1e-9)


def _recognise(source: Traced, target: Traced, probe: tuple[Tensor, Tensor]) -> Move | None:
    x, y = probe
    if y.dim() not in (2, 4) or y.shape[0] != 1:
        return None
    c, d = x.shape[1], y.shape[1]
    ops: tuple[Op, ...]
    vector = (1, d) if y.dim() == 2 else (1, 1, 1, d)
    if _equal(x, y):
        return Move(source, ())
    if x.numel() == c and c == d and _equal(x.flatten(), y.flatten()):
        return Move(source, (Reshape(vector),))
    if x.dim() == 4 and c == d and y.numel() == d and x.numel() > c:
        pixels = x.shape[2] * x.shape[3]
        ops = (GlobalAvgPool(),) if y.dim() == 2 else (GlobalAvgPool(), Reshape(vector))
        mean = x.mean((2, 3))
        for factor in (1.0, float(pixels)):
            if _equal(mean * factor, y.reshape(1, d)):
                return Move(source, ops, factor)
    if x.shape[2:] == y.shape[2:]:
        if d % c == 0 and _equal(torch.cat([x] * (d // c), 1), y):
            return Move(source, (Repeat(d // c),))
        if c % d == 0 and _equal(x.unflatten(1, (d, c // d)).mean(2), y):
            return Move(source, (GroupMean(c // d),))
    if x.dim() == 4 and y.dim() == 4 and c == d:
        strides = (-(-x.shape[2] // y.shape[2]), -(-x.shape[3] // y.shape[3]))
        if _equal(x[:, :, :: strides[0], :: strides[1]], y):
            return Move(source, (AvgPool((1, 1), strides),))
    return None


def _hint(candidates: list[tuple[Traced, list[Step]]], target: Traced) -> str | None:
    """Near misses, by name."""
    if not candidates:
        inputs = target.step.inputs if target.step else ()
        odd = [t.shape for t in inputs if len(t.shape) not in (2, 4)]
        if len(inputs) > 1:
            return "it joins different tensors"
        return f"a tensor of shape {_shape(odd[0])} is neither a vector nor a map" if odd else None
    source, steps = candidates[-1]
    x, y = _run(source, target, steps)
    c, d = x.shape[1], y.shape[1]
    if c % d == 0 and x.shape[2:] == y.shape[2:] and _equal(x.unflatten(1, (c // d, d)).mean(1), y):
        return f"it takes the mean of every {d}th channel; only means of adjacent channels are possible"
    if d % c == 0 and x.shape[2:] == y.shape[2:] and _equal(x.repeat_interleave(d // c, 1), y):
        return "it repeats each channel in place; only a repeat of all channels as a whole is possible"
    if y.dim() == 2 and x.dim() == 4 and y.shape[1] == int(np.prod(x.shape)):
        return "it flattens a map that is larger than 1x1; pool it first"
    return None
