"""TensorFlow Lite: what the stock Larq Compute Engine computes is what the reference computes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from export_graphs import Net, assert_layer, assert_model, bdnet, layer_weights

from bdnet_deploy.errors import BdnetError, MissingPackageError, ModelFileError, UnsupportedError, UsageError
from bdnet_deploy.export import tflite as export
from bdnet_deploy.export.tflite.compact import unpack_structure
from bdnet_deploy.export.tflite.flatbuffer import from_bytes, to_bytes
from bdnet_deploy.graph import (
    Affine,
    Conv2d,
    DType,
    GlobalAvgPool,
    GroupMean,
    Linear,
    Repeat,
    Reshape,
    Sign,
    Ternarize,
    TwoSlope,
    evaluate,
)
from bdnet_deploy.importers import tflite as reader
from bdnet_deploy.importers.artifact import load_io
from bdnet_deploy.iodesc import IODescription
from bdnet_deploy.peers import PeerError, lce


def _available() -> bool:
    try:
        lce.find_interpreter()
    except MissingPackageError:
        return False
    return True


needs_lce = pytest.mark.skipif(not _available(), reason="larq-compute-engine cannot run here")
MODES = ("default", "indirect")


def _check(nets: list[Net], mode: str) -> None:
    """Integer outputs equal, float outputs close, in one process for all nets."""
    samples = [net.samples() for net in nets]
    results = lce.run_many([(export.write(net.graph).data, x) for net, x in zip(nets, samples)], mode=mode)
    for i, (net, x, got) in enumerate(zip(nets, samples, results)):
        expected = evaluate(net.graph, [x])
        for value, array in zip(net.graph.outputs, got):
            assert_layer(f"{i}: {net.graph}", array, expected[value.name])


def _convolutions() -> list[Net]:
    """Binary and ternary convolutions over every kind of padding, alignment and channel count that has a trap."""
    nets = []
    rng = np.random.default_rng(7)
    for seed in range(120):
        # Maps from 1x1 on: there the filter is larger than the map.
        size = int(rng.choice([1, 2, 3, 6, 7]))
        k = int(rng.choice([1, 3, 3, 3, 5]))
        stride = int(rng.integers(1, 3))
        padding = (k // 2,) * 4 if rng.random() < 0.7 or size + 1 < k else tuple(rng.integers(0, 2, 4).tolist())
        if size + min(padding[0] + padding[1], padding[2] + padding[3]) < k:
            padding = (k // 2,) * 4
        net = Net(seed, size, size, int(rng.choice([1, 3, 20, 32, 33, 40, 64])))
        t = net.ternarize(net.x) if rng.random() < 0.5 else net.sign(net.x)
        geometry = {"strides": (stride, stride), "padding": padding, "pad_value": int(rng.choice([0, 0, 1, -1]))}
        if rng.random() < 0.4:
            acc = net.depthwise(t, k, int(rng.integers(1, 3)), **geometry)
        else:
            acc = net.conv(t, int(rng.choice([7, 33])), k, **geometry)
        nets.append(net.done(acc))
    return nets


@needs_lce
@pytest.mark.parametrize("mode", MODES)
def test_accumulators_are_exact(mode: str) -> None:
    _check(_convolutions(), mode)


@needs_lce
@pytest.mark.parametrize("mode", MODES)
def test_folded_signs_are_exact(mode: str) -> None:
    """conv -> affine -> sign as thresholds: random, with exact ties, constant channels, extreme thresholds."""
    nets = _convolutions()[:60]
    for i, net in enumerate(nets):
        acc = net.graph.outputs[0]
        channels = acc.type.channels
        if i % 3 == 0:
            net.done(net.sign(net.affine(acc)))
        elif i % 3 == 1:
            # Small integers everywhere: acc * mul + add meets the threshold often, some factors are zero.
            mul, add, threshold = (net.constant(net.rng.integers(-2, 3, channels)) for _ in range(3))
            bn = net.add(Affine(1, DType.F32), acc, mul, add)
            net.done(net.add(Sign(), bn, threshold))
        else:
            threshold = net.rng.choice([-(2**31), -3, 0, 1, 2, 2**31 - 1], channels)
            net.done(net.add(Sign(), acc, net.constant(threshold, DType.I32)))
    _check(nets, mode)


@needs_lce
def test_folding_covers_activations() -> None:
    """Increasing and not monotone activations between convolution and sign."""
    nets = []
    for seed in range(6):
        net = Net(seed, 5, 5, 32)
        y = net.two_slope(net.affine(net.conv(net.sign(net.x), 40)), 1.0)
        nets.append(net.done(net.sign(y)))
    _check(nets, "indirect")


def test_thresholds_are_used_where_exact() -> None:
    net = Net(0, 6, 6, 32)
    acc = net.conv(net.sign(net.x), 40)
    a = net.sign(acc)
    b = net.sign(net.depthwise(a, padding=(1, 1, 1, 1)))
    c = net.sign(net.conv(b, 32, 3, padding=(1, 1, 1, 1)))
    written = export.write(net.done(c).graph)
    recipes = [form.recipe for form in written.forms if form.op in ("conv2d", "sign")]
    expected = ["ADD, LceQuantize", "LceBconv2d, bits out", "int8 DEPTHWISE_CONV_2D, bits out"]
    assert recipes == [*expected, "LceBconv2d, float out", "ADD, LceQuantize"]


def test_sizes_and_work_are_counted() -> None:
    """Bytes add up to the file; products are those that the operators of the file compute."""
    net = Net(0, 6, 6, 32)
    t = net.ternarize(net.affine(net.conv(net.x, 32, 3, DType.F32, padding=(1, 1, 1, 1))))
    y = net.affine(net.conv(t, 16, 3, DType.BIT, strides=(2, 2), padding=(1, 1, 1, 1)))
    z = net.conv(net.depthwise(net.sign(y)), 8, 1, DType.F32)
    written = export.write(net.done(z).graph)
    assert sum(written.sizes.values()) == len(written.data)
    assert written.sizes["binary weights"] == 16 * 9 * 4
    assert written.sizes["int8 weights"] == 9 * 16
    assert written.sizes["float weights"] == (32 * 9 * 32 + 16 * 8) * 4
    forms = {form.recipe: form for form in written.forms}
    assert forms["2 LceBconv2d, float out"].macs == {"binary": 2 * 3 * 3 * 16 * 9 * 32}
    assert forms["int8 DEPTHWISE_CONV_2D"].macs == {"int8": 1 * 1 * 16 * 9}
    assert forms["2 LceBconv2d, float out"].weight_bytes == 16 * 9 * 4
    assert [f.macs["float"] for f in written.forms if "float" in f.macs] == [36 * 32 * 9 * 32, 8 * 16]
    assert all(form.layer.startswith("user.") for form in written.forms)
    assert len(written.tables()) == 2


def test_names_are_seen_by_stock_tools() -> None:
    graph = bdnet(0).graph
    model = from_bytes(export.write(graph).data)
    (signature,) = model.signatures
    assert signature.key == "serving_default"
    assert signature.inputs == {graph.inputs[0].name: model.inputs[0]}
    assert signature.outputs == {graph.outputs[0].name: model.outputs[0]}
    assert model.tensors[model.inputs[0]].name == graph.inputs[0].name
    assert model.tensors[model.outputs[0]].name == graph.outputs[0].name


def test_zero_padding_never_meets_packed_output() -> None:
    """LCE's optimized kernels refuse it, its reference kernel crashes."""
    from flatbuffers import flexbuffers

    packed = 0
    for net in _convolutions():
        model = from_bytes(export.write(net.done(net.sign(net.graph.outputs[0])).graph).data)
        for op in model.operators:
            if op.name == "LceBconv2d" and op.inputs[4] >= 0:
                options = flexbuffers.Loads(op.custom_options)
                packed += 1
                assert options["padding"] == 1 or options["pad_values"] == 1
                assert len(options) == 8
    assert packed > 10


