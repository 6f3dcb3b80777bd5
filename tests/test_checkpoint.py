"""Checkpoints: ours round trip, others' are read like torch reads them, hostile ones are refused and run nothing."""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bdnet_deploy import checkpoint, models  # noqa: E402
from bdnet_deploy.errors import BdnetError, ModelFileError, UsageError  # noqa: E402

SMALL = {"widths": (8, 16), "strides": (2,), "classes": 3}


@pytest.fixture
def small() -> torch.nn.Module:
    torch.manual_seed(1)
    return models.create("bdnet_digits", **SMALL)


@pytest.fixture(params=["zip", "legacy"])
def store(request, tmp_path: Path):
    """Write an object with torch.save in one of its two formats."""

    def write(content: object, name: str = "foreign.pt") -> Path:
        path = tmp_path / name
        torch.save(content, path, _use_new_zipfile_serialization=request.param == "zip")
        return path

    return write


def refused(path: Path, *words: str) -> str:
    with pytest.raises(ModelFileError) as error:
        checkpoint.read(path)
    text = str(error.value)
    assert error.value.exit_code == 1
    assert str(path) in text
    for word in words:
        assert word in text
    return text


# Our own checkpoints


def test_round_trip(small: torch.nn.Module, tmp_path: Path) -> None:
    path = checkpoint.save(
        small, tmp_path / "model.pt", {"dtype": "u8", "scale": 0.125, "zero_point": 8}, ["a", "b", "c"]
    )
    stored = checkpoint.read(path)
    assert (stored.arch, stored.config) == ("bdnet_digits", small.bdnet_config)
    assert stored.io is not None
    assert stored.io.inputs[0].shape == (8, 8, 1)
    assert stored.io.outputs[0].labels == ("a", "b", "c")
    again = checkpoint.build(stored)
    assert not again.training
    assert again.bdnet_config == small.bdnet_config
    assert again.bdnet_io == stored.io
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(again(x), small.eval()(x))
    assert {k: v.requires_grad for k, v in again.named_parameters()} == {
        k: v.requires_grad for k, v in small.named_parameters()
    }
    again.train()(x).sum().backward()  # it can be trained further


def test_equal_modules_give_equal_bytes(small: torch.nn.Module, tmp_path: Path) -> None:
    first = checkpoint.save(small, tmp_path / "one.pt", {"scale": 0.5}).read_bytes()
    again = checkpoint.load_module(tmp_path / "one.pt")
    assert checkpoint.save(again, tmp_path / "other.pt", again.bdnet_io).read_bytes() == first


def test_torch_reads_ours_without_running_code(small: torch.nn.Module, tmp_path: Path) -> None:
    content = torch.load(checkpoint.save(small, tmp_path / "model.pt"), weights_only=True)
    assert (content["format"], content["version"], content["io"]) == ("bdnet-deploy", 1, None)
    assert content["state_dict"].keys() == small.state_dict().keys()


def test_save_replaces_and_reports(small: torch.nn.Module, tmp_path: Path) -> None:
    with pytest.raises(BdnetError, match="cannot be written"):
        checkpoint.save(small, tmp_path / "no" / "model.pt")
    with pytest.raises(UsageError, match="scale"):
        checkpoint.save(small, tmp_path / "model.pt", {"scael": 1})
    assert list(tmp_path.iterdir()) == []


def test_reading_needs_no_torch(small: torch.nn.Module, tmp_path: Path) -> None:
    path = checkpoint.save(small, tmp_path / "model.pt")
    code = (
        "import sys; from bdnet_deploy import checkpoint\n"
        f"print(len(checkpoint.read({str(path)!r}).state_dict), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(small.state_dict())), "False"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "upgrade"),
        ({"version": "x"}, "version"),
        ({"arch": 3}, "architecture"),
        ({"io": "{"}, "I/O description"),
        ({"io": "[" * 100_000}, "I/O description"),
        ({"io": '{"inputs":[{"shape":[-1]}]}'}, "I/O description"),
        ({"config": {"widths": [[1]]}}, "configuration"),
        ({"state_dict": None}, "state dict"),
    ],
)
def test_damaged_fields_of_ours(small: torch.nn.Module, tmp_path: Path, change: dict, message: str) -> None:
    path = checkpoint.save(small, tmp_path / "model.pt")
    torch.save({**torch.load(path), **change}, path)
    refused(path, message)


