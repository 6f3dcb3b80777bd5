"""Profile "extended": the file's packed depth-wise operator computes what the graph's reference computes."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from export_graphs import Net, bdnet
from random_networks import random_network
from tflite_kernels import Out, run

import bdnet_deploy
from bdnet_deploy import models
from bdnet_deploy.errors import MissingPackageError, ModelFileError, UsageError
from bdnet_deploy.export import tflite
from bdnet_deploy.export.tflite import extended
from bdnet_deploy.export.tflite.flatbuffer import from_bytes
from bdnet_deploy.export.tflite.packing import words
from bdnet_deploy.export.tflite.schema import ABSENT, TensorKind
from bdnet_deploy.graph import REPLICATE, DType, Graph, Ternarize, Value, difference, evaluate
from bdnet_deploy.hostlib import host_library
from bdnet_deploy.importers.tflite.own import read_graph
from bdnet_deploy.lowering import float_graph
from bdnet_deploy.models.small import SMALL
from bdnet_deploy.peers import lce, tensorflow_lite

FORMS = ("sums", "sign", "ternarize", "affine")
PADDINGS = ((0, (0, 0, 0, 0)), (0, (1, 1, 1, 1)), (1, (1, 1, 1, 1)), (-1, (2, 0, 1, 1)), (REPLICATE, (1, 1, 1, 1)))


def depthwise_net(
    seed: int, form: str, trits: tuple[bool, bool], padding: object, times: int, stride: int
) -> tuple[Net, Value]:
    """A network with one depth-wise convolution, and the value that the operator makes."""
    net = Net(seed, 7, 8, int(np.random.default_rng(seed).choice([3, 32, 40])))
    value, amounts = padding  # type: ignore[misc]
    x = net.ternarize(net.x) if trits[0] else net.sign(net.x)
    acc = net.depthwise(
        x, 3, times, DType.TRIT if trits[1] else DType.BIT, strides=(stride, stride), padding=amounts, pad_value=value
    )
    if form == "sums":
        y = acc
    elif form == "sign":
        y = net.sign(acc)
    elif form == "ternarize":
        limits = np.sort(net.rng.integers(-5, 6, (2, acc.type.channels)), axis=0)
        y = net.add(Ternarize(), acc, *(net.constant(t, DType.I32) for t in limits))
    else:
        y = net.affine(acc)
    return net.done(y), y


def values_of(graph: Graph, x: np.ndarray) -> dict[str, np.ndarray]:
    return evaluate(graph, [x], keep=True)


@pytest.mark.parametrize("form", FORMS)
def test_the_operator_alone(form: str) -> None:
    for seed, (trit_x, trit_w, padding, times, stride) in enumerate(
        itertools.product((False, True), (False, True), PADDINGS, (1, 2), (1, 2))
    ):
        net, y = depthwise_net(seed, form, (trit_x, trit_w), padding, times, stride)
        written = tflite.write(net.graph, profile="extended")
        model = from_bytes(written.data)
        (op,) = [o for o in model.operators if o.name == extended.NAME]
        values = values_of(net.graph, net.samples(1))
        conv = next(n for n in net.graph.nodes if n.op.name == "conv2d")
        planes: list[np.ndarray | None] = [*extended.planes(values[conv.inputs[0].name]), None][:2]
        if trit_x and planes[1] is None:
            planes[1] = planes[0]
        if padding[0] == REPLICATE:  # by GATHER in front of it
            planes = [None if p is None else np.pad(p, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge") for p in planes]
        constants = [None if i == ABSENT else model.tensors[i].data for i in op.inputs[2:]]
        kind = "f4" if form in ("sums", "affine") else "i4"
        outs = [Out(kind)] * len(op.outputs)
        got = run(extended.NAME, [*planes, *constants], outs, op.custom_options, constants=range(2, 8))
        options = extended.Options.from_bytes(op.custom_options)
        for a, b in zip(got, extended.evaluate([*planes, *constants], options, kind), strict=True):
            np.testing.assert_array_equal(a, b)
        expected = values[y.name]
        if kind == "i4":
            got = [extended.unpack(got, expected.shape[-1])]
        np.testing.assert_array_equal(got[0], expected)
        assert [f.recipe for f in written.forms if f.recipe.startswith(extended.NAME)]
        assert difference(read_graph(written.data)[0], net.graph) is None


@pytest.mark.parametrize("seed", range(60))
def test_round_trip(seed: int) -> None:
    graph = float_graph(random_network(seed).graph)[0] if seed % 2 else bdnet(seed).graph
    data = tflite.write(graph, profile="extended").data
    assert difference(read_graph(data)[0], graph) is None
    assert data == tflite.write(graph, profile="extended").data


def test_only_the_extended_profile_has_the_operator() -> None:
    graph = bdnet(3).graph
    names = {
        p: {o.name for o in from_bytes(tflite.write(graph, profile=p).data).operators} for p in ("stock", "extended")
    }
    assert extended.NAME not in names["stock"]
    assert extended.NAME in names["extended"] and "DEPTHWISE_CONV_2D" not in names["extended"]


def test_large_filters_stay_stock() -> None:
    net = Net(1, 20, 20, 32)
    net.done(net.depthwise(net.sign(net.x), 12))
    names = [o.name for o in from_bytes(tflite.write(net.graph, profile="extended").data).operators]
    assert extended.NAME not in names


def test_options() -> None:
    options = extended.Options(33, 66, 2, 1, pad_left=3, pad_value=-1)
    assert extended.Options.from_bytes(options.to_bytes()) == options
    for damaged in (b"", b"\0\0\0", options.to_bytes()[1:], b"\x01\x04\x01"):
        with pytest.raises(ValueError, match="no options"):
            extended.Options.from_bytes(damaged)


def test_planes() -> None:
    rng = np.random.default_rng(0)
    for low in (-1, 0):
        values = rng.integers(low, 2, (2, 3, 37)).astype(np.int8)
        packed = extended.planes(values)
        assert packed[0].shape == (2, 3, words(37))
        np.testing.assert_array_equal(extended.unpack(packed, 37), values)


# -- the interpreter of a Python package ------------------------------------------------------------------------------


def test_without_a_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown TensorFlow Lite runtime 'litter'"):
        tensorflow_lite.tflite_interpreter(b"", "litter")
    monkeypatch.setattr(tensorflow_lite.importlib.util, "find_spec", lambda _: None)  # type: ignore[attr-defined]
    for runtime in ("auto", "litert", "tensorflow"):
        with pytest.raises(MissingPackageError, match="pip install"):
            tensorflow_lite.tflite_interpreter(b"", runtime)
    monkeypatch.setattr(tensorflow_lite, "find_runtime", lambda _: "litert")
    with pytest.raises(ModelFileError, match="cannot be read"):
        tensorflow_lite.tflite_interpreter(tmp_path / "none.tflite")
    with pytest.raises(UsageError, match="0 threads"):
        tensorflow_lite.tflite_interpreter(b"", num_threads=0)


def test_an_untested_version_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is not there fails the check, as one does that crashes: an error with a version that works."""
    tensorflow_lite.check_runtime.cache_clear()
    monkeypatch.setattr(tensorflow_lite, "runtime_version", lambda _: "99.0")
    monkeypatch.setitem(tensorflow_lite.RUNTIMES, "nobody", (("nobody",), "nobody", ("1.0",)))
    with pytest.raises(tensorflow_lite.PeerError, match="do not work in nobody 99") as error:
        tensorflow_lite.check_runtime("nobody")
    assert error.value.fix == "pip install nobody==1.0"
    tensorflow_lite.check_runtime.cache_clear()