@needs_lce
def test_negative_zero_counts_as_zero() -> None:
    """LceQuantize on Arm looks at the raw sign bit, so -0.0 must not reach it: it is added to 0 - threshold first."""
    net = Net(0, 1, 1, 40)
    net.done(net.add(Sign(), net.x, net.constant(np.where(np.arange(40) % 2, 0.0, -0.0))))
    data = export.write(net.graph).data
    for x in (np.full((1, 1, 1, 40), -0.0, np.float32), np.full((1, 1, 1, 40), np.nan, np.float32)):
        assert (lce.run(data, x)[0] == 1).all()
    for net in [*(bdnet(seed) for seed in range(4)), *_convolutions()[:20]]:
        model = from_bytes(export.write(net.graph).data)
        producer = {t: op.name for op in model.operators for t in op.outputs}
        read = {producer[op.inputs[0]] for op in model.operators if op.name == "LceQuantize"}
        assert read <= {"ADD", "DEPTHWISE_CONV_2D"}  # the latter is int8, which has no -0


@needs_lce
@pytest.mark.parametrize("mode", MODES)
def test_other_operators(mode: str) -> None:
    nets = []
    for seed, channels in enumerate((20, 32, 64)):
        for make in (Net.sign, Net.ternarize):
            net = Net(seed, 2, 2, channels)
            t = make(net, net.x)
            tiled = net.add(Repeat(3), t)
            flat = net.add(Reshape((1, 4 * channels)), t)
            dense = net.add(Linear(), flat, net.weights(9, 4 * channels))
            ternary = net.conv(t, 5, 1, DType.TRIT)
            fine = net.conv(t, 5, 1, DType.F32)
            nets.append(net.done(tiled, flat, dense, net.affine(dense), ternary, fine))
            net = Net(seed, 2, 2, channels)
            t = make(net, net.x)
            ternary = net.depthwise(t, dtype=DType.TRIT, padding=(1, 1, 1, 1))
            dilated = net.conv(t, 6, 2, padding=(1, 1, 1, 1), dilation=(2, 2))
            total = net.add(GlobalAvgPool(), ternary)
            nets.append(net.done(ternary, dilated, total, net.affine(total), net.affine(ternary, ternary)))
    for positive, negative, bias in ((1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 0.5, 1), (-2, 3, 1), (0, 1, 0)):
        net = Net(9, 3, 3, 6)
        slopes = [net.constant(np.full(6, v)) for v in (positive, negative, bias)]
        y = net.add(TwoSlope(DType.F32), net.affine(net.x), *slopes)
        vector = net.add(TwoSlope(DType.F32), net.add(GlobalAvgPool(), net.x), *slopes)
        nets.append(
            net.done(y, vector, net.add(GroupMean(3), y), net.depthwise(y, dtype=DType.F32, padding=(1, 0, 1, 0)))
        )
    _check(nets, mode)


