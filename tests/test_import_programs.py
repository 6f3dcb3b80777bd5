"""Exported programs against the live module: .onnx of both of PyTorch's exporters, and .pt2, give the same layers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from click.testing import CliRunner  # noqa: E402
from onnx_files import runtime  # noqa: E402
from program_styles import SHAPE, Styles  # noqa: E402
from torch_modules import BIT, TRIT, layers, to_nhwc  # noqa: E402

import bdnet_deploy  # noqa: E402
from bdnet_deploy.cli import app  # noqa: E402
from bdnet_deploy.errors import ModelFileError, UnsupportedError, UsageError  # noqa: E402
from bdnet_deploy.graph import Conv2d, DType, Graph, Linear, Sign, Ternarize, evaluate  # noqa: E402
from bdnet_deploy.importers.torch import import_module  # noqa: E402


def export_today(module: torch.nn.Module, path: Path, shape: tuple[int, ...] = SHAPE, **options: object) -> None:
    pytest.importorskip("onnxscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.randn(shape),), path, verbose=False, **options)


def export_before(module: torch.nn.Module, path: Path, shape: tuple[int, ...] = SHAPE, **options: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.randn(shape),), path, dynamo=False, **options)


def export_program(module: torch.nn.Module, path: Path, shape: tuple[int, ...] = SHAPE, **options: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(module, (torch.randn(shape),), **options), path)


EXPORTERS: dict[str, tuple[str, Callable[[torch.nn.Module, Path], None]]] = {
    "dynamo": (".onnx", export_today),
    "opset 17": (".onnx", lambda module, path: export_before(module, path, opset_version=17)),
    "opset 11": (".onnx", lambda module, path: export_before(module, path, opset_version=11)),
    "unfolded": (".onnx", lambda module, path: export_before(module, path, do_constant_folding=False)),
    "pt2": (".pt2", export_program),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def live() -> Graph:
    return import_module(Styles(), SHAPE)


def exported(kind: str, folder: Path) -> Path:
    suffix, export = EXPORTERS[kind]
    path = folder / f"{kind.replace(' ', '_')}{suffix}"
    if not path.exists():
        export(Styles(), path)
    return path


def thresholds(graph: Graph) -> list[np.ndarray]:
    return [v.data for n in graph.nodes if isinstance(n.op, Sign | Ternarize) for v in n.inputs[1:]]


def weights(graph: Graph) -> list[np.ndarray]:
    return [n.inputs[1].data for n in graph.nodes if isinstance(n.op, Conv2d | Linear)]


def samples(count: int = 6) -> np.ndarray:
    return torch.randn((count, *SHAPE[1:]), generator=torch.Generator().manual_seed(9)).numpy()


EXPECTED = [(DType.F64, DType.F64), *[(BIT, BIT)] * 3, (BIT, TRIT), (TRIT, BIT), (DType.F64, DType.F64)]


@pytest.mark.parametrize("kind", EXPORTERS)
def test_the_same_layers_as_the_live_module(kind: str, folder: Path, live: Graph) -> None:
    graph = bdnet_deploy.load(exported(kind, folder)).graph
    assert layers(live) == EXPECTED
    assert layers(graph) == EXPECTED
    for mine, theirs in zip(thresholds(graph), thresholds(live), strict=True):
        assert np.array_equal(mine, theirs)
    for (_, w), mine, theirs in zip(EXPECTED, weights(graph), weights(live), strict=True):
        if w is DType.F64:
            np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-7)
        else:
            assert np.array_equal(mine, theirs)
    assert len(graph.reasons) == 2
    x = samples()
    module = Styles()
    with torch.no_grad():
        outputs = module(torch.from_numpy(x)).numpy()
    nhwc = np.moveaxis(x, 1, -1).astype(np.float64)
    got = evaluate(graph, [nhwc])[graph.outputs[0].name]
    np.testing.assert_allclose(got, evaluate(live, [nhwc])[live.outputs[0].name], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got, outputs, rtol=1e-4, atol=1e-4)


class Between(torch.nn.Module):
    """What stands between the binary layers of published networks: gates, norms, attention, resizing, moves."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.group = torch.nn.GroupNorm(2, 8)
        self.gate = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Conv2d(8, 8, 1), torch.nn.Hardsigmoid())
        self.up = torch.nn.Upsample(scale_factor=2)
        self.shuffle = torch.nn.Sequential(torch.nn.PixelUnshuffle(2), torch.nn.Conv2d(32, 8, 1))
        self.norm = torch.nn.LayerNorm(8)
        self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = torch.nn.Linear(8, 5)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.group(self.conv(x))
        x = torch.nn.functional.gelu(x * self.gate(x))
        x = torch.nn.functional.max_pool2d(self.up(x), 3, 2, 1)
        x = torch.nn.functional.relu6(torch.cat([x[:, 4:], torch.flip(x[:, :4], (1,))], 1))
        t = self.norm(self.shuffle(x).flatten(2).transpose(1, 2))
        t = t + self.attention(t, t, t, need_weights=False)[0]
        return self.fc(t.mean(1)).softmax(-1)


