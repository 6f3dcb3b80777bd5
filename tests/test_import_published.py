"""Networks written as published ones are: every binary layer is found, and computes what PyTorch computes."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import published_styles  # noqa: E402
from published_styles import STYLES, Block, LatentConv, Net, PolynomialSign, ShiftedPReLU  # noqa: E402
from torch_modules import layers  # noqa: E402

from bdnet_deploy import models  # noqa: E402
from bdnet_deploy.analysis.comparing.imported import compare_import  # noqa: E402
from bdnet_deploy.analysis.comparing.verdicts import Verdicts  # noqa: E402
from bdnet_deploy.graph import DType, Graph, evaluate  # noqa: E402
from bdnet_deploy.importers.torch import import_module, import_recorded  # noqa: E402
from bdnet_deploy.loading import load  # noqa: E402

INPUT = (1, 3, 24, 24)


def binary(graph: Graph) -> int:
    return sum(pair == (DType.BIT, DType.BIT) for pair in layers(graph))


@pytest.mark.parametrize("style", STYLES)
def test_published_styles(style: str) -> None:
    """Layer by layer on PyTorch's own values: signs equal, real values within 1e-5; 20 inputs end to end."""
    net = published_styles.create(style)
    imported = import_recorded(net, INPUT)
    assert binary(imported.graph) == net.binary
    x = np.random.default_rng(4).standard_normal((20, *INPUT[2:], INPUT[1]))
    verdicts = Verdicts()
    compare_import(imported, x, verdicts)
    assert verdicts.first is None, verdicts.first
    signs = [row for row in verdicts.table.rows if "sign" in str(row["layer"])]
    assert len(signs) >= 1 and all(row["compared"] for row in signs)
    quiet = next(row for row in verdicts.table.rows if row["layer"] == "inputs without a flip")
    assert int(str(quiet["compared"])) >= 10


@pytest.mark.parametrize("style", STYLES)
def test_published_styles_through_onnx(style: str, tmp_path: Path) -> None:
    """As PyTorch's exporter writes them by default, weights in a second file; the same layers are binary."""
    pytest.importorskip("onnxscript")
    net = published_styles.create(style)
    path, x = tmp_path / "net.onnx", torch.randn(INPUT)
    try:
        torch.onnx.export(net, (x,), path, verbose=False)
    except torch.onnx.OnnxExporterError:  # a branch on a buffer: only the older exporter takes it
        assert style in ("temperature, gate in two passes", "replicas")
        torch.onnx.export(net, (x,), path, dynamo=False)
    graph = load(path).graph
    assert binary(graph) == net.binary
    with torch.no_grad():
        expected = net(x).numpy()
    (got,) = evaluate(graph, [x.permute(0, 2, 3, 1).numpy()]).values()
    live = import_module(net, INPUT)
    (same,) = evaluate(live, [x.permute(0, 2, 3, 1).numpy()]).values()
    assert np.abs(got - same).max() <= 1e-4 * np.abs(expected).max()


def test_a_wrong_weight_is_seen() -> None:
    """The comparison itself: one flipped weight is a difference, named."""
    net = published_styles.create("where and eq")
    imported = import_recorded(net, INPUT)
    layer = next(n for n in imported.graph.nodes if n.inputs[1:] and n.inputs[1].type.dtype is DType.BIT)
    weights = layer.inputs[1].data
    assert weights is not None
    weights[3, 1, 1, 5] *= -1
    verdicts = Verdicts()
    compare_import(imported, np.random.default_rng(4).standard_normal((2, 24, 24, 3)), verdicts)
    assert verdicts.first is not None and "blocks.0" in verdicts.first[1]


def test_thirty_layers_are_quick() -> None:
    torch.manual_seed(0)
    net = Net(32, 28, *(Block(32, PolynomialSign(), LatentConv(32, 32), ShiftedPReLU(32)) for _ in range(28))).eval()
    start = time.process_time()
    graph = import_module(net, (1, 3, 32, 32))
    assert binary(graph) == 28
    # Five seconds are promised on an idle core; processor time, so that other tests beside this one do not count.
    assert time.process_time() - start < 10


@pytest.mark.slow
def test_reactnet_a_is_imported_in_time_and_memory() -> None:
    net = models.create("reactnet_a").eval()
    start = time.process_time()
    graph = import_module(net, (1, 3, 224, 224))
    assert binary(graph) == 31
    assert time.process_time() - start < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 << 20
