"""How files of other programs take their inputs and give their outputs."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bdnet_deploy.analysis.comparing.files import tflite_kind
from bdnet_deploy.errors import ModelFileError, UnsupportedError, UsageError
from bdnet_deploy.graph import Array
from bdnet_deploy.importers.onnx import own

if TYPE_CHECKING:
    from bdnet_deploy.importers.tflite.reader import Port
    from bdnet_deploy.model import Model


class Ends(Protocol):
    """How a file's inputs and outputs are encoded: float32 (N, ...) NHWC on our side."""

    def encode(self, arrays: list[Array]) -> list[Array]: ...

    def decode(self, arrays: list[Array]) -> list[Array]: ...


class TfliteEnds:
    """Inputs and outputs of a ``.tflite``: quantized ones are encoded; of one that we cannot import they go in as floats."""

    def __init__(self, data: bytes) -> None:
        from bdnet_deploy.importers.tflite.reader import read

        self.content: bytes | Path = data
        self.kind, self.integers = "stock", False
        self._inputs: list[Port] = []
        self._outputs: list[Port] = []
        with contextlib.suppress(UnsupportedError):
            self.kind = tflite_kind(data)
        with contextlib.suppress(UnsupportedError):
            imported = read(data)
            self.integers = bool(imported.notes)  # maps in integers of 8 or 16 bits
            self._inputs, self._outputs = imported.inputs, imported.outputs

    def encode(self, arrays: list[Array]) -> list[Array]:
        if len(self._inputs) != len(arrays):
            return arrays
        return [port.encode(a) for port, a in zip(self._inputs, arrays)]

    def decode(self, arrays: list[Array]) -> list[Array]:
        if len(self._outputs) != len(arrays):
            return arrays
        return [port.decode(a) for port, a in zip(self._outputs, arrays)]


class OnnxEnds:
    """Inputs and outputs of an ``.onnx``: NCHW, but where the importer found that it is a transposed NHWC."""

    kind, integers = "onnx", False
    #: Domains of operators that onnxruntime does not have.
    _UNKNOWN = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")

    def __init__(self, path: Path, imported: Model | None) -> None:
        self.content: bytes | Path = path
        self._last = imported is not None and bool(getattr(imported._module, "channels_last", False))

    def foreign_domain(self) -> str | None:
        """The domain of operators that no onnxruntime runs, if there are such."""
        from bdnet_deploy.errors import require

        onnx = require("onnx", extra="onnx")
        model = onnx.load_model(str(self.content), load_external_data=False)
        used = {node.domain for node in model.graph.node}
        return next((domain for domain in self._UNKNOWN if domain in used), None)

    @staticmethod
    def of(path: Path) -> OnnxEnds:
        """As the importer reads it, of ours NHWC; of one that it cannot read NCHW, as ONNX has it."""
        from bdnet_deploy.loading import load

        imported: Model | None = None
        with contextlib.suppress(ModelFileError):
            own.read_description(path)
            ends = OnnxEnds(path, None)
            ends._last = True
            return ends
        with contextlib.suppress(UnsupportedError, UsageError):
            imported = load(path)
        return OnnxEnds(path, imported)

    def encode(self, arrays: list[Array]) -> list[Array]:
        return arrays if self._last else [_to_nchw(a) for a in arrays]

    def decode(self, arrays: list[Array]) -> list[Array]:
        return arrays if self._last else [np.moveaxis(a, 1, -1) if a.ndim > 2 else a for a in arrays]


def _to_nchw(a: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(a, -1, 1)) if a.ndim > 2 else a
