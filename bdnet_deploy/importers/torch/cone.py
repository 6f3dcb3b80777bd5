"""The elementwise function between two recorded tensors, as something that can be probed."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bdnet_deploy.graph import Array
from bdnet_deploy.importers.torch.aten import ELEMENTWISE
from bdnet_deploy.importers.torch.trace import Step, Traced, run_step

_MAX_STEPS = 80


class NotElementwiseError(Exception):
    """The function depends on the position in the map, or cannot be run on another shape."""


@dataclass(eq=False)
class Cone:
    """The steps that lead from ``source`` to ``target``, both (1, C, ...) of one shape, element by element."""

    source: Traced
    target: Traced
    steps: list[Step]
    _constants: dict[tuple[int, bool], Tensor] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        return self.source.shape[1]

    def __call__(self, x: Array, *, double: bool) -> Array:
        """The function's values at ``x`` (P, C), P probes of every channel, in float32 or in double arithmetic.

        Raises:
            NotElementwiseError: when constants differ from pixel to pixel, or an operator refuses.
        """
        dtype = torch.float64 if double else torch.float32
        probe = torch.tensor(x, dtype=dtype).reshape(*x.shape, *[1] * (len(self.source.shape) - 2))
        env = {self.source: probe}

        def leaf(arg: Any) -> Any:
            if isinstance(arg, Traced):
                return env[arg]
            if isinstance(arg, Tensor):
                return self._constant(arg, double)
            if isinstance(arg, torch.dtype) and double and arg.is_floating_point:
                return torch.float64
            if isinstance(arg, list | tuple) and tuple(arg) == self.source.shape:
                return list(probe.shape)
            return arg

        try:
            for step in self.steps:
                run_step(step, env, leaf)
            return env[self.target].reshape(x.shape).to(dtype).numpy()
        except (RuntimeError, TypeError) as error:
            raise NotElementwiseError(str(error)) from error

    def _constant(self, tensor: Tensor, double: bool) -> Tensor:
        key = (id(tensor), double)
        if key not in self._constants:
            small = tensor
            for axis in range(2, len(self.source.shape)):
                position = axis - len(self.source.shape)
                if tensor.dim() >= -position and small.shape[position] > 1:
                    first = small.narrow(position, 0, 1)
                    if not bool((small == first).all()):
                        raise NotElementwiseError("a constant differs from pixel to pixel")
                    small = first
            self._constants[key] = small.double() if double and small.is_floating_point() else small
        return self._constants[key]


def cones(target: Traced) -> Iterator[Cone]:
    """The cones that end in ``target``, the nearest single source first."""
    body: list[Step] = []
    heap = [(-target.index, target)]
    pending = {target}
    while heap:
        _, traced = heapq.heappop(heap)
        pending.discard(traced)
        if not pending and body and traced.dtype.is_floating_point:
            yield Cone(traced, target, sorted(body, key=_order))
        step = traced.step
        if step is None or step.name not in ELEMENTWISE or step.many or len(body) >= _MAX_STEPS:
            return
        body.append(step)
        for argument in step.inputs:
            if argument.shape != target.shape:
                return
            if argument not in pending:
                pending.add(argument)
                heapq.heappush(heap, (-argument.index, argument))


def _order(step: Step) -> int:
    output = step.outputs[0]
    return output.index if output is not None else 0
