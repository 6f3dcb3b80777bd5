"""Run a module once and write down only the operators that depend on its input.

Weight quantizers, temperature tests, edits of ``.data``, custom autograd functions just happen and arrive as constants.
Refused, with the place: control flow that depends on values of the input, and reads of a tensor after it was changed
through another view of its memory.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from bdnet_deploy.cudaless import without_cuda
from bdnet_deploy.errors import BdnetError, UnsupportedError, UsageError
from bdnet_deploy.importers.torch.dispatch import Mode
from bdnet_deploy.importers.torch.interpreter import Interpreter
from bdnet_deploy.importers.torch.trace import Step, Trace, Traced, is_in_place, rebuild

# Operators that hand a value of a tensor to Python.
_TO_PYTHON = {"aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::item"}
_TAG = "_bdnet_traced"  # the attribute by which a tensor of the run knows its Traced
_SKIPPED = (str(Path(torch.__file__).parent), str(Path(__file__).parent), contextlib.__file__)


def record(module: nn.Module, sample: Tensor) -> Trace:
    """The trace of ``module`` on ``sample`` (NCHW, batch 1). The module itself is not changed.

    Raises:
        UsageError: the module does not run on this input.
        UnsupportedError: it cannot be recorded.
    """
    copied = _inert_copy(module)
    x = sample.clone()
    recorder = _Recorder(x)
    with recorder.watch(copied), torch.no_grad(), without_cuda(), _plain_attention():
        try:
            with recorder:
                result = copied(x)
        except BdnetError:
            raise
        except Exception as error:  # whatever the user's forward raises
            raise _does_not_run(recorder.path, sample, error) from error
    for output in tree_flatten(result)[0]:
        traced = getattr(output, _TAG, None) if isinstance(output, Tensor) else None
        if traced is None:
            raise UnsupportedError(
                "the model returns something that is not a tensor computed from its input",
                why=f"an output is of type {type(output).__name__}"
                if not isinstance(output, Tensor)
                else "an output is constant",
                fix="wrap the model in a module that returns only the tensors to deploy",
            )
        recorder.trace.outputs.append(recorder.read(output))
    _check_replay(module, recorder.trace, sample)
    return recorder.trace


def _inert_copy(module: nn.Module) -> nn.Module:
    try:
        memo: dict[int, Any] = {}
        for p in module.parameters():
            if type(p) not in (nn.Parameter, nn.UninitializedParameter):
                memo[id(p)] = _copied_parameter(p)
        copied = copy.deepcopy(module, memo)
    except Exception as error:
        raise UnsupportedError(
            "the module cannot be copied, and importing must not change it",
            why=f"{type(error).__name__}: {error}",
            fix="build the module anew and load its state dict before importing",
        ) from error
    return copied.cpu().float().eval().requires_grad_(False)


def _copied_parameter(parameter: nn.Parameter) -> Tensor:
    """Of a class of the model's own, whose constructor may take other arguments than PyTorch's copying gives."""
    copied = Tensor._make_subclass(type(parameter), parameter.detach().clone(), False)
    copied.__dict__.update(parameter.__dict__)
    return copied


def _does_not_run(path: str, sample: Tensor, error: Exception) -> UsageError:
    shape = "x".join(map(str, sample.shape))
    lines = str(error).strip().splitlines()
    return UsageError(
        f"the model does not run on an input of shape {shape}",
        where=path or None,
        why=f"{type(error).__name__}: {lines[0] if lines else 'no message'}",
        fix="give the input's shape as PyTorch sees it: 1 x channels x height x width",
    )


def _check_replay(module: nn.Module, trace: Trace, sample: Tensor) -> None:
    """Run module and record on another input: they differ if the record depends on the first input's values."""
    generator = torch.Generator().manual_seed(1)
    other = sample.roll(1, -1) + torch.randn(sample.shape, generator=generator) * (sample.std(unbiased=False) + 1e-3)
    with torch.no_grad(), without_cuda():
        expected = tree_flatten(_inert_copy(module)(other.clone()))[0]
        try:
            got = trace.replay(other)
        except RuntimeError as error:
            got, why = [], str(error).splitlines()[0]
        else:
            why = "the recorded operators give another result on a second input than the model"
    same = len(got) == len(expected) and all(
        g.shape == e.shape
        and torch.allclose(g, e, rtol=1e-3, atol=1e-4 * float(torch.nan_to_num(e).abs().max() + 1), equal_nan=True)
        for g, e in zip(got, expected)
    )
    if not same:
        raise UnsupportedError(
            "the forward pass depends on values of its input, on random numbers, or changes tensors behind views",
            why=why,
            fix="avoid .numpy(), .tolist(), randomness and edits of .data of activations in forward",
        )


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention as products and a softmax instead of one fused operator."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _frozen(tensor: Tensor) -> Tensor:
    """A copy with the same strides, so that the record runs the same kernels; an expanded tensor stays small."""
    if 0 in tensor.stride():
        storage = tensor.untyped_storage().clone()
        return torch.empty(0, dtype=tensor.dtype).set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())
    return tensor.detach().clone()


