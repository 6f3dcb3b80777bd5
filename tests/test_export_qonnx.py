"""Profile qonnx: read by our own importer, and run by the executor of the package qonnx."""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest
from random_networks import random_network

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from export_graphs import bdnet  # noqa: E402

import bdnet_deploy  # noqa: E402
from bdnet_deploy.errors import ModelFileError, UsageError  # noqa: E402
from bdnet_deploy.export.onnx import write  # noqa: E402
from bdnet_deploy.graph import Conv2d, DType, Graph, Linear, evaluate  # noqa: E402
from bdnet_deploy.importers.artifact import EditedFileError  # noqa: E402
from bdnet_deploy.importers.onnx import read_graph  # noqa: E402
from bdnet_deploy.lowering import float_graph  # noqa: E402

# The executor of qonnx makes files of onnx's newest version, which onnxruntime takes later.
PACKAGES = ["qonnx==1.0.0", "onnx==1.19.1", "onnxruntime", "onnxoptimizer"]
#: Random networks whose files the importer does not take back: integers padded among themselves; a pool of a map in which
#: the importer pads with -inf.
NOT_READ = {24, 43}


def network(seed: int) -> Graph:
    return float_graph(random_network(seed).graph)[0]


def samples(graph: Graph, seed: int) -> np.ndarray:
    shape = (1, *graph.inputs[0].type.shape[1:])
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def packed(graph: Graph) -> list[tuple[DType, DType]]:
    """Operand types of the layers whose weights are of few levels."""
    layers = [n for n in graph.nodes if isinstance(n.op, Conv2d | Linear)]
    types = [(n.inputs[0].type.dtype, n.inputs[1].type.dtype) for n in layers]
    return sorted((t for t in types if t[1].is_packed), key=str)


@pytest.mark.parametrize("seed", [s for s in range(0, 48, 3) if s not in NOT_READ])
def test_our_importer_reads_it(seed: int, tmp_path: Path) -> None:
    graph = network(seed)
    path = tmp_path / "q.onnx"
    path.write_bytes(write(graph, profile="qonnx").data)
    onnx.checker.check_model(str(path))
    again = bdnet_deploy.load(path).float_graph()
    x = samples(graph, seed)
    expected, got = evaluate(graph, [x]), evaluate(again, [x])
    for a, b in zip(graph.outputs, again.outputs, strict=True):
        y = expected[a.name]
        assert np.abs(got[b.name].reshape(y.shape) - y).max() <= 1e-5 * np.abs(y).max()


def test_layers_stay_binary(tmp_path: Path) -> None:
    graph = bdnet(1).graph
    path = tmp_path / "q.onnx"
    path.write_bytes(write(graph, profile="qonnx").data)
    assert packed(bdnet_deploy.load(path).float_graph()) == packed(graph)


def test_what_stands_in_the_file() -> None:
    graph = bdnet(1).graph
    written = write(graph, profile="qonnx")
    model = onnx.load_model_from_string(written.data)
    assert not model.functions
    assert {n.domain for n in model.graph.node} == {"", "qonnx.custom_op.general"}
    quantizers = [n.op_type for n in model.graph.node if n.domain]
    signs = sum(n.op.name == "sign" for n in graph.nodes)
    trits = sum(n.op.name == "ternarize" for n in graph.nodes)
    bits = len({v for n in graph.nodes for v in n.inputs[1:] if v.type.dtype is DType.BIT})
    weights = sum(n.inputs[1].type.dtype is DType.TRIT for n in graph.nodes if n.op.name in ("conv2d", "linear"))
    assert quantizers.count("BipolarQuant") == signs + 2 * trits + bits
    assert quantizers.count("Quant") == trits + weights
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == list(graph.inputs[0].type.shape)
    assert sum(written.sizes.values()) == len(written.data)


def test_it_is_no_file_of_calls(tmp_path: Path) -> None:
    data = write(bdnet(0).graph, profile="qonnx").data
    with pytest.raises(EditedFileError, match="qonnx"):
        read_graph(data)
    assert issubclass(EditedFileError, ModelFileError)
    with pytest.raises(UsageError, match="profile"):
        write(bdnet(0).graph, profile="qonx")


def test_equal_graphs_give_equal_bytes() -> None:
    assert write(network(7), profile="qonnx").data == write(network(7), profile="qonnx").data


@pytest.mark.slow
def test_the_executor_of_qonnx(tmp_path: Path) -> None:
    """Its environment is made here; ``BDNET_QONNX_PYTHON`` names a Python that has the packages already."""
    python = os.environ.get("BDNET_QONNX_PYTHON")
    if not python:
        venv.create(tmp_path / "venv", with_pip=True)
        python = str(tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python")
        done = subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"qonnx cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
    folder = tmp_path / "files"
    folder.mkdir()
    expected = {}
    for seed in range(24):
        graph = network(seed)
        x = samples(graph, seed)
        (folder / f"n{seed}.onnx").write_bytes(write(graph, profile="qonnx").data)
        np.savez(folder / f"n{seed}.npz", x=x)
        values = evaluate(graph, [x])
        expected[seed] = [values[v.name] for v in graph.outputs]
    script = Path(__file__).with_name("qonnx_executor.py")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run([python, str(script), str(folder)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    for seed, outputs in expected.items():
        with np.load(folder / f"n{seed}.out.npz") as found:
            for i, y in enumerate(outputs):
                assert np.abs(found[f"y{i}"] - y).max() <= 1e-5 * np.abs(y).max(), seed
