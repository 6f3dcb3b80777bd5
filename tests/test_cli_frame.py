"""The frame of the command line: help, errors, exit codes, encodings."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess, run

import click
import pytest
from click.testing import CliRunner, Result

from bdnet_deploy import errors
from bdnet_deploy.cli import app, common, console
from bdnet_deploy.report import Column, Report, Table

Cli = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Run a function as the command ``probe`` of the frame."""

    def call(function: Callable[..., object], *arguments: str) -> Result:
        probe = function if isinstance(function, click.Command) else common.command("probe")(function)
        monkeypatch.setattr(app, "COMMANDS", (*app.COMMANDS, "probe"))
        monkeypatch.setattr(app.importlib, "import_module", lambda name: type("Module", (), {"command": probe}))
        return CliRunner().invoke(app.cli, ["probe", *arguments], prog_name="bdnet-deploy")

    yield call
    console.set_verbosity(0)


def raising(error: BaseException) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function


def test_every_command_file_is_listed() -> None:
    folder = Path(app.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} - {"__init__", "app", "common", "console"} == set(app.COMMANDS)


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from bdnet_deploy.cli.app import cli\n"
        "try: cli.main(['--help'], prog_name='bdnet-deploy')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'numpy', 'torch', 'rich', 'flatbuffers', 'onnx'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
        times.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
        assert all(name in done.stdout for name in app.COMMANDS)
    assert min(times) < 1  # about 0.1 s; the limit allows for a busy machine


def test_bare_name_prints_help(cli: Cli) -> None:
    done = cli()
    assert done.returncode == 0
    assert "Commands:" in done.stdout


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BdnetError("broken", where="a.pt", why="truncated", fix="copy it again"), 1),
        (errors.UsageError("broken"), 2),
        (errors.DoesNotFitError("broken"), 3),
        (errors.MismatchError("broken"), 4),
        (errors.DeviceError("broken"), 5),
        (click.FileError("a.pt", "gone"), 1),
        (click.UsageError("broken"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(invoke: Callable[..., Result], error: BaseException, code: int) -> None:
    result = invoke(raising(error))
    assert result.exit_code == code
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_error_message_has_every_part(invoke: Callable[..., Result]) -> None:
    error = errors.BdnetError("cannot be read", where="a.pt", why="truncated", fix="copy it again")
    assert invoke(raising(error)).stderr == ("error: a.pt: cannot be read\nwhy: truncated\nfix: copy it again\n")


def test_tracebacks_only_when_asked_for(invoke: Callable[..., Result]) -> None:
    known, unknown = errors.BdnetError("broken"), ZeroDivisionError("oops")
    assert "Traceback" not in invoke(raising(known), "-v").stderr
    assert "Traceback" in invoke(raising(known), "-vv").stderr
    quiet = invoke(raising(unknown))
    assert quiet.exit_code == 1
    assert quiet.stderr.startswith("error: internal error: ZeroDivisionError: oops; please report it")
    assert "Traceback" not in quiet.stderr
    assert "Traceback" in invoke(raising(unknown), "-v").stderr


def test_unwritable_file_is_no_internal_error(invoke: Callable[..., Result]) -> None:
    result = invoke(raising(PermissionError(13, "Permission denied", "out.bdn")))
    assert result.exit_code == 1
    assert result.stderr == "error: out.bdn: Permission denied\n"


def test_exit_code_of_a_finished_command(invoke: Callable[..., Result]) -> None:
    assert invoke(lambda: None).exit_code == 0

    @common.command("probe")
    @click.pass_context
    def mismatch(ctx: click.Context) -> None:
        ctx.exit(4)

    assert invoke(mismatch).exit_code == 4


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["doktor"], "unknown command 'doktor'\nfix: nearest: doctor"),
        (["doctor", "--formt", "json"], "unknown option '--formt'\nfix: nearest: --format"),
        (["doctor", "--format", "jsn"], "unknown format 'jsn'\nfix: nearest: json"),
        (["cores", "extra"], "usage: bdnet-deploy cores [OPTIONS]"),
        (["cores", "--report", "a.pdf"], "use .html, .json, .txt"),
    ],
)
def test_usage_errors(arguments: list[str], wanted: str) -> None:
    result = CliRunner().invoke(app.cli, arguments, prog_name="bdnet-deploy")
    assert result.exit_code == 2
    assert wanted in result.stderr
    assert result.stdout == ""


def test_unknown_option_names_the_nearest_three(invoke: Callable[..., Result]) -> None:
    @common.command("probe")
    @common.model_options
    @common.core
    @common.numerics
    def command(**values: object) -> None:
        pass

    result = invoke(command, "--numeric", "float")
    assert result.exit_code == 2
    nearest = result.stderr.split("nearest: ")[1].splitlines()[0].split(", ")
    assert len(nearest) == 3
    assert nearest[0] == "--numerics"


def test_model_options(invoke: Callable[..., Result]) -> None:
    seen: dict[str, object] = {}

    @common.command("probe")
    @common.model_options
    def command(**values: object) -> None:
        seen.update(values)

    arguments = ["--model", "m:f", "--set", "width=0.5", "--set", "se=true", "--set", "name=a b", "--input"]
    assert invoke(command, *arguments, "1x3x224x224").exit_code == 0
    assert seen == {
        "source": None,
        "arch": None,
        "factory": "m:f",
        "settings": {"width": 0.5, "se": True, "name": "a b"},
        "weights": None,
        "inputs": ((1, 3, 224, 224),),
    }
    assert invoke(command, "net.pt").exit_code == 0
    assert seen["source"] == Path("net.pt")


