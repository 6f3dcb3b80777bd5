"""int8 TensorFlow Lite: Larq Compute Engine computes what the numpy interpreter does, bit for bit, and the quality holds."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

from torch_modules import randomize  # noqa: E402

import bdnet_deploy  # noqa: E402
from bdnet_deploy import models  # noqa: E402
from bdnet_deploy.cli import app  # noqa: E402
from bdnet_deploy.errors import MissingPackageError, UsageError  # noqa: E402
from bdnet_deploy.export import tflite  # noqa: E402
from bdnet_deploy.export.tflite.builder import F32, Builder  # noqa: E402
from bdnet_deploy.export.tflite.extended import NAME  # noqa: E402
from bdnet_deploy.export.tflite.flatbuffer import from_bytes, to_bytes  # noqa: E402
from bdnet_deploy.export.tflite.int8 import quantize  # noqa: E402
from bdnet_deploy.export.tflite.int8.choice import Levels  # noqa: E402
from bdnet_deploy.export.tflite.int8.constants import bias_levels, shift_levels, weights  # noqa: E402
from bdnet_deploy.export.tflite.schema import Model, TensorKind  # noqa: E402
from bdnet_deploy.graph import Conv2d, Graph, Linear  # noqa: E402
from bdnet_deploy.importers.tflite.own import Int8FileError, read_description, read_graph, split_layers  # noqa: E402
from bdnet_deploy.importers.torch import import_module  # noqa: E402
from bdnet_deploy.iodesc import IODescription  # noqa: E402
from bdnet_deploy.lowering import float_graph  # noqa: E402
from bdnet_deploy.models.small import SMALL  # noqa: E402
from bdnet_deploy.peers import lce  # noqa: E402
from bdnet_deploy.samples import Samples  # noqa: E402
from bdnet_deploy.tflite_reference import evaluate, split  # noqa: E402

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
#: One of each family; the others take longer together than a quick test should.
QUICK = ("bdnet_digits", "bdnet_kws", "es_resnet20", "quicknet")


def _need_lce() -> None:
    try:
        lce.find_interpreter()
    except MissingPackageError as error:
        pytest.skip(str(error))


def _small(arch: str) -> tuple[Graph, np.ndarray]:
    torch.manual_seed(6)
    module = randomize(models.create(arch, **SMALL[arch])).eval()
    height, width, channels = module.input_shape
    graph, _ = float_graph(import_module(module, (1, channels, height, width), name=arch))
    return graph, np.random.default_rng(2).standard_normal((8, height, width, channels)).astype(np.float32)


def _equal(got: np.ndarray, expected: np.ndarray) -> bool:
    """Integers bit for bit, float32 within rounding."""
    if expected.dtype != np.float32:
        return bool(np.array_equal(got, expected))
    return bool(np.abs(got - expected).max() <= 2e-6 * max(np.abs(expected).max(), 1e-9))


def _check(archs: Iterable[str], mode: str) -> None:
    """Each operator alone, fed the interpreter's values, and the whole files; all in one process of the runtime."""
    _need_lce()
    jobs: list[tuple[bytes, list[np.ndarray]]] = []
    expected: list[tuple[str, list[np.ndarray]]] = []
    for arch in archs:
        graph, x = _small(arch)
        data = tflite.write(graph, samples=x).data
        model = from_bytes(data)
        values = evaluate(model, x[:2], keep=True)
        for part in split(model):
            jobs.append((to_bytes(part.model), [values[n] for n in part.inputs]))
            expected.append((f"{arch} {part.index} {part.operator}", [values[n] for n in part.outputs]))
        jobs.append((data, [x[:2]]))
        expected.append((arch, [values[model.tensors[i].name] for i in model.outputs]))
        kinds = [model.tensors[op.outputs[0]].kind for op in model.operators]
        assert kinds.count(TensorKind.INT8) > len(kinds) / 2
    for (where, values_of_it), outputs in zip(expected, lce.run_many(jobs, mode=mode, timeout=1800), strict=True):
        for value, output in zip(values_of_it, outputs, strict=True):
            assert _equal(value, output), where