def zoo() -> dict[str, Graph]:
    """Every architecture in a small size, with random weights and statistics."""
    import torch
    from torch_modules import randomize

    from bdnet_deploy.importers.torch import import_module

    graphs = {}
    for arch, settings in SMALL.items():
        torch.manual_seed(6)
        module = randomize(models.create(arch, **settings)).eval()
        height, width, channels = module.input_shape
        graphs[arch] = float_graph(import_module(module, (1, channels, height, width), name=arch))[0]
    return graphs


PACKAGES = {"litert": "ai-edge-litert==2.3.0", "litert-1": "ai-edge-litert==1.4.0", "tensorflow": "tensorflow==2.19.1"}


def interpreter_with(name: str, root: Path) -> Path:
    """A Python interpreter that has a package and what ``verify`` needs."""
    given = os.environ.get(f"BDNET_{name.replace('-', '_').upper()}_PYTHON")
    if given:
        return Path(given)
    folder = root / "build" / f"tflite-{name}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        packages = ("numpy<2", "flatbuffers", "click", "rich", PACKAGES[name])
        install = [str(python), "-m", "pip", "install", "-q", "--no-input", *packages]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"pip cannot install {PACKAGES[name]}: {done.stderr.strip().splitlines()[-1:]}")
        (folder / "complete").touch()
    return python


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGES)
def test_verify_in_interpreters(name: str, root: Path, tmp_path: Path) -> None:
    """Extended files, float and int8, are verified on the command line where a package is."""
    pytest.importorskip("torch")
    python = interpreter_with(name, root)
    digits = root / "examples" / "digits"
    model = bdnet_deploy.load(digits / "model.pt")
    reference = model.export("tflite", tmp_path / "stock.tflite").paths[0]
    real = model.export("tflite", tmp_path / "float.tflite", profile="extended").paths[0]
    calibrate = digits / "calibration.npz"
    int8 = model.export("tflite", tmp_path / "int8.tflite", profile="extended", int8=True, calibrate=calibrate)
    content = from_bytes(int8.paths[0].read_bytes())
    outputs = {o.outputs[0] for o in content.operators if o.name == extended.NAME}
    assert {content.tensors[i].kind for i in outputs} == {TensorKind.INT8}
    package = tmp_path / "packages" / "bdnet_deploy"  # as it is installed
    package.mkdir(parents=True)
    for entry in (*(root / "bdnet_deploy").iterdir(), root / "export"):
        (package / entry.name).symlink_to(entry)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment = kept | {"PYTHONPATH": str(package.parent), "BDNET_HOST_LIBRARY": str(host_library())}
    for path in (real, int8.paths[0]):
        command = [str(python), "-c", "from bdnet_deploy.cli import main; main()", "verify", str(reference), str(path)]
        done = subprocess.run(
            [*command, "--format", "json"], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert json.loads(done.stdout)["facts"]["verdict"] == "equal"
        assert "TensorFlow Lite" in done.stdout and "LCE" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGES)