@needs_lce
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(5))
def test_networks(seed: int, mode: str) -> None:
    """Each layer on the reference's own inputs, then the whole network."""
    net = bdnet(seed)
    samples = net.samples(3)
    reference = evaluate(net.graph, [samples], keep=True)
    data = export.write(net.graph).data
    layers = reader.split_layers(data)
    jobs = [(layer.model, layer.feed(reference)) for layer in layers]
    *parts, whole = lce.run_many([*jobs, (data, samples)], mode=mode)
    for layer, (got,) in zip(layers, parts):
        assert_layer(layer.name, got, reference[layer.name])
    assert_model(net, whole[0], samples)
    covered = [name for layer in layers for name in layer.nodes]
    assert sorted(covered) == sorted(node.name for node in net.graph.nodes)
    assert all(layer.source.startswith("user.") for layer in layers)


def test_one_changed_weight_is_seen_at_its_layer() -> None:
    graph = bdnet(3).graph
    data = export.write(graph).data
    good = layer_weights(reader.read_graph(data)[0])
    names = {n.inputs[1].name: n.name for n in graph.nodes if isinstance(n.op, (Conv2d, Linear))}
    for name, *_, record in unpack_structure(reader.read_description(data)["structure"], from_bytes(data))["constants"]:
        if name not in names:
            continue
        model = from_bytes(data)
        tensor = next(t for t in model.tensors if t.name == record["tensors"][0])
        assert tensor.data is not None
        tensor.data = tensor.data.copy()
        if record["form"] == "packed":
            tensor.data.ravel()[0] ^= 1
        else:
            tensor.data.ravel()[0] *= -1
        seen = layer_weights(reader.read_graph(to_bytes(model))[0])
        assert [n for n in good if not np.array_equal(good[n], seen[n])] == [names[name]]
        assert (good[names[name]] != seen[names[name]]).sum() == 1