def test_bits_of_the_zoo() -> None:
    _check(QUICK, "default")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "indirect"])
def test_bits_of_the_whole_zoo(mode: str) -> None:
    _check(SMALL, mode)


def test_quality_on_digits(tmp_path: Path) -> None:
    model = bdnet_deploy.load(DIGITS / "model.pt")
    path = tmp_path / "int8.tflite"
    artifact = model.export("tflite", path, int8=True, calibrate=DIGITS / "calibration.npz")
    assert artifact.provenance["int8"]
    samples = model.samples(DIGITS / "test.npz")
    x = samples.x.astype(np.float32)
    (expected,) = evaluate(tflite.write(model.float_graph()).data, x).values()
    (got,) = evaluate(path.read_bytes(), x).values()
    assert got.dtype == np.float32
    assert (got.argmax(1) == expected.argmax(1)).mean() >= 0.97
    assert (got.argmax(1) == samples.y).mean() >= 0.97
    # A logit is a few tens; sums of signs that flip come in steps.
    assert np.abs(got - expected).mean() <= 0.1 * np.abs(expected).max()
    assert (np.abs(got - expected) > 0).any()


@pytest.mark.parametrize("profile", ["stock", "extended"])
def test_command_line(profile: str, tmp_path: Path) -> None:
    path = tmp_path / "int8.tflite"
    arguments = ["export", DIGITS / "model.pt", "--target", "tflite", "--int8", "--profile", profile, "-o", path]
    calibrate = ["--calibrate", DIGITS / "calibration.npz", "--calibrate-limit", "5"]
    result = CliRunner().invoke(app.cli, [str(a) for a in (*arguments, *calibrate)], prog_name="bdnet-deploy")
    assert result.exit_code == 0, result.output
    names = {op.name for op in from_bytes(path.read_bytes()).operators}
    assert (NAME in names) == (profile == "extended")
    model = bdnet_deploy.load(DIGITS / "model.pt")
    few = model.samples(DIGITS / "calibration.npz").spread(5)
    again = model.export("tflite", tmp_path / "again.tflite", profile=profile, int8=True, calibrate=few)
    assert again.paths[0].read_bytes() == path.read_bytes()


def test_folder_of_images(tmp_path: Path) -> None:
    """Images are read one by one, and every one counts."""
    image = pytest.importorskip("PIL.Image")
    model = bdnet_deploy.load(DIGITS / "model.pt")
    with np.load(DIGITS / "calibration.npz") as archive:
        raw = np.asarray(archive["x"])[:6].reshape(6, 8, 8)
    levels = np.clip(raw * (255 / raw.max()), 0, 255).astype(np.uint8)
    levels[-1] = 255  # no other one has such sums
    folder = tmp_path / "images"
    folder.mkdir()
    for i, pixels in enumerate(levels):
        image.fromarray(pixels).save(folder / f"{i}.png")
    seen: list[tuple[str, int, int]] = []
    path = tmp_path / "int8.tflite"
    artifact = model.export("tflite", path, int8=True, calibrate=folder, progress=lambda *step: seen.append(step))
    assert seen == [("calibrating", i, 6) for i in range(1, 7)] and artifact.provenance["int8"]
    samples = model.samples(folder)
    mine = _scales(path.read_bytes())
    assert mine == _scales(tflite.write(model.float_graph(), samples=samples.x).data)
    assert mine != _scales(tflite.write(model.float_graph(), samples=samples.x[:-1]).data)


def _scales(data: bytes) -> list[bytes]:
    return [t.scale.tobytes() for t in from_bytes(data).tensors if t.scale is not None]


@pytest.mark.parametrize("bad", [0, 2])
def test_a_late_sample_that_is_none(bad: int) -> None:
    graph, x = _small("bdnet_kws")
    x[bad, 0, 0, 0] = np.inf
    with pytest.raises(UsageError, match="NaN or infinity"):
        tflite.write(graph, samples=Samples(x, None))


def test_extended_files_name_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    model = bdnet_deploy.load(DIGITS / "model.pt")
    path = tmp_path / "int8.tflite"
    model.export("tflite", path, profile="extended", int8=True, calibrate=DIGITS / "calibration.npz")
    with pytest.raises(MissingPackageError) as error:
        model.verify(path)
    assert "pip install ai-edge-litert" in str(error.value.fix)


