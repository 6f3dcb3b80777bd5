"""The programs of docs/c-api.md, and the models and compilers that they need."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bdnet_deploy
from bdnet_deploy import firmware, resources
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.export.c import write_c
from bdnet_deploy.graph import evaluate
from bdnet_deploy.lowering import Lowered

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "c-api.md"
DIGITS = resources.examples_dir() / "digits"
#: Name -> numerics, whether rows are pushed, and the model whose kernels are kept.
MODELS = {
    "digits": ("fixed16", False, ""),
    "digits_rows": ("fixed16", True, ""),
    "digits8": ("fixed8", False, ""),
    "digits_more": ("fixed16", False, "digits8"),
}
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror"]
PROGRAMS = ["one_call.c", "watchdog.c", "camera.c", "two_models.c", "two_at_once.c", "update.c", "application.cpp"]


def blocks() -> dict[str, str]:
    """File name -> text of every block that begins with its name."""
    found = re.findall(r"^```(?:c|cpp)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    named = {}
    for text in found:
        name = re.match(r"(?:/\* file: (\S+) \*/|// file: (\S+))\n", text)
        assert name, f"a block without a file name: {text[:60]}"
        named[name[1] or name[2]] = text
    return named


def printed(program: str) -> str | None:
    """What the page says that a program prints."""
    pattern = rf"^```\n\$ \./{re.escape(program)}\n(.*?)^```"
    shown = re.search(pattern, PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return shown[1] if shown else None


@cache
def model() -> bdnet_deploy.Model:
    return bdnet_deploy.load(DIGITS / "model.pt")


@cache
def models() -> dict[str, Lowered]:
    """The models of the page."""
    return {
        name: model().lowered(numerics, DIGITS / "calibration.npz").replanned(push_rows=push)
        for name, (numerics, push, _) in MODELS.items()
    }


@cache
def sample() -> np.ndarray[Any, Any]:
    """The digit of the page, (1, 8, 8, 1)."""
    with np.load(DIGITS / "test.npz") as data:
        return np.asarray(data["x"][:1])


def logits_of(lowered: Lowered, x: np.ndarray[Any, Any]) -> list[int]:
    output = evaluate(lowered.graph, [x])[lowered.graph.outputs[0].name]
    return [int(v) for v in output.reshape(-1)]


def kept(name: str) -> list[str]:
    """The kernels that a model's table has besides its own."""
    other = MODELS[name][2]
    return models()[other].plan.kernels if other else []


def write_folder(folder: Path) -> Path:
    """The page's files and the generated models."""
    for name, text in blocks().items():
        (folder / name).write_text(text, encoding="utf-8")
    for name, lowered in models().items():
        data = write_bdn(lowered.plan, io=model().io, sample=sample())
        source, header = write_c(lowered.plan, data, name=name, io=model().io, keep=kept(name))
        (folder / f"{name}.c").write_text(source, encoding="utf-8")
        (folder / f"{name}.h").write_text(header, encoding="utf-8")
    return folder


def build(folder: Path, sources: Sequence[Path], into: str, compiler: str, *options: str) -> list[str]:
    """Objects of ``sources``."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    (folder / into).mkdir()
    includes = [f"-I{p}" for p in (folder, *firmware.runtime_includes())]
    command = [compiler, *options, *WARNINGS, *includes, "-c", *map(str, sources)]
    done = subprocess.run(command, cwd=folder / into, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return [str(p) for p in sorted((folder / into).glob("*.o"))]


def run_program(
    folder: Path,
    objects: Sequence[str],
    name: str,
    *,
    cpp: bool,
    options: Sequence[str] = (),
    compiler: str | None = None,
) -> tuple[int, str]:
    """Exit code and output of a program that is linked with ``objects``."""
    compiler = compiler or ("g++" if cpp else "cc")
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    language = ["-x", "c++", "-std=c++11"] if cpp else ["-std=c99"]
    with tempfile.TemporaryDirectory() as where:
        program = Path(where) / "program"
        command = [compiler, *language, *WARNINGS, *options, f"-I{folder}", f"-I{ROOT / 'runtime/include'}"]
        command += [str(folder / name), "-x", "none", *objects, "-o", str(program)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr
        ran = subprocess.run([str(program)], capture_output=True, encoding="utf-8", timeout=60)
    assert not ran.stderr, ran.stderr
    return ran.returncode, ran.stdout


def kernels_of_table(source: str) -> list[str]:
    """The kernels that a generated C source lists; without the variants of a core, which stand beside the plain one."""
    return [name for name in re.findall(r"^    &(\w+)", source, re.MULTILINE) if "_on_" not in name]
