"""New models for firmware in the field: what fits, what does not, and the plan for its arena."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_programs import DIGITS, model, models, sample
from click.testing import CliRunner, Result

from bdnet_deploy import bdn_format, firmware, targets
from bdnet_deploy.cli import app
from bdnet_deploy.errors import DoesNotFitError
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.graph import evaluate
from bdnet_deploy.host import HostModel
from bdnet_deploy.manifest import Manifest, arena_bytes, make_manifest, read_manifest
from bdnet_deploy.plan.kernels import kernel_names
from bdnet_deploy.updates import fit, plan_for

MODEL, CALIBRATION = DIGITS / "model.pt", DIGITS / "calibration.npz"
KERNELS = tuple(sorted(kernel_names()))


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app.cli, [str(a) for a in arguments], prog_name="bdnet-deploy")


def export(*arguments: object) -> Result:
    return invoke("export", MODEL, "--target", "bdn", "-o", "new.bdn", "--for-firmware", "m.json", *arguments)


def firmware_of(data: bytes, **changes: Any) -> Manifest:
    """The manifest of a firmware around ``data`` with some members replaced, written to m.json."""
    manifest = dataclasses.replace(make_manifest(data), **changes)
    Path("m.json").write_text(manifest.to_json(), encoding="utf-8")
    return manifest


@pytest.fixture(scope="module")
def fixed16() -> bytes:
    return write_bdn(models()["digits"].plan)


@pytest.fixture(scope="module")
def fixed8() -> bytes:
    return write_bdn(models()["digits8"].plan)


def lowest_ram(name: str) -> int:
    """The smallest --ram that the planner accepts, by trying."""
    lowered, low, high = models()[name], 0, 1 << 20
    while high - low > 1:
        middle = (low + high) // 2
        try:
            lowered.replanned(ram=middle)
            high = middle
        except DoesNotFitError:
            low = middle
    return high


# -- what fits ---------------------------------------------------------------------------------------------------------------


def test_a_model_fits_its_own_firmware(fixed16: bytes) -> None:
    firmware_of(fixed16, model_bytes=1 << 16)
    result = export("--calibrate", CALIBRATION)  # numerics and arena are the firmware's
    assert result.exit_code == 0, result.stderr
    assert "fits the firmware of m.json" in result.stdout
    file = bdn_format.read(Path("new.bdn").read_bytes())
    assert int(file.header["numerics"]) == bdn_format.Numerics.FIXED16
    result = invoke("verify", MODEL, "new.bdn", "--for-firmware", "m.json", "--calibrate", CALIBRATION, "--limit", "2")
    assert result.exit_code == 0 and "verdict   equal" in result.stdout
    result = invoke("verify", "new.bdn", "--for-firmware", "m.json", "--format", "json")
    rows = json.loads(result.stdout)["tables"]["requirements"]["rows"]
    assert result.exit_code == 0 and {row["fits"] for row in rows} == {"yes"}
    assert {row["what"] for row in rows} >= {f"kernel {k}" for k in file.kernels}


def test_every_limit_is_exact(fixed16: bytes) -> None:
    """One byte, one kernel, one version less, and the lack is named; as much as needed, and there is none."""
    file = bdn_format.read(fixed16)
    exact = make_manifest(fixed16)
    assert fit(exact, fixed16).lacks == []
    for bits in (32, 64):
        needed = arena_bytes(file, bits)
        lacks = fit(dataclasses.replace(exact, arena_bytes={bits: needed - 1}), fixed16).lacks
        assert lacks == [f"arena bytes, {bits}-bit: {needed:,} needed, {needed - 1:,} there"]
        assert fit(dataclasses.replace(exact, arena_bytes={bits: needed}), fixed16).lacks == []
    lacks = fit(dataclasses.replace(exact, model_bytes=len(fixed16) - 1), fixed16).lacks
    assert lacks == [f"model bytes: {len(fixed16):,} needed, {len(fixed16) - 1:,} there"]
    for kernel in file.kernels:
        without = tuple(k for k in exact.kernels if k != kernel)
        (lack,) = fit(dataclasses.replace(exact, kernels=without), fixed16).lacks
        users = [s.name for s in models()["digits"].plan.steps if kernel in (s.kernel, s.epilogue_kernel)]
        assert lack.startswith(f"kernel {kernel} is not in it (needed by {users[0]}")
        assert len(users) <= 3 or lack.endswith(f" and {len(users) - 3} more)")


def test_a_newer_format_is_a_lack(fixed16: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a later bdnet-deploy sees it, which writes format 2."""
    manifest = make_manifest(fixed16)
    monkeypatch.setattr(bdn_format, "FORMAT_VERSION", 2)
    newer = bytearray(fixed16)
    newer[12:16] = b"\2\0\2\0"
    found = fit(manifest, bdn_format.seal(bytes(newer)))
    assert found.lacks == ["it reads .bdn format version 1, and the file needs 2"]
    assert "the bdnet-deploy that it was built with" in found.fixes[0]