@pytest.mark.parametrize("kind", ["dynamo", "opset 17", "pt2"])
def test_what_stands_between_binary_layers(kind: str, tmp_path: Path) -> None:
    suffix, shape = EXPORTERS[kind][0], (1, 3, 6, 6)
    module, path = Between(), tmp_path / f"m{suffix}"
    export = {"dynamo": export_today, "pt2": export_program}.get(kind)
    if export is not None:
        export(module, path, shape)
    else:
        export_before(module, path, shape, opset_version=17)
    graph = bdnet_deploy.load(path).graph
    names = [n.op.name for n in graph.nodes]
    assert {"group_norm", "layer_norm", "softmax", "matmul", "max_pool"} <= set(names)
    assert names.count("conv2d") + names.count("linear") == 6
    x = torch.randn(5, *shape[1:], generator=torch.Generator().manual_seed(8))
    with torch.no_grad():
        expected = torch.cat([module(row[None]) for row in x]).numpy()
    got = evaluate(graph, [to_nhwc(x.double())])[graph.outputs[0].name]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_sources_are_the_module_paths(folder: Path) -> None:
    for kind in ("opset 17", "unfolded", "pt2"):
        graph = bdnet_deploy.load(exported(kind, folder)).graph
        assert [n.source for n in graph.nodes if isinstance(n.op, Conv2d | Linear)] == [
            "stem", *(f"features.{i}.conv" for i in range(5)), "fc"
        ], kind  # fmt: skip
        assert {"features.0.bn", "features.1.act", "features.2"} <= {n.source for n in graph.nodes}


def test_sources_in_todays_onnx_files(folder: Path) -> None:
    """Normalization that the exporter folded into a convolution leaves its own path there."""
    graph = bdnet_deploy.load(exported("dynamo", folder)).graph
    sources = [n.source for n in graph.nodes if isinstance(n.op, Conv2d | Linear)]
    assert sources[0] == "stem" and sources[-1] == "fc"
    assert all(source in (f"features.{i}.bn", f"features.{i}.conv") for i, source in enumerate(sources[1:-1]))


def test_weights_lie_in_a_second_file(folder: Path, tmp_path: Path) -> None:
    path = exported("dynamo", folder)
    assert path.with_suffix(".onnx.data").exists()
    lonely = tmp_path / "lonely.onnx"
    lonely.write_bytes(path.read_bytes())
    with pytest.raises(ModelFileError, match=r"no file 'dynamo.onnx.data' beside the model"):
        bdnet_deploy.load(lonely)
    (tmp_path / "dynamo.onnx.data").write_bytes(b"short")
    with pytest.raises(ModelFileError) as info:
        bdnet_deploy.load(lonely)
    assert "too short" in str(info.value)


