"""Reads the ``.tflite`` files that this project writes: weights, thresholds, parameters and single layers.

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
from bdnet_deploy.export.tflite.builder import F32, Builder
from bdnet_deploy.export.tflite.flatbuffer import from_bytes, to_bytes
from bdnet_deploy.export.tflite.packing import unpack
from bdnet_deploy.export.tflite.schema import Model, Operator, Tensor
from bdnet_deploy.importers.artifact import Array, Layer, damage_reported, load_bytes, load_description

_KIND = "TensorFlow Lite"


@dataclass(frozen=True, eq=False)
class IntegerSign:
    """A sign that was folded into its convolution: +1 where acc >= threshold, acc negated where ``flipped``."""

    threshold: Array
    flipped: Array


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
    description = load_description(model.metadata.get(METADATA_KEY), _KIND)
    return _File(model, description, {t.name: i for i, t in enumerate(model.tensors)})


def read_description(source: bytes | str | Path) -> dict[str, Any]:
    """Our JSON in the file; its keys are described in :mod:`bdnet_deploy.export.tflite`.

    Raises:
        ModelFileError: no file of ours.
    """
    return _open(source).description


def read_weights(source: bytes | str | Path) -> dict[str, Array]:
    """The weights of every convolution and linear layer as the graph has them.

    Returns:
        Name of the layer's output in the graph -> OHWI (linear layers: OI): int8 of {-1, 0, +1}, or float32.

    Raises:
        ModelFileError: no file of ours, or damaged.
    """
    file = _open(source)
    with damage_reported(_KIND):
        return {str(w["node"]): _decode_weights(file, w) for w in file.description["weights"]}


def _decode_weights(file: _File, record: dict[str, Any]) -> Array:
    form, shape = record["form"], tuple(record["shape"])
    data = file.constant(record["tensor"])
    if form == "packed":
        data = unpack(data, shape[-1])
    elif form.startswith("depthwise"):
        data = data.transpose(3, 1, 2, 0)
    weights = np.array(data.reshape(shape))
    weights[record["flipped"]] *= -1
    return weights


def read_parameters(source: bytes | str | Path) -> dict[str, Array]:
    """Affine factors and biases, slopes, and the thresholds that were not folded into integers.

    Returns:
        Name of the graph's constant -> (C,) float32, or int64 for integer thresholds. Constants of folded signs are
        missing: see :func:`read_thresholds`.

    Raises:
        ModelFileError: no file of ours, or damaged.
    """
    file = _open(source)
    with damage_reported(_KIND):
        return {str(name): _decode_parameter(file, p) for name, p in file.description["parameters"].items()}


def _decode_parameter(file: _File, record: dict[str, Any]) -> Array:
    if "tensor" not in record:
        return np.broadcast_to(np.float32(record["fill"]), (int(record["size"]),))
    data = file.constant(record["tensor"]) / np.float32(record["factor"])
    return data.astype(np.int64) if record.get("integer") else data.astype(np.float32)


def read_thresholds(source: bytes | str | Path) -> dict[str, IntegerSign]:
    """Signs that became integer comparisons, comparable with :func:`bdnet_deploy.export.tflite.folding.fold_signs`.

    Returns:
        Name of the sign's output in the graph -> thresholds (O,).

    Raises:
        ModelFileError: no file of ours, or damaged.
    """
    file = _open(source)
    result = {}
    with damage_reported(_KIND):
        for record in file.description["thresholds"]:
            data = file.constant(record["tensor"]).astype(np.int64)
            threshold = record["taps"] - 2 * data if record["form"] == "negative" else -data
            flipped = np.zeros(threshold.shape, np.bool_)
            flipped[record["flipped"]] = True
            result[str(record["value"])] = IntegerSign(threshold, flipped)
    return result


def split_layers(source: bytes | str | Path) -> list[Layer]:
    """Every value that the file computes as a model of its own, in order.

    Raises:
        ModelFileError: no file of ours, or damaged.
    """
    file = _open(source)
    with damage_reported(_KIND):
        return list(_split(file))


def _split(file: _File) -> Iterator[Layer]:
    values = {str(v["name"]): v for v in file.description["values"]}
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


def _alone(file: _File, inputs: list[dict[str, Any]], operators: list[Operator], output: dict[str, Any]) -> Model:
    """The operators between float inputs and one float output."""
    model = Model(description="bdnet-deploy: one layer")
    b = Builder(model)
    index: dict[int, int] = {}
    for value in inputs:
        entry = b.tensor(f"{value['name']}/float", value["shape"])
        model.inputs.append(entry)
        for tensor, inner in zip(value["tensors"], _encode(b, value, entry)):
            index[file.tensors[tensor]] = inner

    def moved(i: int) -> int:
        if i >= 0 and i not in index:
            old = file.model.tensors[i]
            model.tensors.append(Tensor(b.unique(old.name), old.shape, old.kind, old.data, old.scale, old.axis))
            index[i] = len(model.tensors) - 1
        return index[i] if i >= 0 else i

    for op in operators:
        ins, outs = tuple(map(moved, op.inputs)), tuple(map(moved, op.outputs))
        model.operators.append(Operator(op.name, ins, outs, op.options, op.custom_options, op.version))
    tensors = [moved(file.tensors[t]) for t in output["tensors"]]
    model.outputs = [_decode(b, output, tensors)]
    return model


def _encode(b: Builder, value: dict[str, Any], entry: int) -> list[int]:
    """A float tensor of -1.0, 0.0, 1.0 as the value lies in the file."""
    name = value["name"]
    if value["encoding"] == "float":
        return [entry]
    if value["encoding"] == "bits":
        return [b.lce_quantize(entry, f"{name}/packed")]
    # Halfway between the values: the lower plane is positive from 0 on, the higher from 1.
    shifts = [b.constant(f"{name}/shift", np.array([shift], np.float32)) for shift in (0.5, -0.5)]
    return [b.lce_quantize(b.add(entry, s, f"{name}/shifted"), f"{name}/packed") for s in shifts]


def _decode(b: Builder, value: dict[str, Any], tensors: list[int]) -> int:
    """The inverse of :func:`_encode`."""
    if value["encoding"] == "float":
        return tensors[0]
    name, channels = value["name"], int(value["shape"][-1])
    planes = [b.lce_dequantize(t, channels, F32, f"{name}/plane") for t in tensors]
    if len(planes) == 1:
        return planes[0]
    half = b.constant(f"{name}/half", np.array([0.5], np.float32))
    return b.multiply(b.add(planes[0], planes[1], f"{name}/twice"), half, f"{name}/float")


__all__ = [
    "IntegerSign",
    "read_description",
    "read_parameters",
    "read_thresholds",
    "read_weights",
    "split_layers",
]