def test_a_configuration_cannot_take_memory(small: torch.nn.Module, tmp_path: Path) -> None:
    path = checkpoint.save(small, tmp_path / "model.pt")
    content = torch.load(path)
    for change in ({"classes": 10**11}, {"widths": [8, 2**60]}, {"no_such": 1}, {"strides": [2.5]}):
        torch.save({**content, "config": {**content["config"], **change}}, path)
        with pytest.raises(ModelFileError):
            checkpoint.load_module(path)


# Others' state dicts


def assert_equal_to_torch(path: Path, expected: dict) -> None:
    got = checkpoint.read(path).state_dict
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        tensor = tensor.detach()
        array = tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
        assert got[name].dtype == array.dtype, name
        assert got[name].shape == array.shape, name
        assert np.array_equal(got[name], array, equal_nan=array.dtype.kind == "f"), name
        assert got[name].flags.c_contiguous, name
        assert got[name].flags.writeable, name


def test_types_and_views_equal_torch(store) -> None:
    base = torch.randn(6, 8)
    kinds = [
        "float16",
        "float32",
        "float64",
        "bfloat16",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "bool",
        "complex64",
        "complex128",
    ]
    state = {kind: (torch.randn(3, 5) * 9).to(getattr(torch, kind)) for kind in kinds}
    state |= {
        "transposed": base.t(),
        "offset": base[2:5, 1::3],
        "expanded": torch.randn(4, 1).expand(4, 7),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "special": torch.tensor([float("nan"), float("inf"), -0.0]),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "bfloat view": torch.randn(4, 6).to(torch.bfloat16).t()[1:],
    }
    assert_equal_to_torch(store(state), state)


def test_unsigned_types_and_types_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "new.pt"
    state = {kind: torch.arange(5).to(getattr(torch, kind)) for kind in ("uint16", "uint32", "uint64")}
    torch.save(state, path)
    assert_equal_to_torch(path, state)
    torch.save({"w": torch.zeros(3).to(torch.float8_e4m3fn)}, path)
    refused(path, "'w'", "float8_e4m3fn")


def test_everyday_training_checkpoint(store) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(2, 1, 5, 5)).sum().backward()
    optimizer.step()
    path = store(
        {
            "epoch": 3,
            "args": argparse.Namespace(lr=0.1, deep=argparse.Namespace(x=[1])),
            "best": np.float64(93.5),
            "history": [np.float32(1), {"a": (1, 2)}],
            "seen": {1, 2},
            "frozen": frozenset([1]),
            "shape": torch.Size([1, 2]),
            "device": torch.device("cpu"),
            "dtype": torch.float32,
            "array": np.arange(3),
            "path": Path("x"),
            "scheduler": collections.defaultdict(list, a=[1]),
            "optimizer": optimizer.state_dict(),
            "state_dict": collections.OrderedDict((f"module.{k}", v) for k, v in net.state_dict().items()),
        }
    )
    assert_equal_to_torch(path, net.state_dict())
    stored = checkpoint.read(path)
    assert stored.found_at == "state_dict"
    assert "argparse.Namespace" in stored.ignored
    assert "optimizer" in stored.ignored


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol(tmp_path: Path, protocol: int) -> None:
    state = {"a": torch.randn(2, 3), "b": torch.arange(300)}
    content = {"model": state, "extra": [{1, 2}, b"bytes", 2.5, "é", 10**30, None, True, bytearray(b"x"), ()]}
    path = tmp_path / "p.pt"
    torch.save(content, path, pickle_protocol=protocol)
    assert_equal_to_torch(path, state)


