"""What layers were recognised as, why they are not binary, and the refusal of those that stay real."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch_modules import randn, sign  # noqa: E402

from bdnet_deploy import load  # noqa: E402
from bdnet_deploy.analysis.recognised import check_binary, find_layers  # noqa: E402
from bdnet_deploy.cli import app, console  # noqa: E402
from bdnet_deploy.errors import UnsupportedError, UsageError  # noqa: E402
from bdnet_deploy.importers.torch import import_module  # noqa: E402

SOURCE = '''
import torch
import torch.nn.functional as F
from torch import nn


class Hardening(nn.Conv2d):
    """Weights that become signs as a temperature falls."""

    def __init__(self, *arguments, temperature=0.31):
        super().__init__(*arguments, bias=False)
        self.register_buffer("temperature", torch.tensor(temperature))

    def forward(self, x):
        if self.temperature < 1e-7:
            w = torch.where(self.weight >= 0, 0.1, -0.1)
        else:
            w = 0.1 * torch.clamp(self.weight / self.temperature, -1, 1)
        return F.conv2d(x, w, padding=1)


class Sign(nn.Module):
    def forward(self, x):
        return torch.where(x >= 0, 1.0, -1.0)


class Branch(nn.Module):
    def forward(self, x):
        return x if x.mean() > 0 else -x


class Running(nn.Module):
    def forward(self, x):
        return torch.cumsum(x, 1)


class Net(nn.Module):
    def __init__(self, temperature=0.31, broken=""):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.sign = Sign()
        self.body = Hardening(8, 8, 3, temperature=temperature)
        self.shortcut = nn.Conv2d(8, 8, 1)
        self.odd = {"": nn.Identity, "branch": Branch, "running": Running}[broken if broken != "nan" else ""]()
        self.head = nn.Linear(8, 4)
        if broken == "nan":
            self.shortcut.weight.data[0, 0] = float("nan")

    def forward(self, x):
        x = self.stem(x)
        x = self.odd(self.body(self.sign(x)) + self.shortcut(x))
        return self.head(x.mean((2, 3)))
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "hardening.py").write_text(SOURCE, encoding="utf-8")
    yield tmp_path
    sys.modules.pop("hardening", None)
    console.set_verbosity(0)


def invoke(*arguments: str) -> Result:
    model = ("--model", "hardening:Net", "--input", "1x3x8x8")
    return CliRunner().invoke(app.cli, [arguments[0], *model, *arguments[1:]], prog_name="bdnet-deploy")


def files() -> set[str]:
    return {p.name for p in Path().iterdir()} - {"hardening.py", "__pycache__"}


def reasons() -> dict[str, Any]:
    tables = json.loads(invoke("inspect", "--format", "json").stdout)["tables"]
    return {row["layer"]: row["reason"] for row in tables["reasons"]["rows"]}


def test_a_temperature_that_is_not_down_is_named() -> None:
    found = reasons()
    assert set(found) == {"stem", "body", "shortcut", "head"}
    levels = int(found["body"].split("weights have ")[1].split()[0])
    module = load(model="hardening:Net", inputs=[(1, 3, 8, 8)]).module()
    clipped = (module.body.weight / 0.31).clamp(-1, 1)
    per_filter = max(len(row.unique()) for row in clipped.flatten(1))
    assert 3 < levels <= per_filter  # levels nearer than the tolerance are one
    assert found["body"].endswith("its buffer 'body.temperature' is 0.31: training is not finished")
    assert "temperature" not in found["shortcut"]


def test_a_temperature_of_the_model_itself() -> None:
    """A convolution in the forward of the outermost module."""

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.weight = nn.Conv2d(3, 6, 1), nn.Parameter(0.1 * torch.randn(6, 6, 3, 3))
            self.register_buffer("temperature", torch.tensor(0.3))

        def forward(self, x: Tensor) -> Tensor:
            w = (self.weight / self.temperature).clamp(-1, 1)
            return F.conv2d(sign(self.stem(x)), w).mean((2, 3))

    torch.manual_seed(0)
    graph = import_module(Outer(), (1, 3, 8, 8))
    assert graph.unfinished == {"conv2d"} and "its buffer 'temperature' is 0.3" in graph.reasons["conv2d"]


def test_inspect_says_what_each_layer_is() -> None:
    result = invoke("inspect", "--format", "json", "--set", "temperature=0.0")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    rows = {row["layer"]: row for row in report["tables"]["recognised"]["rows"]}
    assert {name: row["recognised"] for name, row in rows.items()} == {
        "stem": "real", "body": "1-bit", "shortcut": "real", "head": "real",
    }  # fmt: skip
    lines = SOURCE.splitlines()
    for name, code in (("stem", "self.stem(x)"), ("body", "F.conv2d(x, w"), ("head", "self.head(")):
        file, number = rows[name]["line"].split(":")
        assert file == "hardening.py" and code in lines[int(number) - 1]
    assert report["facts"]["binary_layers"] == "1 of 4"


@pytest.mark.parametrize(
    "command", [("inspect", "--report", "out.json"), ("export", "--target", "bdn", "-o", "out.bdn")]
)
def test_strict(command: tuple[str, ...]) -> None:
    result = invoke(*command, "--strict")
    assert result.exit_code == 1 and result.stdout == "" and not files()
    for part in ("2 layers that should be binary are real", "body (hardening.py:", "'body.temperature' is 0.31",
                 "shortcut (hardening.py:", "fix: "):  # fmt: skip
        assert part in result.stderr
    assert "stem (hardening" not in result.stderr and "head (hardening" not in result.stderr
    finished = ("--set", "temperature=0.0")
    result = invoke(*command, "--strict", *finished)
    assert result.exit_code == 1 and "shortcut (" in result.stderr and "body (" not in result.stderr and not files()
    assert invoke(*command, "--strict", *finished, "--allow-real", "short*").exit_code == 0
    assert len(files()) == 1
    assert invoke(*command, "--strict", "--allow-real", "shortcot").exit_code == 2
    assert invoke(*command, *finished, "--allow-real", "shortcut").exit_code == (2 if command[0] == "inspect" else 0)


def test_weights_that_are_not_binary_yet_are_not_exported() -> None:
    """Without --strict too: the layer was meant to be binary."""
    command = ("export", "--target", "bdn", "-o", "out.bdn")
    result = invoke(*command)
    assert result.exit_code == 1 and result.stdout == "" and not files()
    for part in (
        "the weights of a layer are not binary yet",
        "body (hardening.py:",
        "'body.temperature' is 0.31",
        "fix: ",
    ):
        assert part in result.stderr
    assert "shortcut" not in result.stderr
    assert invoke(*command, "--allow-real", "body").exit_code == 0 and files() == {"out.bdn"}


def test_strict_in_python() -> None:
    options: dict[str, Any] = {"model": "hardening:Net", "inputs": [(1, 3, 8, 8)]}
    with pytest.raises(UnsupportedError, match="2 layers") as raised:
        load(**options, strict=True)
    assert "body.temperature" in str(raised.value) and raised.value.exit_code == 1
    load(**options).check_binary(["body", "shortcut"])
    with pytest.raises(UsageError, match="unknown layer 'bady'"):
        load(**options).check_binary(["bady"])


@pytest.mark.parametrize("command", [("inspect", "--report", "out.json"), ("export", "--target", "bdn")])
@pytest.mark.parametrize(
    ("broken", "parts"),
    [
        ("nan", ("'shortcut.weight' holds NaN", "train again")),
        ("branch", ("odd (hardening.py:", "depends on values of the input", "_local_scalar_dense|is_nonzero", "torch.where")),
        ("running", ("odd (hardening.py:", "'cumsum' cannot be carried over", "supported operator")),
    ],
)  # fmt: skip
def test_refusals(command: tuple[str, ...], broken: str, parts: tuple[str, ...]) -> None:
    """Layer, reason and remedy; exit code 1; nothing written."""
    result = invoke(*command, "--set", f"broken={broken}")
    assert result.exit_code == 1 and result.stdout == "" and not files()
    for part in parts:
        assert any(word in result.stderr for word in part.split("|")), (part, result.stderr)
    assert "\nwhy: " in result.stderr and "\nfix: " in result.stderr and "Traceback" not in result.stderr


class Forms(nn.Module):
    """A layer of each form."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.layers = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        x, w = self.stem(x), [layer.weight for layer in self.layers]
        x = x + F.conv2d(sign(x), 0.1 * sign(w[0]), padding=1)
        x = x + F.conv2d((x > 0.2).to(x.dtype), 0.1 * sign(w[1]), padding=1)
        x = x + F.conv2d(sign(x) * 0.5 + 0.1, 0.1 * sign(w[2]) + 0.05, padding=1)
        x = x + F.conv2d(x.round().clamp(-1, 1), 0.5 * (sign(w[3] - 0.1) + sign(w[3] + 0.1)), padding=1)
        return F.conv2d(F.relu(x), 0.1 * sign(w[4]))


