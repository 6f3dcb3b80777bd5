"""The commands on the bundled model: what they write, what they print, in text and JSON."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess, run
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from bdnet_deploy import backends, bdn_format, load, targets
from bdnet_deploy.cli import app, console
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.export.c import c_identifier
from bdnet_deploy.host import HostModel

pytest.importorskip("torch")

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits"
MODEL = DIGITS / "model.pt"
TEST = DIGITS / "test.npz"
CALIBRATION = DIGITS / "calibration.npz"


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every test works in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    console.set_verbosity(0)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app.cli, [str(a) for a in arguments], prog_name="bdnet-deploy")


def done(*arguments: object) -> Result:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result


def report(*arguments: object) -> dict[str, Any]:
    """The JSON of a command; only it stands on stdout."""
    parsed = json.loads(done(*arguments, "--format", "json").stdout)
    assert set(parsed) == {"kind", "schema_version", "provenance", "facts", "tables"}
    assert parsed["kind"] == arguments[0]
    for table in parsed["tables"].values():
        assert set(table) == {"title", "columns", "rows", "notes"}
        keys = {column["key"] for column in table["columns"]}
        assert all(set(row) == keys for row in table["rows"])
    return dict(parsed)


# -- export -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "options", "head"),
    [
        ("tflite", (), b"TFL3"),
        ("onnx", (), b"bdnet"),
        ("bdn", (), b"BDN1"),
        ("bdn", ("--numerics", "fixed16", "--calibrate", CALIBRATION), b"BDN1"),
        ("c", ("--calibrate", CALIBRATION), b"const"),
        ("c", ("--numerics", "float"), b"const"),
    ],
)
def test_export_without_output(target: str, options: tuple[object, ...], head: bytes) -> None:
    result = done("export", MODEL, "--target", target, *options)
    assert f"wrote model.{target}" in result.stderr
    written = {f"model.{target}"} | ({"model.h", "model.manifest.json"} if target == "c" else set())
    assert {path.name for path in Path().iterdir()} == written
    data = Path(f"model.{target}").read_bytes()
    assert head in data
    assert hashlib.sha256(data).hexdigest() in result.stdout
    assert f"{len(data):,}" in result.stdout


def test_export_is_reported_as_data() -> None:
    made = report("export", MODEL, "--target", "bdn", "--numerics", "fixed16", "--calibrate", CALIBRATION)
    row = made["tables"]["files"]["rows"][0]
    assert row == {
        "file": "model.bdn",
        "bytes": Path("model.bdn").stat().st_size,
        "sha256": hashlib.sha256(Path("model.bdn").read_bytes()).hexdigest(),
    }
    provenance = made["provenance"]
    assert provenance["target"] == "bdn"
    assert provenance["numerics"] == "fixed16"
    assert provenance["source_sha256"] == hashlib.sha256(MODEL.read_bytes()).hexdigest()
    header = bdn_format.read(Path("model.bdn").read_bytes()).header
    assert int(header["numerics"]) == bdn_format.Numerics.FIXED16


def test_export_to_a_named_file_replaces_it_whole() -> None:
    out = Path("sub") / "net.tflite"
    out.parent.mkdir()
    out.write_bytes(b"older")
    out.chmod(0o640)
    result = done("export", MODEL, "--target", "tflite", "-o", out)
    assert f"wrote {out}" in result.stderr
    assert out.read_bytes() != b"older"
    assert [path.name for path in out.parent.iterdir()] == ["net.tflite"]
    if os.name == "posix":
        assert out.stat().st_mode & 0o777 == 0o640


def test_source_is_never_overwritten() -> None:
    Path("model.pt").write_bytes(MODEL.read_bytes())
    result = invoke("export", "model.pt", "--target", "onnx", "-o", "model.pt")
    assert result.exit_code == 2
    assert Path("model.pt").read_bytes() == MODEL.read_bytes()


def test_a_foreign_source_is_not_replaced_by_default() -> None:
    done("export", MODEL, "--target", "onnx")
    before = Path("model.onnx").read_bytes()
    result = invoke("export", "model.onnx", "--target", "onnx")
    assert result.exit_code == 2
    assert "-o model-exported.onnx" in result.stderr
    assert Path("model.onnx").read_bytes() == before
    done("export", "model.onnx", "--target", "onnx", "-o", "model-exported.onnx")


def test_fixed_numerics_need_samples() -> None:
    result = invoke("export", MODEL, "--target", "bdn", "--numerics", "fixed16")
    assert result.exit_code == 2
    assert "--calibrate" in result.stderr
    assert "calibration samples" in result.stderr
    assert list(Path().iterdir()) == []


def test_exported_c_names() -> None:
    done("export", MODEL, "--target", "c", "--numerics", "float", "-o", "digits_net.c")
    assert '#include "digits_net.h"' in Path("digits_net.c").read_text(encoding="utf-8")
    Path("my net-2.pt").write_bytes(MODEL.read_bytes())
    result = invoke("export", "my net-2.pt", "--target", "c", "--numerics", "float")
    assert result.exit_code == 2
    assert f"-o {c_identifier('my net-2')}.c" in result.stderr


def test_quiet_and_report_file() -> None:
    result = done("export", MODEL, "--target", "onnx", "-q", "--report", "out.html")
    assert result.stderr == ""
    assert "model.onnx" in Path("out.html").read_text(encoding="utf-8")


def test_models_by_code_and_by_architecture() -> None:
    """Random weights; those of an architecture are always the same."""
    for name in ("first", "second"):
        done("export", "--arch", "bdnet_digits", "--target", "bdn", "-o", f"{name}.bdn")
    done("export", "--model", "bdnet_deploy.models:bdnet_digits", "--target", "bdn", "-o", "code.bdn")
    first, code = (bdn_format.read(Path(name).read_bytes()) for name in ("first.bdn", "code.bdn"))
    assert Path("first.bdn").read_bytes() == Path("second.bdn").read_bytes()
    assert np.array_equal(first.steps["out_channels"], code.steps["out_channels"])


# -- inspect ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imagenet() -> dict[str, Any]:
    return report("inspect", "--model", "bdnet_deploy.models:bdnet_mobilenet_v1", "--input", "1x3x224x224")


def test_operations_of_the_published_network(imagenet: dict[str, Any]) -> None:
    """MobileNet V1's arithmetic at 224x224, from its layers' shapes (arXiv 1704.04861, table 1)."""
    blocks = [(32, 64, 112, 1), (64, 128, 112, 2), (128, 128, 56, 1), (128, 256, 56, 2), (256, 256, 28, 1)]
    blocks += [(256, 512, 28, 2), *[(512, 512, 14, 1)] * 5, (512, 1024, 14, 2), (1024, 1024, 7, 1)]
    depthwise = sum(9 * cin * (size // stride) ** 2 for cin, _, size, stride in blocks)
    pointwise = sum(cin * cout * (size // stride) ** 2 for cin, cout, size, stride in blocks)
    full = 27 * 32 * 112**2 + 1024 * 1000
    kinds = {row["kind"]: row["macs"] for row in imagenet["tables"]["macs"]["rows"]}
    assert sum(n for kind, n in kinds.items() if kind.startswith("point-wise")) == pointwise
    assert sum(n for kind, n in kinds.items() if kind.startswith("depth-wise")) == depthwise
    assert kinds["full-precision"] == full
    assert (f"{pointwise / 1e6:.2f}", f"{depthwise / 1e6:.3f}", f"{full / 1e6:.3f}") == ("539.49", "17.386", "11.862")
    rows = {row["convention"]: row for row in imagenet["tables"]["operations"]["rows"]}
    binary = pointwise + 2 * depthwise  # ternary activations: two bit planes
    assert rows["bireal"]["ops"] == full + binary / 64
    assert rows["flops"]["ops"] == 2 * full + binary / 64
    assert f"{rows['bireal']['ops_millions']:.2f}" == "20.83"
    assert f"{rows['flops']['ops_millions']:.2f}" == "32.70"
    assert "full-precision MACs + binary MACs / 64" in rows["bireal"]["rule"]
    assert rows["flops"]["rule"].startswith("2 x full-precision MACs")


def test_layers_of_the_published_network(imagenet: dict[str, Any]) -> None:
    rows = imagenet["tables"]["layers"]["rows"]
    assert len(rows) == 28  # stem, 13 pairs, classifier
    assert imagenet["facts"]["binary_layers"] == "26 of 28"
    totals: dict[str, int] = {}
    for row in rows:
        totals[row["kind"]] = totals.get(row["kind"], 0) + row["macs"]
    assert totals == {row["kind"]: row["macs"] for row in imagenet["tables"]["macs"]["rows"]}
    assert imagenet["facts"]["weight_bytes"] == sum(row["weight_bytes"] for row in rows)
    full = {row["layer"] for row in rows if row["kind"] == "full-precision"}
    reasons = {row["layer"]: row["reason"] for row in imagenet["tables"]["reasons"]["rows"]}
    assert set(reasons) == full
    assert all(reasons.values())


def test_inspect_text() -> None:
    text = done("inspect", MODEL).stdout
    for part in ("blocks.3.pw.conv", "point-wise 1-bit", "first layer", "(raw - 8) * 0.125", "8 of 10"):
        assert part in text
    for title in ("why layers are not binary", "multiply-accumulates", "operations"):
        assert f"\n\n{title}\n" in text  # a blank line before every table


# -- run and evaluate ---------------------------------------------------------------------------------------------------------


def test_run_gives_the_same_from_every_file() -> None:
    done("export", MODEL, "--target", "bdn", "-o", "float.bdn")
    done("export", MODEL, "--target", "bdn", "--numerics", "fixed16", "--calibrate", CALIBRATION, "-o", "fixed.bdn")
    done("export", MODEL, "--target", "c", "--calibrate", CALIBRATION)
    data = ("--data", TEST, "--limit", "20")
    fixed = ("--numerics", "fixed16", "--calibrate", CALIBRATION)
    labels = np.load(TEST)["y"][:20]
    for module, others in ((("run", MODEL), ["float.bdn"]), (("run", MODEL, *fixed), ["fixed.bdn", "model.c"])):
        expected = report(*module, *data)["tables"]["predictions"]["rows"]
        assert len(expected) == 20
        assert [int(row["label"]) for row in expected] == labels.tolist()
        assert sum(row["predicted"] == row["label"] for row in expected) >= 18
        for other in others:
            assert report("run", other, *data)["tables"]["predictions"]["rows"] == expected


def test_run_in_python_is_the_same() -> None:
    model = load(MODEL)
    logits = model.run(TEST, numerics="fixed16", calibrate=CALIBRATION, limit=5)
    rows = report("run", MODEL, "--data", TEST, "--limit", "5", "--numerics", "fixed16", "--calibrate", CALIBRATION)
    assert [row["logit"] for row in rows["tables"]["predictions"]["rows"]] == logits.reshape(5, -1).max(1).tolist()


def test_numerics_of_a_file_are_its_own() -> None:
    done("export", MODEL, "--target", "bdn")
    result = invoke("run", "model.bdn", "--data", TEST, "--numerics", "fixed16")
    assert result.exit_code == 2
    assert "leave --numerics out" in result.stderr


def test_evaluate_side_by_side() -> None:
    names = ("pytorch", "host", "reference:fixed16", "host:fixed16", "onnxruntime")
    options = [part for name in names for part in ("--backend", name)]
    table = report("evaluate", MODEL, "--data", TEST, "--limit", "40", "--calibrate", CALIBRATION, *options)
    rows = {row["backend"]: row for row in table["tables"]["backends"]["rows"]}
    assert list(rows) == ["PyTorch", "host float", "reference fixed16", "host fixed16", "onnxruntime"]
    for row in rows.values():
        assert row["samples"] == 40
        assert row["accuracy"] == 100 * row["correct"] / 40 >= 90
    assert rows["PyTorch"]["differ"] == rows["host float"]["differ"] == 0
    assert rows["host fixed16"]["bytes_equal"] == "equal to reference fixed16 on all 40"


def test_evaluate_an_emulated_core() -> None:
    options = ("--backend", "host:fixed16", "--backend", "cortex-m4", "--calibrate", CALIBRATION)
    rows = report("evaluate", MODEL, "--data", TEST, "--limit", "3", *options)["tables"]["backends"]["rows"]
    assert rows[1]["backend"] == "cortex-m4 fixed16"
    assert rows[1]["bytes_equal"] == "equal to host fixed16 on all 3"
    assert rows[1]["distance"] == 0


def test_evaluate_ends_4_when_bytes_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """A back end that is wrong in one element of one sample is named."""
    original = backends.ReferenceBackend.raw

    def wrong(self: backends.ReferenceBackend, x: Any, progress: Any = None) -> Any:
        result = original(self, x, progress)
        result[1].reshape(-1)[0] += 1
        return result

    monkeypatch.setattr(backends.ReferenceBackend, "raw", wrong)
    result = invoke("evaluate", MODEL, "--data", TEST, "--limit", "3", "--backend", "host", "--backend", "reference")
    assert result.exit_code == 4
    assert "NOT equal to host float on 1 of 3" in result.stdout
    assert "reference float" in result.stderr


# -- profile ------------------------------------------------------------------------------------------------------------------


def test_profile_repeats_and_adds_up() -> None:
    arguments = ("profile", MODEL, "--core", "cortex-m4", "--format", "json")
    first, second = done(*arguments).stdout, done(*arguments).stdout
    assert first == second
    parsed = json.loads(first)
    facts = parsed["facts"]
    assert facts["numerics"] == "fixed16"
    layers, functions = (parsed["tables"][key]["rows"] for key in ("layers", "functions"))
    assert layers[-1]["layer"] == "(runtime and harness)"
    assert sum(row["instructions"] for row in layers) == facts["instructions"]
    assert sum(row["instructions"] for row in functions) == facts["instructions"]
    assert round(sum(row["cycles_estimated"] for row in layers)) == facts["cycles_estimated"]
    kinds = report("inspect", MODEL)["tables"]["macs"]["rows"]
    assert sum(row["macs"] or 0 for row in layers) == sum(row["macs"] for row in kinds)
    for key in ("flash_bytes", "ram_bytes", "arena_bytes", "stack_bytes", "ms_estimated", "timing_validation"):
        assert facts[key]
    assert {"compiler", "image_sha256", "model_sha256", "emulator"} <= set(parsed["provenance"])


@pytest.mark.parametrize(
    "options",
    [
        ("--push-rows",),
        pytest.param((), marks=pytest.mark.slow),
        pytest.param(("--ram", "11K"), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_slices_add_up(options: tuple[str, ...]) -> None:
    """The slices make the kernel calls that the host library makes, and do the work of a whole run."""
    parsed = report("profile", MODEL, "--core", "cortex-m4", "--numerics", "fixed8", "--slices", *options)
    facts, slices = parsed["facts"], parsed["tables"]["slices"]["rows"]
    model = load(MODEL)
    kilobytes = int(options[1][:-1]) * 1024 if "--ram" in options else None
    sets = targets.core("cortex-m4").sets
    plan = model.lowered("fixed8").replanned(ram=kilobytes, push_rows="--push-rows" in options, sets=sets).plan
    assert facts["execution"] == plan.execution
    _, count = HostModel(write_bdn(plan)).run_rows(np.zeros((8, 8, 1), np.uint8))
    assert facts["slices"] == count == sum(row["slices"] for row in slices)
    called = [row for row in slices if row["step"] is not None]
    assert [(row["step"], row["layer"]) for row in called] == [(i, s.name) for i, s in enumerate(plan.steps)]
    assert facts["longest_slice_instructions"] == max(row["longest"] for row in slices)
    longest = max(called, key=lambda row: row["longest"])
    assert facts["longest_slice_step"] == f"{longest['step']} {longest['layer']}"
    for row, layer in zip(called, parsed["tables"]["layers"]["rows"], strict=False):
        assert layer["instructions"] < row["longest"] * row["slices"] * 1.3
        assert row["longest"] > layer["instructions"] / row["slices"]


def test_memory_of_all_mixes() -> None:
    """What inspect and profile say of memory is what the plan says, and limits choose another mix."""
    parsed = report("inspect", MODEL, "--numerics", "fixed8")
    mixes = {row["mix"]: row for row in parsed["tables"]["mixes"]["rows"]}
    assert mixes["chosen"] | {"mix": ""} == mixes["map by map"] | {"mix": ""}
    assert all(mixes["smallest"]["lower_bound"] <= row["lower_bound"] <= row["bytes"] for row in mixes.values())
    small = report("inspect", MODEL, "--numerics", "fixed8", "--ram", mixes["smallest"]["bytes"])
    assert small["facts"]["execution"] == mixes["smallest"]["execution"] != "map by map"
    cached = report("inspect", MODEL, "--numerics", "fixed8", "--cache", "2K")
    assert "row by row" in cached["facts"]["execution"]
    live = [row["live_bytes"] for row in cached["tables"]["timeline"]["rows"]]
    chosen = cached["tables"]["mixes"]["rows"][0]
    assert max(live) <= chosen["lower_bound"] <= chosen["bytes"]
    assert "tables" in parsed and "mixes" not in report("inspect", MODEL)["tables"]
    refused = invoke("inspect", MODEL, "--cache", "2K")
    assert refused.exit_code == 2 and "--numerics" in refused.output


def test_profile_says_what_is_not_known() -> None:
    text = done("profile", MODEL, "--core", "cortex-m0plus", "--numerics", "float").stdout
    assert "counts depend on the input" in text
    assert "100 MHz (nominal: no board named)" in text


@pytest.mark.slow
def test_profile_of_a_board() -> None:
    facts = report("profile", MODEL, "--board", "pico")["facts"]
    assert "nominal" not in facts["clock"]
    assert facts["instructions"] == report("profile", MODEL, "--core", "cortex-m0plus")["facts"]["instructions"]


# -- consoles and seeds ---------------------------------------------------------------------------------------------------------


def process(*arguments: object, **environment: str) -> CompletedProcess[str]:
    encoding = environment.get("PYTHONIOENCODING", "utf-8")
    finished = run(
        [sys.executable, "-c", "from bdnet_deploy.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        encoding=encoding,
        env={**os.environ, "NO_COLOR": "1", **environment},
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr
    return finished


def test_bytes_do_not_depend_on_the_hash_seed() -> None:
    """Every target in two processes whose sets and dictionaries of strings are ordered differently."""
    code = (
        "import sys, bdnet_deploy\n"
        "model = bdnet_deploy.load(sys.argv[1])\n"
        "for kind in ('tflite', 'onnx', 'bdn'): model.export(kind, f'{sys.argv[2]}.{kind}')\n"
        "model.export('c', 'model.c', numerics='fixed16', calibrate=sys.argv[3])\n"
        "import pathlib; pathlib.Path('model.c').rename(sys.argv[2] + '.c')\n"
    )
    for seed in ("1", "77"):
        finished = run(
            [sys.executable, "-c", code, str(MODEL), f"seed{seed}", str(CALIBRATION)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
        assert finished.returncode == 0, finished.stderr
    for kind in ("tflite", "onnx", "bdn", "c"):
        assert Path(f"seed1.{kind}").read_bytes() == Path(f"seed77.{kind}").read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [("inspect", MODEL), pytest.param(("export", MODEL, "--target", "bdn"), marks=pytest.mark.slow)],
    ids=lambda arguments: arguments[0],
)
def test_old_console(arguments: tuple[object, ...]) -> None:
    old = process(*arguments, PYTHONIOENCODING="cp1252")
    assert old.stdout == process(*arguments, PYTHONIOENCODING="utf-8").stdout
    assert "Error" not in old.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("profile", MODEL, "--core", "cortex-m4"),
        ("evaluate", MODEL, "--data", TEST, "--limit", "2"),
        ("run", MODEL, "--data", TEST),
        ("doctor",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_command_on_an_old_console(arguments: tuple[object, ...]) -> None:
    assert process(*arguments, PYTHONIOENCODING="cp1252").stdout