@pytest.mark.parametrize(
    "nest",
    [
        lambda s: s,
        lambda s: {"state_dict": s},
        lambda s: {"model": s, "epoch": 1},
        lambda s: {"net": s},
        lambda s: {"ema": {"state_dict": s}},
        lambda s: {"model_state_dict": s},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {"model": {f"_orig_mod.module.{k}": v for k, v in s.items()}},
    ],
)
def test_where_state_dicts_lie(small: torch.nn.Module, store, nest) -> None:
    path = store(nest(small.state_dict()))
    assert_equal_to_torch(path, small.state_dict())
    module = checkpoint.load_module(path, arch="bdnet_digits", set_=SMALL)
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(module(x), small.eval()(x))


def test_a_state_dict_needs_an_architecture(store) -> None:
    path = store(models.create("bdnet_digits", ternary="both").state_dict())
    with pytest.raises(UsageError, match="nearest: --arch bdnet_digits"):
        checkpoint.load_module(path)
    path = store(models.create("bdnet_digits").state_dict())
    with pytest.raises(UsageError, match="names fit: bdnet_digits"):
        checkpoint.load_module(path)
    path = store({"w": torch.zeros(1)})
    with pytest.raises(UsageError, match="fit no built-in network"):
        checkpoint.load_module(path)


def test_weights_that_do_not_fit(small: torch.nn.Module, store) -> None:
    state = dict(small.state_dict())
    counters = [key for key in state if key.endswith("num_batches_tracked")]
    old = {key: value for key, value in state.items() if key not in counters}
    assert checkpoint.load_module(store(old), "bdnet_digits", set_=SMALL) is not None
    del old["stem.weight"]
    with pytest.raises(ModelFileError, match=r"missing: stem\.weight; unexpected: x0, x1, x2 and 2 more"):
        checkpoint.load_module(
            store({**old, **{f"x{i}": torch.zeros(1) for i in range(5)}}), "bdnet_digits", set_=SMALL
        )
    with pytest.raises(ModelFileError, match=r"classifier\.weight is 3x16 in the file and 4x16 in the network"):
        checkpoint.load_module(store(state), "bdnet_digits", set_={**SMALL, "classes": 4})