def test_forms() -> None:
    torch.manual_seed(0)
    graph = import_module(Forms(), (1, 3, 8, 8))
    layers = find_layers(graph)
    assert [layer.form for layer in layers] == [
        "real",
        "1-bit",
        "0/1 activation, 1-bit weights",
        "1-bit activation, asymmetric 1-bit weights",
        "1.58-bit",
        "real",
    ]
    assert [layer.first for layer in layers] == [True] + [False] * 5
    assert [layer.last for layer in layers] == [False] * 5 + [True]
    check_binary(graph)
    assert layers[-1].reason and "'relu'" in layers[-1].reason and layers[-1].reason.endswith("weights have two levels")


def k_bit(x: Tensor, bits: int) -> Tensor:
    """DoReFa-Net's activations."""
    return (x.clamp(0, 1) * (2**bits - 1)).round() / (2**bits - 1)


class MultiLevel(nn.Module):
    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.conv = nn.Conv2d(4, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(k_bit(x, self.bits), 0.1 * sign(self.conv.weight))


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_multi_level_activations_are_counted(bits: int) -> None:
    said = import_module(MultiLevel(bits), (1, 4, 6, 6)).reasons["conv2d"]
    assert said == f"activation has {2**bits} levels ({bits} bits); its weights have two levels"


def test_a_scale_per_image_is_named() -> None:
    """A sign times a mean over the input is no level; the operator that multiplies is named."""
    graph = import_module(PerImage(), (1, 4, 6, 6))
    layer = find_layers(graph)[0]
    assert layer.form == "real" and layer.reason is not None
    assert layer.reason.startswith("activation: 'mul' before this layer does not saturate to levels")


class PerImage(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(sign(x) * x.abs().mean((2, 3), keepdim=True), 0.1 * sign(randn(5, 4, 3, 3)))
