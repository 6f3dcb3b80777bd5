"""A linked Cortex-M program as an analysis needs it: its functions, its decoded Thumb code, its constants."""

from __future__ import annotations

import bisect
import re
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import errors

_SHF_WRITE, _SHF_ALLOC = 1, 2
_NAMES = {"sb": "r9", "sl": "r10", "fp": "r11", "ip": "r12", "r13": "sp", "r14": "lr", "r15": "pc"}
_REGISTER = re.compile(r"(?:r\d+|sb|sl|fp|ip|sp|lr|pc|[sdq]\d+)(?:\[\d+\])?")


@dataclass(frozen=True)
class Address:
    """``[base, index, lsl #shift]`` or ``[base, #offset]``; ``before``: the base is written back, with the offset added."""

    base: str
    index: str | None
    offset: int
    shift: int
    before: bool


Operand = str | int | Address | tuple[str, ...]
"""A register (``"r0"``, ``"sp"``), a number, an address, or a list of registers; anything else as its text."""


@dataclass(frozen=True)
class Instruction:
    """One Thumb instruction, as capstone prints it.

    Attributes:
        address, size: where it is, in bytes.
        name: the mnemonic without its width or data type (``"push.w"`` is ``"push"``, ``"vmov.f32"`` is ``"vmov"``).
        operands: in the order of the assembler.
        writes_back: whether a base register of a list (``r0!``) changes.
        text: for messages.
    """

    address: int
    size: int
    name: str
    operands: tuple[Operand, ...]
    writes_back: bool
    text: str


@dataclass(frozen=True)
class Function:
    """A function of the symbol table: bytes [start, end), and its shortest name; ``"name (file.c)"`` where several have it."""

    start: int
    end: int
    name: str


@dataclass(frozen=True)
class _Section:
    start: int
    data: bytes
    writable: bool


class Program:
    """An ELF for an M-profile processor.

    Args:
        path: the linked image, with its symbols.

    Raises:
        ModelFileError: no such ELF, another processor, or no symbols.
    """

    def __init__(self, path: Path) -> None:
        capstone = errors.require("capstone", extra="emulate")
        # Bytes are decoded alike by all M-profile architectures; V8 only adds instructions.
        mode = capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS | capstone.CS_MODE_V8
        self._disassembler: Any = capstone.Cs(capstone.CS_ARCH_ARM, mode)
        self._decoded: dict[int, Instruction] = {}
        self.path = path
        self.objects: dict[str, tuple[int, int]] = {}  # name -> (address, bytes)
        self._sections: list[_Section] = []
        self._kinds: list[tuple[int, bool]] = []  # mapping symbols: from this address on, code or not
        found: dict[int, dict[str, str]] = {}  # function -> its names, and the sources that local ones come from
        sizes: dict[int, int] = {}
        for name, kind, address, size, source in self._read():
            if kind == "STT_FUNC":
                found.setdefault(address & ~1, {})[name] = source
                sizes[address & ~1] = max(size, sizes.get(address & ~1, 0))
            elif re.fullmatch(r"\$[tda](\..*)?", name):
                self._kinds.append((address, name[1] == "t"))
            elif kind == "STT_OBJECT":
                self.objects[name] = (address, size)
        self._kinds.sort()
        self.entries, shown = _names(found)
        self._starts = sorted(found)
        self.functions = [
            Function(start, start + sizes[start] if sizes[start] else following, shown[start])
            for start, following in zip(self._starts, [*self._starts[1:], 1 << 32], strict=True)
        ]
        if not self.functions or not self._kinds:
            raise errors.ModelFileError(
                "this image has no symbols to analyse", where=str(path), fix="link it without stripping"
            )

    def _read(self) -> list[tuple[str, str, int, int, str]]:
        """Sections are kept; symbols are returned as (name, type, value, size, source file of a local one)."""
        errors.require("elftools", extra="emulate")
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile

        try:
            with self.path.open("rb") as stream:
                elf = ELFFile(stream)
                if elf["e_machine"] != "EM_ARM":
                    raise errors.ModelFileError(
                        "this is not a program for a Cortex-M",
                        where=str(self.path),
                        why=f"it is for {elf['e_machine']}",
                    )
                for section in elf.iter_sections():
                    if section["sh_flags"] & _SHF_ALLOC and section["sh_type"] != "SHT_NOBITS":
                        writable = bool(section["sh_flags"] & _SHF_WRITE)
                        self._sections.append(_Section(section["sh_addr"], section.data(), writable))
                table: Any = elf.get_section_by_name(".symtab")
                symbols, source = [], ""
                for s in table.iter_symbols() if table is not None else ():
                    kind = s["st_info"]["type"]
                    if kind == "STT_FILE":
                        source = s.name
                    elif s.name and s["st_shndx"] not in ("SHN_UNDEF", "SHN_ABS"):
                        local = s["st_info"]["bind"] == "STB_LOCAL"
                        symbols.append((s.name, kind, s["st_value"], s["st_size"], source if local else ""))
                return symbols
        except (OSError, ELFError) as error:
            raise errors.ModelFileError(
                "this is not a readable ELF image", where=str(self.path), why=str(error)
            ) from error

    def function_at(self, address: int) -> Function | None:
        """The function whose bytes hold ``address``."""
        index = bisect.bisect_right(self._starts, address) - 1
        found = self.functions[index] if index >= 0 else None
        return found if found is not None and address < found.end else None

    def name_of(self, address: int) -> str:
        """``"f"`` at its first byte, else ``"f+0x10"`` or the address."""
        found = self.function_at(address)
        if found is None:
            return f"0x{address:08x}"
        return found.name if found.start == address else f"{found.name}+0x{address - found.start:x}"

    def is_code(self, address: int) -> bool:
        """Whether the mapping symbols call it Thumb code, and not a literal pool or table."""
        index = bisect.bisect_right(self._kinds, (address, True)) - 1
        return index >= 0 and self._kinds[index][1] and self._bytes(address, 2) is not None

    def data_end(self, address: int) -> int:
        """Where the table at ``address``, between code, ends at the latest."""
        if self.is_code(address):
            return address
        index = bisect.bisect_right(self._kinds, (address, True))
        for start, is_code in self._kinds[index:]:
            if is_code:
                return start
        return address

    def constant(self, address: int, size: int = 4) -> int | None:
        """An unsigned little-endian number in memory that the program cannot write."""
        data = self._bytes(address, size, read_only=True)
        return None if data is None else int.from_bytes(data, "little")

    def words(self, address: int, count: int) -> Sequence[int] | None:
        """Initial values of memory, also writable."""
        data = self._bytes(address, 4 * count)
        return None if data is None else struct.unpack(f"<{count}I", data)

    def string(self, address: int) -> str | None:
        for section in self._sections:
            if section.start <= address < section.start + len(section.data):
                at = address - section.start
                return section.data[at : section.data.find(b"\0", at)].decode("latin-1")
        return None

    def instruction(self, address: int) -> Instruction | None:
        """The instruction at ``address``; None where it is none."""
        if address not in self._decoded:
            size = 4 if (self._byte(address + 1) >> 3) >= 0b11101 else 2
            data = self._bytes(address, size)
            text = next(iter(self._disassembler.disasm_lite(data, address, 1)), None) if data is not None else None
            if text is None:
                return None
            self._decoded[address] = parse(address, size, text[2], text[3])
        return self._decoded[address]

    def _byte(self, address: int) -> int:
        data = self._bytes(address, 1)
        return data[0] if data is not None else 0

    def _bytes(self, address: int, size: int, *, read_only: bool = False) -> bytes | None:
        for section in self._sections:
            at = address - section.start
            if at >= 0 and at + size <= len(section.data) and not (read_only and section.writable):
                return section.data[at : at + size]
        return None


