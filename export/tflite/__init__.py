"""TensorFlow Lite for the stock Larq Compute Engine runtime: ``write(graph)`` gives the bytes of a ``.tflite``.

The file carries, under the metadata name ``bdnet_deploy``, a JSON object for our reader:

``producer``, ``model``, ``numerics``, ``io``
    who made it, the graph's name and numerics, and the I/O description.
``values``
    the values of the graph that exist in the file, in order: name, encoding ("float", "bits" or "trits"), shape,
    tensors, the graph nodes that compute it from earlier values, and the user's layer.
``weights``
    per convolution or linear layer: tensor, form ("packed", "depthwise_int8", "depthwise_float" or "float"), OHWI (or
    OI) shape, and the output channels whose sign was flipped.
``parameters``
    per constant of the graph: the tensor that holds ``factor`` times it, or the number that it is throughout.
``thresholds``
    signs that were folded into integer comparisons: tensor, form ("negative", "bias" or "float"), number of taps,
    flipped channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from bdnet_deploy.export.foreign import METADATA_KEY, Written, describe, without_unpacking
from bdnet_deploy.export.tflite.flatbuffer import to_bytes
from bdnet_deploy.export.tflite.lowering import Lowering
from bdnet_deploy.graph import Graph
from bdnet_deploy.iodesc import IODescription

__all__ = ["write"]


def write(
    graph: Graph,
    *,
    io: IODescription | None = None,
    profile: str = "stock",
    samples: npt.NDArray[Any] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Written:
    """A ``.tflite`` that the stock Larq Compute Engine interpreter runs (float NHWC in and out, batch 1).

    Equal graphs give equal bytes.

    Args:
        graph: numerics "float", float32 inputs.
        io: the I/O description to store.
        profile: ``"stock"``.
        samples: (N, H, W, C) float32 inputs that set the ranges of an int8 file; None: a float file.
        meta: what made the file, to store.

    Raises:
        UnsupportedError: another numerics, or an operator that cannot be carried; ``where`` names the user's layer.
    """
    graph = without_unpacking(graph)
    low = Lowering(graph, profile)
    low.model.metadata[METADATA_KEY] = describe(
        graph,
        io,
        profile=profile,
        meta=dict(meta or {}),
        values=low.values,
        weights=low.weights,
        parameters=low.parameters,
        thresholds=low.thresholds,
    )
    return Written(to_bytes(low.model))
