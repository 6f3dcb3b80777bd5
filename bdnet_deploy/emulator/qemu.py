"""QEMU, where it is installed: the emulator of cores that unicorn does not have, and a second opinion on the others.

As an emulator (:mod:`.qemu_machine`) it counts with a plugin of this package, which is compiled when it is first needed. As a second
opinion it runs the same images by itself, without either. There counting translates one instruction at a time and logs each: exact, independent of this package's own counting, and slow (about
100,000 instructions a second), so it is for short programs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .. import errors
from ..targets import Core
from ..toolchain import zig


@dataclass(frozen=True)
class QemuResult:
    """What a program did: its output, exit code and, if counted, its instructions."""

    output: bytes
    exit_code: int
    instructions: int | None


def program(core: Core) -> str:
    """The QEMU program that runs images of a core."""
    if core.is_linux:
        return "qemu-aarch64" if core.pointer_bits == 64 else "qemu-arm"
    return "qemu-system-arm"


def available(core: Core) -> bool:
    """Whether QEMU for this core is installed."""
    return shutil.which(program(core)) is not None


def find(core: Core) -> str:
    """The path of that program.

    Raises:
        BdnetError: it is not installed.
    """
    found = shutil.which(program(core))
    if found is None:
        package = "qemu-user" if core.is_linux else "qemu-system-arm"
        raise errors.BdnetError(
            f"{program(core)} is not installed",
            where=core.name,
            why="only QEMU emulates this core" if core.engine == "qemu" else None,
            fix=f"apt-get install {package} (Debian, Ubuntu), brew install qemu (macOS)",
        )
    return found


def counter(core: Core) -> Path:
    """The plugin that counts blocks, ``qemu_counter.c``, as a shared library for this machine.

    Raises:
        BdnetError: QEMU is missing, or the plugin does not compile.
    """
    major, _ = _version(find(core))
    # Version 1 of the interface until QEMU 8, from 2 on since QEMU 9.
    return zig.shared_library(Path(__file__).with_name("qemu_counter.c"), {"PLUGIN_VERSION": 1 if major < 9 else 2})


def run(image: Path, core: Core, stdin: bytes = b"", *, count: bool = False, timeout_s: float = 60.0) -> QemuResult:
    """Runs an image (built without a board) to its end.

    Raises:
        BdnetError: QEMU is missing, or the program does not end in time.
    """
    found = find(core)
    with TemporaryDirectory() as scratch:
        log = Path(scratch) / "trace.log"
        one_each = _one_instruction_options(found, core) if count else []
        options = [*one_each, "-d", "nochain,exec", "-D", str(log)] if count else []
        if core.is_linux:
            command = [found, "-cpu", core.qemu, *options, str(image)]
        else:
            machine = ["-M", core.qemu, "-nographic", "-monitor", "none", "-serial", "none"]
            semihosting = ["-semihosting-config", "enable=on,target=native"]
            start = _vectors_at_zero(image, Path(scratch)) if core.engine == "qemu" else []
            command = [found, *machine, *semihosting, *options, "-kernel", str(image), *start]
        try:
            done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired as error:
            raise errors.BdnetError(
                f"the program did not end in QEMU within {timeout_s:g} seconds", where=str(image)
            ) from error
        return QemuResult(done.stdout, done.returncode, _count(log) if count else None)


def _vectors_at_zero(image: Path, scratch: Path) -> list[str]:
    """Options that put the vector table where the machine of such a core looks for it, which is not in the core's flash."""
    errors.require("elftools", extra="emulate")
    from elftools.elf.elffile import ELFFile

    with image.open("rb") as stream:
        code: Any = ELFFile(stream).get_section_by_name(".text")  # begins with the table
        vectors = code.data()[:64]
    table = scratch / "vectors.bin"
    table.write_bytes(vectors)
    return ["-device", f"loader,file={table},addr=0,force-raw=on"]


def _count(log: Path) -> int:
    executed = 0
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("Trace "):
                executed += 1
            elif line.startswith("Stopped execution of TB chain before"):
                executed -= 1  # announced, then put off by a request from outside
    return executed


@cache
def _one_instruction_options(found: str, core: Core) -> list[str]:
    if _version(found) < (8, 1):  # renamed in QEMU 8.1
        return ["-singlestep"]
    return ["-one-insn-per-tb"] if core.is_linux else ["-accel", "tcg,one-insn-per-tb=on"]


@cache
def _version(found: str) -> tuple[int, int]:
    text = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"version (\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)
