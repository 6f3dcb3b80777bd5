"""Reads the ``.onnx`` files that this project writes: the graph itself, and single layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from bdnet_deploy.errors import ModelFileError, require
from bdnet_deploy.export.foreign import METADATA_KEY
from bdnet_deploy.export.onnx.body import TO_NCHW, TO_NHWC
from bdnet_deploy.export.onnx.functions import DOMAIN, DOMAIN_VERSION, INPUT, OUTPUT, digest
from bdnet_deploy.export.onnx.types import LAYER, OPERANDS, RESULT, parse_type
from bdnet_deploy.graph import Graph, GraphError
from bdnet_deploy.importers.artifact import (
    EditedFileError,
    Layer,
    damage_reported,
    load_bytes,
    load_description,
    load_io,
)
from bdnet_deploy.importers.onnx.calls import CallReader, call_attributes, call_kind
from bdnet_deploy.importers.onnx.stored import Stored
from bdnet_deploy.iodesc import IODescription

__all__ = ["read_description", "read_graph", "read_own", "split_layers"]

_KIND = "ONNX"
_PROFILE = "portable"


@dataclass(eq=False)
class _File:
    onnx: ModuleType
    model: Any
    description: dict[str, Any]
    folder: Path | None


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
    return _File(onnx, model, description, None if isinstance(source, bytes) else Path(source).parent)


def _open_portable(source: bytes | str | Path) -> _File:
    """A file whose functions are known and as they were written."""
    file = _open(source)
    with damage_reported(_KIND):
        profile = file.description.get("profile")
        if profile != _PROFILE:
            raise EditedFileError(
                f"this ONNX file has the profile {str(profile)[:80]!r}: it holds no calls of our functions",
                fix=f"bdnet-deploy export --target onnx --profile {_PROFILE}",
            )
        record = file.description["functions"]
        if (record["domain"], record["version"]) != (DOMAIN, DOMAIN_VERSION):
            raise EditedFileError(
                f"the functions of this ONNX file are of version {str(record['version'])[:80]}",
                why=f"this version of bdnet-deploy knows {DOMAIN_VERSION}",
                fix="update bdnet-deploy, or export the model again",
            )
        if record["sha256"] != digest(file.model):
            raise EditedFileError(
                "this ONNX file was changed after bdnet-deploy wrote it",
                why="its functions or the calls of them are not those that its digest was made of",
                fix="export the model again",
            )
    return file


def _graph(file: _File) -> Graph:
    with damage_reported(_KIND):
        try:
            return CallReader(file.onnx, file.model, Stored(file.folder), str(file.description["model"])).graph
        except GraphError as error:
            raise ValueError(str(error)) from error


def read_graph(source: bytes | str | Path) -> tuple[Graph, IODescription | None, dict[str, Any]]:
    """The graph that was exported, of numerics "float": the same operators, constants and names.

    Args:
        source: a file of profile "portable", or its content. External data are looked for beside a file only.

    Returns:
        The graph, the I/O description, and what made the file.

    Raises:
        EditedFileError: a file of ours, but its functions or calls were changed, or are of another version or profile.
        ModelFileError: no file of ours, or damaged.
        MissingPackageError: the package onnx is not installed.
    """
    file = _open_portable(source)
    meta = file.description.get("meta")
    return _graph(file), load_io(file.description), dict(meta) if isinstance(meta, dict) else {}


def read_own(path: Path) -> tuple[tuple[Graph, IODescription | None] | None, list[str]]:
    """As :func:`read_graph`, where the file is one of ours; what else it is, and notes on that.

    Returns:
        Graph and I/O description, or None for files that the general importer has to read.

    Raises:
        ModelFileError: not an ONNX file, or one of ours that is damaged.
    """
    try:
        file = _open(path)
    except ModelFileError:
        return None, []  # of somebody else, or damaged: the general importer says what
    if file.description.get("profile") != _PROFILE:
        return None, []
    try:
        graph, io, _ = read_graph(path)
    except EditedFileError as error:
        return None, [f"{error.what}: it was read as one of another program"]
    return (graph, io), []


def read_description(source: bytes | str | Path) -> dict[str, Any]:
    """Our JSON in the file, described in :mod:`bdnet_deploy.export.onnx`.

    Raises:
        ModelFileError: no file of ours.
        MissingPackageError: the package onnx is not installed.
    """
    return _open(source).description


def split_layers(source: bytes | str | Path) -> list[Layer]:
    """Every value that the graph computes as a model of its own, in order.

    Raises:
        ModelFileError: as :func:`read_graph`.
        MissingPackageError: the package onnx is not installed.
    """
    file = _open_portable(source)
    _graph(file)  # so that what follows is sound
    with damage_reported(_KIND):
        return list(_split(file))


def _split(file: _File) -> Iterator[Layer]:
    onnx, calls = file.onnx, list(file.model.graph.node)
    functions = {f.name: f for f in file.model.functions}
    tensors = {t.name: t for t in file.model.graph.initializer}
    stored = Stored(file.folder)
    names = {n.output[0]: n.input[0] if call_kind(n) == INPUT else n.name for n in calls}
    for node in calls:
        if call_kind(node) in (INPUT, OUTPUT):
            continue
        given = call_attributes(onnx, node)
        computed, constants = {}, {}
        for name, text in zip(node.input, given[OPERANDS], strict=True):
            if name in tensors:
                constants[name] = onnx.numpy_helper.from_array(stored.read(tensors[name]), name)
            else:
                computed[name] = parse_type(text).shape
        result = parse_type(given[RESULT]).shape
        model = _alone(file, node, functions[node.op_type], computed, list(constants.values()), result)
        yield Layer(node.name, str(given[LAYER]), (node.name,), tuple(names[t] for t in computed), model)


def _alone(
    file: _File,
    node: Any,
    function: Any,
    inputs: dict[str, tuple[int, ...]],
    constants: list[Any],
    result: tuple[int, ...],
) -> bytes:
    """The call between NHWC inputs and one NHWC output."""
    helper, float32 = file.onnx.helper, file.onnx.TensorProto.FLOAT

    def port(name: str, shape: tuple[int, ...]) -> Any:
        return helper.make_tensor_value_info(f"{name}/end", float32, ["N", *shape[1:]])

    def change(source: str, target: str, shape: tuple[int, ...], perm: tuple[int, ...]) -> Any:
        if len(shape) == 4:
            return helper.make_node("Transpose", [source], [target], perm=perm)
        return helper.make_node("Identity", [source], [target])

    out = node.output[0]
    body = [
        *(change(f"{name}/end", name, shape, TO_NCHW) for name, shape in inputs.items()),
        node,
        change(out, f"{out}/end", result, TO_NHWC),
    ]
    ports = [port(name, shape) for name, shape in inputs.items()]
    graph = helper.make_graph(body, node.name or "layer", ports, [port(out, result)], constants)
    model = helper.make_model(
        graph,
        ir_version=file.model.ir_version,
        opset_imports=list(file.model.opset_import),
        functions=[function],
    )
    return bytes(model.SerializeToString(deterministic=True))