# -- what does not ---------------------------------------------------------------------------------------------------------------


def test_every_lack_in_one_message(fixed16: bytes) -> None:
    float_kernels = set(model().lowered("float").plan.kernels)
    firmware_of(fixed16)
    result = export("--numerics", "float")
    assert result.exit_code == 3 and not Path("new.bdn").exists()
    named = set(re.findall(r"kernel (bd_\w+) is not in it \(needed by [\w.]+", result.stderr))
    assert named == float_kernels - set(models()["digits"].plan.kernels) and named
    lacks = ["arena bytes, 32-bit: at least", "model bytes:", "handles 8x8x1 u8, not 8x8x1 f32", "not 1x1x10 f32"]
    assert all(lack in result.stderr for lack in lacks)
    assert "--numerics fixed16" in result.stderr and f"--keep-kernels {','.join(sorted(named))}" in result.stderr


def test_an_older_file_stays(fixed16: bytes) -> None:
    firmware_of(fixed16, kernels=("bd_avgpool_i16",))
    Path("new.bdn").write_bytes(b"older")
    assert export("--calibrate", CALIBRATION).exit_code == 3
    assert Path("new.bdn").read_bytes() == b"older" and len(list(Path().iterdir())) == 2


def test_inputs_and_outputs(fixed16: bytes) -> None:
    """Other buffers are refused; other numbers in them are a note."""
    manifest = make_manifest(fixed16)
    assert manifest.model is not None
    (port,), (result,) = manifest.model.inputs, manifest.model.outputs

    def found(**changes: Any) -> Any:
        return fit(dataclasses.replace(manifest, model=dataclasses.replace(manifest.model, **changes)), fixed16)

    for change in ({"height": 9}, {"width": 7}, {"channels": 3}, {"dtype": "i8"}):
        changed = dataclasses.replace(port, **change)
        assert found(inputs=(changed,)).lacks == [f"input: its application handles {changed.buffer}, not 8x8x1 u8"]
    assert found(outputs=(dataclasses.replace(result, channels=12),)).lacks == [
        "output: its application handles 1x1x12 i16, not 1x1x10 i16"
    ]
    assert found(inputs=(port, port)).lacks == ["its application handles 2 inputs, not 1"]
    pushed = found(inputs=(dataclasses.replace(port, pushed=True),))
    assert len(pushed.lacks) == 1 and pushed.fixes == ["add --push-rows"]
    for change in ({"scale": (0.25,)}, {"zero_point": (7.0,)}, {"scale": (), "zero_point": ()}):
        other = found(inputs=(dataclasses.replace(port, **change),))
        assert other.lacks == [] and len(other.notes) == 1 and "scale 0.125, zero point 8" in other.notes[0]
    assert fit(dataclasses.replace(manifest, model=None), fixed16).notes == []
    assert fit(manifest, fixed16).notes == []


