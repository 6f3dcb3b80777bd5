"""What onnxruntime computes of exported graphs against the references, for the tests of the ONNX exporter."""

from __future__ import annotations

import numpy as np

from bdnet_deploy.analysis.comparing.rounding import allowance
from bdnet_deploy.export.foreign import Written
from bdnet_deploy.graph import Array, Graph, difference, evaluate
from bdnet_deploy.importers.onnx import read_graph, split_layers
from bdnet_deploy.peers import onnxruntime


def assert_same(graph: Graph, data: bytes) -> None:
    """The file holds the graph: operators, types, constants, names, layers of the user's model."""
    read, _, _ = read_graph(data)
    assert difference(graph, read) is None
    assert str(graph) == str(read)
    assert [n.source for n in graph.nodes] == [n.source for n in read.nodes]
    assert [c.name for c in graph.constants()] == [c.name for c in read.constants()]


def samples(graph: Graph, seed: int, n: int = 2) -> Array:
    shape = (n, *graph.inputs[0].type.shape[1:])
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def check_layers(graph: Graph, written: Written, x: Array, *, optimize: bool = True) -> None:
    """Each layer alone, fed the reference's inputs: integers equal, real values within 1e-5 of the layer's largest."""
    values = evaluate(graph, [x], keep=True)
    nodes = {node.name: node for node in graph.nodes}
    layers = split_layers(written.data)
    assert [layer.name for layer in layers] == list(nodes)
    for layer in layers:
        (got,) = onnxruntime.run(layer.model, layer.feed(values), optimize=optimize)
        expected = values[layer.name]
        assert got.shape == expected.shape
        if expected.dtype == np.float32:
            near = np.maximum(1e-5 * np.abs(expected).max(), allowance(nodes[layer.name], values))
            assert (np.abs(got - expected) <= near).all(), nodes[layer.name]
        else:
            assert np.array_equal(got, expected), nodes[layer.name]