def test_interpreters(name: str, root: Path, tmp_path: Path) -> None:
    """Stock and extended files of the zoo give the same bytes in a package's interpreter, and Larq's numbers."""
    pytest.importorskip("torch")
    python = interpreter_with(name, root)
    samples = {}
    for arch, graph in zoo().items():
        rng = np.random.default_rng(1)
        samples[arch] = rng.normal(size=(3, *graph.inputs[0].type.shape[1:])).astype(np.float32)
        np.save(tmp_path / f"{arch}.npy", samples[arch])
        for profile in ("stock", "extended"):
            (tmp_path / f"{arch}.{profile}.tflite").write_bytes(tflite.write(graph, profile=profile).data)
    worker = Path(__file__).with_name("tflite_zoo_worker.py")
    command = [str(python), str(worker), name.partition("-")[0], str(host_library()), str(tmp_path)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for arch, x in samples.items():
        stock, ours = (np.load(tmp_path / f"{arch}.{profile}.out.npy") for profile in ("stock", "extended"))
        assert stock.tobytes() == ours.tobytes(), arch
        (theirs,) = lce.run((tmp_path / f"{arch}.stock.tflite").read_bytes(), x)
        # Built-in float operators of the two builds round differently.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * float(np.abs(theirs).max()), err_msg=arch)
