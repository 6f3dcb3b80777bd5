"""``benchmarks/export_matrix.py``: its rows for small networks, in every form."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import export_matrix
from export_matrix import FORMS, main

from bdnet_deploy.errors import MissingPackageError
from bdnet_deploy.models.small import SMALL
from bdnet_deploy.peers import lce

try:
    lce.find_interpreter()
except MissingPackageError as error:
    pytest.skip(str(error), allow_module_level=True)


def rows(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    assert main([*arguments, "--format", "json"]) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)["tables"]["exports"]["rows"]
    return found


def check(found: list[dict[str, object]], inputs: int) -> None:
    for row in found:
        assert row["verdict"] == "equal" and row["exact_different"] == 0 and row["inputs"] == inputs
        assert row["exact_values"] and row["real_different"] == 0
        assert row["form"] == "tflite int8" or row["graph"] == "same"


def test_one_network_in_every_form(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(capsys, "--network", "quicknet_small")
    assert [row["form"] for row in found] == ["tflite"] * 2 + ["tflite int8"] * 2 + ["onnx"]
    assert {row["runtime"] for row in found} == {"LCE default", "LCE indirect", "onnxruntime"}
    check(found, export_matrix.INPUTS)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_zoo(form: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_matrix, "INPUTS", 6)
    networks = [argument for name in SMALL for argument in ("--network", name)]
    check(rows(capsys, "--form", form, *networks), 6)


def test_unknown_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--network", "reactnet_b"]) == 2
    assert "reactnet_a" in capsys.readouterr().err