def _user_line() -> str:
    """File and line of the nearest caller outside of PyTorch and this package."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((*_SKIPPED, "<")):
            return f"{Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def is_traced(tensor: Tensor) -> bool:
    """Whether a tensor of a recorded run depends on its input."""
    return hasattr(tensor, _TAG)


class _Recorder(Mode):
    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.trace = Trace(Traced(0, tuple(x.shape), x.dtype))
        setattr(x, _TAG, self.trace.input)
        self._count = 1
        self._stack: list[str] = []
        self._interpreter: Interpreter | None = None
        self._written: dict[int, int] = {}  # memory of a traced tensor -> count at its last in-place change
        self._constants_written: dict[int, Tensor] = {}  # constant memory that now holds values of the input

    @property
    def path(self) -> str:
        if self._interpreter is not None:
            return self._interpreter.place.path
        return self._stack[-1] if self._stack else ""

    @property
    def line(self) -> str:
        return _user_line() if self._interpreter is None else self._interpreter.place.line

    @contextlib.contextmanager
    def watch(self, module: nn.Module) -> Iterator[None]:
        """Keep the stack of running modules. A module that interprets a file says itself where it is."""
        if isinstance(module, Interpreter):
            self._interpreter = module
        handles = []
        for name, child in module.named_modules():
            if name:
                handles.append(child.register_forward_pre_hook(lambda _m, _a, name=name: self._stack.append(name)))
                handles.append(child.register_forward_hook(lambda *_: self._stack.pop() and None))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def refuse(self, what: str, why: str, fix: str) -> UnsupportedError:
        line = self.line
        place = self.path or "the model itself"
        return UnsupportedError(what, where=f"{place} ({line})" if line else place, why=why, fix=fix)

    def read(self, tensor: Tensor) -> Traced:
        """The traced value of a tensor that carries one, unless its memory was changed behind it."""
        traced: Traced = getattr(tensor, _TAG)
        if traced.index < self._written.get(tensor.untyped_storage().data_ptr(), -1):
            raise self.refuse(
                "a tensor is read after it was changed in place through a view",
                "what it holds now cannot be told from the recorded operators",
                "use the operator that returns a new tensor instead of the in-place one",
            )
        return traced

    def _leaf(self, arg: Any) -> Any:
        if not isinstance(arg, Tensor):
            return arg
        if hasattr(arg, _TAG):
            return self.read(arg)
        if arg.untyped_storage().data_ptr() in self._constants_written:
            raise self.refuse(
                "a tensor is assembled by writing parts of it",
                "values that depend on the input were written into a part of a constant tensor",
                "assemble it with torch.cat or torch.where",
            )
        return _frozen(arg)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, Tensor)]
        memory = {a.untyped_storage().data_ptr() for a in tensors} if self._constants_written else set()
        if not any(hasattr(a, _TAG) for a in tensors) and memory.isdisjoint(self._constants_written):
            return func(*args, **kwargs)
        if func._schema.name in _TO_PYTHON:
            raise self.refuse(
                "control flow or a Python number depends on values of the input",
                f"'{func._schema.name.split('::')[1]}' reads a value that depends on the input",
                "write the choice with torch.where, or fix it before importing",
            )
        if func._schema.name == "aten::as_strided" and not (args[0].is_contiguous() and args[0].storage_offset() == 0):
            raise self.refuse(
                "'as_strided' reads memory of another order",
                "its tensor is a view, or is channels-last",
                "call .contiguous() before, or use slices and permutations",
            )
        in_place = is_in_place(func)
        if in_place and not hasattr(args[0], _TAG):
            # The old contents are still a constant: take them before they are overwritten.
            recorded = (_frozen(args[0]), *(rebuild(a, self._leaf) for a in args[1:]))
        else:
            recorded = tuple(rebuild(a, self._leaf) for a in args)
        step = Step(func, recorded, {k: rebuild(a, self._leaf) for k, a in kwargs.items()}, self.path, self.line)
        if kwargs.get("out") is not None:
            raise self.refuse(
                f"'{step.name}' writes into an existing tensor", "out= is not recorded", "assign the result instead"
            )
        result = func(*args, **kwargs)
        self.trace.steps.append(step)
        for traced in step.inputs:
            traced.readers.append(step)
        if in_place:
            self._note_write(args[0])
        step.many = isinstance(result, tuple | list)
        step.outputs = tuple(self._trace(o, step) for o in (result if step.many else (result,)))
        return result

    def _note_write(self, target: Tensor) -> None:
        pointer = target.untyped_storage().data_ptr()
        if hasattr(target, _TAG):
            self._written[pointer] = self._count
        elif target.numel() * target.element_size() != target.untyped_storage().nbytes():
            self._constants_written[pointer] = target

    def _trace(self, output: Any, step: Step) -> Traced | None:
        if not isinstance(output, Tensor):
            return None
        traced = Traced(self._count, tuple(output.shape), output.dtype, step)
        self._count += 1
        setattr(output, _TAG, traced)
        return traced
