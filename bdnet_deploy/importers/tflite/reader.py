"""From the bytes of a ``.tflite`` to a graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bdnet_deploy.export.foreign import METADATA_KEY
from bdnet_deploy.export.tflite.flatbuffer import from_bytes
from bdnet_deploy.export.tflite.schema import Model, Signature, Tensor
from bdnet_deploy.graph import Array, Graph
from bdnet_deploy.importers.artifact import EditedFileError, load_bytes, load_description, load_io
from bdnet_deploy.importers.tflite import arithmetic, lce, moving, pooling, products  # noqa: F401  enter their rules
from bdnet_deploy.importers.tflite.own import Int8FileError, graph_of
from bdnet_deploy.importers.tflite.source import Scale, scale_of
from bdnet_deploy.importers.tflite.translator import Translator
from bdnet_deploy.iodesc import IODescription
from bdnet_deploy.passes import to_real


@dataclass(frozen=True, eq=False)
class Port:
    """An input or output as the file has it; ``scale`` quantizes an integer one."""

    index: int
    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: Scale | None

    def encode(self, x: Array) -> Array:
        """Real numbers (N, ...) as the file has them: (N, ...) of its shape and dtype, rounded and saturated."""
        batched = len(self.shape) > 1 and self.shape[0] == 1
        x = x.reshape(len(x), *(self.shape[1:] if batched else self.shape))
        if self.scale is None:
            return x.astype(self.dtype)
        info = np.iinfo(self.dtype)
        return np.clip(np.rint(x / self.scale.scale) + self.scale.zero_point, info.min, info.max).astype(self.dtype)

    def decode(self, y: Array) -> Array:
        """The inverse of :meth:`encode`, float32."""
        if self.scale is None:
            return y.astype(np.float32)
        return ((y.astype(np.float64) - self.scale.zero_point) * self.scale.scale).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Imported:
    """A graph of numerics "real", and what the file says beside it."""

    graph: Graph
    inputs: list[Port]
    outputs: list[Port]
    signatures: list[Signature]
    io: IODescription | None = None
    notes: list[str] = field(default_factory=list)


def import_tflite(source: bytes | str | Path, *, rounding: bool = False) -> Graph:
    """A ``.tflite`` file as a graph of numerics "real".

    Files are those of Larq Compute Engine's converter, of TensorFlow's, and ours. Integer maps become the real numbers
    that they stand for, within the limits of their integers.

    Args:
        source: the file, or its content.
        rounding: round where the file's integers do.

    Raises:
        ModelFileError: no such file, or a damaged one.
        UnsupportedError: an operator that cannot be carried over; number, kind and name are given.
    """
    return read(source, rounding=rounding).graph


def read(source: bytes | str | Path, *, rounding: bool = False) -> Imported:
    """As :func:`import_tflite`, with the file's inputs, outputs and signatures."""
    content = load_bytes(source)
    model = from_bytes(content)
    name = "model" if isinstance(source, bytes) else Path(source).stem
    tensors = [t.name for t in model.tensors]
    notes = []
    if METADATA_KEY in model.metadata:
        try:
            return _ours(model, name)
        except Int8FileError:
            pass  # read operator by operator; a note below says so
        except EditedFileError:
            notes.append(
                "the file was edited after bdnet-deploy wrote it, so the graph that is stored in it no longer holds; it is read "
                "operator by operator, as files of other converters"
            )
    graph = Graph(name)
    for signature in model.signatures[:1]:  # the names that the user gave; the tensors' own are the converter's
        for names in (signature.inputs, signature.outputs):
            for key, index in names.items():
                model.tensors[index].name = key
    translator = Translator(model, graph, rounding=rounding)
    with np.errstate(all="ignore"):
        translator.run()
    graph.prune()
    layers = {node.source for node in graph.nodes}
    graph.reasons = {layer: reason for layer, reason in graph.reasons.items() if layer in layers}
    if translator.integers and not rounding:
        notes.append(
            f"the file computes {translator.integers} maps in integers of 8 or 16 bits; here they are real numbers within "
            "the same limits, so that values differ from the file's by its rounding"
        )
    return Imported(
        graph,
        [_port(model, i, tensors[i]) for i in model.inputs],
        [_port(model, i, tensors[i]) for i in model.outputs],
        model.signatures,
        _io(model),
        notes,
    )


def _ours(model: Model, name: str) -> Imported:
    """The graph that our exporter stored.

    Raises:
        EditedFileError: the file computes something else.
    """
    graph, io, _ = graph_of(model)
    real = to_real(graph)
    real.name = name
    inputs, outputs = ([_port(model, i, model.tensors[i].name) for i in n] for n in (model.inputs, model.outputs))
    return Imported(real, inputs, outputs, model.signatures, io)


def _port(model: Model, index: int, name: str) -> Port:
    tensor: Tensor = model.tensors[index]
    return Port(index, name, tensor.shape, tensor.signature or tensor.shape, tensor.kind.numpy, scale_of(None, tensor))


def _io(model: Model) -> IODescription | None:
    """The I/O description that our exporter puts into a file; what else is in its metadata does not matter here."""
    content = model.metadata.get(METADATA_KEY)
    if content is None:
        return None
    return load_io(load_description(content, "TensorFlow Lite"))
