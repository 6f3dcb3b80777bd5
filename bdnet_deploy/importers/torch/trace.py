"""A recorded forward pass: the operators that depend on the input, everything else folded into constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(eq=False)
class Traced:
    """A tensor that depends on the input: ``step`` made it (None: it is the input), ``readers``
    take it as an argument. Indices grow in time."""

    index: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    step: Step | None = field(default=None, repr=False)
    readers: list[Step] = field(default_factory=list, repr=False)


@dataclass(eq=False)
class Step:
    """One recorded operator. Its arguments hold :class:`Traced` values, constant tensors and plain Python data.

    ``path`` is the module that ran it, e.g. ``"body.3.conv"``; ``line`` the user's source line, where known.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    path: str
    line: str
    outputs: tuple[Traced | None, ...] = ()
    many: bool = False  # whether the operator returns a tuple

    @property
    def name(self) -> str:
        """The operator without its overload and without the in-place underscore, e.g. ``"add"``."""
        namespace, _, name = self.func._schema.name.partition("::")
        if not name.startswith("__"):
            name = name.rstrip("_")
        return name if namespace == "aten" else f"{namespace}::{name}"

    @property
    def in_place(self) -> bool:
        return is_in_place(self.func)

    @property
    def inputs(self) -> tuple[Traced, ...]:
        """The traced arguments, each once."""
        found: list[Traced] = []

        def collect(arg: Any) -> Any:
            if isinstance(arg, Traced) and arg not in found:
                found.append(arg)
            return arg

        rebuild((self.args, list(self.kwargs.values())), collect)
        return tuple(found)

    @property
    def inputs_of_product(self) -> tuple[Any, Any]:
        """Both factors of a matrix product."""
        return self.argument("self"), self.argument("other" if self.name == "matmul" else "mat2")

    @property
    def where(self) -> str:
        """Module path and source line for messages."""
        place = self.path or "the model itself"
        return f"{place} ({self.line})" if self.line else place

    def argument(self, name: str) -> Any:
        """The argument of that name in the operator's schema, or its default."""
        for position, argument in enumerate(self.func._schema.arguments):
            if argument.name == name:
                if not argument.kwarg_only and position < len(self.args):
                    return self.args[position]
                return self.kwargs.get(name, argument.default_value)
        return None


@dataclass(eq=False)
class Trace:
    """What a module does to one input. ``steps`` are in order; ``outputs`` in the order in which they are returned."""

    input: Traced
    steps: list[Step] = field(default_factory=list)
    outputs: list[Traced] = field(default_factory=list)

    def replay(self, x: Tensor, wanted: Sequence[Traced] | None = None) -> list[Tensor]:
        """The outputs (or the tensors ``wanted``) for another input, from the record alone."""
        wanted = self.outputs if wanted is None else wanted
        last: dict[Traced, int] = {}
        for i, step in enumerate(self.steps):
            for t in step.inputs:
                last[t] = i
        env = {self.input: x}
        for i, step in enumerate(self.steps):
            run_step(step, env, lambda arg: env[arg] if isinstance(arg, Traced) else arg)
            for t in (*step.inputs, *(o for o in step.outputs if o is not None)):
                if last.get(t, -1) <= i and t not in wanted:
                    env.pop(t, None)
        return [env[t] for t in wanted]


def keeps_values(before: torch.dtype, after: torch.dtype) -> bool:
    """Whether a conversion leaves every number as it is, but for the rounding of floats."""
    if before.is_floating_point and after.is_floating_point:
        return True
    return torch.promote_types(before, after) == after


def is_in_place(func: Any) -> bool:
    name: str = func._schema.name
    return name.endswith("_") and not name.endswith("__")


def rebuild(arg: Any, leaf: Callable[[Any], Any]) -> Any:
    """``arg`` with ``leaf`` applied to everything in it. A list of integers (a shape) is one leaf."""
    if isinstance(arg, list | tuple) and not all(isinstance(a, int) for a in arg):
        return [rebuild(a, leaf) for a in arg] if isinstance(arg, list) else tuple(rebuild(a, leaf) for a in arg)
    return leaf(arg)


def run_step(step: Step, env: dict[Traced, Tensor], leaf: Callable[[Any], Any]) -> None:
    """Run one step; ``leaf`` turns each argument into what is passed; the results enter ``env``."""
    args = [rebuild(a, leaf) for a in step.args]
    kwargs = {k: rebuild(a, leaf) for k, a in step.kwargs.items()}
    if step.in_place:
        args[0] = args[0].clone()
    with torch.no_grad():
        # A view of a tensor that has other strides here than in the recorded run may need a copy.
        func = torch.ops.aten.reshape.default if step.func is torch.ops.aten.view.default else step.func
        result = func(*args, **kwargs)
    results: Sequence[Any] = result if step.many else (result,)
    for traced, tensor in zip(step.outputs, results, strict=True):
        if traced is not None:
            env[traced] = tensor
