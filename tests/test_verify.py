"""``verify``: equal files pass, every planted difference is found and its layer named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from bdnet_deploy import bdn_format, load
from bdnet_deploy.analysis.verify import VerifyError
from bdnet_deploy.bdn_reader import BdnReader
from bdnet_deploy.cli import app
from bdnet_deploy.errors import MismatchError, ModelFileError, UsageError
from bdnet_deploy.export.foreign import METADATA_KEY
from bdnet_deploy.export.tflite.compact import unpack_structure
from bdnet_deploy.export.tflite.flatbuffer import from_bytes, to_bytes
from bdnet_deploy.graph import Conv2d, Sign
from bdnet_deploy.model import Model
from bdnet_deploy.report import Report

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits"
BINARY_LAYERS = tuple(f"blocks.{i}.{kind}.conv" for i in range(4) for kind in ("dw", "pw"))


@pytest.fixture(scope="module")
def model() -> Model:
    pytest.importorskip("torch")
    return load(DIGITS / "model.pt")


@pytest.fixture(scope="module")
def files(model: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model in every format, by a name of the test's own."""
    folder = tmp_path_factory.mktemp("exported")
    calibration = DIGITS / "calibration.npz"
    wanted = {
        "tflite": ("tflite", "model.tflite", None),
        "onnx": ("onnx", "model.onnx", None),
        "bdn": ("bdn", "model.bdn", "float"),
        "fixed16": ("bdn", "fixed16.bdn", "fixed16"),
        "fixed8": ("bdn", "fixed8.bdn", "fixed8"),
        "c": ("c", "model.c", "fixed16"),
    }
    for target, name, numerics in wanted.values():
        fixed = numerics in ("fixed16", "fixed8")
        model.export(target, folder / name, numerics=numerics, calibrate=calibration if fixed else None)
    return {key: folder / name for key, (_, name, _) in wanted.items()}


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app.cli, [str(a) for a in arguments], prog_name="bdnet-deploy")


def node_of(model: Model, layer: str) -> str:
    """The graph's name of a layer's convolution."""
    nodes = model.lowered("float").graph.nodes
    return next(n.name for n in nodes if n.source == layer and isinstance(n.op, Conv2d))


def planted(path: Path, folder: Path, blob: bytes, at: int, bit: int) -> Path:
    """The file with one bit of ``blob`` flipped, which occurs once in it."""
    data = bytearray(path.read_bytes())
    assert data.count(blob) == 1
    data[data.index(blob) + at] ^= 1 << bit
    out = folder / path.name
    out.write_bytes(data)
    return out


def first_difference(model: Model, path: Path, **options: object) -> VerifyError:
    with pytest.raises(VerifyError) as caught:
        model.verify(path, limit=1, **options)  # type: ignore[arg-type]
    assert caught.value.exit_code == 4
    assert caught.value.report.facts["verdict"] == "differs"
    return caught.value


def different(report: Report, check: str) -> set[str]:
    rows = report.table("comparisons").rows
    return {str(row["layer"]) for row in rows if row["check"] == check and row["result"] == "differs"}


