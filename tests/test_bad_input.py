"""Bad input through the command line: one clear message, the documented exit code, no traceback, no partial file."""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from subprocess import run

import numpy as np
import pytest
from click.testing import CliRunner, Result

from bdnet_deploy.cli import app, console

torch = pytest.importorskip("torch")

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits"
MODEL = DIGITS / "model.pt"
SHAPE = (8, 8, 1)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every test works in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    console.set_verbosity(0)
    for name in [name for name, module in sys.modules.items() if str(tmp_path) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app.cli, [str(a) for a in arguments], prog_name="bdnet-deploy")


def refused(*arguments: object, code: int, says: tuple[str, ...] = ()) -> str:
    """Run a command that must fail cleanly; the error without remarks."""
    before = contents(Path.cwd())
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert "internal error" not in result.output
    assert result.stdout == ""
    message = result.stderr[result.stderr.index("error: ") :]
    for text in says:
        assert text in message
    assert contents(Path.cwd()) == before, "something was written"
    return message


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class Hostile:
    """A pickle of this runs a command when it is loaded by Python's own unpickler."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("executed",)


def export(path: str, *more: str, code: int = 1, says: tuple[str, ...] = ()) -> str:
    return refused("export", path, "--target", "tflite", "-o", "out.tflite", *more, code=code, says=(path, *says))


def write_module(name: str, text: str) -> None:
    Path(f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")


# -- model.pt -------------------------------------------------------------------------------------------------------------


def test_missing_file_and_folder() -> None:
    export("model.pt", says=("there is no such file",))
    Path("modle.pt").write_bytes(MODEL.read_bytes())
    export("model.pt", says=("nearest: modle.pt",))
    export("none/model.pt", says=("there is no folder none",))
    Path("folder.pt").mkdir()
    export("folder.pt", says=("folder",))


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes(seed: int) -> None:
    data = np.random.default_rng(seed).bytes(5000)
    Path("random.pt").write_bytes((b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04\x95")[seed] + data)
    export("random.pt", says=("not a PyTorch checkpoint",))


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.6, 0.95, 0.999])
def test_truncated_file(part: float) -> None:
    data = MODEL.read_bytes()
    Path("short.pt").write_bytes(data[: int(part * len(data))])
    export("short.pt", says=("damaged",))


def test_code_in_a_pickle_is_not_executed() -> None:
    Path("raw.pt").write_bytes(pickle.dumps(Hostile()))
    torch.save(Hostile(), "zip.pt")
    torch.save({"state_dict": {"w": torch.zeros(2)}, "hook": Hostile()}, "beside.pt")
    torch.save(Hostile(), "legacy.pt", _use_new_zipfile_serialization=False)
    for name, code in (("raw.pt", 1), ("zip.pt", 1), ("beside.pt", 2), ("legacy.pt", 1)):
        export(name, code=code)
        assert not Path("executed").exists()
    pickle.loads(Path("raw.pt").read_bytes())  # the file is as dangerous as it looks
    assert Path("executed").exists()


def test_code_beside_good_weights_is_not_executed() -> None:
    state = torch.load(MODEL, weights_only=True)["state_dict"]
    torch.save({"state_dict": state, "hook": Hostile()}, "model.pt")
    result = invoke("export", "model.pt", "--arch", "bdnet_digits", "--target", "bdn")
    assert result.exit_code == 0, result.stderr
    assert Path("model.bdn").exists()
    assert not Path("executed").exists()


def test_whole_module() -> None:
    torch.save(torch.nn.Sequential(torch.nn.Linear(3, 4)), "whole.pt")
    export("whole.pt", says=("whole pickled module", "state_dict()", "--model", "--weights"))


def test_torchscript() -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(3, 4)), "script.pt")
    export("script.pt", says=("TorchScript", "torch.jit.load('script.pt').state_dict()"))


def test_exported_files_are_no_models() -> None:
    for kind in ("bdn", "c"):
        Path(f"model.{kind}").write_bytes(b"x")
        refused("inspect", f"model.{kind}", code=1, says=("not a PyTorch model", "verify"))


def test_state_dict_without_architecture() -> None:
    state = torch.load(MODEL, weights_only=True)["state_dict"]
    torch.save(state, "bare.pt")
    export("bare.pt", code=2, says=("--arch bdnet_digits",))
    torch.save({"x.weight": torch.zeros(3)}, "foreign.pt")
    export("foreign.pt", code=2, says=("--model package.module:factory",))


def test_everyday_checkpoint_is_accepted() -> None:
    """argparse.Namespace, numpy scalars, an optimizer's state and DataParallel's prefix."""
    state = {f"module.{k}": v for k, v in torch.load(MODEL, weights_only=True)["state_dict"].items()}
    checkpoint = {
        "args": argparse.Namespace(lr=0.1, arch="bdnet"),
        "best": np.float64(0.98),
        "epoch": np.int64(3),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]},
        "state_dict": state,
    }
    torch.save(checkpoint, "everyday.pt")
    result = invoke("export", "everyday.pt", "--arch", "bdnet_digits", "--target", "bdn", "-o", "out.bdn")
    assert result.exit_code == 0, result.stderr
    assert Path("out.bdn").exists()


def test_weights_of_another_network() -> None:
    refused("inspect", MODEL, "--arch", "bdnet_mobilenet_v1", code=1, says=("do not fit", "missing"))
    refused("inspect", MODEL, "--set", "classes=11", code=1, says=("classifier", "--set"))


# -- models by code ---------------------------------------------------------------------------------------------------------


def test_unsupported_layer_is_named_with_its_place() -> None:
    write_module(
        "oddnet",
        """
        import torch
        from torch import nn

        class Spectrum(nn.Module):
            def forward(self, x):
                return torch.fft.fft(x).real

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem = nn.Conv2d(1, 4, 3)
                self.body = nn.Sequential(nn.ReLU(), Spectrum())

            def forward(self, x):
                return self.body(self.stem(x))

        class Broken(nn.Module):
            def forward(self, x):
                raise ZeroDivisionError("deep inside")
        """,
    )
    shape = ("--input", "1x1x8x8")
    for command in (["inspect"], ["export", "--target", "bdn"]):
        refused(*command, "--model", "oddnet:Net", *shape, code=1, says=("body.1", "oddnet.py", "why:", "fix:"))
    refused("inspect", "--model", "oddnet:Broken", *shape, code=2, says=("deep inside",))
    refused("inspect", "--model", "oddnet:Nat", *shape, code=2, says=("no Nat",))
    refused("inspect", "--model", "oddnett:Net", *shape, code=2, says=("no module oddnett",))
    refused("inspect", "--model", "oddnet", *shape, code=2, says=("package.module:factory",))
    refused("inspect", "--model", "oddnet:Net", "--set", "width=3", *shape, code=2, says=("width",))


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ("1x3x8x8", "stem: the model does not run"),
        ("2x1x8x8", "the batch of 2x1x8x8 is not 1"),
        ("8x8", "--input 1x1x8x8"),
        ("1x8x8", "1x8x8"),
        ("8", "--input 1x3x224x224"),
        ("1x1x8", "1x1x8"),
        ("axb", "is not a shape"),
        ("1x0x8x8", "is not a shape"),
    ],
)
def test_wrong_input_shape(shape: str, says: str) -> None:
    refused("inspect", MODEL, "--input", shape, code=2, says=(says,))


def test_no_model_or_two() -> None:
    refused("inspect", code=2, says=("name one model",))
    refused("inspect", MODEL, "--model", "a:b", code=2)
    refused("inspect", MODEL, "--weights", MODEL, code=2, says=("--weights",))


# -- artifacts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bdn", "tflite", "onnx", "c"])
def test_random_and_missing_artifacts(kind: str) -> None:
    name = f"file.{kind}"
    refused("verify", MODEL, name, code=1, says=(name, "there is no such file"))
    for seed, size in enumerate((0, 3, 64, 3000)):
        head = {"bdn": b"BDN1", "tflite": b"\x1c\0\0\0TFL3"}.get(kind, b"")
        Path(name).write_bytes((head if seed % 2 else b"") + np.random.default_rng(seed).bytes(size))
        refused("verify", MODEL, name, code=1, says=(name,))
        if kind == "bdn":
            refused("run", name, "--data", DIGITS / "test.npz", code=1, says=(name,))
    Path(name).unlink()
    Path(name).mkdir()
    refused("verify", MODEL, name, code=1, says=(name,))


def test_truncated_bdn_does_not_run() -> None:
    assert invoke("export", MODEL, "--target", "bdn").exit_code == 0
    data = Path("model.bdn").read_bytes()
    for size in range(0, len(data), len(data) // 7):
        Path("short.bdn").write_bytes(data[:size])
        refused("run", "short.bdn", "--data", DIGITS / "test.npz", code=1, says=("short.bdn",))
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 4
    Path("short.bdn").write_bytes(flipped)
    refused("run", "short.bdn", "--data", DIGITS / "test.npz", code=1, says=("checksum",))


# -- samples --------------------------------------------------------------------------------------------------------------


def _pixels(n: int = 3) -> np.ndarray:
    return np.zeros((n, *SHAPE), np.uint8)


SAMPLES = {
    "keys": ({"images": _pixels()}, 2, "no array 'x'"),
    "shape": ({"x": np.zeros((3, 9, 9, 1), np.uint8)}, 2, "9"),
    "channels": ({"x": np.zeros((3, 8, 8, 3), np.uint8)}, 2, "3"),
    "flat": ({"x": np.zeros((3, 64), np.uint8)}, 2, "64"),
    "scalar": ({"x": np.float32(3)}, 2, "no samples"),
    "empty": ({"x": _pixels(0)}, 2, "no samples"),
    "float": ({"x": np.zeros((3, *SHAPE), np.float32)}, 2, "u8"),
    "text": ({"x": np.full((3, *SHAPE), "a")}, 2, "not numbers"),
    "complex": ({"x": np.zeros((3, *SHAPE), complex)}, 2, "not numbers"),
    "objects": ({"x": np.array([{}, {}], object)}, 1, "Python objects"),
    "objects_y": ({"x": _pixels(), "y": np.array([Hostile()] * 3, object)}, 1, "Python objects"),
    "length_y": ({"x": _pixels(), "y": np.zeros(2, int)}, 2, "'y'"),
    "shape_y": ({"x": _pixels(), "y": np.zeros((3, 10), int)}, 2, "'y'"),
    "text_y": ({"x": _pixels(), "y": np.array(["a", "b", "c"])}, 2, "'y'"),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_bad_samples(name: str) -> None:
    arrays, code, says = SAMPLES[name]
    np.savez("bad.npz", **arrays)
    refused("evaluate", MODEL, "--data", "bad.npz", "--backend", "host", code=code, says=("bad.npz", says, "fix:"))
    fixed = ("--numerics", "fixed16", "--calibrate", "bad.npz", "-o", "out.bdn")
    refused("export", MODEL, "--target", "bdn", *fixed, code=code, says=("bad.npz",))
    assert not Path("executed").exists()


def test_files_that_are_no_archives() -> None:
    files = {
        "random.npz": np.random.default_rng(0).bytes(500),
        "empty.npz": b"",
        "pickle.npz": pickle.dumps(Hostile()),
        "short.npz": (DIGITS / "test.npz").read_bytes()[:700],
    }
    for name, data in files.items():
        Path(name).write_bytes(data)
        refused("run", MODEL, "--data", name, code=1, says=(name, "not a readable .npz"))
    np.save("array.npy", _pixels())
    Path("array.npy").rename("array.npz")
    refused("run", MODEL, "--data", "array.npz", code=2, says=("array.npz", "numpy.savez"))
    Path("folder.npz").mkdir()
    refused("run", MODEL, "--data", "folder.npz", code=2, says=("folder.npz", "no images in the folder"))
    refused("run", MODEL, "--data", "none.npz", code=1, says=("there is no such file",))
    assert not Path("executed").exists()


def test_samples_that_are_not_finite() -> None:
    write_module("plain", "from torch import nn\ndef net(): return nn.Sequential(nn.Conv2d(1, 4, 8), nn.ReLU())\n")
    np.savez("nan.npz", x=np.full((3, *SHAPE), np.nan, np.float32))
    model = ("--model", "plain:net", "--input", "1x1x8x8")
    refused("run", *model, "--data", "nan.npz", code=2, says=("nan.npz", "NaN"))


# -- names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (("profile", MODEL, "--core", "cortex-m44"), "cortex-m4"),
        (("profile", MODEL, "--core", "cortex-m44", "--numerics", "fixed16"), "cortex-m4"),
        (("profile", MODEL, "--core", "pico"), None),
        (("profile", MODEL, "--board", "pica"), "pico"),
        (("profile", MODEL, "--board", "cortex-m4"), None),
        (("profile", MODEL, "--core", "cortex-m4", "--numerics", "fixed4"), "fixed8"),
        (("export", MODEL, "--target", "tflight"), "tflite"),
        (("inspect", "--arch", "bdnet_mobilenet"), "bdnet_mobilenet_v1"),
        (("inspect", MODEL, "--set", "widht=3"), "widths"),
        (("evaluate", MODEL, "--data", DIGITS / "test.npz", "--backend", "hots"), "host"),
        (("evaluate", MODEL, "--data", DIGITS / "test.npz", "--backend", "host:fixd16"), "fixed16"),
        (("evaluate", MODEL, "--data", DIGITS / "test.npz", "--backend", "cortex-m0"), "cortex-m0plus"),
        (("exprt", MODEL), "export"),
        (("export", MODEL, "--targt", "onnx"), "--target"),
    ],
    ids=lambda value: " ".join(map(str, value[2:])) if isinstance(value, tuple) else "",
)
def test_unknown_names_get_the_nearest(arguments: tuple[object, ...], nearest: str | None) -> None:
    message = refused(*arguments, code=2, says=("unknown", "nearest: "))
    names = message.split("nearest: ")[1].splitlines()[0].split(", ")
    assert 1 <= len(names) <= 3
    assert nearest is None or nearest in names


@pytest.mark.parametrize("arguments", [("pytorch:fixed16",), ("lce:float",), ("host:fixed16",), ("cortex-m4",)])
def test_back_ends_that_make_no_sense(arguments: tuple[str, ...]) -> None:
    options = [part for name in arguments for part in ("--backend", name)]
    refused("evaluate", MODEL, "--data", DIGITS / "test.npz", *options, code=2, says=("fix:",))


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("bdn", "--numerics", "fixed16"), 2, "--calibrate samples.npz"),
        (("bdn", "--numerics", "fixed8"), 2, "--calibrate samples.npz"),
        (("c",), 2, "--calibrate samples.npz"),
        (("tflite", "--numerics", "fixed16"), 2, "leave --numerics out"),
        (("onnx", "--calibrate", DIGITS / "calibration.npz"), 2, "leave --calibrate out"),
        (("bdn", "-o", "none/model.bdn"), 1, "there is no folder none"),
        (("bdn", "-o", "."), 2, "the output is a folder"),
        (("bdn", "-o", "model.pt"), 2, "ends in .bdn"),
        (("c", "-o", "model.h", "--numerics", "float"), 2, "ends in .c"),
        (("c", "-o", "3d.c", "--numerics", "float"), 2, "no C identifier"),
    ],
    ids=lambda value: " ".join(str(v).rpartition("/")[2] for v in value) if isinstance(value, tuple) else "",
)
def test_exports_that_stop(options: tuple[object, ...], code: int, says: str) -> None:
    Path("model.pt").write_bytes(MODEL.read_bytes())
    refused("export", "model.pt", "--target", *options, code=code, says=(says,))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_is_not_writable() -> None:
    Path("closed").mkdir(mode=0o500)
    refused("export", MODEL, "--target", "bdn", "-o", "closed/model.bdn", code=1, says=("Permission denied",))


def test_failed_write_keeps_the_old_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: the older file stays, and nothing lies beside it."""
    Path("model.bdn").write_bytes(b"old")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    before = contents(Path.cwd())
    result = invoke("export", MODEL, "--target", "bdn")
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert contents(Path.cwd()) == before


