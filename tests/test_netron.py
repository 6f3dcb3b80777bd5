"""What Netron shows of exported files, by its own parsers run in Node: named blocks with their attributes.

Netron's sources come out of its Python package, which is installed here; ``BDNET_NETRON`` names a folder that has them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from export_graphs import bdnet

from bdnet_deploy.graph import Graph, attributes

pytestmark = pytest.mark.slow
PACKAGE = "netron==9.3.3"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("node") is None:
        pytest.skip("Node is not installed")
    folder = tmp_path_factory.mktemp("netron")
    given = os.environ.get("BDNET_NETRON")
    if given:
        shutil.copytree(given, folder / "netron")
    else:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"Netron cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
    (folder / "netron" / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    return folder / "netron"


def shown(sources: Path, file: Path) -> dict[str, Any]:
    script = Path(__file__).with_name("netron_nodes.mjs")
    command = ["node", str(script), str(sources), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def graph() -> Graph:
    return bdnet(0).graph


def test_onnx(graph: Graph, sources: Path, tmp_path: Path) -> None:
    """Every operator of the graph is a block with its attributes and its nodes inside."""
    pytest.importorskip("onnx")
    from bdnet_deploy.export.onnx import write

    path = tmp_path / "model.onnx"
    path.write_bytes(write(graph).data)
    seen = shown(sources, path)
    assert seen["format"].startswith("ONNX")
    blocks = [n for n in seen["nodes"] if n["type"].partition("__")[0] not in ("input", "output")]
    assert [b["name"] for b in blocks] == [n.name for n in graph.nodes]
    for block, node in zip(blocks, graph.nodes, strict=True):
        assert block["type"].startswith(f"{node.op.name}__") and block["inside"] > 0
        assert block["attributes"]["layer"] == node.source
        assert block["attributes"]["result"] == str(node.output.type)
        for name, value in attributes(node.op).items():
            shown_value = block["attributes"][name]
            assert shown_value == value or (isinstance(value, float) and shown_value == "tensor")


def test_onnx_with_quantizers(graph: Graph, sources: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from bdnet_deploy.export.onnx import write

    path = tmp_path / "model.onnx"
    path.write_bytes(write(graph, profile="qonnx").data)
    types = [n["type"] for n in shown(sources, path)["nodes"]]
    assert "BipolarQuant" in types and "Conv" in types


def test_tflite(graph: Graph, sources: Path, tmp_path: Path) -> None:
    """Larq's operators by their names."""
    from bdnet_deploy.export.tflite import write

    path = tmp_path / "model.tflite"
    path.write_bytes(write(graph).data)
    seen = shown(sources, path)
    assert seen["format"].startswith("TensorFlow Lite")
    assert {"LceQuantize", "LceBconv2d"} & {n["type"] for n in seen["nodes"]}