def test_other_numbers_are_a_note_of_the_export(fixed16: bytes) -> None:
    model = make_manifest(fixed16).model
    assert model is not None
    port = model.outputs[0]
    other = dataclasses.replace(port, scale=tuple(2 * s for s in port.scale))
    changed = dataclasses.replace(model, outputs=(other,))
    firmware_of(fixed16, kernels=KERNELS, model_bytes=1 << 16, model=changed)
    result = export("--numerics", "fixed8", "--calibrate", CALIBRATION)
    assert result.exit_code == 0, result.stderr
    assert "An application that compiled the old numbers in must take the new ones" in result.stdout


def test_rows_are_pushed_where_the_firmware_pushes(fixed16: bytes) -> None:
    pushed = write_bdn(models()["digits_rows"].plan)
    firmware_of(pushed, model_bytes=1 << 16, arena_bytes={32: 1 << 16})
    result = export("--calibrate", CALIBRATION)
    assert result.exit_code == 3 and "fix: add --push-rows" in result.stderr
    assert export("--calibrate", CALIBRATION, "--push-rows").exit_code == 0
    firmware_of(fixed16, model_bytes=1 << 16)
    result = export("--calibrate", CALIBRATION, "--push-rows")
    assert result.exit_code == 3 and "fix: leave --push-rows out" in result.stderr


def test_files_that_are_no_models(fixed16: bytes) -> None:
    firmware_of(fixed16)
    for content in (b"", b"BDN1", fixed16[:-16], bytes(200)):
        Path("new.bdn").write_bytes(content)
        result = invoke("verify", "new.bdn", "--for-firmware", "m.json")
        assert result.exit_code == 1 and result.stderr.startswith("error: new.bdn: "), result.stderr
    result = invoke("verify", "none.bdn", "--for-firmware", "m.json")
    assert result.exit_code == 1 and "no such file" in result.stderr


def test_names_of_a_file_are_no_commands_to_the_terminal(fixed16: bytes) -> None:
    """Numerics that nobody knows, a kernel and layers with control characters: a message all the same."""
    firmware_of(fixed16)
    file = bdn_format.read(fixed16)
    kernels = [k.replace("bd_gap", "\x1b[2J") for k in file.kernels]
    steps = json.loads(file.records[bdn_format.RECORD_MAP])
    steps["steps"] = [{"name": "\ud800\x1b"} for _ in steps["steps"]]
    records = {**file.records, bdn_format.RECORD_MAP: json.dumps(steps).encode("ascii")}
    header = {k: int(file.header[k]) for k in ("tensor_bytes", "scratch_bytes", "inputs", "outputs")}
    tables = {"tensors": file.tensors, "steps": file.steps, "constants": file.constants}
    changed = bdn_format.write(kernels=kernels, records=records, numerics=77, **tables, **header)  # type: ignore[arg-type]
    found = fit(make_manifest(fixed16), changed)
    assert any(lack == "kernel ?[2J_h_i32 is not in it (needed by ??)" for lack in found.lacks)
    assert all(text.isprintable() for text in (*found.lacks, *found.fixes))
    Path("new.bdn").write_bytes(changed)
    result = invoke("verify", "new.bdn", "--for-firmware", "m.json")
    assert result.exit_code == 1 and "which this runtime does not have" in result.stderr
    result = invoke("export", MODEL, "--target", "c", "--numerics", "float", "--keep-kernels", "new.bdn")
    assert result.exit_code == 2 and "unknown kernel '?[2J_h_i32'" in result.stderr


def test_verify_shows_what_is_lacking(fixed16: bytes, fixed8: bytes) -> None:
    firmware_of(fixed16, model_bytes=len(fixed8))
    Path("new.bdn").write_bytes(fixed8)
    result = invoke("verify", "new.bdn", "--for-firmware", "m.json", "--format", "json")
    assert result.exit_code == 3
    rows = json.loads(result.stdout)["tables"]["requirements"]["rows"]
    missing = set(bdn_format.read(fixed8).kernels) - set(bdn_format.read(fixed16).kernels)
    assert {row["what"] for row in rows if row["fits"] == "no"} == {f"kernel {k}" for k in missing}
    assert all(k in result.stderr for k in missing)


