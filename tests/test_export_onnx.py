"""ONNX: what stock onnxruntime computes is what the reference computes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from export_graphs import Net, assert_layer, assert_model, bdnet, layer_weights  # noqa: E402

from bdnet_deploy.errors import ModelFileError, UnsupportedError  # noqa: E402
from bdnet_deploy.export.onnx import write  # noqa: E402
from bdnet_deploy.graph import (  # noqa: E402
    REPLICATE,
    Affine,
    Concat,
    Conv2d,
    DType,
    GlobalAvgPool,
    GroupMean,
    Linear,
    Pad,
    Quantize,
    Repeat,
    Reshape,
    Sign,
    TwoSlope,
    evaluate,
)
from bdnet_deploy.importers import onnx as reader  # noqa: E402
from bdnet_deploy.importers.artifact import load_io  # noqa: E402
from bdnet_deploy.iodesc import IODescription  # noqa: E402
from bdnet_deploy.peers import PeerError, onnxruntime  # noqa: E402


def _check(net: Net, optimize: bool = True) -> None:
    samples = net.samples(3)
    expected = evaluate(net.graph, [samples])
    data = write(net.graph).data
    onnx.checker.check_model(onnx.load_model_from_string(data), full_check=True)
    for value, got in zip(net.graph.outputs, onnxruntime.run(data, samples, optimize=optimize)):
        assert_layer(f"{value.name} of {net.graph}", got, expected[value.name])


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_convolutions_are_exact(seed: int, optimize: bool) -> None:
    """Every operand type, padding value and alignment, groups and dilation; then signs of integers."""
    rng = np.random.default_rng(seed)
    size, k = int(rng.integers(2, 8)), int(rng.choice([1, 3, 5]))
    net = Net(seed, size, size, 12)
    t = [net.sign, net.ternarize][seed % 2](net.x)
    padding = [k // 2] * 4
    if seed % 3 == 0:
        padding[int(rng.integers(4))] += 1
    acc = net.conv(
        t,
        24,
        k,
        [DType.BIT, DType.BIT, DType.TRIT][seed % 3],
        groups=int(rng.choice([1, 3, 12])),
        strides=(int(rng.integers(1, 3)), int(rng.integers(1, 3))),
        padding=tuple(padding),
        pad_value=int(rng.choice([0, 1, -1])),
    )
    # Thresholds on integers are exact whatever onnxruntime fuses.
    net.done(acc, net.sign(acc))
    _check(net, optimize)


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_repeated_borders_and_zeros_and_ones(seed: int, optimize: bool) -> None:
    rng = np.random.default_rng(seed)
    net = Net(seed, 5, 6, 12)
    step = net.add(Sign(DType.UBIT), net.x, net.constant(rng.normal(size=12) * 0.5))
    outputs = [step]
    for x in (step, net.sign(net.x), net.ternarize(net.x), net.x):
        padding = tuple(int(p) for p in rng.integers(0, 3, 4))
        strides = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
        geometry = {"padding": padding, "strides": strides, "groups": int(rng.choice([1, 12]))}
        outputs.append(net.conv(x, 24, 3, pad_value=REPLICATE, **geometry))
    outputs.append(net.conv(step, 8, 3, padding=(1, 1, 1, 1), pad_value=int(rng.integers(0, 2))))
    outputs.append(net.add(Sign(DType.UBIT), outputs[1], net.constant(rng.integers(-3, 4, 24), DType.I32)))
    net.done(*outputs)
    _check(net, optimize)


def test_signs_are_exact() -> None:
    """Thresholds at the values themselves, NaN and infinities, integer thresholds beyond every sum."""
    net = Net(0, 1, 1, 8)
    x = np.array([0.0, -0.0, np.nan, 1.0, np.nextafter(1, 0), -np.inf, np.inf, 0.5], np.float32).reshape(1, 1, 1, 8)
    threshold = net.constant([0.0, 0.0, 1.0, 1.0, 1.0, -1.0, np.inf, 0.5])
    higher = net.constant([0.0, 0.0, 1.0, 2.0, 1.0, -1.0, np.inf, np.inf])
    from bdnet_deploy.graph import Ternarize

    sign, trit = net.add(Sign(), net.x, threshold), net.add(Ternarize(), net.x, threshold, higher)
    acc = net.conv(net.sign(net.x), 4)
    far = net.add(Sign(), acc, net.constant([-(2**31), 2**31 - 1, 9, -8], DType.I32))
    net.done(sign, trit, far)
    expected = evaluate(net.graph, [x])
    for optimize in (False, True):
        for value, got in zip(net.graph.outputs, onnxruntime.run(write(net.graph).data, x, optimize=optimize)):
            assert np.array_equal(got, expected[value.name])


@pytest.mark.parametrize("optimize", [False, True])
def test_other_operators(optimize: bool) -> None:
    for make in (Net.sign, Net.ternarize):
        net = Net(1, 2, 3, 6)
        t = make(net, net.x)
        flat = net.add(Reshape((1, 36)), t)
        acc = net.depthwise(t, padding=(1, 1, 1, 1))
        total = net.add(GlobalAvgPool(), acc)
        dense = net.add(Linear(), flat, net.weights(9, 36))
        back = net.add(Reshape((1, 3, 3, 4)), flat)
        square = net.add(Reshape((1, 3, 2, 6)), net.x)
        tiled = net.add(Repeat(2), dense)
        net.done(net.add(Repeat(3), t), flat, total, net.affine(total), back, square, tiled, net.affine(acc, net.x))
        _check(net, optimize)
    for positive in (1, -2):
        net = Net(9, 3, 3, 6)
        slopes = [net.constant(np.full(6, v)) for v in (positive, 0.5, 1)]
        y = net.add(TwoSlope(DType.F32), net.affine(net.x), *slopes)
        # The same constants on a map and on a vector.
        vector = net.add(TwoSlope(DType.F32), net.add(GlobalAvgPool(), net.x), *slopes)
        net.done(y, vector, net.add(GroupMean(3), y), net.add(GroupMean(2), vector))
        _check(net, optimize)


def test_integer_input() -> None:
    net = Net(0, 4, 4, 3)
    graph = net.graph
    raw = graph.input("raw", (1, 4, 4, 3), DType.U8)
    graph.inputs = [raw]
    net.done(graph.add(Conv2d(padding=(1, 1, 1, 1)), [raw, net.weights(5, 3, 3, 3)], "acc"))
    x = net.rng.integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    assert np.array_equal(onnxruntime.run(write(graph).data, x)[0], evaluate(graph, [x])["acc"])


@pytest.mark.parametrize("seed", range(8))
def test_networks(seed: int) -> None:
    """Each layer on the reference's own inputs, then the whole network."""
    net = bdnet(seed)
    samples = net.samples(4)
    reference = evaluate(net.graph, [samples], keep=True)
    data = write(net.graph).data
    layers = reader.split_layers(data)
    assert [layer.name for layer in layers] == [node.name for node in net.graph.nodes]
    for layer in layers:
        for optimize in (False, True):
            (got,) = onnxruntime.run(layer.model, layer.feed(reference), optimize=optimize)
            assert_layer(layer.name, got, reference[layer.name])
    assert_model(net, onnxruntime.run(data, samples)[0], samples)


