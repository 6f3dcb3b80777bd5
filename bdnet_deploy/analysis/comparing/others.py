"""A ``.tflite`` or ``.onnx`` that another program wrote: recognised layers as far as they go, then end to end."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.analysis.comparing.files import runtimes, tflite_kind
from bdnet_deploy.analysis.comparing.foreign import make_reference
from bdnet_deploy.analysis.comparing.graphs import compare_graphs
from bdnet_deploy.analysis.comparing.runtimes import Runner
from bdnet_deploy.analysis.comparing.settings import Settings
from bdnet_deploy.analysis.comparing.verdicts import Verdicts
from bdnet_deploy.errors import BdnetError, ModelFileError, UnsupportedError
from bdnet_deploy.graph import Array
from bdnet_deploy.importers.artifact import load_bytes
from bdnet_deploy.report import Value

if TYPE_CHECKING:
    from bdnet_deploy.importers.tflite.reader import Port
    from bdnet_deploy.model import Model


def verify_other(
    model: Model, artifact: Path, inputs: list[Array], verdicts: Verdicts, settings: Settings
) -> dict[str, Value]:
    """Compare; returns facts for the report.

    Its layers are those that the importer recognises. Where they are the model's, one for one, they are judged; else they are
    reported, and only what the whole file computes is judged.
    """
    from bdnet_deploy.loading import load

    graph = model.float_graph()
    facts: dict[str, Value] = {"file": "of another program; no runtime ran its layers alone"}
    other: Model | None = None
    try:
        other = load(artifact)
    except ModelFileError:
        raise  # damaged
    except BdnetError as error:
        facts["layers"] = f"not compared, the file cannot be imported: {error.what}"
    if other is not None:
        compared = Verdicts()
        alignment = compare_graphs(graph, other.float_graph(), compared, exact=False, module=model._module)
        whole = not alignment.missing and not alignment.extra
        verdicts.include(compared, judged=whole)
        known, count = len(alignment.nodes), len(graph.nodes)
        facts["layers"] = f"{known} of {count} recognised" + ("" if whole else "; they are reported, not judged")
    reference = make_reference(graph, inputs)
    port = _TfliteEnds(load_bytes(artifact)) if artifact.suffix.lower() == ".tflite" else _OnnxEnds(artifact, other)
    for name, runtime in runtimes(port.kind).items():
        runner = Runner(runtime, name, verdicts, settings)
        runner.compare_whole(port.content, reference, model.io, integers=port.integers, ends=port)
        facts |= runner.facts
    return facts


class _TfliteEnds:
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


class _OnnxEnds:
    """Inputs and outputs of an ``.onnx``: NCHW, but where the importer found that it is a transposed NHWC."""

    kind, integers = "onnx", False

    def __init__(self, path: Path, imported: Model | None) -> None:
        self.content: bytes | Path = path
        self._last = imported is not None and bool(getattr(imported._module, "channels_last", False))

    def encode(self, arrays: list[Array]) -> list[Array]:
        return arrays if self._last else [_to_nchw(a) for a in arrays]

    def decode(self, arrays: list[Array]) -> list[Array]:
        return arrays if self._last else [np.moveaxis(a, 1, -1) if a.ndim > 2 else a for a in arrays]


def _to_nchw(a: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(a, -1, 1)) if a.ndim > 2 else a
