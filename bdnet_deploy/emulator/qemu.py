"""Running the same images in QEMU, where it is installed: a second opinion on results and on instruction counts.

Counting translates one instruction at a time and logs each: exact, independent of this package's own counting, and slow (about
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

from .. import errors
from ..targets import Core


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


def run(image: Path, core: Core, stdin: bytes = b"", *, count: bool = False, timeout_s: float = 60.0) -> QemuResult:
    """Runs an image (built without a board) to its end.

    Raises:
        BdnetError: QEMU is missing, or the program does not end in time.
    """
    found = shutil.which(program(core))
    if found is None:
        raise errors.BdnetError(
            f"{program(core)} is not installed",
            fix="apt-get install qemu-system-arm qemu-user (Debian), brew install qemu (macOS)",
        )
    with TemporaryDirectory() as scratch:
        log = Path(scratch) / "trace.log"
        one_each = _one_instruction_options(found, core) if count else []
        options = [*one_each, "-d", "nochain,exec", "-D", str(log)] if count else []
        if core.is_linux:
            command = [found, "-cpu", core.qemu, *options, str(image)]
        else:
            machine = ["-M", core.qemu, "-nographic", "-monitor", "none", "-serial", "none"]
            semihosting = ["-semihosting-config", "enable=on,target=native"]
            command = [found, *machine, *semihosting, *options, "-kernel", str(image)]
        try:
            done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired as error:
            raise errors.BdnetError(
                f"the program did not end in QEMU within {timeout_s:g} seconds", where=str(image)
            ) from error
        return QemuResult(done.stdout, done.returncode, _count(log) if count else None)


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
    text = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"version (\d+)\.(\d+)", text)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    if version < (8, 1):  # renamed in QEMU 8.1
        return ["-singlestep"]
    return ["-one-insn-per-tb"] if core.is_linux else ["-accel", "tcg,one-insn-per-tb=on"]
