"""Networks written as published ones are, exported to every foreign format and verified in its runtime."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import published_styles  # noqa: E402

import bdnet_deploy  # noqa: E402
from bdnet_deploy.graph import evaluate  # noqa: E402
from bdnet_deploy.importers.torch import import_module  # noqa: E402
from bdnet_deploy.model import Model  # noqa: E402

INPUT = (1, 3, 24, 24)
NEEDS = {"onnx": "onnxruntime", "tflite": "larq_compute_engine"}
FORMS = [("tflite", "stock"), ("tflite", "extended"), ("onnx", "portable"), ("onnx", "qonnx")]
QUICK = ("where and eq", "replicas")


def cases() -> list[object]:
    return [
        pytest.param(style, *form, marks=[] if style in QUICK else [pytest.mark.slow])
        for style in published_styles.STYLES
        for form in FORMS
    ]


@pytest.mark.parametrize(("style", "target", "profile"), cases())
def test_published_styles(style: str, target: str, profile: str, tmp_path: Path) -> None:
    if find_spec(NEEDS[target]) is None:
        pytest.skip(f"{NEEDS[target]} is not installed")
    net = published_styles.create(style)
    model = Model("net", import_module(net, INPUT), None, None, None, _module=net)
    path = model.export(target, tmp_path / f"net.{target}", profile=profile).paths[0]
    if profile == "extended" and find_spec("ai_edge_litert") is None and find_spec("tensorflow") is None:
        from bdnet_deploy.analysis.comparing.files import tflite_kind

        if tflite_kind(path.read_bytes()) == "extended":
            pytest.skip("no interpreter takes our operator")
    report = model.verify(path, limit=4)
    assert report.facts["verdict"] == "equal"
    # The graph that the file carries, against the module itself: near ties that flip change logits, not what is meant.
    x = np.random.default_rng(0).standard_normal((4, *INPUT[2:], INPUT[1])).astype(np.float32)
    with torch.no_grad():
        expected = torch.cat([net(torch.from_numpy(a.transpose(2, 0, 1)[None])) for a in x]).numpy()
    (got,) = evaluate(bdnet_deploy.load(path).float_graph(), [x]).values()
    close = np.abs(got - expected.reshape(got.shape)).max(1) <= 1e-3 * np.abs(expected).max()
    assert close.sum() >= 3