def test_constants_are_aligned_and_shared() -> None:
    net = Net(0, 4, 4, 32)
    t = net.ternarize(net.x)
    data = export.write(net.done(net.conv(t, 64)).graph).data
    start = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    model = from_bytes(data)
    constants = [t.data for t in model.tensors if t.data is not None]
    assert all((c.__array_interface__["data"][0] - start) % 16 == 0 for c in constants)
    binary = [op for op in model.operators if op.name == "LceBconv2d"]
    assert len(binary) == 2 and binary[0].inputs[1] == binary[1].inputs[1]


def test_schema_agrees_with_larq() -> None:
    """The generated schema inside larq-compute-engine reads what we write."""
    try:
        package = lce.find_interpreter().parents[2]
    except MissingPackageError as error:
        pytest.skip(str(error))
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("larq_schema", package / "mlir" / "python" / "tflite_schema.py")
    assert spec is not None and spec.loader is not None
    schema = module_from_spec(spec)
    spec.loader.exec_module(schema)
    data = export.write(bdnet(1).graph).data
    theirs, ours = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data)), from_bytes(data)
    assert theirs.version == 3
    assert [t.name.decode() for t in theirs.subgraphs[0].tensors] == [t.name for t in ours.tensors]
    assert [tuple(t.shape) if t.shape is not None else () for t in theirs.subgraphs[0].tensors] == [
        t.shape for t in ours.tensors
    ]
    assert [list(op.inputs) for op in theirs.subgraphs[0].operators] == [list(op.inputs) for op in ours.operators]
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    for mine, other in zip(ours.operators, theirs.subgraphs[0].operators):
        code = theirs.operatorCodes[other.opcodeIndex]
        assert mine.name == (code.customCode.decode() if code.builtinCode == 32 else names[code.builtinCode])
        if not mine.is_custom and mine.options:
            assert other.builtinOptions is not None


def test_equal_graphs_give_equal_bytes() -> None:
    script = (
        "import hashlib; from export_graphs import bdnet; from bdnet_deploy.export.tflite import write\n"
        "import sys; sys.stdout.write(hashlib.sha256(write(bdnet(2).graph).data).hexdigest())"
    )
    expected = hashlib.sha256(export.write(bdnet(2).graph).data).hexdigest()
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
        assert result.stdout == expected, result.stderr
    data = export.write(bdnet(2).graph).data
    assert to_bytes(from_bytes(data)) == data


def test_io_description_travels() -> None:
    io = IODescription.from_settings({"mean": 2.0, "std": 3.0}, ["a", "b"], (12, 12, 3))
    description = reader.read_description(export.write(bdnet(0).graph, io=io).data)
    assert load_io(description) == io
    assert load_io(reader.read_description(export.write(bdnet(0).graph).data)) is None
    assert description["numerics"] == "float"
    assert description["producer"].startswith("bdnet-deploy ")


# -- bad input --------------------------------------------------------------------------------------------------------


