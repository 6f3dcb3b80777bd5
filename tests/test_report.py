"""Reports and their views."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bdnet_deploy.files import write_all, write_atomic
from bdnet_deploy.report import Column, Report, Table, html, json_view, text


def sample() -> Report:
    table = Table(
        "Layers (all)",
        [
            Column("name"),
            Column("shape"),
            Column("macs", "MACs", align="right", format=","),
            Column("time", unit="ms", align="right", format=".2f"),
            Column("binary"),
        ],
        notes=["time is estimated"],
    )
    table.add(name="stem", shape=(1, 8, 8, 16), macs=1234567, time=0.126, binary=False)
    table.add(name="block 1", macs=np.int64(5), time=np.float64(0.1), binary=True)
    return Report("inspect", {"parameters": 1234, "ratio": 0.1}, [table], {"version": "1"})


def test_text_is_aligned_and_formatted() -> None:
    lines = text.render(sample()).splitlines()
    head = next(line for line in lines if line.startswith("name"))
    stem = next(line for line in lines if line.startswith("stem"))
    assert head.split() == ["name", "shape", "MACs", "time", "[ms]", "binary"]
    assert stem.split() == ["stem", "1x8x8x16", "1,234,567", "0.13", "no"]
    block = next(line for line in lines if line.startswith("block"))
    assert block.split() == ["block", "1", "-", "5", "0.10", "yes"]
    assert stem.index("1,234,567") + 9 == block.index(" 5 ") + 2  # right-aligned
    assert text.render(sample()).isascii()
    assert "time is estimated" in lines
    assert str(sample()) == text.render(sample())


def test_text_fits_the_terminal_and_loses_nothing() -> None:
    table = Table("t", [Column("name"), Column("reason")], [{"name": "layer", "reason": "word " * 40}])
    narrow = text.render(Report("r", tables=[table]), width=60, unicode=True)
    assert max(len(line) for line in narrow.splitlines()) <= 60
    assert narrow.count("word") == 40
    assert "\u2500" in narrow
    assert len(text.render(Report("r", tables=[table])).splitlines()) == 4


def test_json_is_canonical() -> None:
    first = json_view.render(sample())
    assert first == json_view.render(sample())
    assert first.isascii() and first.endswith("}\n")
    report = sample()
    report.facts = dict(reversed(report.facts.items()))
    assert json_view.render(report) == first
    data = json.loads(first)
    rows = data["tables"]["layers_all"]["rows"]
    assert rows[0] == {
        "name": "stem",
        "shape": [1, 8, 8, 16],
        "macs": 1234567,
        "time": 0.126,
        "binary": False,
    }
    assert rows[1]["shape"] is None and rows[1]["macs"] == 5
    assert (data["kind"], data["schema_version"], data["provenance"]) == ("inspect", 1, {"version": "1"})


def test_json_has_no_nan() -> None:
    report = Report("r", {"a": float("nan"), "b": float("-inf"), "c": np.float32(0.5)})
    assert json.loads(json_view.render(report))["facts"] == {"a": "nan", "b": "-inf", "c": 0.5}


def test_html_escapes_and_stands_alone() -> None:
    table = Table("a<b", [Column("k<")], [{"k<": "<script>"}], ["<note>"])
    report = Report("r", {"file": "<x>&"}, [table])
    page = html.render(report)
    assert "<script" not in page and "<note>" not in page and "<x>" not in page
    assert "http" not in page
    assert report._repr_html_() in page


def test_unknown_keys_are_refused() -> None:
    table = Table("t", [Column("a")])
    with pytest.raises(ValueError, match="no column b"):
        table.add(a=1, b=2)
    with pytest.raises(ValueError, match="no column c"):
        Table("t", [Column("a")], [{"c": 1}])
    with pytest.raises(ValueError, match="one key"):
        Report("r", tables=[Table("T", []), Table("t", [])]).to_dict()
    with pytest.raises(KeyError):
        Report("r").table("t")


def test_write_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "caf\u00e9\n")
    assert path.read_bytes() == b"caf\xc3\xa9\n"
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert path.stat().st_mode == plain.stat().st_mode
    write_atomic(path, b"2")
    assert path.read_bytes() == b"2"

    def fail(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"3")
    assert path.read_bytes() == b"2"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "plain"]


def test_files_that_belong_together_are_replaced_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = tmp_path / "m.onnx", tmp_path / "m.onnx.data"
    write_all({model: b"1", data: b"one"})
    order: list[str] = []
    replace = Path.replace

    def note(self: Path, target: Path) -> Path:
        order.append(Path(target).name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", note)
    write_all({model: b"2", data: b"two"})
    assert order == ["m.onnx.data", "m.onnx"]  # what refers to another file comes last
    with pytest.raises(OSError, match="nowhere"):
        write_all({model: b"3", data: b"three", tmp_path / "nowhere" / "x": b""})
    assert (model.read_bytes(), data.read_bytes()) == (b"2", b"two")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