# -- equal --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tflite", "onnx", "bdn", "fixed16", "fixed8", "c"])
def test_equal_files_pass(files: dict[str, Path], kind: str) -> None:
    result = invoke("verify", DIGITS / "model.pt", files[kind], "--inputs", DIGITS / "test.npz", "--format", "json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["facts"]["verdict"] == "equal"
    rows = report["tables"]["comparisons"]["rows"]
    assert rows and all(row["different"] == 0 for row in rows)
    assert {row["layer"] for row in rows if row["check"] == "weights"} == {"stem", *BINARY_LAYERS, "classifier"}
    summary = {row["check"]: row for row in report["tables"]["summary"]["rows"]}
    assert summary["weights"]["comparisons"] == 10
    assert summary["weights"]["compared"] == sum(row["compared"] for row in rows if row["check"] == "weights")
    if kind == "tflite":  # the stock interpreter ran every layer, in both of its kernel modes
        assert summary["LCE default layer"]["comparisons"] == summary["LCE indirect layer"]["comparisons"] > 30


@pytest.mark.parametrize("kind", ["fixed16", "fixed8", "c"])
def test_fixed_point_is_compared_byte_for_byte_with_the_samples(files: dict[str, Path], kind: str) -> None:
    result = invoke("verify", DIGITS / "model.pt", files[kind], "--calibrate", DIGITS / "calibration.npz", "--limit", 2)
    assert result.exit_code == 0, result.stderr
    assert "every byte" in result.stdout
    assert "host library layer" in result.stdout


def test_random_inputs_do_not_judge_fixed_point(files: dict[str, Path]) -> None:
    result = invoke("verify", DIGITS / "model.pt", files["fixed16"])
    assert result.exit_code == 0, result.stderr
    assert "not judged" in result.stdout


def test_equal_near_ties_and_verdict_in_text(files: dict[str, Path]) -> None:
    text = invoke("verify", DIGITS / "model.pt", files["bdn"]).stdout
    assert text.index("verdict") < text.index("comparisons")
    assert "\n\nsummary\n" in text


# -- planted differences --------------------------------------------------------------------------------------------------


def stored_constants(path: Path) -> dict[str, np.ndarray]:
    """Name of a constant of the graph -> the content of the one tensor of a ``.tflite`` that holds it."""
    file = from_bytes(path.read_bytes())
    tensors = {t.name: t.data for t in file.tensors}
    constants = unpack_structure(json.loads(file.metadata[METADATA_KEY])["structure"], file)["constants"]
    names = {name: record.get("tensors", [name])[0] for name, *_, record in constants if record["form"] != "fill"}
    return {name: data for name, tensor in names.items() if (data := tensors[tensor]) is not None}


@pytest.mark.parametrize("layer", BINARY_LAYERS)
def test_flipped_weight_bit_in_tflite(model: Model, files: dict[str, Path], tmp_path: Path, layer: str) -> None:
    node = next(n for n in model.float_graph().nodes if n.name == node_of(model, layer))
    data = stored_constants(files["tflite"])[node.inputs[1].name]
    if data.dtype == np.int8:  # another sign is more than one bit; one bit makes a number that no weight is
        with pytest.raises(ModelFileError, match=f"'{node.inputs[1].name}' is no bit"):
            model.verify(planted(files["tflite"], tmp_path, data.tobytes(), 7, 7), limit=1)
        path = files["tflite"].with_name("flipped.tflite")
        content = from_bytes(files["tflite"].read_bytes())
        tensor = next(t for t in content.tensors if t.data is not None and np.array_equal(t.data, data))
        tensor.data = data.copy()
        tensor.data.ravel()[1] *= -1
        path.write_bytes(to_bytes(content))
    else:  # the sign of the second element: a packed word's channel 31, or a float's sign
        path = planted(files["tflite"], tmp_path, data.tobytes(), 7, 7)
    error = first_difference(model, path)
    assert f"layer '{layer}' (weights)" in error.what
    assert different(error.report, "weights") == {layer}
    runtime = different(error.report, "LCE default layer")  # the interpreter meets it, too, and nowhere else
    prefix = layer.removesuffix(".conv")
    assert runtime and all(name.startswith(prefix) for name in runtime)


@pytest.mark.parametrize("layer", BINARY_LAYERS)
def test_flipped_weight_bit_in_onnx(model: Model, files: dict[str, Path], tmp_path: Path, layer: str) -> None:
    onnx = pytest.importorskip("onnx")
    proto = onnx.load_model(str(files["onnx"]))
    call = next(n for n in proto.graph.node if n.name == node_of(model, layer))
    blob = next(t.raw_data for t in proto.graph.initializer if t.name == call.input[1])
    error = first_difference(model, planted(files["onnx"], tmp_path, blob, 2, 3))
    assert f"layer '{layer}' (weights)" in error.what
    assert different(error.report, "weights") == {layer}


def edited(path: Path, folder: Path, offset: int, bit: int) -> Path:
    """A ``.bdn`` with a bit of its constants flipped and a right checksum: an edit, not damage."""
    file = BdnReader.open(path).file
    data = bytearray(path.read_bytes())
    data[data.index(file.constants) + offset] ^= 1 << bit
    out = folder / path.name
    out.write_bytes(bdn_format.seal(bytes(data)))
    return out


@pytest.mark.parametrize("kind", ["bdn", "fixed16"])
@pytest.mark.parametrize("layer", BINARY_LAYERS)
def test_flipped_weight_bit_in_bdn(model: Model, files: dict[str, Path], tmp_path: Path, layer: str, kind: str) -> None:
    reader = BdnReader.open(files[kind])
    plan = model.lowered(reader.numerics).plan
    index = next(i for i, step in enumerate(plan.steps) if step.weights is not None and step.nodes[0].source == layer)
    path = edited(files[kind], tmp_path, int(reader.file.steps[index]["weights"]) + 2, 5)
    error = first_difference(model, path)
    assert f"layer '{layer}' (weights)" in error.what
    assert different(error.report, "weights") == {layer}


def test_flipped_weight_bit_in_c(model: Model, files: dict[str, Path], tmp_path: Path) -> None:
    reader = BdnReader.open(files["c"])
    plan = model.lowered("fixed16").plan
    index = next(i for i, step in enumerate(plan.steps) if step.nodes[0].source == "blocks.2.pw.conv")
    data = bytearray(reader.data)
    data[data.index(reader.file.constants) + int(reader.file.steps[index]["weights"])] ^= 1
    words = np.frombuffer(bdn_format.seal(bytes(data)), "<u4")
    old = np.frombuffer(reader.data, "<u4")
    text = files["c"].read_text(encoding="utf-8")
    for before, after in {(int(a), int(b)) for a, b in zip(old, words) if a != b}:
        assert text.count(f"0x{before:08x}u") == 1
        text = text.replace(f"0x{before:08x}u", f"0x{after:08x}u")
    path = tmp_path / "model.c"
    path.write_text(text, encoding="utf-8")
    assert "layer 'blocks.2.pw.conv' (weights)" in first_difference(model, path).what


def test_changed_parameters_in_bdn(model: Model, files: dict[str, Path], tmp_path: Path) -> None:
    """An affine factor, a slope and a threshold of each step's epilogue, one at a time."""
    calibration = DIGITS / "calibration.npz"
    for kind, options in (("bdn", {}), ("fixed16", {"calibrate": calibration})):
        reader = BdnReader.open(files[kind])
        plan = model.lowered(reader.numerics, options.get("calibrate")).plan
        tried: set[str] = set()
        for index, step in enumerate(plan.steps):
            at = int(reader.file.steps[index]["epilogue_at"])
            if at == bdn_format.ABSENT:
                continue
            record = np.frombuffer(reader.file.constants, bdn_format.EPILOGUE, 1, at)[0]
            names = [n for n in ("mul", "add", "negative", "low", "high") if record[n] != bdn_format.ABSENT]
            for name in set(names) - tried:
                tried.add(name)
                path = edited(files[kind], tmp_path, int(record[name]), 0)  # the last place of channel 0
                error = first_difference(model, path, **options)
                assert f"layer '{step.name}' (parameters)" in error.what
                assert f"{name}[0]" in str(error.why)
        assert {"mul", "add", "negative", "low", "high"} == tried


def test_changed_parameters_in_tflite(model: Model, files: dict[str, Path], tmp_path: Path) -> None:
    constants = stored_constants(files["tflite"])
    content = files["tflite"].read_bytes()
    tried = set()
    for node in model.lowered("float").graph.nodes:
        for value in node.inputs[1:] if node.op.name not in ("conv2d", "linear") else ():
            blob = constants[value.name].tobytes() if value.name in constants else b""
            if len(blob) < 8 or content.count(blob) != 1 or node.op.name in tried:
                continue
            tried.add(node.op.name)
            path = planted(files["tflite"], tmp_path, blob, 2, 4)
            error = first_difference(model, path)
            assert f"layer '{node.source}' (parameters)" in error.what
            assert value.name in str(error.why)
    assert {"ternarize", "affine", "two_slope"} <= tried


def test_changed_parameters_in_onnx(model: Model, files: dict[str, Path], tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    proto = onnx.load_model(str(files["onnx"]))
    calls = {n.name: n for n in proto.graph.node}
    raw = {t.name: t.raw_data for t in proto.graph.initializer}
    content = files["onnx"].read_bytes()
    tried = set()
    for node in model.lowered("float").graph.nodes:
        for i in range(1, len(node.inputs)) if node.op.name not in ("conv2d", "linear") else ():
            blob = raw.get(calls[node.name].input[i], b"")
            if len(blob) < 8 or content.count(blob) != 1 or node.op.name in tried:
                continue
            tried.add(node.op.name)
            error = first_difference(model, planted(files["onnx"], tmp_path, blob, 2, 4))
            assert f"layer '{node.source}' (parameters)" in error.what
    assert {"ternarize", "affine", "two_slope"} <= tried


def test_folded_thresholds_in_tflite(tmp_path: Path) -> None:
    """A network without residuals: its signs are integer comparisons inside Larq's convolutions."""
    plain = {"residual_dw": "none", "residual_pw": "none", "ternary": "none"}
    model = load(arch="bdnet_digits", settings=plain)
    path = model.export("tflite", tmp_path / "plain.tflite").paths[0]
    model.verify(path, limit=1)
    file = from_bytes(path.read_bytes())
    constants = unpack_structure(json.loads(file.metadata[METADATA_KEY])["structure"], file)["constants"]
    name, *_, record = next(c for c in constants if c[3]["form"] == "limit")
    tensor = next(t for t in file.tensors if t.name == record["tensors"][0])
    assert tensor.data is not None
    tensor.data = tensor.data.copy()
    tensor.data[0] += 2
    changed = tmp_path / "changed.tflite"
    changed.write_bytes(to_bytes(file))
    error = first_difference(model, changed)
    node = next(n for n in model.float_graph().nodes if any(v.name == name for v in n.inputs))
    assert f"layer '{node.source}' (thresholds)" in error.what
    assert f"{name}[0]" in str(error.why)
    assert different(error.report, "thresholds") == {node.source}


def test_other_preprocessing_is_a_difference(model: Model, tmp_path: Path) -> None:
    other = load(DIGITS / "model.pt", preprocess={"dtype": "u8", "mean": 0.0, "std": 1.0})
    for kind in ("tflite", "onnx", "bdn"):
        path = other.export(kind, tmp_path / f"model.{kind}").paths[0]
        assert "(I/O description)" in first_difference(model, path).what


# -- other files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tflite", "onnx", "bdn"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"widths": [32, 64, 64], "strides": [2, 1]}, {"input_size": 16}, {"residual_pw": "none"}],
    ids=["weights", "depth", "size", "residual"],
)
def test_another_model(model: Model, tmp_path: Path, kind: str, settings: dict[str, object]) -> None:
    other = load(arch="bdnet_digits", settings=settings)
    path = other.export(kind, tmp_path / f"other.{kind}").paths[0]
    with pytest.raises(MismatchError) as caught:
        model.verify(path)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("kind", ["tflite", "onnx", "bdn"])
def test_truncated_files(model: Model, files: dict[str, Path], tmp_path: Path, kind: str) -> None:
    data = files[kind].read_bytes()
    for size in (0, 1, 40, len(data) // 3, len(data) // 2, len(data) - 5):
        path = tmp_path / f"short.{kind}"
        path.write_bytes(data[:size])
        with pytest.raises(ModelFileError) as caught:
            model.verify(path)
        assert str(path) in str(caught.value)


def test_damaged_bdn_is_damage_not_difference(model: Model, files: dict[str, Path], tmp_path: Path) -> None:
    data = bytearray(files["bdn"].read_bytes())
    data[len(data) // 2] ^= 1
    path = tmp_path / "model.bdn"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match="checksum"):
        model.verify(path)


def test_command_line_of_a_difference(files: dict[str, Path], tmp_path: Path) -> None:
    other = load(arch="bdnet_digits").export("bdn", tmp_path / "other.bdn").paths[0]
    result = invoke("verify", DIGITS / "model.pt", other, "--format", "json")
    assert result.exit_code == 4
    assert json.loads(result.stdout)["facts"]["verdict"] == "differs"
    assert "in layer 'stem' (weights)" in result.stderr
    assert "fix: export it again" in result.stderr


def test_usage(model: Model, files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave --calibrate out"):
        model.verify(files["tflite"], calibrate=DIGITS / "calibration.npz")
    (tmp_path / "model.xyz").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot be verified"):
        model.verify(tmp_path / "model.xyz")
    with pytest.raises(ModelFileError, match=r"nearest: .*model\.tflite"):
        model.verify(files["tflite"].with_name("modle.tflite"))


# -- row by row ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numerics", ["float", "fixed16"])
@pytest.mark.parametrize(
    "options", [{"push_rows": True}, {"ram": 12 * 1024}, {"push_rows": True, "target": "c"}], ids=str
)
def test_streamed_files(model: Model, tmp_path: Path, numerics: str, options: dict[str, object]) -> None:
    """Layers are compared one by one although the file's maps are rings; a flipped weight is found as elsewhere."""
    settings = dict(options)
    target = str(settings.pop("target", "bdn"))
    if numerics == "float" and "ram" in settings:
        settings["ram"] = 20 * 1024
    calibration = DIGITS / "calibration.npz"
    fixed = None if numerics == "float" else calibration
    path = tmp_path / f"streamed.{target}"
    model.export(target, path, numerics=numerics, calibrate=fixed, **settings)  # type: ignore[arg-type]
    report = model.verify(path, inputs=DIGITS / "test.npz", calibrate=fixed, limit=3)
    rows = report.table("comparisons").rows
    assert report.facts["verdict"] == "equal"
    assert sum(row["check"] == "host library layer" for row in rows) >= len(BINARY_LAYERS)
    if target == "bdn":
        file = bdn_format.read(path.read_bytes())
        assert file.steps["segment"].any()
        data = bytearray(path.read_bytes())
        data[data.index(file.constants) + int(file.steps[2]["weights"])] ^= 1
        path.write_bytes(bdn_format.seal(bytes(data)))
        error = first_difference(model, path, calibrate=fixed)
        assert "blocks.0.pw.conv" in str(error)


def test_the_import_itself(model: Model) -> None:
    """Without an exported file: the graph against PyTorch, layer by layer."""
    done = invoke("verify", DIGITS / "model.pt", "--limit", "3", "--format", "json")
    assert done.exit_code == 0
    rows = json.loads(done.stdout)["tables"]["comparisons"]["rows"]
    assert {row["result"] for row in rows} <= {"equal", "equal but near ties", "not judged"}
    assert sum("sign" in row["layer"] or "ternarize" in row["layer"] for row in rows) == 8
    assert invoke("verify", DIGITS / "model.pt", "--calibrate", DIGITS / "test.npz").exit_code == 2
    imported = model.verify_import(limit=2)
    assert imported.facts["verdict"] == "equal"


def test_a_model_by_code(model: Model, tmp_path: Path) -> None:
    """verify takes the same models as export: here an architecture with random weights."""
    path = tmp_path / "random.bdn"
    options = ("--arch", "bdnet_digits")
    assert invoke("export", *options, "--target", "bdn", "-o", path).exit_code == 0
    assert invoke("verify", *options, path).exit_code == 0
    assert invoke("verify", DIGITS / "model.pt", path).exit_code == 4
    alone = invoke("verify", path)
    assert alone.exit_code == 2
    assert "verify takes a model and an exported file" in alone.stderr


def test_a_wrong_import_is_found_and_named() -> None:
    """One flipped weight bit, and one threshold moved, in the graph that is compared."""
    torch = pytest.importorskip("torch")
    from bdnet_deploy.analysis.comparing.imported import compare_import
    from bdnet_deploy.analysis.comparing.verdicts import Verdicts
    from bdnet_deploy.importers.torch import import_recorded

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.stem, self.body = torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3, bias=False)
            self.body.weight.data = torch.where(self.body.weight >= 0, 1.0, -1.0)

        def forward(self, x):  # type: ignore[no-untyped-def]
            return self.body(torch.where(self.stem(x) >= 0.1, 1.0, -1.0)).mean((2, 3))

    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    for op, change, name in ((Conv2d, lambda a: -a, "body"), (Sign, lambda a: a + 0.2, "sign")):
        imported = import_recorded(Net(), (1, 3, 8, 8))
        node = next(
            n for n in imported.graph.nodes if isinstance(n.op, op) and n.inputs[0].type.dtype.is_float == (op is Sign)
        )
        assert node.inputs[1].data is not None
        node.inputs[1].data[0] = change(node.inputs[1].data[0])
        verdicts = Verdicts()
        compare_import(imported, x, verdicts)
        assert verdicts.first is not None and name in verdicts.first[1]


def test_an_import_that_takes_every_zero_for_one_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of signs are 0 often. Where the importer calls that a coincidence, the comparison must not."""
    torch = pytest.importorskip("torch")
    from bdnet_deploy.analysis.comparing.imported import compare_import
    from bdnet_deploy.analysis.comparing.verdicts import Verdicts
    from bdnet_deploy.importers.torch import build

    class Sums(torch.nn.Module):
        def forward(self, x):  # type: ignore[no-untyped-def]
            bits = torch.where(x >= 0, 1.0, -1.0)
            return torch.sign(torch.nn.functional.avg_pool2d(bits, 2) * 4).mean((2, 3))

    x = np.random.default_rng(0).normal(size=(4, 6, 6, 4)).astype(np.float32)
    right, wrong = Verdicts(), Verdicts()
    compare_import(build.import_recorded(Sums(), (1, 4, 6, 6)), x, right)
    assert right.first is None
    monkeypatch.setattr(build, "met_ties", lambda *_: set())
    compare_import(build.import_recorded(Sums(), (1, 4, 6, 6)), x, wrong)
    assert wrong.first is not None and "lie at the threshold" in wrong.first[2]


# -- any two files, and runtimes that fail -------------------------------------------------------------------------------------


PAIRS = [
    ("tflite", "onnx"),
    ("onnx", "tflite"),
    ("bdn", "tflite"),
    ("onnx", "fixed16"),
    ("bdn", "fixed8"),
    ("fixed16", "fixed16"),
]


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_any_two_files(files: dict[str, Path], a: str, b: str) -> None:
    result = invoke("verify", files[a], files[b], "--inputs", DIGITS / "test.npz", "--limit", 3, "--format", "json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    rows = report["tables"]["comparisons"]["rows"]
    checks = {row["check"] for row in rows}
    assert report["facts"]["verdict"] == "equal" and "end to end" in checks
    if "bdn" not in (a, b) and "fixed16" not in (a, b):
        assert sum(row["compared"] for row in rows if row["check"] == "weights") == 18656
    if a == b:
        assert {"constants", "structure", "self-test"} <= checks


def test_two_files_that_differ(files: dict[str, Path], tmp_path: Path) -> None:
    """One weight of the first file's network: found whichever is the reference."""
    reader = BdnReader.open(files["fixed16"])
    path = edited(files["fixed16"], tmp_path, int(reader.file.steps[2]["weights"]) + 2, 5)
    result = invoke("verify", files["fixed16"], path, "--inputs", "bundled")
    assert result.exit_code == 4 and "1 of" in result.stderr and "(constants)" in result.stderr, result.stderr
    assert "likely cause: a damaged or edited file" in result.stderr
    other = load(arch="bdnet_digits").export("bdn", tmp_path / "other.bdn").paths[0]
    result = invoke("verify", other, files["tflite"])
    assert result.exit_code == 4 and "in layer 'stem' (weights)" in result.stderr


def test_bundled_samples(model: Model, files: dict[str, Path], tmp_path: Path) -> None:
    assert model.verify(files["bdn"], inputs="bundled", limit=3).facts["samples"] == "3, test.npz beside the model"
    result = invoke("verify", files["fixed8"], files["onnx"], "--inputs", "bundled")
    assert result.exit_code == 0 and "the test vector in fixed8.bdn" in result.stdout, result.stderr
    result = invoke("verify", files["onnx"], files["tflite"], "--inputs", "bundled")
    assert result.exit_code == 2 and "no samples are bundled" in result.stderr


def test_agreement_that_is_asked_for(model: Model, files: dict[str, Path]) -> None:
    """Of 200 samples the fixed8 file gives fewer than all like float, and more than nine tenths of them."""
    options = {"inputs": DIGITS / "test.npz", "limit": 200}
    assert model.verify(files["fixed8"], **options).facts["verdict"] == "equal"  # type: ignore[arg-type]
    with pytest.raises(VerifyError, match="end to end") as caught:
        model.verify(files["fixed8"], min_agreement=1.0, **options)  # type: ignore[arg-type]
    assert "predictions differ" in str(caught.value.why)
    with pytest.raises(UsageError, match="min_agreement"):
        model.verify(files["fixed8"], min_agreement=1.5)
    with pytest.raises(UsageError, match="timeout"):
        model.verify(files["fixed8"], timeout=0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import time; time.sleep(60)", "did not finish within"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed"),
        ("raise SystemExit('RuntimeError: no')", "refused"),
    ],
)
def test_runtimes_that_fail(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    """What was decoded is compared and shown; the exit code is that of a failure, not of a difference."""
    from bdnet_deploy.peers import jobs

    worker = tmp_path / "worker.py"
    worker.write_text(text, encoding="utf-8")
    monkeypatch.setattr(jobs, "_WORKER", worker)
    result = invoke("verify", DIGITS / "model.pt", files["onnx"], "--timeout", 0.7, "--limit", 1, "--format", "json")
    assert result.exit_code == 1 and says in result.stderr, result.stderr
    report = json.loads(result.stdout)
    assert report["facts"]["verdict"] == "not run"
    rows = report["tables"]["comparisons"]["rows"]
    assert next(row["check"] for row in rows if row["result"] == "failed") == "onnxruntime layer"
    assert any(row["check"] == "weights" and row["result"] == "equal" for row in rows)


def test_edited_files_are_named(model: Model, files: dict[str, Path], tmp_path: Path) -> None:
    """An operator was changed, so that the stored graph no longer holds: said so, and compared end to end."""
    onnx = pytest.importorskip("onnx")
    proto = onnx.load_model(str(files["onnx"]))
    function = next(f for f in proto.functions if any(n.op_type == "Conv" for n in f.node))
    function.node.append(onnx.helper.make_node("Neg", [function.output[0]], ["negated"]))
    function.output[0] = "negated"
    path = tmp_path / "edited.onnx"
    onnx.save_model(proto, str(path))
    error = first_difference(model, path, inputs=DIGITS / "test.npz")
    assert "(file)" in error.what and "likely cause: an edited file" in str(error.why)
    assert different(error.report, "end to end") or different(error.report, "file")


def test_int8_files(model: Model, tmp_path: Path) -> None:
    """Bit for bit against the reference of its operators, and by agreement; a changed weight shows in its operator."""
    path = tmp_path / "int8.tflite"
    model.export("tflite", path, int8=True, calibrate=DIGITS / "calibration.npz")
    report = model.verify(path, inputs=DIGITS / "test.npz", limit=20)
    assert report.facts["verdict"] == "equal" and report.facts["file"] == "int8"
    rows = report.table("comparisons").rows
    assert sum(row["check"] == "LCE default operator" for row in rows) > 30
    assert {row["check"] for row in rows} == {
        *("I/O description", "LCE default operator", "LCE indirect operator", "end to end")
    }
    other = load(arch="bdnet_digits", preprocess=model.io)
    with pytest.raises(VerifyError, match="end to end") as caught:
        other.verify(path, inputs=DIGITS / "test.npz", limit=20)
    assert "at least 90 % must agree" in str(caught.value.why)
