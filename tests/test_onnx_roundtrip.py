"""ONNX of profile portable holds the graph itself: random networks and the zoo come back as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from random_networks import random_network

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_layers import assert_same, check_layers, samples  # noqa: E402

import bdnet_deploy  # noqa: E402
from bdnet_deploy.errors import UsageError  # noqa: E402
from bdnet_deploy.export.onnx import write  # noqa: E402
from bdnet_deploy.graph import Graph, difference, evaluate  # noqa: E402
from bdnet_deploy.importers.onnx import read_graph  # noqa: E402
from bdnet_deploy.iodesc import IODescription  # noqa: E402
from bdnet_deploy.lowering import float_graph  # noqa: E402
from bdnet_deploy.models.small import SMALL  # noqa: E402
from bdnet_deploy.peers import onnxruntime  # noqa: E402


def network(seed: int) -> Graph:
    return float_graph(random_network(seed).graph)[0]


def check(seed: int) -> None:
    graph = network(seed)
    written = write(graph)
    assert_same(graph, written.data)
    assert write(read_graph(written.data)[0]).data == written.data
    x = samples(graph, seed)
    check_layers(graph, written, x, optimize=bool(seed % 2))
    for optimize in (False, True):
        outputs = onnxruntime.run(written.data, x, optimize=optimize)
        assert [y.shape[1:] for y in outputs] == [v.type.shape[1:] for v in graph.outputs]


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_random_networks(first: int) -> None:
    for seed in range(first, first + 20):
        check(seed)


def test_sums_stay_integers_when_onnxruntime_optimizes() -> None:
    """Sums of exactly 0 at a threshold of 0: a factor that is moved into the weights would flip 56 signs."""
    graph = network(95)
    x = samples(graph, 95)
    (expected,) = evaluate(graph, [x]).values()
    for optimize in (False, True):
        (got,) = onnxruntime.run(write(graph).data, x, optimize=optimize)
        assert np.array_equal(got, expected)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(200, 4000, 100))
def test_more_random_networks(first: int) -> None:
    for seed in range(first, first + 100):
        check(seed)


@pytest.mark.parametrize("seed", range(12))
def test_files_are_valid(seed: int) -> None:
    """Also their functions' bodies, by ONNX's own shape inference; the inferred shapes are the graph's."""
    graph = network(seed)
    model = onnx.load_model_from_string(write(graph).data)
    onnx.checker.check_model(model, full_check=True)
    # Ports say the shapes; inference has to find them without.
    del model.graph.output[0].type.tensor_type.shape.dim[1:]
    free = onnx.load_model_from_string(model.SerializeToString())
    for output in free.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(free, strict_mode=True, data_prop=True).graph.output
    for value, port in zip(graph.outputs, inferred, strict=True):
        dims = port.type.tensor_type.shape.dim
        known = [d.dim_value for d in dims[1:]]
        assert len(dims) == len(value.type.shape)
        assert all(d in (0, expected) for d, expected in zip(known, value.type.shape[1:], strict=True))


@pytest.mark.parametrize("arch", SMALL)
def test_the_zoo(arch: str) -> None:
    torch = pytest.importorskip("torch")
    from torch_modules import randomize

    from bdnet_deploy import models
    from bdnet_deploy.importers.torch import import_module

    torch.manual_seed(6)
    module = randomize(models.create(arch, **SMALL[arch])).eval()
    height, width, channels = module.input_shape
    graph = float_graph(import_module(module, (1, channels, height, width), name=arch))[0]
    written = write(graph)
    assert_same(graph, written.data)
    check_layers(graph, written, samples(graph, 2, n=1))
    assert sum(written.sizes.values()) == len(written.data)


def test_loading_gives_the_model_that_was_exported(tmp_path: Path) -> None:
    graph = network(7)
    io = IODescription.from_settings({"mean": 2.0, "std": 3.0}, None, graph.inputs[0].type.shape[1:])
    path = tmp_path / "again.onnx"
    path.write_bytes(write(graph, io=io, meta={"made_by": "a test"}).data)
    model = bdnet_deploy.load(path)
    assert difference(model.float_graph(), graph) is None
    assert (model.name, model.graph.name, model.io) == ("again", "again", io)
    assert "one of ours" in " ".join(model.notes)
    assert read_graph(path)[2] == {"made_by": "a test"}
    model.export("bdn", tmp_path / "again.bdn")
    model.verify(tmp_path / "again.bdn", limit=2)
    with pytest.raises(UsageError, match="says the shape"):
        bdnet_deploy.load(path, inputs=[(1, 3, 8, 8)])


def test_weights_of_one_bit_take_one_bit() -> None:
    graph = network(7)
    written = write(graph)
    by_dtype = {"bit": "binary weights", "ubit": "binary weights", "trit": "ternary weights"}
    expected: dict[str, int] = {}
    for value in {n.inputs[1] for n in graph.nodes if n.op.name in ("conv2d", "linear")}:
        if value.type.dtype.is_packed:
            kind = by_dtype[value.type.dtype.value]
            expected[kind] = expected.get(kind, 0) + value.type.dtype.planes * -(-value.type.size // 8)
    assert expected and {k: written.sizes[k] for k in expected} == expected
    assert sum(written.sizes.values()) == len(written.data)
    stored = sum(len(t.raw_data) for t in onnx.load_model_from_string(written.data).graph.initializer)
    assert stored == sum(size for kind, size in written.sizes.items() if kind != "structure")


def test_names_of_ends_and_outputs_that_occur_twice() -> None:
    from export_graphs import Net

    net = Net(0, 4, 4, 6)
    y = net.affine(net.x)
    net.done(y, net.x, y)
    written = write(net.graph)
    assert_same(net.graph, written.data)
    x = net.samples(2)
    got = onnxruntime.run(written.data, x)
    expected = evaluate(net.graph, [x], keep=True)
    for value, found in zip(net.graph.outputs, got, strict=True):
        assert np.allclose(found, expected[value.name], atol=1e-6)


def test_numbers_in_attributes_keep_every_bit() -> None:
    from export_graphs import Net

    from bdnet_deploy.graph import DType, LayerNorm, Pad, Quantize

    net = Net(0, 4, 4, 6)
    third = net.add(LayerNorm(1.0 / 3.0), net.x)
    padded = net.add(Pad((1, 0, 0, 0, 0, 0), value=0.1), third)
    net.done(net.add(Quantize(DType.I8, 0.1, -3), padded))
    assert_same(net.graph, write(net.graph).data)
