"""What this installation can do: interpreter, packages, host library, compilers, emulators.

Nothing heavy is imported: versions come from the packages' metadata.
"""

from __future__ import annotations

import ctypes
import platform
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import bdnet_deploy
from bdnet_deploy.errors import BdnetError
from bdnet_deploy.hostlib import host_library, level
from bdnet_deploy.report import Column, Report, Table, Value

OK = "ok"
MISSING = "missing"
"""An optional part is not there."""
PROBLEM = "problem"
"""Something is there and will not work."""
BROKEN = "broken"
"""The core itself does not work."""


@dataclass(frozen=True)
class _Package:
    name: str  # on PyPI
    module: str
    extra: str
    enables: str


_CORE = ("numpy", "click", "rich", "flatbuffers")

_OPTIONAL = (
    _Package("torch", "torch", "torch", "read and train PyTorch models"),
    _Package("onnx", "onnx", "onnx", "write and verify .onnx"),
    _Package("onnxruntime", "onnxruntime", "onnx", "verify and evaluate .onnx"),
    _Package("larq-compute-engine", "larq_compute_engine", "larq", "verify and evaluate .tflite"),
    _Package("ziglang", "ziglang", "emulate", "compile for every core"),
    _Package("unicorn", "unicorn", "emulate", "run and count on emulated cores"),
    _Package("capstone", "capstone", "emulate", "estimate cycles"),
    _Package("pillow", "PIL", "images", "read images as samples"),
    _Package("pyelftools", "elftools", "emulate", "measure flash, RAM and stack of an image"),
)

_PROGRAMS = (
    ("cc", "compile firmware for this machine; build the package"),
    ("arm-none-eabi-gcc", "second compiler for Cortex-M"),
    ("aarch64-linux-gnu-gcc", "second compiler for AArch64"),
    ("qemu-system-arm", "emulate Cortex-M55; second opinion on Cortex-M"),
    ("qemu-aarch64", "second opinion on AArch64"),
    ("qemu-arm", "second opinion on Armv7-A"),
)


def examine() -> Report:
    """Check everything.

    Returns:
        A report of kind ``doctor`` with one table, ``checks``: check, status (:data:`OK`, :data:`MISSING`,
        :data:`PROBLEM` or :data:`BROKEN`), version, what the part enables, and how to get or repair it.
    """
    table = Table(
        "checks",
        [Column("check"), Column("status"), Column("version"), Column("enables"), Column("fix")],
    )
    _python(table)
    for name in _CORE:
        found = _version(name)
        if found and _importable(name):
            table.add(check=name, status=OK, version=found, enables="the core")
        else:
            table.add(check=name, status=BROKEN, version=found, enables="the core", fix=f"pip install {name}")
    _host_library(table)
    for package in _OPTIONAL:
        _optional(table, package)
    for program, enables in _PROGRAMS:
        _program(table, program, enables)
    statuses = [row["status"] for row in table.rows]
    facts: dict[str, Value] = {
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "ok": statuses.count(OK),
        "missing": statuses.count(MISSING),
        "problems": statuses.count(PROBLEM) + statuses.count(BROKEN),
    }
    return Report("doctor", facts, [table], {"bdnet_deploy": bdnet_deploy.__version__})


def _python(table: Table) -> None:
    bits = struct.calcsize("P") * 8
    status, fix = OK, None
    if bits == 32:
        # A 64-bit kernel under a 32-bit system calls itself aarch64: only the size of a pointer tells.
        status = PROBLEM
        fix = "a 32-bit system: torch, onnxruntime and unicorn have no packages for it; install a 64-bit system"
    elif sys.version_info >= (3, 13):
        status, fix = PROBLEM, "larq-compute-engine and larq have no packages for this Python; use 3.11"
    table.add(
        check="python",
        status=status,
        version=f"{platform.python_version()} ({bits}-bit)",
        enables="everything",
        fix=fix,
    )


def _host_library(table: Table) -> None:
    check = "host library"
    enables = "run, verify and evaluate .bdn on this machine"
    try:
        kernels = level(ctypes.CDLL(str(host_library())))
    except BdnetError as error:
        table.add(check=check, status=BROKEN, enables=enables, fix=error.fix)
    except (OSError, ValueError) as error:
        table.add(check=check, status=BROKEN, enables=enables, fix=f"reinstall bdnet-deploy ({error})")
    else:
        built = f"{bdnet_deploy.__version__} ({kernels} kernels)"
        table.add(check=check, status=OK, version=built, enables=enables)


def _optional(table: Table, package: _Package) -> None:
    found = _version(package.name)
    status, fix = OK, None
    if not found or find_spec(package.module) is None:
        status, fix = MISSING, f"pip install 'bdnet-deploy[{package.extra}]'"
    elif package.extra in ("larq", "keras") and _major("numpy") >= 2:
        # Its runtime was built against numpy 1: with numpy 2 it imports, then fails at the first inference.
        status, fix = PROBLEM, "does not work with numpy 2: pip install 'numpy<2'"
    table.add(check=package.name, status=status, version=found, enables=package.enables, fix=fix)


def _program(table: Table, program: str, enables: str) -> None:
    path = shutil.which(program)
    if path is None:
        fix = "not needed: zig from PyPI does it" if program == "cc" else "optional; from your system's packages"
        table.add(check=program, status=MISSING, enables=enables, fix=fix)
        return
    line = _first_line([path, "--version"])
    if line is None:
        table.add(check=program, status=PROBLEM, enables=enables, fix=f"{path} does not start")
    else:
        table.add(check=program, status=OK, version=line, enables=enables)


def _first_line(arguments: list[str]) -> str | None:
    """The first line that a program prints, or None when it fails or hangs."""
    try:
        done = subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout or done.stderr).strip().split("\n")[0]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _major(name: str) -> int:
    return int((_version(name) or "0").split(".")[0])


def _importable(module: str) -> bool:
    try:
        __import__(module)
    except ImportError:
        return False
    return True
