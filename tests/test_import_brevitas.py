"""A network of Brevitas, exported to QONNX by Brevitas itself, against Brevitas' outputs and the executor of qonnx.

Brevitas, qonnx and what they need go into an environment of their own, made here: about 2 GB. ``BDNET_BREVITAS_PYTHON`` names
a Python that has them already.
"""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest
from test_ops_elementwise import check_host
from torch_modules import BIT, TRIT, layers

import bdnet_deploy
from bdnet_deploy.graph import DType, evaluate
from bdnet_deploy.lowering import lower

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytestmark = pytest.mark.slow

# The executor of qonnx makes files of onnx's newest version, which onnxruntime takes later.
PACKAGES = ["brevitas==0.13.4", "qonnx==1.0.0", "onnx==1.19.1", "onnxruntime", "onnxoptimizer", "onnxscript"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brevitas")
    python = os.environ.get("BDNET_BREVITAS_PYTHON")
    if not python:
        venv.create(folder / "venv", with_pip=True)
        python = str(folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python")
        version = torch.__version__.partition("+")[0]
        command = [python, "-m", "pip", "install", "--quiet", f"torch=={version}", *PACKAGES]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"Brevitas cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
    script = Path(__file__).with_name("brevitas_network.py")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run([python, str(script), str(folder)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("exporter", ["today", "before"])
def test_a_brevitas_network(exporter: str, files: Path) -> None:
    graph = bdnet_deploy.load(files / f"{exporter}.onnx").graph
    assert layers(graph) == [(DType.F64, DType.F64), (BIT, BIT), (TRIT, TRIT), (BIT, BIT)]
    assert list(graph.reasons) == ["stem"]
    with np.load(files / "outputs.npz") as arrays:
        x, brevitas, executor = arrays["x"], arrays["brevitas"], arrays[exporter]
    np.testing.assert_allclose(executor, brevitas, rtol=1e-4, atol=1e-4)
    got = evaluate(graph, [np.moveaxis(x, 1, -1).astype(np.float64)])[graph.outputs[0].name]
    np.testing.assert_allclose(got, brevitas, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("exporter", ["today", "before"])
def test_activations_of_more_bits(exporter: str, files: Path) -> None:
    """Their levels are Brevitas' own; in float an output differs where one of them lies near a tie."""
    graph = bdnet_deploy.load(files / f"wide-{exporter}.onnx").graph
    reasons = [r.partition(";")[0].partition(" (/")[0].partition(" (node")[0] for r in graph.reasons.values()]
    assert reasons == [
        "activation has 256 levels (8 bits)",
        "activation has 16 levels (4 bits)",
        "activation has 256 levels (8 bits)",
        "activation: 'mean'",
    ]
    with np.load(files / "wide-outputs.npz") as arrays:
        x, brevitas, executor = arrays["x"], arrays["brevitas"], arrays[exporter]
    np.testing.assert_allclose(executor, brevitas, rtol=1e-4, atol=1e-4)
    samples = np.moveaxis(x, 1, -1)
    for numerics, rounded, most in (("float", 1e-4, 0.9), ("fixed16", 0.1, 0.9), ("fixed8", 0.1, 0.9)):
        got = check_host(lower(graph, numerics, samples=samples), samples.astype(np.float64))
        near = np.abs(got - brevitas).max(1) <= rounded * np.abs(brevitas).max()
        assert near.mean() >= most, (numerics, np.abs(got - brevitas).max(1) / np.abs(brevitas).max())


def test_it_runs_in_our_runtime(files: Path, tmp_path: Path) -> None:
    model = bdnet_deploy.load(files / "today.onnx")
    artifact = model.export("bdn", tmp_path / "m.bdn")
    assert artifact is not None and model.verify(tmp_path / "m.bdn", limit=5).facts
