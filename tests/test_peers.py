"""Foreign runtimes in processes of their own: a crash, a hang and a refusal are errors, and jobs can feed one another."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bdnet_deploy.errors import MissingPackageError
from bdnet_deploy.graph import Affine, Array, DType, Graph, Sign, evaluate
from bdnet_deploy.peers import PeerError, jobs, onnxruntime, tensorflow_lite
from bdnet_deploy.peers.jobs import Earlier, Runtime

FAKE = Runtime("a fake runtime", "fake")
HEAD = "import json, os, signal, sys, time\nfrom pathlib import Path\nfolder = Path(sys.argv[1])\n"
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a program in the place of the worker."""

    def put(text: str) -> None:
        path = tmp_path / "fake_worker.py"
        path.write_text(HEAD + text, encoding="utf-8")
        monkeypatch.setattr(jobs, "_WORKER", path)

    return put


def graph() -> Graph:
    g = Graph("net", "float")
    x = g.input("x", (1, 3), DType.F32)
    mul = g.constant("mul", np.array([2, -1, 3]), DType.F32)
    add = g.constant("add", np.array([0.5, 0, -4]), DType.F32)
    y = g.add(Affine(1, DType.F32), [x, mul, add], "y", source="scale")
    bits = g.add(Sign(), [y, g.constant("t", np.array([1, 0, 2]), DType.F32)], "bits", source="sign")
    g.outputs = [y, bits]
    return g


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_crash_is_an_error_with_its_signal(worker: Any) -> None:
    worker("(folder / '0.json').write_text('0')\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    with pytest.raises(PeerError, match="a fake runtime crashed") as caught:
        FAKE.run([(b"first", X), (b"second", X)])
    assert caught.value.job == 1
    assert "SIGSEGV" in str(caught.value.why)


def test_a_hang_ends_at_the_time_limit(worker: Any) -> None:
    worker("time.sleep(60)\n")
    with pytest.raises(PeerError, match=r"did not finish within 0\.5 s") as caught:
        FAKE.run([(b"", X)], timeout=0.5)
    assert caught.value.job == 0
    assert "--timeout" in str(caught.value.fix)


def test_a_refusal_says_what_the_runtime_said(worker: Any) -> None:
    worker("sys.exit('RuntimeError: operator 7 is not known')\n")
    with pytest.raises(PeerError, match="refused") as caught:
        FAKE.run([(b"", X)])
    assert "operator 7 is not known" in str(caught.value.why)


def test_jobs_get_what_they_were_given_once(worker: Any) -> None:
    worker(
        "jobs = json.loads((folder / 'jobs.json').read_text())\n"
        "sizes = sorted(p.name for p in folder.iterdir())\n"
        "sys.exit('ValueError: ' + ' '.join(sizes) + ' ' + json.dumps(jobs['options']))\n"
    )
    model = b"model"
    with pytest.raises(PeerError) as caught:
        Runtime("a fake runtime", "fake", (("mode", "x"),)).run([(model, [X, X]), (model, [X])])
    assert 'ValueError: 0.model in0.npy jobs.json {"mode": "x"}' in str(caught.value.why)


def test_onnxruntime_runs_apart_and_jobs_feed_one_another() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from bdnet_deploy.export import onnx as exporter
    from bdnet_deploy.importers.onnx import split_layers

    g = graph()
    data = exporter.write(g).data
    expected = evaluate(g, [X])
    runtime = onnxruntime.runtime()
    (whole,) = runtime.run([(data, [X])])
    layers = {layer.name: layer for layer in split_layers(data)}
    chained = runtime.run([(layers["y"].model, [X]), (layers["bits"].model, [Earlier(0, (3,))])])
    for found in (whole, [chained[0][0], chained[1][0]]):
        assert [np.array_equal(a, expected[name]) for a, name in zip(found, ("y", "bits"))] == [True, True]
    in_process = onnxruntime.run(data, X)
    assert all(np.array_equal(a, b) for a, b in zip(in_process, whole))
    for broken in (b"no model", data[:100]):
        with pytest.raises(PeerError, match="onnxruntime refused"):
            runtime.run([(broken, [X])])
    with pytest.raises(PeerError, match="refused") as caught:
        runtime.run([(data, [X, X])])
    assert "the model has 1 inputs, 2 were given" in str(caught.value.why)


def test_our_operators_need_an_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorflow_lite.importlib.util, "find_spec", lambda _: None)  # type: ignore[attr-defined]
    with pytest.raises(MissingPackageError, match="operators of bdnet-deploy's own") as caught:
        tensorflow_lite.process()
    assert "ai-edge-litert" in str(caught.value.fix)


class _Interpreter:
    """As TensorFlow's: doubles its input."""

    def allocate_tensors(self) -> None:
        self.x: Array | None = None

    def get_input_details(self) -> list[dict[str, int]]:
        return [{"index": 4}]

    get_output_details = get_input_details

    def set_tensor(self, index: int, x: Array) -> None:
        assert index == 4 and x.shape == (1, 3)
        self.x = x

    def invoke(self) -> None:
        assert self.x is not None
        self.x = self.x * 2

    def get_tensor(self, index: int) -> Array | None:
        return self.x


def test_the_worker_of_interpreters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import bdnet_deploy
    from bdnet_deploy.peers import worker as module

    def make(model: bytes, runtime: str, xnnpack: bool) -> _Interpreter:
        assert (model, runtime, xnnpack) == (b"model", "litert", False)
        return _Interpreter()

    monkeypatch.setattr(bdnet_deploy, "tflite_interpreter", make, raising=False)
    (tmp_path / "m").write_bytes(b"model")
    predict, batched = module._tflite(tmp_path / "m", {"runtime": "litert", "xnnpack": False})
    assert not batched
    assert np.array_equal(predict([X[:1]])[0], X[:1] * 2)