def _read_everything(data: bytes) -> None:
    reader.split_layers(data)
    reader.read_graph(data)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    net = Net(0, 4, 4, 8)
    bits = net.sign(net.affine(net.conv(net.ternarize(net.x), 8)))
    data = export.write(net.done(net.affine(net.depthwise(bits, padding=(1, 1, 1, 1)))).graph).data
    rng = np.random.default_rng(0)
    for _ in range(50):
        with pytest.raises(ModelFileError):
            _read_everything(rng.bytes(int(rng.integers(0, 400))))
        with pytest.raises(ModelFileError):
            _read_everything(rng.bytes(4) + b"TFL3" + rng.bytes(int(rng.integers(0, 400))))
        with pytest.raises(ModelFileError):
            _read_everything(data[: int(rng.integers(0, len(data) // 2))])
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            damaged[rng.integers(len(data))] = rng.integers(256)
        with contextlib.suppress(ModelFileError):
            _read_everything(bytes(damaged))
    with pytest.raises(ModelFileError, match="cannot be read"):
        reader.read_graph(tmp_path / "missing.tflite")
    with pytest.raises(ModelFileError, match="cannot be read"):
        reader.read_graph(tmp_path)


def test_foreign_and_future_files_are_refused() -> None:
    model = from_bytes(export.write(bdnet(0).graph).data)
    description = json.loads(model.metadata.pop("bdnet_deploy"))
    with pytest.raises(ModelFileError, match="not written by bdnet-deploy"):
        reader.read_graph(to_bytes(model))
    for content in ({**description, "format": 99}, [], {**description, "structure": [{"node": 1}]}, {"format": 1}):
        model.metadata["bdnet_deploy"] = json.dumps(content).encode()
        with pytest.raises(ModelFileError):
            reader.read_graph(to_bytes(model))


def test_what_cannot_be_carried_is_named() -> None:
    net = bdnet(0)
    with pytest.raises(UnsupportedError, match="fixed16"):
        export.write(replace(net.graph, numerics="fixed16"))
    net = Net(0, 1, 1, 4)
    graph = net.graph
    raw = graph.input("raw", (1, 4, 4, 1), DType.U8)
    graph.inputs = [raw]
    acc = graph.add(Conv2d(), [raw, net.weights(2, 3, 3, 1)], "acc")
    graph.outputs = [acc]
    with pytest.raises(UnsupportedError, match="raw"):
        export.write(graph)


@needs_lce
def test_interpreter_failures_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    net = bdnet(0)
    data, samples = export.write(net.graph).data, net.samples(1)
    with pytest.raises(PeerError):
        lce.run(b"no model", samples)
    with pytest.raises(PeerError):
        lce.run(data, samples[:, :5])
    with pytest.raises(PeerError, match="did not finish"):
        lce.run(data, samples, timeout=0.001)
    with pytest.raises(UsageError, match="indirect"):
        lce.run(data, samples, mode="indirekt")
    with monkeypatch.context() as patch:
        patch.setattr(np, "__version__", "2.1.0")
        with pytest.raises(MissingPackageError, match=r"numpy 2\.1\.0"):
            lce.run(data, samples)
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(MissingPackageError, match=r"bdnet-deploy\[larq\]"):
            lce.run(data, samples)


@needs_lce
def test_crash_is_an_error() -> None:
    """Zero padding with packed output makes LCE's reference kernel crash: the caller must survive it."""
    net = Net(0, 6, 6, 32)
    bits = net.sign(net.conv(net.sign(net.x), 32, 3, padding=(1, 1, 1, 1), pad_value=1))
    model = from_bytes(export.write(net.done(bits).graph).data)
    from flatbuffers import flexbuffers

    for op in model.operators:
        if op.name == "LceBconv2d":
            op.custom_options = bytes(flexbuffers.Dumps({**flexbuffers.Loads(op.custom_options), "pad_values": 0}))
    for mode in lce.MODES:
        with pytest.raises(BdnetError):
            lce.run(to_bytes(model), net.samples(1), mode=mode)


def test_ternarize_needs_both_planes() -> None:
    """Larq's own converter turns a ternary activation into the sign of one threshold; both must be in the file."""
    net = Net(0, 4, 4, 32)
    low, high = np.full(32, -0.5), np.full(32, 0.75)
    t = net.add(Ternarize(), net.x, net.constant(low), net.constant(high))
    model = from_bytes(export.write(net.done(net.depthwise(t)).graph).data)
    producer = {o: op for op in model.operators for o in op.outputs}
    adds = [producer[op.inputs[0]] for op in model.operators if op.name == "LceQuantize"]
    added = [model.tensors[op.inputs[1]].data for op in adds]
    assert [float(a[0]) for a in added if a is not None] == [0.5, -0.75]