# -- missing packages -------------------------------------------------------------------------------------------------------

EVALUATE = ("evaluate", str(MODEL), "--data", str(DIGITS / "test.npz"), "--limit", "1", "--backend")
PROFILE = ("profile", str(MODEL), "--core", "cortex-m4")
NEEDS = {
    "torch": ("torch", ("inspect", str(MODEL))),
    "onnx": ("onnx", ("export", str(MODEL), "--target", "onnx")),
    "onnxruntime": ("onnx", (*EVALUATE, "onnxruntime")),
    "larq_compute_engine": ("larq", (*EVALUATE, "lce")),
    "ziglang": ("emulate", PROFILE),
    "unicorn": ("emulate", PROFILE),
    "capstone": ("emulate", PROFILE),
    "elftools": ("emulate", PROFILE),
}
# Read by every Python that starts with this folder in PYTHONPATH, workers too.
SITECUSTOMIZE = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec

def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] == {name!r} else find(name, path, target)

PathFinder.find_spec = find_spec
"""


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "larq_compute_engine", "ziglang", "capstone", "elftools"])
def test_missing_package(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, where everything else is loaded already."""
    extra, arguments = NEEDS[package]
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    message = refused(*arguments, code=1, says=(f"fix: pip install 'bdnet-deploy[{extra}]'",))
    assert package in message.replace("larq-compute-engine", "larq_compute_engine")


@pytest.mark.parametrize(
    "package", [name if name in ("torch", "unicorn") else pytest.param(name, marks=pytest.mark.slow) for name in NEEDS]
)
def test_missing_package_in_a_new_process(package: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    extra, arguments = NEEDS[package]
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE.format(name=package), encoding="utf-8")
    done = run(
        [sys.executable, "-c", "from bdnet_deploy.cli import main; main()", *arguments],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(folder)},
        timeout=120,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    assert done.stdout == ""
    assert package in done.stderr.replace("larq-compute-engine", "larq_compute_engine")
    assert f"fix: pip install 'bdnet-deploy[{extra}]'" in done.stderr
    assert list(Path.cwd().iterdir()) == []