def test_affine_keeps_the_order_of_the_reference() -> None:
    """Unfused, products and sums are those of the reference: every bit is equal."""
    net = Net(4, 5, 5, 16)
    acc = net.conv(net.sign(net.x), 16)
    y = net.two_slope(net.affine(acc, net.x), None)
    net.done(y, net.two_slope(y))
    samples = net.samples(4)
    expected = evaluate(net.graph, [samples])
    for value, got in zip(net.graph.outputs, onnxruntime.run(write(net.graph).data, samples, optimize=False)):
        assert np.array_equal(got, expected[value.name])


def test_inner_tensors_and_batch_of_one() -> None:
    net = bdnet(1)
    samples = net.samples(3)
    data = write(net.graph).data
    reference = evaluate(net.graph, [samples], keep=True)
    sign = next(n for n in net.graph.nodes if n.output.type.dtype in (DType.BIT, DType.TRIT))
    (inner,) = onnxruntime.run(data, samples, [sign.name])
    assert inner.shape == tuple(reference[sign.name].shape[i] for i in (0, 3, 1, 2))
    model = onnx.load_model_from_string(data)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    one_by_one = onnxruntime.run(model.SerializeToString(), samples)[0]
    assert one_by_one.shape == (3, 10)


def test_one_flipped_weight_is_seen_at_its_layer() -> None:
    graph = bdnet(3).graph
    data = write(graph).data
    good = layer_weights(reader.read_graph(data)[0])
    layers = {n.inputs[1].name: n.name for n in graph.nodes if isinstance(n.op, (Conv2d, Linear))}
    for weights, layer in layers.items():
        model = onnx.load_model_from_string(data)
        tensor = next(t for t in model.graph.initializer if t.name == weights)
        raw = bytearray(tensor.raw_data)
        raw[0] ^= 1  # of bits the sign of the first one
        tensor.raw_data = bytes(raw)
        try:
            seen = layer_weights(reader.read_graph(model.SerializeToString())[0])
        except ModelFileError as error:
            assert "bit planes" in str(error)  # no trit has such planes
            continue
        assert [name for name in good if not np.array_equal(good[name], seen[name])] == [layer]


