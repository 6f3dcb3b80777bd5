"""A ``.tflite`` in stock Larq Compute Engine (both modes), or an ``.onnx`` in onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bdnet_deploy.analysis.comparing.decoded import (
    compare_io,
    compare_parameters,
    compare_weights,
    layer_of,
)
from bdnet_deploy.analysis.comparing.layers import compare_layer, compare_top1, compare_with_torch
from bdnet_deploy.analysis.comparing.verdicts import Verdicts
from bdnet_deploy.graph import Array, Graph, evaluate
from bdnet_deploy.importers import onnx as onnx_reader
from bdnet_deploy.importers import tflite as tflite_reader
from bdnet_deploy.importers.artifact import damage_reported, load_bytes, load_io
from bdnet_deploy.report import Value

if TYPE_CHECKING:
    from bdnet_deploy.model import Model

#: Runs (model file, inputs) jobs and gives each one's outputs.
Runtime = Callable[[list[tuple[bytes, list[Array]]]], Sequence[Sequence[Array]]]


def verify_foreign(model: Model, artifact: Path, x: Array, verdicts: Verdicts) -> dict[str, Value]:
    """Compare; returns facts for the report."""
    tflite = artifact.suffix.lower() == ".tflite"
    graph = model.float_graph()
    data = load_bytes(artifact)
    reader = tflite_reader if tflite else onnx_reader
    description = reader.read_description(data)
    complete = compare_weights(graph, reader.read_weights(data), verdicts)
    complete = complete and _same_structure(graph, description, verdicts)
    if complete:
        compare_parameters(graph, reader.read_parameters(data), verdicts)
        compare_io(load_io(description), model.io, verdicts)
    if not complete:  # another network: its layers cannot be fed ours
        return {}
    layers = reader.split_layers(data)
    values = evaluate(graph, [x], keep=True)
    nodes = {node.output.name: node for node in graph.nodes}
    reference = values[graph.outputs[0].name]
    facts: dict[str, Value] = {}
    for name, run in (_lce_modes() if tflite else _onnxruntime()).items():
        results = run([(layer.model, layer.feed(values)) for layer in layers])
        for layer, outputs in zip(layers, results, strict=True):
            compare_layer(name, nodes[layer.name], outputs[0].reshape(values[layer.name].shape), values, verdicts)
        logits = run([(data, [x.astype(np.float32)])])[0][0]
        compare_top1(name, logits, reference, verdicts)
        key = f"{name.lower().replace(' ', '_')}_largest_logit_distance"
        facts[key] = float(np.abs(logits.reshape(reference.shape) - reference).max())
    compare_with_torch(model, x, reference, verdicts)
    return facts


def _lce_modes() -> dict[str, Runtime]:
    from bdnet_deploy.peers import lce

    return {f"LCE {mode}": partial(lce.run_many, mode=mode) for mode in ("default", "indirect")}


def _onnxruntime() -> dict[str, Runtime]:
    from bdnet_deploy.peers import onnxruntime

    return {"onnxruntime": lambda jobs: [onnxruntime.run(model, inputs) for model, inputs in jobs]}


def _same_structure(graph: Graph, description: dict[str, Any], verdicts: Verdicts) -> bool:
    """Whether the file computes values of the model only, in the model's shapes."""
    types = {value.name: value.type for value in graph.inputs}
    types |= {node.output.name: node.output.type for node in graph.nodes}
    sources = {node.output.name: layer_of(node) for node in graph.nodes}
    compared, different = 0, []
    with damage_reported("model"):
        for value in description["values"]:
            name, shape = str(value["name"]), tuple(int(n) for n in value["shape"][1:])
            compared += 1
            if name not in types:
                different.append((str(value["source"]) or name, f"the model has no value '{name}'"))
            elif shape != types[name].shape[1:]:
                model_shape = "x".join(map(str, types[name].shape[1:]))
                why = f"'{name}' has shape {'x'.join(map(str, shape))}, in the model {model_shape}"
                different.append((sources.get(name, name), why))
    layer, why = different[0] if different else ("", "")
    why += "; it is an export of another network" if why else ""
    verdicts.add("structure", layer, compared=compared, different=len(different), why=why)
    return not different