@pytest.mark.parametrize("shape", ["", "1x", "1x-3", "1x0x2", "axb", "1,3", "1x\u00b2"])
def test_bad_shapes(invoke: Callable[..., Result], shape: str) -> None:
    result = invoke(common.command("probe")(common.model_options(lambda **values: None)), "--input", shape)
    assert result.exit_code == 2
    assert "is not a shape" in result.stderr


@pytest.mark.parametrize("text", ["width", "=1", "a b=1", ""])
def test_bad_settings(text: str) -> None:
    with pytest.raises(errors.UsageError, match="key=value"):
        common.parse_setting(text)


def test_streams_are_kept_apart(invoke: Callable[..., Result]) -> None:
    def function() -> None:
        console.note("a remark")
        logging.getLogger("bdnet_deploy.probe").info("a log line")
        with console.steps() as step:
            step("working", 1, 3)
        console.write("a result\n")

    plain = invoke(function)
    assert (plain.stdout, plain.stderr) == ("a result\n", "a remark\n")
    verbose = invoke(function, "-v")
    assert (verbose.stdout, verbose.stderr) == ("a result\n", "a remark\ninfo: a log line\n")
    quiet = invoke(function, "-q")
    assert (quiet.stdout, quiet.stderr) == ("a result\n", "")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_any_console_encoding(encoding: str) -> None:
    code = (
        "from bdnet_deploy.cli import console, common\n"
        "from bdnet_deploy.report import Report, Table, Column\n"
        "console.prepare()\n"
        "table = Table('\\u2713 \\u03b8', [Column('name')], [{'name': '\\u2500\\u4e2d'}])\n"
        "common.Output('text', None).show(Report('probe', tables=[table]))\n"
        "console.error('\\u2192'); console.note('\\u2192')\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = run(
        [sys.executable, "-c", code],
        capture_output=True,
        encoding=encoding,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert "name" in done.stdout
    assert ("\u2713" in done.stdout) == (encoding == "utf-8")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize("arguments", [["--help"], ["cores"], ["cores", "--format", "json"], ["\u03b8"]])
def test_commands_on_old_consoles(cli: Cli, encoding: str, arguments: list[str]) -> None:
    done = cli(*arguments, encoding=encoding)
    assert done.returncode == (2 if arguments == ["\u03b8"] else 0), done.stderr
    assert "Error" not in done.stderr


def test_cores(cli: Cli) -> None:
    first, second = (cli("cores", "--format", "json") for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    names = [row["name"] for row in json.loads(first.stdout)["tables"]["cores"]["rows"]]
    assert {"cortex-m0plus", "cortex-m4", "cortex-a72"} <= set(names)
    text = cli("cores").stdout
    assert all(name in text for name in names)


def test_doctor(cli: Cli) -> None:
    done = cli("doctor", "--format", "json")
    rows = {row["check"]: row for row in json.loads(done.stdout)["tables"]["checks"]["rows"]}
    assert rows["numpy"]["status"] == "ok"
    assert rows["python"]["status"] in ("ok", "problem")
    broken = [row for row in rows.values() if row["status"] == "broken"]
    assert done.returncode == (1 if broken else 0), done.stderr
    for row in rows.values():
        assert (row["fix"] is None) == (row["status"] == "ok"), row


def test_doctor_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from bdnet_deploy import doctor, hostlib

    versions = {"numpy": "2.1.0", "larq-compute-engine": "0.16.0"}
    monkeypatch.setattr(doctor, "version", lambda name: versions.get(name, "1.0"))
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "torch" else object())
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor.struct, "calcsize", lambda code: 4)
    monkeypatch.setenv(hostlib.OVERRIDE, "no/such/library.so")
    rows = {row["check"]: row for row in doctor.examine().table("checks").rows}
    assert rows["python"]["status"] == "problem"
    assert rows["larq-compute-engine"]["status"] == "problem"
    assert "numpy<2" in str(rows["larq-compute-engine"]["fix"])
    assert rows["torch"]["status"] == "missing"
    assert rows["torch"]["fix"] == "pip install 'bdnet-deploy[torch]'"
    assert rows["host library"]["status"] == "broken"
    assert hostlib.OVERRIDE in str(rows["host library"]["fix"])
    assert rows["qemu-system-arm"]["status"] == "missing"


def test_report_file(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    @common.command("probe")
    @common.report_options
    def command(output: common.Output) -> None:
        output.show(Report("probe", {"size": 3}, [Table("t", [Column("a")], [{"a": "<b>"}])]))

    for suffix in ("html", "json", "txt"):
        path = tmp_path / f"out.{suffix}"
        result = invoke(command, "--report", str(path))
        assert result.exit_code == 0, result.stderr
        assert result.stderr == f"wrote {path}\n"
        assert path.read_text(encoding="utf-8")
    assert "&lt;b&gt;" in (tmp_path / "out.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["facts"] == {"size": 3}
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == result.stdout
    missing = invoke(command, "--report", str(tmp_path / "none" / "out.html"))
    assert missing.exit_code == 1
    assert "internal" not in missing.stderr
    assert missing.stdout == ""