def _names(found: Mapping[int, Mapping[str, str]]) -> tuple[dict[str, int], dict[int, str]]:
    """(function by any of its names, the name to show of each). Of a name that several have, each has it with its source."""
    times = Counter(name for names in found.values() for name in names)
    entries: dict[str, int] = {}
    shown: dict[int, str] = {}
    for address, names in found.items():
        unique = [name if times[name] == 1 else f"{name} ({source})" for name, source in names.items()]
        entries |= dict.fromkeys(unique, address)
        shown[address] = min(unique, key=lambda name: (len(name), name))
    return entries, shown


def parse(address: int, size: int, mnemonic: str, operands: str) -> Instruction:
    """An instruction from its text."""
    parts = [p.strip() for p in re.split(r",(?![^\[{]*[\]}])", operands)] if operands else []
    return Instruction(
        address,
        size,
        mnemonic.split(".")[0],
        tuple(_operand(part) for part in parts),
        any(part.endswith("!") and not part.startswith("[") for part in parts),
        f"{mnemonic} {operands}".strip(),
    )


def _operand(text: str) -> Operand:
    bare = text.rstrip("!")
    if bare.startswith("#"):
        try:
            return int(bare[1:], 0)
        except ValueError:
            return text  # a floating-point number
    if bare.startswith("{"):
        return tuple(_NAMES.get(name.strip(), name.strip()) for name in bare.strip("{}").split(","))
    if bare.startswith("["):
        return _address(bare, before=text.endswith("!"))
    return _NAMES.get(bare, bare) if _REGISTER.fullmatch(bare) else text


def _address(text: str, *, before: bool) -> Operand:
    base, *rest = [part.strip() for part in text.strip("[]").split(",")]
    index, offset, shift = None, 0, 0
    for part in rest:
        if part.startswith("#"):
            offset = int(part[1:], 0)
        elif part.startswith("lsl #"):
            shift = int(part[5:], 0)
        elif _REGISTER.fullmatch(part):
            index = _NAMES.get(part, part)
        else:
            return text  # an alignment, which only vector instructions have
    return Address(_NAMES.get(base, base), index, offset, shift, before)