# The user's own modules


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user in the current folder; its name."""
    name = f"usernets_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "import torch\n"
        "def make(width=4, bias=True, names=()):\n"
        "    return torch.nn.Linear(width, 2, bias=bias)\n"
        "class Nets:\n    small = torch.nn.Identity\n"
        "def broken():\n    raise KeyError('x')\n"
        "def other():\n    return 3\n",
        encoding="utf-8",
    )
    (tmp_path / f"{name}_needs.py").write_text("import no_such_package_anywhere\n", encoding="utf-8")
    (tmp_path / f"{name}_fails.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n", encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def test_a_factory_of_the_user(package: str, store) -> None:
    weights = store({"module.weight": torch.ones(2, 3)}, "w.pt")
    module = checkpoint.load_module(model=f"{package}:make", set_={"width": "3", "bias": "false"}, weights=weights)
    assert module(torch.ones(1, 3)).tolist() == [[3, 3]]
    assert isinstance(checkpoint.load_module(model=f"{package}:Nets.small"), torch.nn.Identity)


@pytest.mark.parametrize(
    ("suffix", "options", "message"),
    [
        (":make", {"no": 1}, "failed when called"),
        (":broken", {}, "KeyError"),
        (":other", {}, "not a torch.nn.Module"),
        (":missing", {}, "has no missing"),
        ("", {}, "package.module:factory"),
        ("_needs:make", {}, "pip install no_such_package_anywhere"),
        ("_fails:make", {}, "torchvision that belongs"),
        ("_absent:make", {}, "in the folder that holds it"),
    ],
)
def test_factories_that_fail(package: str, suffix: str, options: dict, message: str) -> None:
    with pytest.raises(UsageError) as error:
        checkpoint.load_module(model=package + suffix, set_=options)
    assert message in str(error.value)


def test_arguments_that_exclude_each_other(small: torch.nn.Module, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        checkpoint.load_module()
    with pytest.raises(UsageError):
        checkpoint.load_module(tmp_path / "a.pt", weights=tmp_path / "b.pt")
    with pytest.raises(UsageError):
        checkpoint.load_module(arch="bdnet_digits", model="a:b")
    first, second = (checkpoint.load_module(arch="bdnet_digits", set_={"classes": "5"}) for _ in range(2))
    x = torch.randn(1, 1, 8, 8)
    assert torch.equal(first(x), second(x))
    assert first(x).shape == (1, 5)


# Files that are no checkpoints


def test_missing_folder_empty_and_random(tmp_path: Path) -> None:
    refused(tmp_path / "none.pt", "no such file")
    refused(tmp_path, "folder")
    path = tmp_path / "bytes.pt"
    rng = np.random.default_rng(0)
    for size in (0, 1, 3, 4, 100, 5000):
        for start in (b"", b"PK\x03\x04", b"\x80\x02"):
            path.write_bytes((start + rng.bytes(size)) if size else b"")
            refused(path, "damaged" if not size else "not")
    path.write_bytes(b"<html>404</html>")
    refused(path, "not a PyTorch checkpoint")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")
    refused(path, "ZIP archive")
    path.write_bytes(pickle.dumps({"a": 1}))
    refused(path, "pickle", "torch.save")


def test_truncated_and_flipped_bytes_never_escape(small: torch.nn.Module, store) -> None:
    path = store({"state_dict": small.state_dict(), "args": argparse.Namespace(a=1)})
    data = path.read_bytes()
    for cut in np.linspace(0, len(data) - 1, 60).astype(int):
        path.write_bytes(data[:cut])
        refused(path)
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data) if rng.random() < 0.5 else 4000, 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(ModelFileError):
            checkpoint.read(path)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def __setstate__(self, state: dict) -> None:
        raise AssertionError("code of the file ran")


Net.__module__ = "research.nets"


@pytest.mark.filterwarnings("ignore:Couldn.t retrieve source")
@pytest.mark.parametrize("nest", [lambda m: m, lambda m: {"model": m, "epoch": 1}])
def test_whole_pickled_module(store, nest, monkeypatch: pytest.MonkeyPatch) -> None:
    research = type(sys)("research")
    research.nets = type(sys)("research.nets")
    research.nets.Net = Net
    monkeypatch.setitem(sys.modules, "research", research)
    monkeypatch.setitem(sys.modules, "research.nets", research.nets)
    text = refused(store(nest(Net())), "whole pickled module", "research.nets.Net")
    assert "--model research.nets:Net --weights weights.pt" in text


@pytest.mark.filterwarnings("ignore")
def test_torchscript_and_torch_export(tmp_path: Path) -> None:
    net = torch.nn.Linear(2, 2).eval()
    torch.jit.save(torch.jit.script(net), tmp_path / "script.pt")
    refused(tmp_path / "script.pt", "TorchScript", "torch.jit.load", "--model package.module:factory")
    torch.export.save(torch.export.export(net, (torch.zeros(1, 2),)), tmp_path / "program.pt2")
    refused(tmp_path / "program.pt2", "torch.export", "not a checkpoint")


@pytest.mark.parametrize("content", [[1, 2], 3, "text", torch.zeros(3), {"epoch": 1}, None, ({"a": 1},)])
def test_files_without_a_state_dict(store, content) -> None:
    refused(store(content), "no state dict")


# Files that want to run code


class Evil:
    """Pickles as a call of ``os.system`` that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f'echo ran > "{self.mark}"',)


def test_code_never_runs(store, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    evil = Evil(mark)
    refused(store(evil), "Python object", "nothing of it was run")
    refused(store([evil]), "no state dict")
    state = {"w": torch.ones(2)}
    path = store({"state_dict": state, "payload": evil, "nested": [({"x": evil},)]})
    assert_equal_to_torch(path, state)
    assert any(name.endswith("system") for name in checkpoint.read(path).ignored)
    assert not mark.exists()
    torch.load(path, weights_only=False)  # the payload is a real one
    assert mark.exists()