# -- the plan for an arena ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "digits8"])
def test_the_plan_streams_where_the_arena_asks_for_it(name: str) -> None:
    """From more than enough down to the least: within the arena whenever any plan is."""
    lowered = models()[name]
    whole = lowered.plan.tensor_bytes + lowered.plan.scratch_bytes
    tables = {b: arena_bytes(bdn_format.read(write_bdn(lowered.plan)), b) - whole for b in (32, 64)}
    least = lowest_ram(name)
    assert least < whole
    for ram in (whole + 16, whole, whole - 16, (least + whole) // 2, least, least - 1, least - 500):
        manifest = Manifest(KERNELS, {b: ram + tables[b] for b in (32, 64)}, 1 << 20)
        planned, least_ram = plan_for(lowered, manifest)
        data = write_bdn(planned.plan)
        assert (least_ram is None) == (ram >= least)
        lacks = fit(manifest, data, least_ram=least_ram).lacks
        if ram >= least:
            assert lacks == [] and (planned.plan.streamed > 0) == (ram < whole)
            assert HostModel(data).info.arena_bytes <= manifest.arena_bytes[64]
        else:
            assert least_ram == least
            assert (
                lacks[0] == f"arena bytes, 32-bit: at least {least + tables[32]:,} needed, {ram + tables[32]:,} there"
            )
            assert len(lacks) == 2


def test_the_smaller_of_two_arenas_counts() -> None:
    lowered = models()["digits"]
    whole = arena_bytes(bdn_format.read(write_bdn(lowered.plan)), 32)
    manifest = Manifest(KERNELS, {32: whole - 16, 64: 1 << 20}, 1 << 20)
    planned, least_ram = plan_for(lowered, manifest)
    assert least_ram is None and planned.plan.streamed > 0
    assert plan_for(lowered, Manifest(KERNELS, {32: 16}, 1))[1] == lowest_ram("digits")


def test_ram_of_the_user_counts_instead(fixed16: bytes) -> None:
    firmware_of(fixed16, model_bytes=1 << 16, arena_bytes={32: 1 << 20})
    whole = models()["digits"].plan
    ram = whole.tensor_bytes + whole.scratch_bytes - 16
    assert export("--calibrate", CALIBRATION, "--ram", ram).exit_code == 0
    assert bdn_format.read(Path("new.bdn").read_bytes()).steps["segment"].any()
    Path("new.bdn").unlink()
    result = export("--calibrate", CALIBRATION, "--ram", "1K")
    assert result.exit_code == 3 and "not 1024" in result.stderr and not Path("new.bdn").exists()


def test_the_wish_of_the_user_comes_after_the_arena(fixed16: bytes) -> None:
    """--cache: within the firmware's arena, and else as without a firmware."""
    lowered = models()["digits"]
    whole = lowered.plan.tensor_bytes + lowered.plan.scratch_bytes
    for room in (1 << 20, 0):
        firmware_of(fixed16, arena_bytes={32: make_manifest(fixed16).arena_bytes[32] + room}, model_bytes=1 << 16)
        assert export("--calibrate", CALIBRATION, "--cache", "1K").exit_code == 0
        plan = bdn_format.read(Path("new.bdn").read_bytes())
        wished = lowered.replanned(ram=whole + room, cache=1024).plan
        assert plan.steps["segment"].tolist() == [step.segment for step in wished.steps] and wished.streamed > 0
    firmware_of(fixed16, arena_bytes={32: 1024})
    Path("new.bdn").unlink()
    assert export("--calibrate", CALIBRATION, "--cache", "1K").exit_code == 3 and not Path("new.bdn").exists()


def test_samples_without_a_model_are_refused(fixed16: bytes) -> None:
    firmware_of(fixed16)
    Path("new.bdn").write_bytes(fixed16)
    for option in (("--calibrate", CALIBRATION), ("--inputs", CALIBRATION), ("--calibrate-limit", 5)):
        result = invoke("verify", "new.bdn", "--for-firmware", "m.json", *option)
        assert result.exit_code == 2 and "none is named" in result.stderr


# -- on a core ---------------------------------------------------------------------------------------------------------------------------

SLOT = """
#include "model.h"
#include "port.h"
#include "slot.h"

static uint8_t arena[BD_MODEL_ARENA_BYTES] __attribute__((aligned(16)));
static BD_MODEL_INPUT_TYPE image[BD_MODEL_INPUT_ELEMENTS] __attribute__((aligned(4))) = {IMAGE};
static BD_MODEL_OUTPUT_TYPE logits[BD_MODEL_OUTPUT_ELEMENTS] __attribute__((aligned(4)));

int main(void) {
    const void *const inputs[] = {image};
    void *const outputs[] = {logits};
    bd_model_info info;
    bd_context *context;
    bd_status status = bd_inspect(SLOT_DATA, SLOT_BYTES, &BD_MODEL_KERNELS, &info);
    if (status == BD_ERROR_KERNEL) {
        port_print(info.missing_kernel);
    }
    if (status == BD_OK) {
        status = bd_load(arena, sizeof arena, SLOT_DATA, SLOT_BYTES, &BD_MODEL_KERNELS, &context);
    }
    if (status == BD_OK) {
        status = bd_run(context, inputs, 1, outputs, 1);
    }
    if (status == BD_OK) {
        port_write(logits, sizeof logits);
    }
    return status;
}
"""


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m7"])
def test_an_image_runs_a_later_model_that_its_manifest_takes(
    core: str, tmp_path: Path, fixed8: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the kernels kept it runs and gives the reference's bytes; without, the load names the missing kernel."""
    for package in ("ziglang", "unicorn", "elftools"):
        pytest.importorskip(package)
    from bdnet_deploy.emulator import Emulator

    application = tmp_path / "applications" / "slot"
    application.mkdir(parents=True)
    x = sample()
    program = SLOT.replace("IMAGE", ", ".join(map(str, x.reshape(-1).tolist())))
    (application / "main.c").write_text(program, encoding="utf-8")
    common = firmware.resources.firmware_dir() / "common"
    (application.parent / "common").symlink_to(common, target_is_directory=True)
    monkeypatch.setattr(firmware.resources, "firmware_dir", lambda: application.parent)
    words = ", ".join(f"0x{w:08x}u" for w in np.frombuffer(fixed8, "<u4"))
    slot = (
        f"#include <stdint.h>\n#define SLOT_BYTES {len(fixed8)}u\n"
        f"static const uint32_t SLOT_DATA[] __attribute__((aligned(16))) = {{{words}}};\n"
    )
    where, lowered = targets.core(core), models()["digits"]
    other = models()["digits8"]
    for keep in ([], other.plan.kernels):
        folder = tmp_path / f"kept{len(keep)}"
        folder.mkdir()
        image = firmware.build_with_model(
            "slot", lowered, where, folder, files={"slot.h": slot}, keep=keep, reserve_model=1 << 16
        )
        manifest = read_manifest(folder / "slot.manifest.json")
        lacks = fit(manifest, fixed8).lacks
        with Emulator(image, where) as emulator:
            result = emulator.run()
        if keep:
            expected = evaluate(other.graph, [x])[other.graph.outputs[0].name].astype("<i2")
            assert lacks == [] and (result.exit_code, result.output) == (0, expected.tobytes())
        else:
            missing = result.output.decode("ascii")
            assert result.exit_code == 8 and missing in kernel_names() and missing not in manifest.kernels
            assert any(lack.startswith(f"kernel {missing} ") for lack in lacks)