@pytest.mark.parametrize("kind", ["dynamo", "old", "pt2"])
def test_dynamic_axes(kind: str, tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
    shape = (2, 3, 9, 9)
    batch, space = (
        tmp_path / f"batch{'.pt2' if kind == 'pt2' else '.onnx'}",
        tmp_path / f"space{'.pt2' if kind == 'pt2' else '.onnx'}",
    )
    auto = torch.export.Dim.AUTO
    if kind == "old":
        names = {"input_names": ["image"]}
        export_before(module, batch, shape, dynamic_axes={"image": {0: "n"}}, **names)
        export_before(module, space, shape, dynamic_axes={"image": {0: "n", 2: "rows"}}, **names)
    else:
        export = export_program if kind == "pt2" else export_today
        export(module, batch, shape, dynamic_shapes=({0: auto},))
        export(module, space, shape, dynamic_shapes=({0: auto, 2: auto},))
    model = bdnet_deploy.load(batch)
    assert model.sample_shape == (9, 9, 3)
    assert model.notes == ["the batch is dynamic in the file; it is 1 from here on"]
    with pytest.raises(UnsupportedError, match=r"have no size in the file: 2 \('") as info:
        bdnet_deploy.load(space)
    assert "--input 1x3x" in str(info.value)
    model = bdnet_deploy.load(space, inputs=[(1, 3, 7, 9)])
    assert model.sample_shape == (7, 9, 3) and not model.notes
    x = torch.randn(1, 3, 7, 9)
    with torch.no_grad():
        expected = module(x).numpy()
    got = evaluate(model.graph, [to_nhwc(x.double())])[model.graph.outputs[0].name]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(UsageError, match="cannot have the shape 1x4x9x9"):
        bdnet_deploy.load(batch, inputs=[(1, 4, 9, 9)])


def test_a_fixed_batch_of_several(tmp_path: Path) -> None:
    export_program(Styles(), tmp_path / "m.pt2", (4, *SHAPE[1:]))
    with pytest.raises(UsageError, match="the batch of the input 'x' is 4"):
        bdnet_deploy.load(tmp_path / "m.pt2")


def test_our_own_onnx_files(root: Path, tmp_path: Path) -> None:
    """What our exporter wrote comes back as it was: the same layers, weights, outputs and I/O description."""
    ours = bdnet_deploy.load(root / "examples/digits/model.pt")
    path = tmp_path / "digits.onnx"
    ours.export("onnx", path)
    back = bdnet_deploy.load(path)
    assert layers(back.graph) == layers(ours.graph)
    assert back.io == ours.io
    for (_, w), mine, theirs in zip(layers(ours.graph), weights(back.graph), weights(ours.graph), strict=True):
        assert np.array_equal(mine, theirs) if w is not DType.F64 else np.allclose(mine, theirs, rtol=1e-6)
    shapes = [n.output.type.shape for n in back.graph.nodes if isinstance(n.op, Conv2d)]
    assert shapes == [n.output.type.shape for n in ours.graph.nodes if isinstance(n.op, Conv2d)]
    x = np.random.default_rng(1).standard_normal((20, 8, 8, 1)).astype(np.float32)
    got = evaluate(back.graph, [x.astype(np.float64)])[back.graph.outputs[0].name]
    expected = evaluate(ours.graph, [x.astype(np.float64)])[ours.graph.outputs[0].name]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(runtime(path, x)[0], got, rtol=1e-3, atol=1e-3)
    # Our own binary layers have whole thresholds in the file, which the importer finds again by bisection.
    assert [n.op.name for n in back.graph.nodes].count("ternarize") == [n.op.name for n in ours.graph.nodes].count(
        "ternarize"
    )
    again = tmp_path / "again.onnx"
    back.export("onnx", again)
    assert ours.verify(path).facts and back.verify(again).facts


@pytest.mark.parametrize("kind", ["dynamo", "pt2"])
def test_commands_take_them(kind: str, folder: Path, tmp_path: Path) -> None:
    path = exported(kind, folder)
    for arguments in (["inspect", path], ["export", path, "--target", "bdn", "-o", tmp_path / "m.bdn"]):
        result = CliRunner().invoke(app.cli, [str(a) for a in arguments])
        assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app.cli, ["verify", str(path), str(tmp_path / "m.bdn"), "--limit", "3"])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app.cli, ["inspect", str(path), "--arch", "bdnet_digits"])
    assert result.exit_code == 2 and "has its own network" in result.output


def test_the_file_itself_is_a_back_end(folder: Path) -> None:
    """``evaluate --backend pytorch`` runs the file's own nodes, one sample after the other."""
    from bdnet_deploy.backends import make_backend

    x = np.moveaxis(samples(3), 1, -1)
    for kind in ("opset 17", "pt2"):
        got = make_backend(bdnet_deploy.load(exported(kind, folder)), "pytorch").predict(x)
        with torch.no_grad():
            expected = Styles()(torch.from_numpy(np.moveaxis(x, -1, 1).copy()))
        np.testing.assert_allclose(got, expected.numpy(), rtol=1e-5, atol=1e-5)
