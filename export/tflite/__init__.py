"""TensorFlow Lite for the Larq Compute Engine runtime: ``write(graph)`` gives the bytes of a ``.tflite``.

The file carries, under the metadata name ``bdnet_deploy``, a JSON object for our reader:

``producer``, ``model``, ``numerics``, ``io``, ``profile``, ``meta``
    who made it, the graph's name and numerics, the I/O description, and how it was made.
``values``
    the values of the graph that exist in the file, in order: name, encoding ("float", "bits", "ubits" or "trits"), shape,
    tensors, the graph nodes that compute it from earlier values, and the user's layer.
``structure``
    the graph itself, and where its constants lie: see :mod:`bdnet_deploy.export.tflite.structure`.

An int8 file has these instead of the last two:

``int8``
    true.
``tensors``
    [value of the graph, its tensors, the user's layer], of the values that still exist, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from bdnet_deploy.export.foreign import METADATA_KEY, Written, describe
from bdnet_deploy.export.tflite.flatbuffer import to_bytes
from bdnet_deploy.export.tflite.int8 import quantize
from bdnet_deploy.export.tflite.int8.accounting import account, remaining
from bdnet_deploy.export.tflite.lowering import Lowering
from bdnet_deploy.export.tflite.schema import Array
from bdnet_deploy.export.tflite.storage import decode
from bdnet_deploy.export.tflite.structure import describe_graph
from bdnet_deploy.graph import Graph, Value
from bdnet_deploy.iodesc import IODescription

if TYPE_CHECKING:
    from bdnet_deploy.passes.ranges import Batches

__all__ = ["write"]


def write(
    graph: Graph,
    *,
    io: IODescription | None = None,
    profile: str = "stock",
    samples: npt.NDArray[Any] | Batches | None = None,
    meta: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """A ``.tflite`` that the stock Larq Compute Engine interpreter runs (float NHWC in and out, batch 1).

    Equal graphs give equal bytes.

    Args:
        graph: numerics "float", float32 inputs.
        io: the I/O description to store.
        profile: ``"stock"``, or ``"extended"`` with an operator of ours that Larq's interpreter does not have: see
            :mod:`bdnet_deploy.export.tflite.extended`.
        samples: (N, H, W, C) float32 inputs, or such in batches, that set the ranges of an int8 file; None: a float file.
        meta: what made the file, to store.
        progress: of the calibration: (samples done, samples in all).

    Raises:
        UsageError: samples that are none, do not fit the input, or have NaN or infinity in them.
        UnsupportedError: another numerics, or an operator that cannot be carried; ``where`` names the user's layer.
    """
    low = Lowering(graph, profile)
    if samples is not None:
        return _int8(low, samples, progress, graph=graph, io=io, profile=profile, meta=dict(meta or {}))
    _complete(low)
    low.model.metadata[METADATA_KEY] = describe(
        graph,
        io,
        profile=profile,
        meta=dict(meta or {}),
        values=low.values,
        structure=describe_graph(graph, low.stored, low.model),
    )
    data = to_bytes(low.model)
    return Written(data, forms=low.forms.layers, sizes=low.forms.sizes(low.model, len(data)))


def _int8(
    low: Lowering,
    samples: Array | Batches,
    progress: Callable[[int, int], None] | None,
    *,
    graph: Graph,
    **details: Any,
) -> Written:
    model = quantize(low.model, samples, progress=progress)
    kept = remaining(low.values, model)
    model.metadata[METADATA_KEY] = describe(graph, details.pop("io"), **details, int8=True, tensors=kept)
    data = to_bytes(model)
    forms = account(low.forms, low.model, model)
    return Written(data, forms=forms.layers, sizes=forms.sizes(model, len(data)))


def _complete(low: Lowering) -> None:
    """Store what the operators' own constants do not give back to the last bit once more, as it is."""
    tensors = {t.name: t.data for t in low.model.tensors if t.data is not None}

    def find(name: str) -> Array:
        data = tensors[name]
        assert data is not None
        return data

    for value in low.graph.constants():
        record = low.stored.get(value.name)
        if record is None or not _is_exact(value, decode(record, value.name, value.type.shape, _numpy(value), find)):
            assert value.data is not None
            form = "same"
            data = value.data
            if data.dtype.kind == "u" or data.dtype.itemsize == 2:
                data = data.astype("<i4")
            tensor = low.b.constant(f"{value.name}/exact", data)
            low.stored[value.name] = {"form": form, "tensors": [low.b.name(tensor)]}


def _numpy(value: Value) -> Any:
    return value.type.dtype.numpy


def _is_exact(value: Value, found: Array) -> bool:
    assert value.data is not None
    return found.tobytes() == value.data.tobytes()
