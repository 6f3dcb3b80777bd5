"""A ``.tflite`` or ``.onnx`` of ours, opened: the graph that it carries, its layers, and the runtimes that it is for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdnet_deploy.errors import BdnetError, ModelFileError, UnsupportedError
from bdnet_deploy.graph import Graph
from bdnet_deploy.importers.artifact import EditedFileError, Layer, NotOursError, load_bytes
from bdnet_deploy.importers.onnx import own as onnx_own
from bdnet_deploy.importers.tflite import own as tflite_own
from bdnet_deploy.iodesc import IODescription
from bdnet_deploy.peers.jobs import Runtime

#: The profile of ``.onnx`` files that have standard operators only: they are read as other programs' files.
_STANDARD_ONLY = "qonnx"
#: Operators of our own, which stock interpreters do not know.
_OUR_OPERATOR = "Bd"


@dataclass(frozen=True, eq=False)
class ForeignFile:
    """An opened file.

    Attributes:
        path, content: where it is and what is handed to runtimes: bytes, or the path where other files belong to it.
        kind: ``"onnx"``, or of a ``.tflite`` its profile: ``"stock"``, ``"extended"``.
        graph: the graph that it carries.
        io, meta: what travels in it.
        layers: every value that it computes as a file of its own.
    """

    path: Path
    content: bytes | Path
    kind: str
    graph: Graph
    io: IODescription | None
    meta: dict[str, Any]
    layers: list[Layer]

    def runtimes(self) -> dict[str, Runtime]:
        """Every runtime that the file is compared in, by the name that reports have for it.

        Raises:
            MissingPackageError: it is not installed.
        """
        return runtimes(self.kind)


def runtimes(kind: str) -> dict[str, Runtime]:
    """Of a kind of file: ``"onnx"``, ``"stock"``, ``"extended"``."""
    if kind == "onnx":
        from bdnet_deploy.peers import onnxruntime

        return {"onnxruntime": onnxruntime.runtime()}
    if kind == "extended":
        from bdnet_deploy.peers import tensorflow_lite

        return {"TensorFlow Lite": tensorflow_lite.process()}
    from bdnet_deploy.peers import lce

    return {f"LCE {mode}": lce.runtime(mode) for mode in ("default", "indirect")}


def open_foreign(path: Path) -> ForeignFile:
    """Read a file that this project wrote.

    Raises:
        NotOursError: another program wrote it.
        Int8FileError: it is ours, and computes in int8.
        EditedFileError: it is ours, and was edited.
        ModelFileError: it is damaged.
        MissingPackageError: the package that reads it is not installed.
    """
    tflite = path.suffix.lower() == ".tflite"
    reader = tflite_own if tflite else onnx_own
    data = load_bytes(path)
    source: bytes | Path = data if tflite else path  # constants of an .onnx may lie in files beside it
    try:
        graph, io, meta = reader.read_graph(source)
    except EditedFileError as error:
        if not tflite and onnx_own.read_description(source).get("profile") == _STANDARD_ONLY:
            raise NotOursError("this profile carries no graph of ours", where=str(path)) from error
        raise
    except ModelFileError as error:
        if isinstance(error.__cause__, UnsupportedError):  # sound, with operators that we do not write
            raise NotOursError(error.what, why=error.why) from error
        raise
    kind = tflite_kind(data) if tflite else "onnx"
    return ForeignFile(path, source, kind, graph, io, dict(meta), reader.split_layers(source))


def is_ours(path: Path) -> bool:
    """Whether the graph that we exported can be read back from a file."""
    reader = {".tflite": tflite_own, ".onnx": onnx_own}.get(path.suffix.lower())
    if reader is None:
        return False
    try:
        reader.read_graph(path)
    except BdnetError:
        return False
    return True


def tflite_kind(data: bytes) -> str:
    """What a ``.tflite`` is for: ``"stock"`` or ``"extended"`` interpreters.

    Raises:
        ModelFileError, UnsupportedError: it cannot be read.
    """
    from bdnet_deploy.export.tflite.flatbuffer import from_bytes

    model = from_bytes(data)
    return "extended" if any(op.name.startswith(_OUR_OPERATOR) for op in model.operators) else "stock"
