"""``evaluate``: counts against plain numpy, intervals, lists of files, runs that are stopped and go on, failure paths."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("torch")

from bdnet_deploy import backends, load
from bdnet_deploy.analysis.tallies import State, Tally, wilson
from bdnet_deploy.cli import app
from bdnet_deploy.errors import BdnetError, MissingPackageError, ModelFileError, UsageError
from bdnet_deploy.graph import Array, evaluate
from bdnet_deploy.model import Model
from bdnet_deploy.peers import PeerError, jobs, lce
from bdnet_deploy.sample_lists import read_list

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits"
MODEL, TEST, CALIBRATION = DIGITS / "model.pt", DIGITS / "test.npz", DIGITS / "calibration.npz"


@pytest.fixture(scope="module")
def model() -> Model:
    return load(MODEL)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app.cli, ["evaluate", *(str(a) for a in arguments)], prog_name="bdnet-deploy")


def rows(model: Model, data: Any, names: tuple[str, ...], **options: Any) -> list[dict[str, Any]]:
    return list(model.evaluate(data, names, calibrate=CALIBRATION, **options).table("backends").rows)


def digits(count: int) -> tuple[Array, Array]:
    with np.load(TEST) as arrays:
        return arrays["x"][:count], arrays["y"][:count]


# -- numbers ------------------------------------------------------------------------------------------------------------------


def test_wilson_against_its_definition() -> None:
    """The ends are the shares p for which |found - p| is 1.96 standard deviations of p: the score test, inverted."""
    for correct, samples in ((0, 10), (10, 10), (7, 9), (350, 360), (1, 100000)):
        found = correct / samples
        for p in wilson(correct, samples):
            if 0 < p < 1:
                assert abs(found - p) == pytest.approx(1.959963984540054 * np.sqrt(p * (1 - p) / samples), rel=1e-9)
    assert wilson(0, 10)[0] == 0.0 and wilson(10, 10)[1] == pytest.approx(1.0) and wilson(0, 0) == (0.0, 1.0)


def test_counts_are_those_of_numpy(model: Model) -> None:
    x, y = digits(60)
    wrong = y.copy()
    wrong[::7] = (wrong[::7] + 3) % 10
    np.savez("data.npz", x=x, y=wrong)
    report = model.evaluate("data.npz", ["reference", "host:fixed8"], calibrate=CALIBRATION, per_class=True, flips=True)
    first, second = report.table("backends").rows
    lowered = model.lowered("float"), model.lowered("fixed8", CALIBRATION)
    real = model.samples("data.npz").x
    values = [evaluate(low.graph, [low.encode(real)], keep=True) for low in lowered]
    logits = [low.decode(v[low.graph.outputs[0].name]).reshape(60, -1) for low, v in zip(lowered, values)]
    for row, found in zip((first, second), logits):
        assert row["correct"] == (found.argmax(-1) == wrong).sum()
        rank = (found > found[np.arange(60), wrong][:, None]).sum(-1)
        assert row["top5"] == pytest.approx(100 * (rank < 5).mean())
        assert row["differ"] == (found.argmax(-1) != logits[0].argmax(-1)).sum()
        assert row["distance"] == np.abs(found - logits[0]).max()
        assert [row["low"], row["high"]] == [100 * end for end in wilson(int(row["correct"]), 60)]  # type: ignore[arg-type]
    for row in report.table("classes").rows:
        chosen = wrong == row["number"]
        assert row["samples"] == chosen.sum()
        assert row["backend_1"] == pytest.approx(100 * (logits[1].argmax(-1) == wrong)[chosen].mean())
    flips = {(row["backend"], row["layer"]): row["flips"] for row in report.table("flips").rows}
    nodes = [n for n in lowered[1].graph.nodes if n.op.name in ("sign", "ternarize")]
    assert len(nodes) == 8
    for node in nodes:
        assert flips["host fixed8", node.source] == (values[0][node.name] != values[1][node.name]).sum()
        assert flips["reference float", node.source] == 0


def test_every_form_of_back_end(model: Model) -> None:
    pytest.importorskip("onnxruntime")
    try:
        lce.find_interpreter()
    except MissingPackageError as error:
        pytest.skip(str(error))
    model.export("bdn", "digits.bdn", numerics="fixed16", calibrate=CALIBRATION)
    model.export("onnx", "digits.onnx")
    model.export("tflite", "digits.tflite")
    names = ("reference", "lce", "lce:indirect", "tflite:stock", "onnxruntime", "digits.onnx", "digits.tflite",
             "host:fixed16", "digits.bdn")  # fmt: skip
    found = rows(model, TEST, names, limit=12)
    assert len(found) == len(names)
    assert all(row["distance"] < 1e-4 and row["differ"] == 0 for row in found[:7])
    assert {key: found[8][key] for key in ("correct", "differ", "distance")} == {
        key: found[7][key] for key in ("correct", "differ", "distance")
    }
    for name, says in (
        ("lce:indirekt", "nearest: indirect"),
        ("tflite:int4", "int8"),
        ("onnxruntime:float", "own float"),
    ):
        with pytest.raises(UsageError, match=says.replace("nearest: ", "")):
            rows(model, TEST, (name,), limit=1)
    with pytest.raises(UsageError, match="needs calibration samples"):
        model.evaluate(TEST, ["tflite:int8"], limit=1)
    with pytest.raises(ModelFileError, match="no such file"):
        model.evaluate(TEST, ["nowhere.onnx"], limit=1)


def test_formats() -> None:
    arguments = (MODEL, "--data", TEST, "--limit", "5", "--backend", "reference", "--backend", "host")
    markdown = invoke(*arguments, "--format", "markdown").stdout
    assert "| back end | correct |" in markdown and "| host float | 5 | 5 | 100.00 |" in markdown
    text = invoke(*arguments, "--format", "csv").stdout.splitlines()
    assert text[:3] == ["# model: model", "# samples: 5", text[2]] and text[2].startswith(
        "backend,correct,samples,accuracy"
    )
    assert text[4].startswith("host float,5,5,100.0,")
    assert json.loads(invoke(*arguments, "--format", "json").stdout)["facts"]["samples"] == 5
    assert invoke(*arguments, "--report", "r.md", "-q").exit_code == 0
    assert Path("r.md").read_text(encoding="utf-8") == markdown


# -- data ---------------------------------------------------------------------------------------------------------------------


def pictures(count: int) -> Array:
    image = pytest.importorskip("PIL.Image")
    x, y = digits(count)
    Path("images").mkdir()
    for i in range(count):
        image.fromarray((x[i, ..., 0]).astype(np.uint8)).save(f"images/{i}.png")
    return y


def test_a_list_gives_what_the_array_gives(model: Model) -> None:
    y = pictures(20)
    lines = [f"{label},images/{i}.png,-" for i, label in enumerate(y)]
    Path("list.csv").write_text("label,file,remark\n" + "\n".join(lines) + "\n", encoding="utf-8")
    names = ("host", "host:fixed8")
    assert rows(model, "list.csv", names) == rows(model, TEST, names, limit=20)
    assert len(model.samples("list.csv", limit=7)) == 7
    Path("bare.csv").write_text("file\nimages/1.png\n", encoding="utf-8")
    assert rows(model, "bare.csv", ("host",))[0]["accuracy"] is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column 'file'"),
        ("path,label\nx.png,1\n", "no column 'file'"),
        ("file,label\n", "names no files"),
        ("file,label\nx.png,kitten\n", "line 2: .*kitten"),
        ("file,label\nx.png,-1\n", "line 2"),
        ("file,label\nx.png\n", "line 2"),
        ("file,label\n\nx.txt,1\n", "is no image file"),
        ("file,label\n,1\n", "names no file"),
        ('file,label\n"x.png,1\n', "no CSV file"),
    ],
)
def test_lists_that_are_none(text: str, says: str) -> None:
    Path("list.csv").write_text(text, encoding="utf-8")
    with pytest.raises(BdnetError, match=says):
        read_list(Path("list.csv"))


def test_labels_by_name_and_bytes_that_are_no_text() -> None:
    Path("list.csv").write_text("file,label\na.png,dog\nb.png,cat\nc.png,1\n", encoding="utf-8")
    paths, numbers = read_list(Path("list.csv"), ["cat", "dog"])
    assert [path.name for path in paths] == ["a.png", "b.png", "c.png"]
    assert numbers is not None and numbers.tolist() == [1, 0, 1]
    with pytest.raises(UsageError, match="unknown class 'dogg'"):
        Path("list.csv").write_text("file,label\na.png,dogg\n", encoding="utf-8")
        read_list(Path("list.csv"), ["cat", "dog"])
    Path("list.csv").write_bytes(b"file\n\xff\xfe.png\n")
    with pytest.raises(BdnetError, match="no CSV file"):
        read_list(Path("list.csv"))


def test_labels_out_of_range(model: Model) -> None:
    x, y = digits(4)
    for bad in (10, -1):
        np.savez("data.npz", x=x, y=np.where(np.arange(4) == 2, bad, y))
        with pytest.raises(UsageError, match=f"sample 2 is of class {bad}, the model has the classes 0 to 9"):
            model.evaluate("data.npz", ["host"])


def test_broken_images_are_an_error_unless_they_are_left_out(model: Model) -> None:
    y = pictures(6)
    Path("images/3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Path("list.csv").write_text(
        "file,label\n" + "".join(f"images/{i}.png,{y[i]}\n" for i in range(6)), encoding="utf-8"
    )
    result = invoke(MODEL, "--data", "list.csv", "--backend", "host")
    assert result.exit_code == 1 and "3.png" in result.stderr and "--skip-broken" in result.stderr
    report = model.evaluate("list.csv", ["host"], skip_broken=True)
    assert report.facts["samples"] == 5 and report.facts["left out"] == 1
    assert "3.png" in str(report.table("skipped").rows[0]["file"])
    with np.load(TEST) as arrays:
        np.savez("five.npz", x=arrays["x"][[0, 1, 2, 4, 5]], y=arrays["y"][[0, 1, 2, 4, 5]])
    assert report.table("backends").rows == model.evaluate("five.npz", ["host"]).table("backends").rows
    Path("none.csv").write_text("file,label\nimages/3.png,1\nimages/9.png,1\n", encoding="utf-8")
    with pytest.raises(UsageError, match="not one of the samples"):
        model.evaluate("none.csv", ["host"], skip_broken=True)
    with pytest.raises(UsageError, match="only image files"):
        model.evaluate(TEST, ["host"], skip_broken=True)


# -- runs that go on ------------------------------------------------------------------------------------------------------------


def test_a_stopped_run_goes_on(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the third batch; what was done is not done again, and the result is that of one run."""
    names, options = ("host:fixed8", "reference:fixed8"), {"limit": 200, "per_class": True, "flips": True}
    whole = model.evaluate(TEST, names, calibrate=CALIBRATION, **options)  # type: ignore[arg-type]
    original, calls = backends.ReferenceBackend.raw, []

    def stops(self: backends.ReferenceBackend, x: Array, progress: Any = None) -> Array:
        calls.append(len(x))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, x, progress)

    monkeypatch.setattr(backends.ReferenceBackend, "raw", stops)
    with pytest.raises(KeyboardInterrupt):
        model.evaluate(TEST, names, calibrate=CALIBRATION, resume="state.json", **options)  # type: ignore[arg-type]
    assert json.loads(Path("state.json").read_text(encoding="utf-8"))["done"] == 128
    calls[:] = [0] * 3
    again = model.evaluate(TEST, names, calibrate=CALIBRATION, resume="state.json", **options)  # type: ignore[arg-type]
    assert sum(calls) == 72
    assert again.to_dict() == whole.to_dict()
    finished = model.evaluate(TEST, names, calibrate=CALIBRATION, resume="state.json", **options)  # type: ignore[arg-type]
    assert sum(calls) == 72 and finished.to_dict() == whole.to_dict()