def test_what_the_file_says() -> None:
    graph, x = _small("bdnet_digits")
    io = IODescription.from_json(bdnet_deploy.load(DIGITS / "model.pt").io.to_json())  # type: ignore[union-attr]
    written = tflite.write(graph, io=io, samples=x, meta={"made_by": "a test"})
    plain = tflite.write(graph, io=io)
    description = read_description(written.data)
    assert description["int8"] is True and description["meta"] == {"made_by": "a test"}
    assert description["io"] == read_description(plain.data)["io"]
    names = [t.name for t in from_bytes(written.data).tensors]
    found = {name or names[numbers[0]]: source for name, numbers, source in description["tensors"]}
    sources = {n.name: n.source for n in graph.nodes}
    assert found and all((name if source == 0 else source) == sources.get(name, "") for name, source in found.items())
    for read in (read_graph, split_layers):
        with pytest.raises(Int8FileError, match="int8"):
            read(written.data)
    assert sum(written.sizes.values()) == len(written.data) < len(plain.data)
    assert written.sizes["float weights"] == 0 < plain.sizes["float weights"]
    assert written.sizes["binary weights"] == plain.sizes["binary weights"]
    assert not any("float" in form.macs for form in written.forms)
    assert tflite.write(graph, io=io, samples=x, meta={"made_by": "a test"}).data == written.data


def test_int8_file_loads(tmp_path: Path) -> None:
    graph, x = _small("bdnet_digits")
    path = tmp_path / "int8.tflite"
    path.write_bytes(tflite.write(graph, samples=x).data)
    assert bdnet_deploy.load(path).graph.outputs[0].type.shape == (1, 10)


def test_packed_content_stays() -> None:
    graph, x = _small("reactnet_a")
    before, after = from_bytes(tflite.write(graph).data), from_bytes(tflite.write(graph, samples=x).data)

    def packed(model: Model) -> list[bytes]:
        tensors = [model.tensors[op.inputs[1]].data for op in model.operators if op.name == "LceBconv2d"]
        return [t.tobytes() for t in tensors if t is not None]

    assert packed(before) == packed(after) != []
    for model in (before, after):
        assert {model.tensors[i].kind for i in (*model.inputs, *model.outputs)} == {TensorKind.FLOAT32}


def test_sums_of_which_the_sign_is_read_are_exact() -> None:
    """For every level and threshold: the sign of the sum of integers is that of the sum of the real numbers."""
    rng = np.random.default_rng(1)
    for zero in (-127, -90, 0, 31, 126):
        source = Levels(float(np.float32(rng.uniform(0.001, 0.5))), zero)
        addend = rng.uniform(-300, 300, 500) * source.scale
        addend[:40] = np.rint(addend[:40] / source.scale) * source.scale  # sums that are 0
        data, levels = shift_levels(addend, source)
        assert levels.scale == source.scale
        x = np.arange(-127, 128)[:, None] - zero
        exact = x + np.floor(addend / source.scale + 1e-6) >= 0
        assert np.array_equal(x + (data.astype(int) - levels.zero) >= 0, exact)


def test_weights_and_biases() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(5, 3, 3, 4))
    values[1] = rng.integers(-1, 2, (3, 3, 4))
    values[2] = 0
    data, scales = weights(values, 0, np.array([0, 0, 0, 1e9, 0.0]), 0.5)
    assert np.array_equal(data[1], values[1]) and scales[1] == 1 and not data[2].any()
    error = np.abs(data * scales[:, None, None, None].astype(float) - values)
    assert error[[0, 4]].max() <= np.abs(values).max() / 127 / 2 * 1.01
    assert 1e9 / (0.5 * scales[3]) <= 1.001 * 2**30
    assert bias_levels(np.array([0.7, -0.7, 2.0]), np.ones(3), sign_only=True).tolist() == [0, -1, 2]
    assert bias_levels(np.array([0.7, -0.7, 2.0]), np.ones(3), sign_only=False).tolist() == [1, -1, 2]


