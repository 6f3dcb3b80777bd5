"""Every operator of a file as a file of its own, for a runtime that shows no intermediate values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from bdnet_deploy.errors import ModelFileError
from bdnet_deploy.export.tflite.flatbuffer import from_bytes
from bdnet_deploy.export.tflite.schema import ABSENT, Model, Operator


@dataclass(frozen=True, eq=False)
class Slice:
    """One operator alone.

    Attributes:
        index: its place in the file.
        operator: its name.
        model: a model of it; inputs and outputs are the tensors of the same names.
        inputs: names of the tensors to feed.
        outputs: names of the tensors that come out.
    """

    index: int
    operator: str
    model: Model
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def split(model: Model | bytes) -> list[Slice]:
    """One model per operator that reads anything computed.

    Raises:
        ModelFileError: the file is damaged.
        UnsupportedError: it has several subgraphs.
    """
    model = from_bytes(model) if isinstance(model, bytes) else model
    return [s for i, op in enumerate(model.operators) if (s := _alone(model, i, op)) is not None]


def _alone(model: Model, index: int, op: Operator) -> Slice | None:
    used = list(dict.fromkeys(i for i in (*op.inputs, *op.outputs) if i != ABSENT))
    if any(not 0 <= i < len(model.tensors) for i in used):
        raise ModelFileError("an operator names a tensor that does not exist", where=op.name)
    place = {tensor: k for k, tensor in enumerate(used)} | {ABSENT: ABSENT}
    tensors = [dataclasses.replace(model.tensors[i]) for i in used]
    inputs = [place[i] for i in dict.fromkeys(op.inputs) if i != ABSENT and model.tensors[i].data is None]
    if not inputs:
        return None
    moved = dataclasses.replace(
        op, inputs=tuple(place[i] for i in op.inputs), outputs=tuple(place[i] for i in op.outputs)
    )
    outputs = [place[i] for i in op.outputs]
    alone = Model(tensors=tensors, operators=[moved], inputs=inputs, outputs=outputs, description=model.description)
    names = [tuple(tensors[i].name for i in group) for group in (inputs, outputs)]
    return Slice(index, op.name, alone, names[0], names[1])
