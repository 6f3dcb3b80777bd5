"""Manifests: what they say of a firmware, their bytes, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_programs import DIGITS, PAGE, ROOT, kernels_of_table, model, models
from click.testing import CliRunner, Result

from bdnet_deploy import bdn_format, firmware, load, targets
from bdnet_deploy.cli import app
from bdnet_deploy.errors import DoesNotFitError, ModelFileError, UsageError
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.export.c import write_c
from bdnet_deploy.host import HostModel
from bdnet_deploy.kept_kernels import kept_kernels
from bdnet_deploy.manifest import API_VERSION, BuiltWith, Manifest, arena_bytes, make_manifest, read_manifest
from bdnet_deploy.plan.kernels import kernel_names

MODEL, CALIBRATION = DIGITS / "model.pt", DIGITS / "calibration.npz"


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app.cli, [str(a) for a in arguments], prog_name="bdnet-deploy")


# -- what they say ---------------------------------------------------------------------------------------------------------


def test_beside_a_generated_source() -> None:
    assert invoke("export", MODEL, "--target", "c", "--calibrate", CALIBRATION, "-o", "digits.c").exit_code == 0
    assert sorted(p.name for p in Path().iterdir()) == ["digits.c", "digits.h", "digits.manifest.json"]
    manifest = read_manifest(Path("digits.manifest.json"))
    source = Path("digits.c").read_text(encoding="utf-8")
    header = Path("digits.h").read_text(encoding="utf-8")
    assert list(manifest.kernels) == sorted(kernels_of_table(source))
    assert f"#define DIGITS_RESERVED_BYTES {manifest.model_bytes}u" in header
    assert f"#define DIGITS_BYTES {manifest.model_bytes}u" in header
    plan = models()["digits"].plan
    assert f"BD_ARENA_BYTES({len(plan.kernels)}u, {len(plan.steps)}u" in header
    assert manifest.format_version == bdn_format.FORMAT_VERSION
    assert manifest.model is not None and manifest.model.numerics == "fixed16"
    (port,), (result,) = manifest.model.inputs, manifest.model.outputs
    assert (port.buffer, port.meaning) == ("8x8x1 u8", "scale 0.125, zero point 8")
    assert result.buffer == "1x1x10 i16"
    quant = models()["digits"].graph.outputs[0].type.quant
    assert (
        quant is not None and result.scale == (float(quant.scale),) and result.zero_point == (float(quant.zero_point),)
    )


def test_the_same_bytes_again() -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        model().export("c", Path(folder) / "m.c", calibrate=CALIBRATION, keep_kernels="all", reserve_model=1 << 16)
    first, second = (Path(folder, "m.manifest.json").read_bytes() for folder in ("a", "b"))
    assert first == second and first.endswith(b"}\n")
    manifest = read_manifest(Path("a/m.manifest.json"))
    assert manifest.to_json().encode("utf-8") == first
    assert set(manifest.kernels) == kernel_names() and manifest.model_bytes == 1 << 16


def test_versions_are_the_runtimes() -> None:
    header = (ROOT / "runtime" / "include" / "bdnet.h").read_text(encoding="utf-8")
    shown = re.search(r"^#define BD_API_VERSION (\d+)", header, re.MULTILINE)
    assert shown and int(shown[1]) == API_VERSION


@pytest.mark.parametrize("name", ["digits", "digits8", "digits_rows"])
def test_arena_is_what_the_loader_says(name: str) -> None:
    data = write_bdn(models()[name].plan)
    file = bdn_format.read(data)
    assert arena_bytes(file, 64) == HostModel(data).info.arena_bytes
    manifest = make_manifest(data)
    assert manifest.arena_bytes == {32: arena_bytes(file, 32), 64: arena_bytes(file, 64)}
    assert manifest.arena_bytes[32] < manifest.arena_bytes[64]
    assert manifest.model is not None and manifest.model.inputs[0].pushed == (name == "digits_rows")


@pytest.mark.parametrize(("core", "bits"), [("cortex-m0plus", 32), ("cortex-a72", 64)])
@pytest.mark.parametrize("reserve", [0, 40_000])
def test_beside_an_image(core: str, bits: int, reserve: int, tmp_path: Path) -> None:
    """Sizes and kernels are those of the linked image."""
    for package in ("ziglang", "elftools"):
        pytest.importorskip(package)
    lowered, where = models()["digits"], targets.core(core)
    image = firmware.build_with_model(
        "runner", lowered, where, tmp_path, keep=["bd_dw_bb_i8"], reserve_arena=reserve, port=None
    )
    manifest = read_manifest(tmp_path / "runner.manifest.json")
    assert manifest.arena_bytes == {bits: image.symbols["arena"].size}
    assert image.symbols["arena"].size >= reserve
    assert manifest.model_bytes == image.symbols["bd_model_data"].size
    linked = {name for name in (s.partition("_on_")[0] for s in image.symbols) if name in kernel_names()}
    assert set(manifest.kernels) == {*lowered.plan.kernels, "bd_dw_bb_i8"}
    assert set(manifest.kernels) <= linked
    generic = {k for k in linked - set(manifest.kernels) if k not in image.symbols}
    assert not generic  # what is linked beside is a plain kernel that a variant falls back to


def test_beside_an_image_without_a_model(tmp_path: Path) -> None:
    for package in ("ziglang", "elftools"):
        pytest.importorskip(package)
    sizes: dict[str, str | int | None] = {"BD_RUNNER_MODEL_BYTES": 65536, "BD_RUNNER_ARENA_BYTES": 32768}
    firmware.build_runner(targets.core("cortex-m4"), tmp_path, defines=sizes)
    manifest = read_manifest(tmp_path / "runner.manifest.json")
    assert (manifest.arena_bytes, manifest.model_bytes, manifest.model) == ({32: 32768}, 65536, None)
    assert set(manifest.kernels) == kernel_names()


def test_numbers_per_channel() -> None:
    """As a model on raw pixels has them whose channels are normalised differently."""
    data = write_bdn(models()["digits8"].plan)
    file = bdn_format.read(data)
    stated = json.loads(file.records[bdn_format.RECORD_MAP])
    scales = [0.5 + i for i in range(10)]
    stated["outputs"][0].update(scale=scales, zero_point=[*range(9), 0.5])
    records = {**file.records, bdn_format.RECORD_MAP: json.dumps(stated).encode("ascii")}
    header = {k: int(file.header[k]) for k in ("tensor_bytes", "scratch_bytes", "inputs", "outputs", "numerics")}
    tables = {"kernels": file.kernels, "tensors": file.tensors, "steps": file.steps, "constants": file.constants}
    manifest = make_manifest(bdn_format.write(records=records, **tables, **header))  # type: ignore[arg-type]
    Path("m.json").write_text(manifest.to_json(), encoding="utf-8")
    assert manifest.model is not None and manifest.model.outputs[0].scale == tuple(scales)
    assert manifest.model.outputs[0].zero_point == (*range(9), 0.5)
    assert read_manifest(Path("m.json")) == manifest


def test_the_page_names_every_member() -> None:
    manifest = json.loads(make_manifest(write_bdn(models()["digits"].plan)).to_json())
    section = PAGE.read_text(encoding="utf-8").split("\n## Updates in the field\n")[1].split("\n## ")[0]
    for member in manifest:
        assert re.search(rf"^\|.*`{member}`.* \|", section, re.MULTILINE), member


# -- reserves and kept kernels -------------------------------------------------------------------------------------------------


def test_reserves_are_for_this_model_too() -> None:
    plan = models()["digits"].plan
    data = write_bdn(plan)
    needed = arena_bytes(bdn_format.read(data), 32)
    for name, value in (("reserve_arena", needed - 1), ("reserve_model", len(data) - 1)):
        with pytest.raises(DoesNotFitError, match=f"less than the {value + 1:,}") as caught:
            write_c(plan, data, name="m", **{name: value})
        assert f"--{name.replace('_', '-')} {value + 1}" in str(caught.value)
        write_c(plan, data, name="m", **{name: value + 1})
        with pytest.raises(UsageError, match="beyond 4 GiB"):
            write_c(plan, data, name="m", **{name: 2**32})
    # Above what 32-bit pointers need and below what 64-bit ones do: the larger counts.
    assert make_manifest(data, reserve_arena=needed + 16).arena_bytes == {
        32: needed + 16,
        64: arena_bytes(bdn_format.read(data), 64),
    }
    _, header = write_c(plan, data, name="m", reserve_arena=needed + 5)
    assert f"({needed + 16}u > BD_ARENA_BYTES(" in header


def test_kernels_to_keep() -> None:
    Path("new.bdn").write_bytes(write_bdn(models()["digits8"].plan))
    Path("m.json").write_text(Manifest(("bd_repeat_i8",), {32: 1}, 1).to_json(), encoding="utf-8")
    own = models()["digits8"].plan.kernels
    assert kept_kernels("all") == sorted(kernel_names())
    assert kept_kernels("bd_dw_bb_i8, bd_conv_bb_i16") == ["bd_conv_bb_i16", "bd_dw_bb_i8"]
    assert kept_kernels("new.bdn") == kept_kernels(Path("new.bdn")) == own
    assert kept_kernels(["new.bdn", "m.json", "bd_dw_bt_i8"]) == sorted({*own, "bd_repeat_i8", "bd_dw_bt_i8"})
    model().export("c", "c8.c", numerics="fixed8", calibrate=CALIBRATION)
    assert kept_kernels("c8.c") == own
    with pytest.raises(UsageError, match="unknown kernel 'bd_conv_bb_i1'") as caught:
        kept_kernels("bd_dw_bb_i8,bd_conv_bb_i1")
    near = str(caught.value).split("nearest: ")[1].split(", ")
    assert len(near) == 3 and set(near) <= kernel_names() and "bd_conv_bb_i16" in near
    Path("other.json").write_text(Manifest(("bd_of_tomorrow",), {32: 1}, 1).to_json(), encoding="utf-8")
    for wrong, error in (
        ("", UsageError),
        ("a,,b", UsageError),
        ("other.json", UsageError),
        ("no.bdn", ModelFileError),
    ):
        with pytest.raises(error):
            kept_kernels(wrong)


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("c", "--keep-kernels", "bd_conv_bb_i17"), 2, "nearest: bd_conv_bb_i16"),
        (("c", "--reserve-arena", "1K"), 3, "--reserve-arena 1"),
        (("c", "--reserve-model", "1K"), 3, "--reserve-model 2"),
        (("c", "--reserve-model", "many"), 2, "e.g. --reserve-model 200K"),
        (("bdn", "--keep-kernels", "all"), 2, "leave --keep-kernels"),
        (("onnx", "--reserve-arena", "1M"), 2, "leave --keep-kernels"),
        (("c", "--for-firmware", "m.json"), 2, "leave --for-firmware out"),
        (("bdn", "--for-firmware", "m.json"), 1, "no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_that_stop(options: tuple[str, ...], code: int, says: str) -> None:
    numerics = [] if options[0] == "onnx" else ["--numerics", "fixed16", "--calibrate", CALIBRATION]
    result = invoke("export", MODEL, "--target", *options, *numerics)
    assert (result.exit_code, list(Path().iterdir())) == (code, []), result.stderr
    assert says in result.stderr


@pytest.mark.parametrize(
    ("target", "number"),
    [
        ("bdn", {"cache": 0}),
        ("c", {"reserve_arena": -1}),
        ("c", {"reserve_model": -1}),
        ("bdn", {"model_version": -1}),
        ("c", {"model_version": 1 << 32}),
    ],
)
def test_numbers_that_are_none(target: str, number: dict[str, Any]) -> None:
    network = load(MODEL)
    with pytest.raises(UsageError, match=next(iter(number))):
        network.export(target, numerics="float", **number)
    assert list(Path().iterdir()) == []


def test_limits_of_nothing() -> None:
    network = load(MODEL)
    for call in (lambda: network.run(CALIBRATION, limit=0), lambda: network.calibration(CALIBRATION, limit=0)):
        with pytest.raises(UsageError, match="a limit of 0 samples"):
            call()


# -- hostile manifests -------------------------------------------------------------------------------------------------------------


def good() -> dict[str, Any]:
    members: dict[str, Any] = json.loads(make_manifest(write_bdn(models()["digits"].plan)).to_json())
    return members


def test_unknown_members_are_ignored() -> None:
    members = {**good(), "later": [1, {"x": None}]}
    Path("m.json").write_text(json.dumps(members), encoding="utf-8")
    assert json.loads(read_manifest(Path("m.json")).to_json()) == good()


WRONG: list[tuple[str, Any]] = [
    ("manifest_version", 2), ("manifest_version", 0), ("manifest_version", "1"), ("manifest_version", True),
    ("manifest_version", None), ("made_by", 3), ("api_version", -1), ("format_version", 0), ("format_version", 65536),
    ("format_version", 1.0), ("arena_bytes", 4096), ("arena_bytes", {}), ("arena_bytes", {"16": 4096}),
    ("arena_bytes", {"32": 0}), ("arena_bytes", {"32": 2**32}), ("arena_bytes", {"32": 1e3}), ("model_bytes", 10**40),
    ("kernels", []), ("kernels", {}), ("kernels", "all"), ("kernels", [1]), ("kernels", [None]), ("kernels", ["a b"]),
    ("kernels", ["x" * 32]), ("kernels", [""]), ("kernels", ["\ud800"]), ("kernels", ["bd_\x1b[2J"]), ("kernels", [[]]),
    ("model", []), ("model", {}), ("model", 1), ("model.numerics", "fixed4"), ("model.numerics", []), ("model.sha256", 0),
    ("model.inputs", []), ("model.inputs", [{}] * 33), ("model.inputs", [None]), ("model.outputs", None),
    ("model.inputs.height", 0), ("model.inputs.width", 65536), ("model.inputs.channels", "1"),
    ("model.inputs.dtype", "u16"), ("model.inputs.pushed", 1), ("model.inputs.scale", 0), ("model.inputs.scale", -1.0),
    ("model.inputs.scale", float("nan")), ("model.inputs.scale", float("inf")), ("model.inputs.scale", 10**400),
    ("model.inputs.scale", [0.5, 0.5]), ("model.inputs.scale", []), ("model.inputs.scale", [[1.0]]), ("model.inputs.scale", [-1.0]),
    ("model.inputs.zero_point", None), ("model.inputs.zero_point", float("-inf")),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), WRONG, ids=lambda v: repr(v)[:24])
def test_wrong_members(path: str, value: Any) -> None:
    members = good()
    *outer, name = path.split(".")
    inside = members
    for step in outer:
        inside = inside[step]
        inside = inside[0] if isinstance(inside, list) else inside
    inside[name] = value
    refused(json.dumps(members))


@pytest.mark.parametrize("path", ["kernels", "arena_bytes", "model", "made_by", "model_bytes", "format_version"])
def test_missing_members(path: str) -> None:
    members = good()
    del members[path]
    assert f"'{path}'" in refused(json.dumps(members))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"1", b'"text"', b"\xff\xfe{}", b"{}", b"[" * 100_000, b'{"a":' * 50_000,
        b"9" * 10_000, b"NaN", b" " * (1 << 20) + b"{}", b"BDN1" + bytes(60), b'{"manifest_version": 1e999}',
    ],
    ids=lambda content: repr(content[:16]),
)  # fmt: skip
def test_files_that_are_no_manifest(content: bytes) -> None:
    refused(content)


def test_random_changes_end_in_a_message() -> None:
    """Bytes of a manifest changed at random: read, or refused as what a user can understand."""
    rng = np.random.default_rng(5)
    text = make_manifest(write_bdn(models()["digits"].plan)).to_json().encode("utf-8")
    outcomes = set()
    for _ in range(400):
        changed = bytearray(text)
        for at in rng.integers(0, len(text), int(rng.integers(1, 4))):
            changed[at] = int(rng.integers(0, 256))
        Path("m.json").write_bytes(changed)
        try:
            manifest = read_manifest(Path("m.json"))
        except UsageError as error:
            assert str(error).isascii()
            outcomes.add("refused")
        else:
            assert manifest.model is None or isinstance(manifest.model, BuiltWith)
            outcomes.add("read")
    assert outcomes == {"refused", "read"}


def test_a_folder_is_no_manifest() -> None:
    Path("m.json").mkdir()
    with pytest.raises(UsageError, match="no manifest"):
        read_manifest(Path("m.json"))


def refused(content: str | bytes) -> str:
    """The message of export and verify, which write nothing."""
    Path("m.json").write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    Path("new.bdn").write_bytes(write_bdn(models()["digits"].plan))
    result = invoke("verify", "new.bdn", "--for-firmware", "m.json")
    assert result.exit_code == 2, result.stderr
    assert "this is no manifest of a firmware" in result.stderr and "Traceback" not in result.stderr
    assert result.stdout == "" and "\x1b" not in result.stderr
    return result.stderr
