"""Runs a ``.tflite`` model operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from bdnet_deploy.errors import ModelFileError, UnsupportedError, UsageError
from bdnet_deploy.export.tflite.flatbuffer import from_bytes
from bdnet_deploy.export.tflite.schema import ABSENT, Model, Operator, Tensor
from bdnet_deploy.tflite_reference import elementwise, larq, moving, ours, windows
from bdnet_deploy.tflite_reference.calls import Array, Call, Kernel

#: Every operator that can be evaluated.
KERNELS: dict[str, Kernel] = {
    **elementwise.KERNELS,
    **larq.KERNELS,
    **moving.KERNELS,
    **ours.KERNELS,
    **windows.KERNELS,
}
#: Elements of one tensor; more is a damaged file.
_MOST = 1 << 28
_DAMAGE = (ValueError, IndexError, KeyError, TypeError, ArithmeticError, MemoryError, AttributeError)


def evaluate(model: Model | bytes, inputs: Array | Sequence[Array], *, keep: bool = False) -> dict[str, Array]:
    """Values of a model's tensors.

    Args:
        model: a model or the content of a ``.tflite`` file, of batch 1.
        inputs: (N, ...) samples of the input in its own element type, or one such array per input.
        keep: all computed tensors and inputs, and not only the outputs.

    Returns:
        Tensor name -> (N, ...) values in the tensor's own element type (int8 levels, packed words).

    Raises:
        ModelFileError: the file is damaged, or an operator does not fit its operands.
        UnsupportedError: an operator or form of one that is not known here.
        UsageError: inputs of the wrong number, shape or element type.
    """
    model = from_bytes(model) if isinstance(model, bytes) else model
    wanted = _computed(model) if keep else list(dict.fromkeys(model.outputs))
    rows: list[list[Array]] = []
    for sample in samples(model, inputs):
        values = dict(run(model, sample, None if keep else set(wanted)))
        rows.append([values[i] for i in wanted])
    return {model.tensors[t].name: np.concatenate(column) for t, column in zip(wanted, zip(*rows))}


def samples(model: Model, inputs: Array | Sequence[Array]) -> Iterator[list[Array]]:
    """The inputs one sample at a time, checked."""
    arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    if len(arrays) != len(model.inputs):
        raise UsageError(f"the model has {len(model.inputs)} inputs, and {len(arrays)} were given")
    for index, array in zip(model.inputs, arrays):
        tensor = model.tensors[index]
        if array.shape[1:] != tensor.shape[1:] or tensor.shape[:1] != (1,) or len(array) != len(arrays[0]):
            expected = ("N", *tensor.shape[1:])
            raise UsageError(f"samples of shape {array.shape} for an input of shape {expected}", where=tensor.name)
        if array.dtype != tensor.kind.numpy:
            raise UsageError(f"samples of {array.dtype} for an input of {tensor.kind.name.lower()}", where=tensor.name)
    if not arrays or not len(arrays[0]):
        raise UsageError("there are no samples")
    for n in range(len(arrays[0])):
        yield [a[n : n + 1] for a in arrays]


def run(
    model: Model,
    inputs: Sequence[Array],
    wanted: set[int] | None = None,
    seen: Callable[[int, Array], None] | None = None,
) -> Iterator[tuple[int, Array]]:
    """(tensor index, value) of the inputs and then of every operator's outputs, in order.

    With ``wanted`` only those come, and a value is forgotten behind its last reader. Errors as for :func:`evaluate`.
    """
    last = _last_readers(model)
    values: dict[int, Array] = dict(zip(model.inputs, inputs))
    for index in model.inputs:
        if wanted is None or index in wanted:
            yield index, values[index]
    for position, op in enumerate(model.operators):
        results = apply(model, op, [values.get(i) for i in op.inputs])
        for index, result in zip(op.outputs, results):
            values[index] = result
            if wanted is None or index in wanted:
                yield index, result
        for index in last.get(position, ()):
            values.pop(index, None)


def apply(model: Model, op: Operator, computed: Sequence[Array | None]) -> list[Array]:
    """One operator; ``computed`` has the inputs that are neither constant nor absent."""
    kernel = KERNELS.get(op.name)
    tensors = model.tensors
    where = tensors[op.outputs[0]].name if op.outputs else op.name
    if kernel is None:
        raise UnsupportedError(f"the operator {op.name} is not known", where=where)
    outs = tuple(tensors[i] for i in op.outputs)
    if any(np.prod(t.shape, dtype=np.float64) > _MOST or min(t.shape, default=1) < 0 for t in outs):
        raise ModelFileError(f"an output of {op.name} has an impossible shape", where=where)
    ins = tuple(None if i == ABSENT else tensors[i] for i in op.inputs)
    values = tuple(_value(t, v, where) for t, v in zip(ins, computed, strict=True))
    try:
        results = kernel(Call(op, values, ins, outs))
    except _DAMAGE as error:
        text = str(error) or type(error).__name__
        raise ModelFileError(f"the operator {op.name} does not fit its operands", where=where, why=text) from error
    if len(results) != len(outs):
        raise ModelFileError(f"{op.name} has {len(results)} outputs and not {len(outs)}", where=where)
    return [_checked(r, t, op) for r, t in zip(results, outs)]


def _value(tensor: Tensor | None, computed: Array | None, where: str) -> Array | None:
    if tensor is None or computed is not None:
        return computed
    if tensor.data is not None:
        return tensor.data
    if not np.prod(tensor.shape):
        return np.zeros(tensor.shape, tensor.kind.numpy)
    raise ModelFileError("an operator reads a tensor that nothing has computed", where=where, why=tensor.name)


def _checked(result: Array, tensor: Tensor, op: Operator) -> Array:
    if result.shape != tensor.shape:
        raise ModelFileError(
            f"{op.name} gives a tensor of shape {result.shape}, and the file says {tensor.shape}", where=tensor.name
        )
    if result.dtype != tensor.kind.numpy:
        if result.dtype.kind == "f" and tensor.kind.numpy.kind == "f":
            return result.astype(tensor.kind.numpy)
        raise ModelFileError(f"{op.name} gives {result.dtype}, and the file says {tensor.kind.name}", where=tensor.name)
    return result


def _computed(model: Model) -> list[int]:
    return list(dict.fromkeys([*model.inputs, *(i for op in model.operators for i in op.outputs)]))


def _last_readers(model: Model) -> dict[int, list[int]]:
    last = {i: position for position, op in enumerate(model.operators) for i in op.inputs}
    grouped: dict[int, list[int]] = {}
    for index, position in last.items():
        grouped.setdefault(position, []).append(index)
    return grouped
