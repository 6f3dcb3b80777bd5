"""The elementwise function between two recorded tensors, as something that can be probed."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bdnet_deploy.graph import Array
from bdnet_deploy.importers.torch.aten import DISCRETE, ELEMENTWISE, FAKE_QUANTIZERS
from bdnet_deploy.importers.torch.layout import Layout, fits
from bdnet_deploy.importers.torch.trace import Step, Traced, rebuild, run_step

_MAX_STEPS = 80
_MAX_LANDMARKS = 32


class NotElementwiseError(Exception):
    """The function cannot be run on another shape."""


@dataclass(eq=False)
class Cone:
    """The steps that lead from ``source`` to ``target``, both of one shape, element by element.

    ``layout`` says of which channels the function differs (its constants do), along ``axes``; None: it is one function
    for all elements, and there is one channel to probe.
    """

    source: Traced
    target: Traced
    steps: list[Step]
    axes: tuple[int, ...] = ()
    _constants: dict[tuple[int, bool], Tensor] = field(default_factory=dict)

    @property
    def layout(self) -> Layout | None:
        return layout_of_axes(self.source.shape, set(self.axes)) if self.axes else None

    @property
    def channels(self) -> int:
        return math.prod(self.source.shape[axis] for axis in self.axes)

    def __call__(self, x: Array, *, double: bool) -> Array:
        """The function's values at ``x`` (P, C), P probes of every channel, in float32 or in double arithmetic.

        Raises:
            NotElementwiseError: when an operator refuses.
        """
        dtype = torch.float64 if double else torch.float32
        rank = max(len(self.source.shape), 2)
        # Probes along the first axis, or along the second if the first is the channels'.
        first = self.axes == (0,) and len(self.source.shape) > 1
        shape = [1] * rank
        shape[1 if first else 0] = len(x)
        for axis in self.axes:
            shape[axis if len(self.source.shape) > 1 else 1] = self.source.shape[axis]
        kind = torch.bool if self.source.dtype is torch.bool else dtype
        probe = torch.tensor(x.T if first else x, dtype=kind).reshape(shape)
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
            y = env[self.target].reshape(probe.shape).to(dtype).numpy()
            return y.reshape(x.shape[::-1]).T if first else y.reshape(x.shape)
        except (RuntimeError, TypeError) as error:
            raise NotElementwiseError(str(error)) from error

    def landmarks(self) -> Array:
        """Where the function may bend or jump: its constants (K, C), in order, and the middles between them."""
        rows = [np.zeros(self.channels)]
        for step in self.steps:
            for constant in _numbers(step):
                if isinstance(constant, Tensor):
                    values = self._constant(constant, True).double().numpy().ravel()
                    if values.size not in (1, self.channels):
                        continue
                else:
                    values = np.array([float(constant)])
                rows.append(np.broadcast_to(np.where(np.isfinite(values), values, 0.0), (self.channels,)))
        found = np.sort(np.stack(rows[:_MAX_LANDMARKS]), axis=0)
        return np.concatenate([found, (found[1:] + found[:-1]) / 2])

    def _constant(self, tensor: Tensor, double: bool) -> Tensor:
        key = (id(tensor), double)
        if key not in self._constants:
            small = tensor
            for axis in range(tensor.dim()):
                if axis - tensor.dim() + len(self.source.shape) not in self.axes:
                    small = small.narrow(axis, 0, min(1, small.shape[axis]))
            self._constants[key] = small.double() if double and small.is_floating_point() else small
        return self._constants[key]


def is_discrete(step: Step) -> bool:
    """Whether a step has jumps, or may: also conversions to integers and to bool."""
    return step.name in DISCRETE or any(o is not None and not o.dtype.is_floating_point for o in step.outputs)


def layout_of_axis(shape: tuple[int, ...], axis: int) -> Layout | None:
    """The layout whose channel is that axis; None where there is none."""
    rank = len(shape)
    for layout in (Layout.FIRST, Layout.LAST, Layout.SWAPPED):
        if fits(shape, layout) and layout.axes(rank) == (axis,):
            return layout
    return None


def layout_of_axes(shape: tuple[int, ...], axes: set[int]) -> Layout | None:
    """The layout whose channels lie along these axes, or these and more; None where there is none."""
    for layout in (Layout.FIRST, Layout.LAST, Layout.SWAPPED):
        if fits(shape, layout) and axes <= set(layout.axes(len(shape))):
            return layout
    return None


def varying_axes(tensor: Tensor, rank: int) -> set[int]:
    """The axes of a tensor of ``rank`` along which a constant that is broadcast to it is not the same."""
    return {
        axis + rank - tensor.dim()
        for axis in range(tensor.dim())
        if tensor.shape[axis] > 1 and not bool((tensor == tensor.narrow(axis, 0, 1)).all())
    }


def is_elementwise(step: Step) -> bool:
    """Whether each element of a step's one result depends on the same element of its operands alone."""
    if step.name == "index_put":  # x[mask] = number
        indices, values = step.argument("indices"), step.argument("values")
        if len(indices) != 1 or step.argument("accumulate") or not isinstance(values, Tensor) or values.numel() != 1:
            return False
        (mask,) = indices
        return getattr(mask, "dtype", None) is torch.bool and tuple(mask.shape) == step.argument("self").shape
    # Fake quantization also returns a mask for the gradient.
    return step.name in ELEMENTWISE and (not step.many or step.name in FAKE_QUANTIZERS)


def cones(target: Traced, *, booleans: bool = False) -> Iterator[Cone]:
    """The cones that end in ``target``, the nearest single source first; none whose constants vary along two axes.

    Their sources are of a float type, or with ``booleans`` truth values.
    """
    body: list[Step] = []
    axes: set[int] = set()
    rank = len(target.shape)
    heap = [(-target.index, target)]
    pending = {target}
    while heap:
        _, traced = heapq.heappop(heap)
        pending.discard(traced)
        if not pending and body and (traced.dtype is torch.bool if booleans else traced.dtype.is_floating_point):
            layout = layout_of_axes(target.shape, axes) if axes else None
            yield Cone(traced, target, sorted(body, key=_order), layout.axes(rank) if layout else ())
        step = traced.step
        if step is None or not is_elementwise(step) or traced is not step.outputs[0] or len(body) >= _MAX_STEPS:
            return
        body.append(step)
        for constant in _constants(step):
            if constant.dim() > rank:
                return
            axes |= varying_axes(constant, rank)
        if axes and layout_of_axes(target.shape, axes) is None:
            return
        for argument in step.inputs:
            if argument.shape != target.shape:
                return
            if argument not in pending:
                pending.add(argument)
                heapq.heappush(heap, (-argument.index, argument))


def _constants(step: Step) -> Iterator[Tensor]:
    found: list[Tensor] = []

    def collect(arg: Any) -> Any:
        if isinstance(arg, Tensor):
            found.append(arg)
        return arg

    rebuild((step.args, list(step.kwargs.values())), collect)
    return iter(found)


def _numbers(step: Step) -> Iterator[Tensor | float]:
    """The constants of a step, numbers too."""
    found: list[Tensor | float] = []

    def collect(arg: Any) -> Any:
        if isinstance(arg, Tensor | int | float) and not isinstance(arg, bool):
            found.append(arg)
        return arg

    rebuild((step.args, list(step.kwargs.values())), collect)
    return iter(found)


def _order(step: Step) -> int:
    output = step.outputs[0]
    return output.index if output is not None else 0
