"""Reads the ``.onnx`` files that this project writes: weights, parameters and single layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from bdnet_deploy.errors import ModelFileError, require
from bdnet_deploy.export.foreign import METADATA_KEY
from bdnet_deploy.export.onnx import TO_NCHW, TO_NHWC
from bdnet_deploy.importers.artifact import Array, Layer, damage_reported, load_bytes, load_description

__all__ = ["read_description", "read_parameters", "read_weights", "split_layers"]

_KIND = "ONNX"


@dataclass(eq=False)
class _File:
    onnx: ModuleType
    model: Any
    description: dict[str, Any]
    initializers: dict[str, Any]

    def constant(self, name: str) -> Array:
        tensor = self.initializers[name]
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL:
            raise ValueError(f"the constant '{name}' lies in another file")
        return np.asarray(self.onnx.numpy_helper.to_array(tensor))


def _open(source: bytes | str | Path) -> _File:
    onnx = require("onnx", extra="onnx")
    message = require("google.protobuf.message", extra="onnx")
    data = load_bytes(source)
    try:
        model = onnx.load_model_from_string(data)
    except (message.DecodeError, ValueError) as error:
        raise ModelFileError("this is not an ONNX file, or it is damaged", why=str(error)) from error
    with damage_reported(_KIND):
        # A string that is not UTF-8 comes as bytes, which have no encode.
        content = {p.key: p.value.encode("utf-8") for p in model.metadata_props}.get(METADATA_KEY)
    description = load_description(content, _KIND)
    return _File(onnx, model, description, {t.name: t for t in model.graph.initializer})


def read_description(source: bytes | str | Path) -> dict[str, Any]:
    """Our JSON in the file; its keys are described in :mod:`bdnet_deploy.export.onnx`.

    Raises:
        ModelFileError: no file of ours.
        MissingPackageError: the package onnx is not installed.
    """
    return _open(source).description


def read_weights(source: bytes | str | Path) -> dict[str, Array]:
    """The weights of every convolution and linear layer as the graph has them.

    Returns:
        Name of the layer's output in the graph -> OHWI (linear layers: OI): int8 of {-1, 0, +1}, int32, or float32.

    Raises:
        ModelFileError: no file of ours, or damaged.
        MissingPackageError: the package onnx is not installed.
    """
    file = _open(source)
    with damage_reported(_KIND):
        return {str(w["node"]): _decode_weights(file, w) for w in file.description["weights"]}


def _decode_weights(file: _File, record: dict[str, Any]) -> Array:
    data = file.constant(record["tensor"])
    weights = data.transpose(0, 2, 3, 1) if data.ndim == 4 else data
    if list(weights.shape) != list(record["shape"]):
        raise ValueError(f"the weights of {record['node']} have shape {weights.shape}")
    if not record["integer"] or not np.array_equal(weights, np.rint(weights)):
        return np.array(weights)
    return weights.astype(np.int8 if np.abs(weights).max(initial=0) <= 1 else np.int32)


def read_parameters(source: bytes | str | Path) -> dict[str, Array]:
    """Affine factors and biases, slopes and thresholds.

    Returns:
        Name of the graph's constant -> (C,) float32, or int64 for integer thresholds.

    Raises:
        ModelFileError: no file of ours, or damaged.
        MissingPackageError: the package onnx is not installed.
    """
    file = _open(source)
    with damage_reported(_KIND):
        return {str(name): _decode_parameter(file, p) for name, p in file.description["parameters"].items()}


def _decode_parameter(file: _File, record: dict[str, Any]) -> Array:
    if "tensor" not in record:
        return np.broadcast_to(np.float32(record["fill"]), (int(record["size"]),))
    data = file.constant(record["tensor"]).reshape(-1)
    return data.astype(np.int64 if record.get("integer") else np.float32)


def split_layers(source: bytes | str | Path) -> list[Layer]:
    """Every value that the graph computes as a model of its own, in order.

    Raises:
        ModelFileError: no file of ours, or damaged.
        MissingPackageError: the package onnx is not installed.
    """
    file = _open(source)
    with damage_reported(_KIND):
        return list(_split(file))


def _split(file: _File) -> Iterator[Layer]:
    values = {str(v["tensor"]): v for v in file.description["values"]}
    nodes = list(file.model.graph.node)
    producer = {output: i for i, node in enumerate(nodes) for output in node.output}
    inputs_of_model = {v.name for v in file.model.graph.input}
    for target, value in values.items():
        if value["name"] in inputs_of_model:
            continue
        used: set[int] = set()
        read: set[str] = set()
        constants: set[str] = set()
        todo = [target]
        while todo:
            tensor = todo.pop()
            if tensor in file.initializers:
                constants.add(tensor)
            elif tensor in values and tensor != target:
                read.add(tensor)
            elif producer[tensor] not in used:
                used.add(producer[tensor])
                todo += nodes[producer[tensor]].input
        inputs = [values[t] for t in values if t in read]
        model = _alone(file, inputs, [nodes[i] for i in sorted(used)], sorted(constants), value)
        names = tuple(str(v["name"]) for v in inputs)
        yield Layer(str(value["name"]), str(value["source"]), (str(value["name"]),), names, model)


def _alone(
    file: _File, inputs: list[dict[str, Any]], nodes: list[Any], constants: list[str], output: dict[str, Any]
) -> bytes:
    """The nodes between NHWC inputs and one NHWC output."""
    helper, float32 = file.onnx.helper, file.onnx.TensorProto.FLOAT

    def end(value: dict[str, Any]) -> str:
        return f"{value['tensor']}/end"

    def port(value: dict[str, Any]) -> Any:
        return helper.make_tensor_value_info(end(value), float32, ["N", *value["shape"][1:]])

    def change(value: dict[str, Any], source: str, target: str, perm: tuple[int, ...]) -> Any:
        if len(value["shape"]) == 4:
            return helper.make_node("Transpose", [source], [target], perm=perm)
        return helper.make_node("Identity", [source], [target])

    body = [
        *(change(v, end(v), v["tensor"], TO_NCHW) for v in inputs),
        *nodes,
        change(output, output["tensor"], end(output), TO_NHWC),
    ]
    tensors = [file.initializers[name] for name in constants]
    graph = helper.make_graph(body, str(output["name"]), [port(v) for v in inputs], [port(output)], tensors)
    model = helper.make_model(graph, ir_version=file.model.ir_version, opset_imports=list(file.model.opset_import))
    return bytes(model.SerializeToString(deterministic=True))