def test_padding_of_a_maximum_sets_no_range() -> None:
    """The lowest number pads a maximum; it must neither widen the levels nor win."""
    _need_lce()
    model = Model()
    b = Builder(model)
    rng = np.random.default_rng(3)
    x = b.tensor("x", (1, 6, 6, 4), F32)
    w = b.constant("w", rng.normal(size=(4, 1, 1, 4)).astype(np.float32))
    zeros = b.constant("zeros", np.zeros(4, np.float32))
    y = b.op("CONV_2D", (x, w, zeros), b.tensor("y", (1, 6, 6, 4)), padding=1, stride_h=1, stride_w=1)
    amounts = b.constant("amounts", np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
    least = b.constant("least", np.array(np.finfo(np.float32).min))
    padded = b.op("PADV2", (y, amounts, least), b.tensor("padded", (1, 8, 8, 4)))
    window = {"padding": 1, "stride_h": 2, "stride_w": 2, "filter_h": 3, "filter_w": 3}
    z = b.op("MAX_POOL_2D", (padded,), b.tensor("z", (1, 3, 3, 4)), **window)
    model.inputs, model.outputs = [x], [z]
    samples = rng.normal(size=(20, 6, 6, 4)).astype(np.float32)
    quantized = quantize(model, samples)
    (expected,) = evaluate(model, samples).values()
    (got,) = evaluate(quantized, samples).values()
    assert np.abs(got - expected).max() <= 0.03 * np.abs(expected).max()
    assert np.array_equal(got, lce.run(to_bytes(quantized), samples)[0])


@pytest.mark.parametrize("damage", ["nan", "shape", "none"])
def test_wrong_samples(damage: str) -> None:
    graph, x = _small("bdnet_digits")
    samples = {"nan": np.where(x > 1, np.nan, x), "shape": x[:, 1:], "none": x[:0]}[damage]
    with pytest.raises(UsageError):
        tflite.write(graph, samples=samples)


def test_all_parts_of_the_samples_count(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, x = _small("bdnet_digits")
    x = x * np.linspace(0.1, 1, len(x), dtype=np.float32)[:, None, None, None]  # the last are the largest
    monkeypatch.setattr(Samples, "parts", lambda self: self.batches(3))
    assert tflite.write(graph, samples=Samples(x, None)).data == tflite.write(graph, samples=x).data
    assert tflite.write(graph, samples=Samples(x[:3], None)).data != tflite.write(graph, samples=x).data


def test_progress() -> None:
    graph, x = _small("bdnet_kws")
    seen: list[tuple[int, int]] = []
    tflite.write(graph, samples=x, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, len(x)) for i in range(1, len(x) + 1)]


@pytest.mark.slow
def test_size_of_mobilenet() -> None:
    """At most 1.15 times its binary weights as bits, and stem, classifier and parameters at a byte; each within 30 s."""
    torch.manual_seed(0)
    module = models.create("bdnet_mobilenet_v1").eval()
    height, width, channels = module.input_shape
    graph, _ = float_graph(import_module(module, (1, channels, height, width), name="mobilenet"))
    x = np.random.default_rng(0).standard_normal((2, height, width, channels)).astype(np.float32)
    bits = levels = 0
    filters = {n.inputs[1] for n in graph.nodes if isinstance(n.op, (Conv2d, Linear))}
    for value in filters:
        assert value.data is not None
        bits += value.data.size if value.type.dtype.is_packed else 0
        levels += 0 if value.type.dtype.is_packed else value.data.size
    parameters = sum(v.data.size for v in graph.constants() if v not in filters and v.data is not None)
    assert bits > 20_000_000 // 8 and levels > 1_000_000
    base = bits // 8 + levels + parameters
    sizes = {}
    for target, options in {"int8": {"samples": x}, "stock": {}, "extended": {"profile": "extended"}}.items():
        start = time.perf_counter()
        sizes[target] = len(tflite.write(graph, **options).data)  # type: ignore[arg-type]
        assert time.perf_counter() - start < 30, target
    assert sizes["int8"] <= 1.15 * base
    assert sizes["extended"] < sizes["stock"]
