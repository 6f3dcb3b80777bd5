"""Compiles the kernels of ``runtime/bench`` for one core and calls them in the emulator (``row_worker.py``)."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bdnet_deploy import errors, targets, toolchain

REPOSITORY = Path(__file__).resolve().parents[1]
RUNTIME = REPOSITORY / "runtime"
DATA_ADDRESS = 0x20000000


#: Core -> its kernels.
SOURCES = {
    "cortex-m4": ("pw_lut7.c", "dw_tb.c", "epilogue_quad.c"),
    "cortex-m0plus": ("pw_lut7.c", "dw_tb.c", "epilogue_word.c"),
}
WARNINGS = ("-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")

SCRIPT = """ENTRY(bd_reset)
SECTIONS {
  bd_reset = 0x100;
  .text 0x100 : { *(.text .text.*) }
  .rodata : ALIGN(16) { KEEP(*(.rodata.bd_*)) *(.rodata .rodata.*) }
  /DISCARD/ : { *(.ARM.exidx* .ARM.extab* .eh_frame* .comment) }
}
"""


@dataclass(frozen=True)
class Call:
    """One call of a kernel's function; ``memory`` is the data area at :data:`DATA_ADDRESS` before it."""

    kernel: str
    arguments: tuple[int, ...]
    memory: bytes
    check: bool = False  # call bd_kernel.check in place of run


@dataclass(frozen=True)
class Result:
    """``memory`` is the data area afterwards; ``stack`` the bytes of stack that were written."""

    returned: int
    instructions: int
    stack: int
    memory: bytes


class Program:
    """The linked kernels of one core of :data:`SOURCES`.

    Raises:
        MissingPackageError: ziglang, pyelftools or unicorn are not installed.
        BdnetError: a kernel does not compile.
    """

    def __init__(self, core: str) -> None:
        self.core = targets.core(core)
        errors.require("unicorn", extra="emulate")
        errors.require("elftools", extra="emulate")
        from elftools.elf.elffile import ELFFile

        sources = [RUNTIME / "bench" / name for name in SOURCES[core]]
        includes = [RUNTIME / "include", RUNTIME / "src"]
        objects = toolchain.compile_objects(sources, self.core, WARNINGS, includes=includes)
        with tempfile.TemporaryDirectory() as folder:
            elf = Path(folder) / "bench.elf"
            toolchain.link(objects, self.core, elf, script=SCRIPT)
            with elf.open("rb") as stream:
                read = ELFFile(stream)
                contents = [s for s in read.iter_sections() if s["sh_flags"] & 2 and s["sh_type"] == "SHT_PROGBITS"]
                self.image = [(int(s["sh_addr"]), bytes(s.data())) for s in contents]
                symbols = read.get_section_by_name(".symtab")
                self.symbols = {s.name: int(s["st_value"]) for s in symbols.iter_symbols()}

    def _word(self, address: int) -> int:
        for start, content in self.image:
            if start <= address < start + len(content):
                return int.from_bytes(content[address - start : address - start + 4], "little")
        raise KeyError(address)

    def call(self, calls: Sequence[Call]) -> list[Result]:
        """Run the calls in one emulator process, in order."""
        size = max(len(c.memory) for c in calls)
        job = {
            "cpu": "UC_CPU_ARM_" + self.core.emulator_cpu.upper().replace("-", "_"),
            "image": [(at, content.hex()) for at, content in self.image],
            "data": {"address": DATA_ADDRESS, "size": size},
            "calls": [
                {
                    "address": self._word(self.symbols[c.kernel] + (8 if c.check else 4)),
                    "arguments": list(c.arguments),
                    "memory": c.memory.ljust(size, b"\0").hex(),
                }
                for c in calls
            ],
        }
        worker = [sys.executable, str(Path(__file__).with_name("row_worker.py"))]
        done = subprocess.run(
            worker, input=json.dumps(job), capture_output=True, text=True, encoding="utf-8", check=False
        )
        if done.returncode != 0:
            raise errors.BdnetError("the emulator failed", where=self.core.name, why=done.stderr.strip()[-2000:])
        return [
            Result(r["returned"], r["instructions"], r["stack"], bytes.fromhex(r["memory"])[: len(c.memory)])
            for r, c in zip(json.loads(done.stdout), calls, strict=True)
        ]
