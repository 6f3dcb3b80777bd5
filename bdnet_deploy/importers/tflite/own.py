"""Reads the ``.tflite`` files that this project writes: the graph itself, and single layers.

The Larq Compute Engine (LCE) interpreter shows no intermediate tensors, so a layer is looked at by running it alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bdnet_deploy.errors import ModelFileError, UnsupportedError
from bdnet_deploy.export.foreign import METADATA_KEY
from bdnet_deploy.export.tflite.builder import Builder
from bdnet_deploy.export.tflite.compact import unpack_structure, unpack_values
from bdnet_deploy.export.tflite.encoding import FLOAT, SHIFTS, Encoded, to_float, to_planes
from bdnet_deploy.export.tflite.flatbuffer import from_bytes, to_bytes
from bdnet_deploy.export.tflite.schema import Model, Operator, Tensor
from bdnet_deploy.export.tflite.structure import digest, restore_graph
from bdnet_deploy.graph import Graph
from bdnet_deploy.importers.artifact import (
    Array,
    EditedFileError,
    Layer,
    damage_reported,
    load_bytes,
    load_description,
    load_io,
)
from bdnet_deploy.iodesc import IODescription

_KIND = "TensorFlow Lite"


class Int8FileError(EditedFileError):
    """A file of ours that computes in int8, so that no graph of real numbers belongs to it."""


@dataclass(eq=False)
class _File:
    model: Model
    description: dict[str, Any]
    tensors: dict[str, int]

    def constant(self, name: str) -> Array:
        data = self.model.tensors[self.tensors[name]].data
        if data is None:
            raise ValueError(f"the tensor '{name}' is no constant")
        return data


def _open(source: bytes | str | Path) -> _File:
    try:
        model = from_bytes(load_bytes(source))
    except UnsupportedError as error:
        raise ModelFileError(f"this {_KIND} file was not written by bdnet-deploy", why=error.what) from error
    return _file(model)


def _file(model: Model) -> _File:
    description = load_description(model.metadata.get(METADATA_KEY), _KIND)
    return _File(model, description, {t.name: i for i, t in enumerate(model.tensors)})


def read_description(source: bytes | str | Path) -> dict[str, Any]:
    """Our JSON in the file; its keys are described in :mod:`bdnet_deploy.export.tflite`.

    Raises:
        ModelFileError: no file of ours.
    """
    return _open(source).description


def read_graph(source: bytes | str | Path) -> tuple[Graph, IODescription | None, dict[str, Any]]:
    """The graph that the file was written from: equal to it, names and layers included.

    Constants are decoded from the tensors that the operators read.

    Returns:
        The graph (numerics "float"), the I/O description, and what made the file.

    Raises:
        EditedFileError: its operators or tensors were changed after it was written, so that it computes something else.
        Int8FileError: an int8 file.
        ModelFileError: no file of ours, or damaged.
    """
    return graph_of(_open(source).model)


def graph_of(model: Model) -> tuple[Graph, IODescription | None, dict[str, Any]]:
    """:func:`read_graph` of an opened file."""
    file = _file(model)
    if file.description.get("int8"):
        raise Int8FileError(
            f"the {_KIND} file computes in int8",
            why="its integers were rounded from the graph's numbers, which are not in it",
            fix="use the float file, or the model",
        )
    with damage_reported(_KIND):
        structure = unpack_structure(file.description["structure"], model)
        if structure["digest"] != digest(model, structure["constants"]):
            raise EditedFileError(
                f"the {_KIND} file was edited after bdnet-deploy wrote it",
                why="its operators or tensors are no longer those that the stored graph belongs to",
                fix="export the model again",
            )
        graph = restore_graph(structure, str(file.description["model"]), file.constant)
        return graph, load_io(file.description), dict(file.description.get("meta", {}))


# -- single layers ----------------------------------------------------------------------------------------------------


def split_layers(source: bytes | str | Path) -> list[Layer]:
    """Every value that the file computes as a model of its own, in order.

    Raises:
        ModelFileError: no file of ours, or damaged.
    """
    file = _open(source)
    if file.description.get("int8"):
        raise Int8FileError(f"the {_KIND} file computes in int8", why="its layers have no float form")
    with damage_reported(_KIND):
        return list(_split(file))


def _split(file: _File) -> Iterator[Layer]:
    structure = unpack_structure(file.description["structure"], file.model)
    values = {str(v["name"]): v for v in unpack_values(file.description["values"], structure, file.model)}
    owner = {file.tensors[t]: name for name, v in values.items() for t in v["tensors"]}
    producer = {t: op for op in file.model.operators for t in op.outputs}
    order = {id(op): i for i, op in enumerate(file.model.operators)}
    for name, value in values.items():
        if not value["nodes"]:
            continue
        targets = [file.tensors[t] for t in value["tensors"]]
        operators: dict[int, Operator] = {}
        read: set[str] = set()
        todo = list(targets)
        while todo:
            tensor = todo.pop()
            if tensor < 0 or file.model.tensors[tensor].data is not None:
                continue
            if tensor in owner and tensor not in targets:
                read.add(owner[tensor])
            elif order[id(producer[tensor])] not in operators:
                operators[order[id(producer[tensor])]] = producer[tensor]
                todo += producer[tensor].inputs
        inputs = tuple(v for v in values if v in read)
        model = _alone(file, [values[v] for v in inputs], [operators[i] for i in sorted(operators)], value)
        yield Layer(name, str(value["source"]), tuple(map(str, value["nodes"])), inputs, to_bytes(model))


class _Place:
    """A model that grows."""

    def __init__(self) -> None:
        self.model = Model(description="bdnet-deploy: one layer")
        self.b = Builder(self.model)

    def number(self, value: float) -> int:
        return self.b.constant("number", np.array([value], np.float32))


def _alone(file: _File, inputs: list[dict[str, Any]], operators: list[Operator], output: dict[str, Any]) -> Model:
    """The operators between float inputs and one float output."""
    place = _Place()
    model, b = place.model, place.b
    index: dict[int, int] = {}
    for value in inputs:
        entry = b.tensor(f"{value['name']}/float", value["shape"])
        model.inputs.append(entry)
        for tensor, inner in zip(value["tensors"], _encode(place, value, entry), strict=True):
            index[file.tensors[tensor]] = inner

    def moved(i: int) -> int:
        if i >= 0 and i not in index:
            old = file.model.tensors[i]
            tensor = Tensor(b.unique(old.name), old.shape, old.kind, old.data, old.scale, old.axis, old.zero_point)
            model.tensors.append(tensor)
            index[i] = len(model.tensors) - 1
        return index[i] if i >= 0 else i

    for op in operators:
        ins, outs = tuple(map(moved, op.inputs)), tuple(map(moved, op.outputs))
        model.operators.append(Operator(op.name, ins, outs, op.options, op.custom_options, op.version))
    tensors = tuple(moved(file.tensors[t]) for t in output["tensors"])
    model.outputs = [_decode(place, output, tensors)]
    return model


def _encode(place: _Place, value: dict[str, Any], entry: int) -> tuple[int, ...]:
    """A float tensor of -1.0, 0.0, 1.0 as the value lies in the file."""
    encoding = str(value["encoding"])
    if encoding not in (FLOAT, *SHIFTS):
        raise ValueError(f"the encoding '{encoding[:40]}'")
    return (entry,) if encoding == FLOAT else to_planes(place, entry, encoding, value["name"])


def _decode(place: _Place, value: dict[str, Any], tensors: tuple[int, ...]) -> int:
    """The inverse of :func:`_encode`."""
    if value["encoding"] == FLOAT:
        return tensors[0]
    return to_float(place, Encoded(value["encoding"], tensors), int(value["shape"][-1]), f"{value['name']}/float")


__all__ = [
    "Int8FileError",
    "graph_of",
    "read_description",
    "read_graph",
    "split_layers",
]
