"""``bdnet_deploy.Interpreter`` has the calls of ``tf.lite.Interpreter``; ``.tflite`` models in load and the command line."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from test_bad_input import invoke
from tflite_files import File, samples, theirs

import bdnet_deploy
from bdnet_deploy.errors import ModelFileError, UnsupportedError, UsageError
from bdnet_deploy.export.tflite.builder import F32, I8, SAME
from bdnet_deploy.export.tflite.schema import Signature
from bdnet_deploy.importers.tflite.reader import read


def network(signature: bool = True) -> bytes:
    file = File(1, 8, 8, 3)
    window = {"padding": SAME, "stride_h": 1, "stride_w": 1, "activation": 1}
    y = file.op("CONV_2D", [file.x, file.floats(32, 3, 3, 3), file.floats(32)], (1, 8, 8, 32), **window)
    z = file.bconv(file.bits(y), 32, 32, padding=SAME, pad_values=1)
    y = file.op("ADD", [y, z], (1, 8, 8, 32))
    y = file.op("MEAN", [y, file.ints(1, 2)], (1, 32))
    logits = file.op("FULLY_CONNECTED", [y, file.floats(5, 32), file.floats(5)], (1, 5))
    if signature:
        file.model.signatures = [Signature("serving_default", {"image": file.x}, {"logits": logits})]
    return file.done(logits)


def test_calls_of_tensorflow_lite(tmp_path: Path) -> None:
    data = network()
    path = tmp_path / "net.tflite"
    path.write_bytes(data)
    x = samples(read(data))
    expected = theirs(data, x)[0]
    for interpreter in (
        bdnet_deploy.Interpreter(model_path=path),
        bdnet_deploy.Interpreter(model_path=str(path), num_threads=2),
        bdnet_deploy.Interpreter(model_content=data),
    ):
        interpreter.allocate_tensors()
        (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
        assert source["shape"].tolist() == [1, 8, 8, 3] and source["dtype"] is np.float32
        assert source["quantization"] == (0.0, 0) and source["name"] == "x"
        for sample, logits in zip(x, expected):
            interpreter.set_tensor(source["index"], sample[None])
            interpreter.invoke()
            got = interpreter.get_tensor(result["index"])
            assert got.shape == (1, 5) and got.dtype == np.float32
            assert np.abs(got[0] - logits).max() <= 1e-5 * np.abs(logits).max()
        interpreter.tensor(source["index"])()[...] = x[:1]  # the memory itself
        interpreter.invoke()
        assert np.abs(interpreter.tensor(result["index"])()[0] - expected[0]).max() <= 1e-5 * np.abs(expected[0]).max()
        assert not np.array_equal(got[0], expected[0])  # get_tensor gave a copy


def test_signatures() -> None:
    interpreter = bdnet_deploy.Interpreter(model_content=network())
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["image"], "outputs": ["logits"]}}
    x = np.ones((1, 8, 8, 3), np.float32)
    run = interpreter.get_signature_runner()
    logits = run(image=x)["logits"]
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    assert np.array_equal(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), logits)
    with pytest.raises(UsageError, match="takes image"):
        run(picture=x)
    with pytest.raises(UsageError, match="serving_default"):
        interpreter.get_signature_runner("serving_defaults")
    with pytest.raises(UsageError, match="0 signatures"):
        bdnet_deploy.Interpreter(model_content=network(signature=False)).get_signature_runner()


def test_integers_in_and_out() -> None:
    file = File(1, 6, 6, 8, kind=I8, scale=0.0507)
    file.model.tensors[file.x].zero_point = np.array([3])
    pooled = file.b.tensor("pool", (1, 5, 5, 8), I8, 0.0507)
    file.model.tensors[pooled].zero_point = np.array([3])
    window = {"padding": 1, "stride_h": 1, "stride_w": 1, "filter_h": 2, "filter_w": 2}
    data = file.done(file.b.op("MAX_POOL_2D", [file.x], pooled, **window))
    interpreter = bdnet_deploy.Interpreter(model_content=data)
    (source,) = interpreter.get_input_details()
    assert source["dtype"] is np.int8 and source["quantization"] == (pytest.approx(0.0507), 3)
    assert source["quantization_parameters"]["zero_points"].tolist() == [3]
    for x, expected in zip(samples(read(data)), theirs(data, samples(read(data)))[0]):
        interpreter.set_tensor(source["index"], x[None])
        interpreter.invoke()
        assert np.array_equal(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0], expected)


def test_what_the_interpreter_refuses(tmp_path: Path) -> None:
    interpreter = bdnet_deploy.Interpreter(model_content=network())
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, [1, 8, 8, 3])
    with pytest.raises(UnsupportedError, match="fixed when a model is planned"):
        interpreter.resize_tensor_input(index, [1, 16, 16, 3])
    with pytest.raises(UsageError, match="float32, not float64"):
        interpreter.set_tensor(index, np.zeros((1, 8, 8, 3)))
    with pytest.raises(UsageError, match="shape"):
        interpreter.set_tensor(index, np.zeros((8, 8, 3), np.float32))
    with pytest.raises(UsageError, match="fused"):
        interpreter.get_tensor(index + 1)
    with pytest.raises(UsageError, match="not among"):
        interpreter.set_tensor(interpreter.get_output_details()[0]["index"], np.zeros((1, 5), np.float32))
    with pytest.raises(UsageError, match="name one model"):
        bdnet_deploy.Interpreter()
    with pytest.raises(ModelFileError, match="cannot be read"):
        bdnet_deploy.Interpreter(model_path=tmp_path / "none.tflite")


def test_commands_take_tflite_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = network()
    Path("net.tflite").write_bytes(data)
    x = samples(read(data), 6)
    expected = theirs(data, x)[0]
    np.savez("data.npz", x=x, y=expected.argmax(-1))
    result = invoke("inspect", "net.tflite", "--numerics", "fixed16")
    assert result.exit_code == 0 and "full precision in the file" in result.stdout, result.stderr
    for target in ("bdn", "onnx", "tflite"):
        result = invoke("export", "net.tflite", "--target", target, "-o", f"out.{target}")
        assert result.exit_code == 0, result.stderr
        result = invoke("verify", "net.tflite", f"out.{target}")
        assert result.exit_code == 0, result.stderr
    result = invoke("export", "net.tflite", "--target", "c", "--calibrate", "data.npz")
    assert result.exit_code == 0 and Path("net.c").exists(), result.stderr
    result = invoke("evaluate", "net.tflite", "--data", "data.npz", "--backend", "lce", "--backend", "host:float")
    assert result.exit_code == 0 and result.stdout.count("6         6") == 2, result.output
    result = invoke("evaluate", "net.tflite", "--data", "data.npz")  # no PyTorch here: the reference is the first
    assert result.exit_code == 0 and "reference float" in result.stdout, result.stderr
    model = bdnet_deploy.load("net.tflite", labels=["a", "b", "c", "d", "e"])
    assert model.io is not None and model.name == "net"
    assert np.abs(model.run("data.npz") - expected).max() <= 1e-5 * np.abs(expected).max()
    with pytest.raises(UsageError, match="no torch module"):
        model.module()


def test_neither_torch_nor_tensorflow_is_imported(tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(network())
    script = """
        import sys, numpy as np, bdnet_deploy
        interpreter = bdnet_deploy.Interpreter(sys.argv[1])
        interpreter.invoke()
        bdnet_deploy.load(sys.argv[1]).inspect()
        assert not {"torch", "tensorflow", "onnx", "larq_compute_engine"} & set(sys.modules)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "net.tflite")]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr


def test_maps_of_two_results_and_of_the_input() -> None:
    """One value for two outputs, and an input that is an output, get places of their own."""
    file = File(1, 4, 4, 8)
    y = file.op("RELU", [file.x], (1, 4, 4, 8))
    z = file.b.op("RESHAPE", [y, file.ints(1, 128)], file.b.tensor("flat", (1, 128), F32))
    data = file.done(y, z, y)
    interpreter = bdnet_deploy.Interpreter(model_content=data)
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 8)).astype(np.float32)
    interpreter.set_tensor(file.x, x)
    interpreter.invoke()
    assert np.array_equal(interpreter.get_tensor(y), np.maximum(x, 0))
    assert np.array_equal(interpreter.get_tensor(z), np.maximum(x, 0).reshape(1, 128))
