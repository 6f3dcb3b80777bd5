"""Real Keras models through Larq's converter: the importer against Larq Compute Engine's interpreter, and against Keras.

TensorFlow wants an environment of its own (2.3 GB); it is made once, below ``build/``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from test_bad_input import invoke
from test_import_tflite import kinds, products
from tflite_files import host, samples, theirs

import bdnet_deploy
from bdnet_deploy.errors import ModelFileError, UnsupportedError
from bdnet_deploy.graph import Sign
from bdnet_deploy.importers.keras import PACKAGES, PYTHON
from bdnet_deploy.importers.tflite.reader import read
from bdnet_deploy.passes import merge_affine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def keras(root: Path) -> Path:
    """The Python of an environment with TensorFlow, tf-keras, larq and larq-compute-engine."""
    given = os.environ.get(PYTHON)
    if given:
        return Path(given)
    folder = root / "build" / "keras"
    python, done = folder / "bin" / "python", folder / "complete"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "-q", "--no-input", *PACKAGES.values(), "numpy==1.26.4"]
        result = subprocess.run(install, capture_output=True, text=True, check=False)
        if result.returncode:
            pytest.skip(f"pip cannot install TensorFlow and larq: {result.stderr.strip().splitlines()[-1:]}")
        done.touch()
    return python


@pytest.fixture(scope="session")
def models(keras: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the models of ``keras_models.py``."""
    folder = tmp_path_factory.mktemp("keras")
    script = Path(__file__).with_name("keras_models.py")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run([keras, script, folder], capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


LAYERS = {
    "quicknet": {("bit", "bit"): 4, ("f64", "f64"): 6},
    "chain": {("bit", "bit"): 6, ("f64", "f64"): 1},
    "others": {("bit", "bit"): 2, ("bit", "trit"): 1, ("f64", "f64"): 4},
}


@pytest.mark.parametrize("name", LAYERS)
def test_imported_models_compute_what_larq_computes(models: Path, name: str) -> None:
    data = (models / f"{name}.tflite").read_bytes()
    imported = read(data)
    assert products(imported.graph) == Counter(LAYERS[name])
    assert len(imported.graph.reasons) == LAYERS[name]["f64", "f64"]
    x = samples(imported, 4)
    ours, other = host(imported, x)[0], theirs(data, x)[0]
    assert np.ptp(other) > 0
    if name == "chain":  # sums of bits
        assert np.array_equal(ours, other)
    else:
        assert np.abs(ours - other).max() <= 1e-5 * np.abs(other).max()


@pytest.mark.parametrize("name", LAYERS)
def test_imported_models_compute_what_keras_computes(models: Path, name: str) -> None:
    with np.load(models / f"{name}.npz") as kept:
        x, expected = kept["x"], kept["y"]
    interpreter = bdnet_deploy.Interpreter(model_path=models / f"{name}.tflite")
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    for sample, y in zip(x, expected):
        interpreter.set_tensor(source["index"], sample[None])
        interpreter.invoke()
        assert np.abs(interpreter.get_tensor(result["index"])[0] - y).max() <= 1e-4 * np.abs(expected).max()
    assert list(interpreter.get_signature_list()) == ["serving_default"]


def test_chains_of_bits_keep_their_thresholds(models: Path) -> None:
    graph = merge_affine(read(models.joinpath("chain.tflite").read_bytes()).graph)
    integers = [n for n in graph.nodes if isinstance(n.op, Sign) and not n.inputs[0].type.dtype.is_float]
    assert len(integers) >= 2  # bits straight from the sums
    pool = next(n for n in graph.nodes if n.op.name == "max_pool")
    assert pool.inputs[0].type.dtype.value == "bit"


def test_relu_before_batch_normalization_is_one_step(models: Path) -> None:
    """conv, ReLU, batch normalization, residual: what QuickNet is made of."""
    model = bdnet_deploy.load(models / "quicknet.tflite")
    steps = [s for s in model.lowered("float").plan.steps if (s.kernel or "").startswith("bd_conv_bb")]
    assert len(steps) == 4 and all(s.epilogue_kernel for s in steps)


@pytest.mark.parametrize(("name", "steps"), [("quicknet", 16), ("chain", 1)])
def test_int8_models(models: Path, name: str, steps: int) -> None:
    data = (models / f"{name}_int8.tflite").read_bytes()
    imported = read(data, rounding=True)
    x = samples(imported, 4)
    ours, other = host(imported, x)[0], theirs(data, x)[0]
    assert ours.dtype == other.dtype == np.int8 and np.ptp(other.astype(int)) > 20
    # Convolutions are rounded twice by the engine: one step here and there, which turns a sign near 0.
    assert np.abs(ours.astype(int) - other.astype(int)).max() <= steps
    assert np.array_equal(ours.argmax(-1), other.argmax(-1))
    real = read(data)
    assert "quantize" not in kinds(real.graph) and real.notes and not imported.notes
    assert products(real.graph) == products(read((models / f"{name}.tflite").read_bytes()).graph)


@pytest.mark.parametrize("name", ["quicknet.h5", "chain.keras"])
def test_keras_files_through_load(models: Path, keras: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON, str(keras))
    model = bdnet_deploy.load(models / name)
    assert model.name == Path(name).stem and model.source == models / name
    assert products(model.graph) == Counter(LAYERS[model.name])
    with np.load((models / name).with_suffix(".npz")) as kept:
        assert np.abs(model.run(kept["x"]) - kept["y"]).max() <= 1e-4 * np.abs(kept["y"]).max()  # type: ignore[arg-type]
    result = invoke("export", models / name, "--target", "bdn", "-o", models / f"{name}.bdn")
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_keras_models_that_are_refused(models: Path, keras: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON, str(keras))
    with pytest.raises(UnsupportedError, match="ternary activations in quant_conv2d"):
        bdnet_deploy.load(models / f"ternary.{suffix}")
    with pytest.raises(UnsupportedError, match="Lambda"):
        bdnet_deploy.load(models / f"with_code.{suffix}")
    broken = models / f"broken.{suffix}"
    broken.write_bytes((models / f"chain.{suffix}").read_bytes()[:5000])
    with pytest.raises(ModelFileError, match="Keras cannot read"):
        bdnet_deploy.load(broken)


def test_the_converter_gets_ternary_inputs_wrong(models: Path) -> None:
    """Why they are refused: the day that this fails, they need not be."""
    with np.load(models / "ternary.npz") as kept:
        x, expected = kept["x"], kept["y"]
    assert np.abs(theirs((models / "ternary.tflite").read_bytes(), x)[0] - expected).max() > 1