def test_names_metadata_and_opset() -> None:
    io = IODescription.from_settings({"mean": 2.0, "std": 3.0}, ["a", "b"], (12, 12, 3))
    graph = bdnet(0).graph
    data = write(graph, io=io).data
    assert load_io(reader.read_description(data)) == io
    model = onnx.load_model_from_string(data)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 15), ("bdnet_deploy", 1)]
    assert model.graph.input[0].name == "x" and model.graph.output[0].name == graph.outputs[0].name
    outputs = {name for node in model.graph.node for name in node.output}
    assert {node.name for node in graph.nodes} <= outputs


def test_equal_graphs_give_equal_bytes() -> None:
    script = (
        "import hashlib; from export_graphs import bdnet; from bdnet_deploy.export.onnx import write\n"
        "import sys; sys.stdout.write(hashlib.sha256(write(bdnet(2).graph).data).hexdigest())"
    )
    expected = hashlib.sha256(write(bdnet(2).graph).data).hexdigest()
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
        assert result.stdout == expected, result.stderr


# -- bad input --------------------------------------------------------------------------------------------------------


def _read_everything(data: bytes) -> None:
    reader.read_graph(data)
    reader.split_layers(data)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    net = Net(0, 4, 4, 8)
    data = write(net.done(net.affine(net.conv(net.ternarize(net.x), 8))).graph).data
    rng = np.random.default_rng(0)
    for _ in range(100):
        with pytest.raises(ModelFileError):
            _read_everything(rng.bytes(int(rng.integers(0, 400))))
        with pytest.raises(ModelFileError):
            _read_everything(data[: int(rng.integers(0, len(data) // 2))])
    for _ in range(200):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] = rng.integers(256)
        with contextlib.suppress(ModelFileError):
            _read_everything(bytes(damaged))
    with pytest.raises(ModelFileError, match="cannot be read"):
        reader.read_graph(tmp_path / "missing.onnx")


def test_foreign_files_are_refused() -> None:
    model = onnx.load_model_from_string(write(bdnet(0).graph).data)
    del model.metadata_props[:]
    with pytest.raises(ModelFileError, match="not written by bdnet-deploy"):
        reader.read_graph(model.SerializeToString())


def test_what_cannot_be_carried_is_named() -> None:
    with pytest.raises(UnsupportedError, match="fixed8"):
        write(replace(bdnet(0).graph, numerics="fixed8"))
    net = Net(0, 2, 2, 4)
    acc = net.conv(net.sign(net.x), 4)
    # f64 parameters belong to a graph that was not given its numerics.
    wide = [net.constant(np.ones(4), DType.F64) for _ in range(2)]
    net.done(net.add(Affine(1, DType.F64), acc, *wide))
    with pytest.raises(UnsupportedError, match=r"user\.affine"):
        write(net.graph)


def test_constants_in_place_of_maps_are_refused() -> None:
    net = Net(0, 2, 2, 4)
    fixed = net.constant(np.ones((1, 2, 2, 4)))
    net.done(net.graph.add(Concat(), (net.x, fixed), "concat", source="user.layer"))
    with pytest.raises(UnsupportedError, match=r"(?s)user\.layer \(concat.*its input is constant"):
        write(net.graph)


def test_sums_beyond_float32_are_refused() -> None:
    net = Net(0, 64, 64, 8)
    levels = net.add(Quantize(DType.I16, 1e-3), net.x)
    net.done(net.add(GlobalAvgPool(), levels))
    with pytest.raises(UnsupportedError, match=r"(?s)user\.global_avg_pool.*float32 is exact up to"):
        write(net.graph)


def test_corrected_borders_are_refused() -> None:
    """The third input of a convolution belongs to raw pixels in fixed point."""
    net = Net(0, 4, 4, 1)
    graph = net.graph
    raw = graph.input("raw", (1, 4, 4, 1), DType.U8)
    graph.inputs = [raw]
    border = net.constant(np.ones((3, 3, 2)), DType.I32)
    net.done(net.add(Conv2d(padding=(1, 1, 1, 1)), raw, net.weights(2, 3, 3, 1), border))
    with pytest.raises(UnsupportedError, match=r"user\.conv2d"):
        write(graph)


def test_runtime_failures_are_reported() -> None:
    net = bdnet(0)
    with pytest.raises(PeerError):
        onnxruntime.run(b"no model", net.samples(1))
    with pytest.raises(PeerError):
        onnxruntime.run(write(net.graph).data, net.samples(1)[:, :5])
    with pytest.raises(PeerError, match="1 inputs"):
        onnxruntime.run(write(net.graph).data, [net.samples(1)] * 2)


def test_a_padding_counts_as_a_value() -> None:
    net = Net(0, 4, 4, 8)
    net.done(net.add(Pad((1, 0, 0, 0, 0, 0), value=float(1 << 24)), net.conv(net.sign(net.x), 4, 3)))
    with pytest.raises(UnsupportedError, match=r"(?s)user\.pad.*may reach 16777216"):
        write(net.graph)
