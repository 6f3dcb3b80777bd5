"""Products and sums with constants per channel go into the convolution before them, and a sum into a threshold behind it."""

from __future__ import annotations

import dataclasses

import numpy as np

from bdnet_deploy.export.tflite.int8.reading import Reading
from bdnet_deploy.export.tflite.schema import Array, Model, Operator, Tensor, TensorKind


def fold(model: Model) -> Model:
    """A copy of the model in which float32 convolutions and linear layers have taken in what they can."""
    new = dataclasses.replace(
        model, tensors=list(model.tensors), operators=list(model.operators), metadata=dict(model.metadata)
    )
    reading = Reading(new)
    gone: set[int] = set()
    operators: list[Operator] = []
    for op in new.operators:
        if id(op) in gone:
            continue
        if reading.is_product(op):
            op = _absorb(new, reading, op, gone)
        operators.append(_behind_sum(new, reading, op, gone) or op)
    new.operators = operators
    return new


def _behind_sum(model: Model, reading: Reading, op: Operator, gone: set[int]) -> Operator | None:
    """A sum with a constant of which the sign is read, moved before the sum with a constant that it reads.

    x + b is rounded to int8, and the sign of x + (b + c) is decided without that.
    """
    found = reading.with_constant(op)
    if op.name not in ("ADD", "SUB") or found is None or not reading.decides_signs_only(op.outputs[0]):
        return None
    before = reading.producer.get(found[0])
    earlier = reading.with_constant(before) if before is not None and before.name in ("ADD", "SUB") else None
    if (
        before is None
        or earlier is None
        or id(before) in gone
        or before.options.get("activation")
        or op.options.get("activation")
    ):
        return None
    shape = model.tensors[op.outputs[0]].shape
    if any(model.tensors[i].shape != shape for i in (found[0], earlier[0])):
        return None
    addend = sum(
        (c.astype(np.float64) if o.name == "ADD" else -c.astype(np.float64))
        for o, c in ((op, found[1]), (before, earlier[1]))
    )
    constant = _constant(model, f"{model.tensors[op.outputs[0]].name}/addend", np.asarray(addend))
    return Operator("ADD", (earlier[0], constant), op.outputs, {"pot_scale_int16": 0})


def _absorb(model: Model, reading: Reading, op: Operator, gone: set[int]) -> Operator:
    """The convolution with all readers in a row that only scale and shift its channels."""
    weights_index = op.inputs[1]
    weights = model.tensors[weights_index]
    assert weights.data is not None
    axis = 3 if op.name == "DEPTHWISE_CONV_2D" else 0
    channels = weights.shape[axis]
    bias = reading.data(op.inputs[2]) if len(op.inputs) > 2 else None
    factor, addend = np.ones(channels), np.zeros(channels) if bias is None else bias.astype(np.float64)
    output, changed = op.outputs[0], False
    while (step := _next(reading, output, channels)) is not None and not op.options.get("activation"):
        reader, constant = step
        if reader.name == "MUL":
            factor, addend = factor * constant, addend * constant
        else:
            addend = addend + (constant if reader.name == "ADD" else -constant)
        gone.add(id(reader))
        output, changed = reader.outputs[0], True
    if not changed:
        return op
    shape = [1] * len(weights.shape)
    shape[axis] = channels
    scaled = weights.data.astype(np.float64) * factor.reshape(shape)
    name = model.tensors[output].name
    new = (
        op.inputs[0],
        weights_index if (factor == 1).all() else _constant(model, f"{weights.name}/folded", scaled),
        _constant(model, f"{name}/bias", addend),
    )
    return dataclasses.replace(op, inputs=new, outputs=(output,))


def _next(reading: Reading, index: int, channels: int) -> tuple[Operator, Array] | None:
    """The only reader of a tensor and its constants per channel, if it scales or shifts."""
    readers = reading.readers.get(index, [])
    if reading.is_output(index) or len(readers) != 1 or readers[0].options.get("activation"):
        return None
    found = reading.with_constant(readers[0])
    if found is None or found[1].size not in (1, channels) or found[1].shape[-1:] not in ((channels,), (1,), ()):
        return None
    if reading.model.tensors[readers[0].outputs[0]].shape != reading.model.tensors[index].shape:
        return None
    return readers[0], np.broadcast_to(found[1].astype(np.float64).reshape(-1), channels)


def _constant(model: Model, name: str, values: Array) -> int:
    data = values.astype(np.float32)
    model.tensors.append(Tensor(name, data.shape, TensorKind.FLOAT32, data))
    return len(model.tensors) - 1
