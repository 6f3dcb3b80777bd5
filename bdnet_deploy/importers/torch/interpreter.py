"""Modules that run the nodes of a file one after the other, so that files go through the recorder as live code does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bdnet_deploy.errors import ModelFileError, UnsupportedError
from bdnet_deploy.importers.torch.dispatch import Mode
from bdnet_deploy.iodesc import IODescription


@dataclass(frozen=True)
class Place:
    """Where a node comes from: ``path`` of the module that it belongs to (or the node's name), ``line``: its name and
    source line, for messages."""

    path: str = ""
    line: str = ""

    def __str__(self) -> str:
        place = self.path or "the model itself"
        return f"{place} ({self.line})" if self.line else place


class Interpreter(nn.Module):
    """A module of one tensor argument that runs a file. ``place`` is the node that runs now; the recorder asks for it.

    Files have fixed shapes, so that a batch of several inputs runs one by one.
    """

    place: Place = Place()

    def constants(self) -> Iterable[Tensor]:
        """The tensors of the file."""
        return ()

    def forward(self, x: Tensor) -> Any:
        if x.shape[0] == 1:
            with Bounded(self):
                return self.run(x)
        parts = [self(x[i : i + 1]) for i in range(x.shape[0])]
        return tuple(map(torch.cat, zip(*parts))) if isinstance(parts[0], tuple) else torch.cat(parts)

    def run(self, x: Tensor) -> Any:
        """The outputs for one input: a tensor, or a tuple of several."""
        raise NotImplementedError


@dataclass(eq=False)
class Imported:
    """A file made runnable: import ``module`` with an input of ``input_shape`` (as PyTorch would see it).

    ``notes`` are remarks for the user; ``io`` the I/O description that travelled in the file.
    """

    module: Interpreter
    input_shape: tuple[int, ...]
    notes: list[str] = field(default_factory=list)
    io: IODescription | None = None


#: Limits of one run: elements of one tensor (more where the file has such itself), and multiply-accumulates of all
#: operators together.
MAX_ELEMENTS = 1 << 25
MAX_WORK = 1 << 41

_KERNEL_ARGUMENT = {"avg_pool1d": 1, "avg_pool2d": 1, "avg_pool3d": 1, "max_pool2d_with_indices": 1, "max_pool1d": 1,
                    "max_pool2d": 1, "max_pool3d_with_indices": 1, "max_pool3d": 1}  # fmt: skip


class Bounded(Mode):
    """Stops a file whose tensors or whose work are out of all proportion, before memory and time are spent.

    Raises:
        ModelFileError: with the place of the node.
    """

    def __init__(self, interpreter: Interpreter) -> None:
        super().__init__()
        self._interpreter = interpreter
        self._work = 0
        self._most = max(MAX_ELEMENTS, 4 * max((t.numel() for t in interpreter.constants()), default=0))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        shapes = _result_shapes(func, args, kwargs)
        elements = [math.prod(shape) for shape in shapes]
        if max(elements, default=0) > self._most:
            self._refuse(f"a tensor of shape {'x'.join(map(str, max(shapes, key=math.prod)))}")
        self._work += sum(elements) * _work_per_element(func, args)
        if self._work > MAX_WORK:
            self._refuse("more work than any network of this kind takes")
        return func(*args, **kwargs)

    def _refuse(self, why: str) -> None:
        raise ModelFileError("the file asks for too much", where=str(self._interpreter.place), why=why,
                             fix="check the shapes in the file, and --input")  # fmt: skip


def _result_shapes(func: Any, args: Any, kwargs: Any) -> list[tuple[int, ...]]:
    """The shapes of the results, found without computing them; none where that is not possible."""

    def meta(value: Any) -> Any:
        if isinstance(value, Tensor):
            return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
        if isinstance(value, list | tuple):
            return type(value)(meta(v) for v in value)
        return torch.device("meta") if isinstance(value, torch.device) else value

    if func.is_view:
        return []
    given = {key: meta(value) for key, value in kwargs.items()}
    if any(argument.name == "device" for argument in func._schema.arguments):
        given["device"] = torch.device("meta")
    try:
        result = func(*meta(args), **given)
    except (NotImplementedError, RuntimeError):  # depends on values, or fails for real too
        return []
    results = result if isinstance(result, list | tuple) else [result]
    return [tuple(r.shape) for r in results if isinstance(r, Tensor)]


def _work_per_element(func: Any, args: Sequence[Any]) -> int:
    name = func._schema.name.partition("::")[2]
    if "conv" in name and len(args) > 1 and isinstance(args[1], Tensor) and args[1].dim() > 2:
        return max(1, args[1].numel() // max(1, args[1].shape[0]))
    if name in ("mm", "bmm", "linear", "addmm", "baddbmm", "addbmm", "mv", "dot", "matmul"):
        matrix = args[1] if name.startswith("add") or name == "baddbmm" else args[0]
        return max(1, matrix.shape[-1])
    if name in _KERNEL_ARGUMENT and len(args) > 1:
        kernel = args[1] if isinstance(args[1], list | tuple) else [args[1]] * 2
        return max(1, math.prod(int(k) for k in kernel))
    return 1


def unsupported(what: str, place: Place, why: str, fix: str) -> UnsupportedError:
    return UnsupportedError(what, where=str(place), why=why, fix=fix)