def test_a_state_of_another_run_is_refused(model: Model) -> None:
    model.evaluate(TEST, ["host"], limit=5, resume="state.json")
    for other, options, part in (
        (load(arch="bdnet_digits", preprocess=model.io), {"limit": 5}, "another model"),
        (model, {"limit": 6}, "another set of samples"),
        (model, {"limit": 5, "flips": True}, "another choice of options"),
    ):
        with pytest.raises(UsageError, match=part):
            other.evaluate(TEST, ["host"], resume="state.json", **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="another list of back ends"):
        model.evaluate(TEST, ["host", "reference"], limit=5, resume="state.json")


@pytest.mark.parametrize("seed", range(30))
def test_damaged_states_are_refused_or_read(seed: int) -> None:
    rng = np.random.default_rng(seed)
    key = {"model": "a"}
    State(
        key, [Tally("host", 3, 3, 2, class_correct={"1": 2}, flips={"layer": [5, 1]})], 3, {"1": 3}, [["a", "b"]]
    ).save(Path("s.json"))
    data = bytearray(Path("s.json").read_bytes())
    for _ in range(3):
        at = int(rng.integers(len(data)))
        data[at : at + int(rng.integers(3))] = (
            rng.choice(list(b'0-"{}[],:aef9\xff'), int(rng.integers(3))).astype(np.uint8).tobytes()
        )
    Path("s.json").write_bytes(data)
    with contextlib.suppress(BdnetError):
        assert isinstance(State.load(Path("s.json"), key, ["host"]), State)


# -- runtimes that fail -----------------------------------------------------------------------------------------------------------


def test_a_runtime_that_hangs(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    Path("sleeps.py").write_text("import time\ntime.sleep(60)\n", encoding="utf-8")
    monkeypatch.setattr(jobs, "_WORKER", Path("sleeps.py").resolve())
    with pytest.raises(PeerError, match=r"did not finish within 0\.5 s"):
        model.evaluate(TEST, ["host", "onnxruntime"], limit=2, timeout=0.5)


def test_a_file_of_another_model(model: Model) -> None:
    pytest.importorskip("onnx")
    load(arch="bdnet_digits", settings={"classes": 4}, preprocess=model.io).export("bdn", "four.bdn")
    with pytest.raises(UsageError, match="4 outputs"):
        model.evaluate(TEST, ["host", "four.bdn"], limit=2)
