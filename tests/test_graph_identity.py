"""Graphs compared up to names, operators as plain data, and the way from float back to real."""

import dataclasses
import json

import numpy as np
import pytest
from random_networks import random_network

from bdnet_deploy.graph import OPS, Affine, Conv2d, DType, Graph, GraphError, Sign, attributes, difference, make_op
from bdnet_deploy.lowering import float_graph
from bdnet_deploy.passes import to_real


def small(threshold=0.0, name="x"):
    g = Graph("small", "float")
    x = g.input(name, (1, 4, 4, 3), DType.F32)
    t = g.constant("t", np.full(3, threshold), DType.F32)
    bits = g.add(Sign(), [x, t], "bits")
    w = g.constant("w", np.ones((2, 1, 1, 3)), DType.BIT)
    g.outputs = [g.add(Conv2d(), [bits, w], "acc"), bits]
    return g


def test_names_do_not_count():
    assert difference(small(), small(name="image")) is None


@pytest.mark.parametrize("change", ["constant", "zero", "output", "op", "node", "input", "numerics"])
def test_everything_else_does(change):
    a, b = small(), small()
    if change == "constant":
        b = small(1.0)
    elif change == "zero":
        b = small(-0.0)
    elif change == "output":
        b.outputs.reverse()
    elif change == "op":
        b.nodes[1].op = Conv2d(pad_value=1)
    elif change == "node":
        b.add(Sign(), b.nodes[0].inputs, "again")
    elif change == "input":
        b.inputs[0].type = dataclasses.replace(b.inputs[0].type, shape=(1, 5, 4, 3))
    else:
        b.numerics = "real"
    assert difference(a, b)
    assert difference(b, a)


def test_one_value_is_not_two():
    def graph(shared):
        g = Graph("two", "float")
        x = g.input("x", (1, 4), DType.F32)
        ones = g.constant("ones", np.ones(4), DType.F32)
        a = g.add(Affine(out=DType.F32), [x, ones, ones], "a")
        b = a if shared else g.add(Affine(out=DType.F32), [x, ones, ones], "b")
        if shared:
            g.add(Affine(out=DType.F32), [x, ones, ones], "b")
        g.outputs = [g.add(Affine(2, DType.F32), [a, b, ones, ones, ones], "sum")]
        return g

    assert difference(graph(True), graph(False))
    assert difference(graph(False), graph(True))


@pytest.mark.parametrize("name", sorted(OPS))
def test_operators_as_data(name):
    op = OPS[name]()
    assert make_op(name, json.loads(json.dumps(attributes(op)))) == op


#: Whose slices move out of the way of affine maps that are then merged.
SLICED = (106, 2831, 3034, 3213, 3435, 3949)


@pytest.mark.parametrize("seed", [*range(12), *SLICED])
def test_random_networks_as_data_and_back(seed):
    graph, _ = float_graph(random_network(seed).graph)
    for node in graph.nodes:
        assert make_op(node.op.name, json.loads(json.dumps(attributes(node.op)))) == node.op
    again, _ = float_graph(to_real(graph))
    assert difference(graph, again) is None


@pytest.mark.parametrize(
    "name, given",
    [
        ("conv", {}),
        ("conv2d", {"stride": 1}),
        ("conv2d", {"strides": [1, 1, 1]}),
        ("conv2d", {"strides": 1}),
        ("conv2d", {"groups": 1.5}),
        ("conv2d", {"groups": True}),
        ("affine", {"out": "f128"}),
        ("softmax", {"exp": [1, 2]}),
    ],
)
def test_bad_data_is_refused(name, given):
    with pytest.raises(GraphError):
        make_op(name, given)
