"""Building an image for a core or a board, and what it takes of flash and RAM."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import errors, resources
from ..targets import Board, Core
from . import boot2, zig
from .linker import LINUX_SCRIPT, linker_script

#: RAM that the linker keeps free for the stack, unless told otherwise.
STACK_BYTES = 4096
PORTS = ("semihosting", "uart", "linux")

_SHF_WRITE, _SHF_ALLOC = 1, 2


@dataclass(frozen=True)
class Symbol:
    """A symbol of the image: address (Thumb bit cleared), size in bytes, and whether it is a function."""

    address: int
    size: int
    function: bool


@dataclass(frozen=True)
class Image:
    """A linked image.

    Attributes:
        path: the ELF.
        sections: allocated section -> bytes.
        flash_bytes: code, constants and the initial values of data, in flash (on Linux: in the file).
        ram_bytes: data, zeroed data and arena; the stack is not in it.
        stack_reserve: bytes that the linker kept free for the stack; 0 on Linux, where the system provides it.
        symbols: name -> symbol; of several static ones with one name the last.
        functions: name and symbol of every function, static ones of the same name included.
        sha256: of the ELF's bytes.
    """

    path: Path
    sections: Mapping[str, int]
    flash_bytes: int
    ram_bytes: int
    stack_reserve: int
    symbols: Mapping[str, Symbol] = field(repr=False)
    functions: Sequence[tuple[str, Symbol]] = field(repr=False)
    sha256: str


def build_image(
    target: Core | Board,
    sources: Sequence[Path],
    out: Path,
    *,
    includes: Sequence[Path] = (),
    defines: Mapping[str, str | int | None] | None = None,
    flags: Sequence[str] = (),
    port: str | None = None,
    stack_bytes: int = STACK_BYTES,
) -> Image:
    """Compiles ``sources`` with start-up code and a port, and links them for ``target``.

    The sources define ``int main(void)`` and may include ``port.h``.

    Args:
        target: a board, or a core with its default memory map.
        sources: C and assembly files.
        out: the ELF to write.
        includes: include folders; ``firmware_examples/common`` is always searched last.
        defines: macros for all files.
        flags: further compiler options.
        port: where bytes come from and go to: ``"semihosting"``, ``"uart"`` (boards only) or ``"linux"``; by default the UART
            of a board, semihosting for a Cortex-M core, system calls for a Linux core.
        stack_bytes: RAM that must remain for the stack.

    Raises:
        UsageError: an unknown port, or one that the target has not.
        DoesNotFitError: flash or RAM is too small.
        BdnetError: the code does not compile or link.
    """
    core, board = (target.core, target) if isinstance(target, Board) else (target, None)
    port = _port(core, board, port)
    common = resources.firmware_dir() / "common"
    start = "start_linux.c" if core.is_linux else "start_cortexm.c"
    extra = [common / start, common / f"port_{port}.c", common / "port_print.c", common / "mem.c"]
    if board is not None and port == "uart":
        extra.append(board.folder / "board.c")
    objects = zig.compile_objects([*sources, *extra], core, flags, None, [*includes, common], defines)
    script = LINUX_SCRIPT
    if not core.is_linux:
        if board is not None and board.boot2:
            objects.append(boot2.boot2_object(board))
        memories = board.memories if board is not None else core.memories
        vectors = board.vector_table if board is not None else memories[0].origin
        script = linker_script(
            memories, vector_table=vectors, boot2=board is not None and board.boot2, stack_bytes=stack_bytes
        )
    zig.link(objects, core, out, script=script)
    return read_image(out, stack_reserve=0 if core.is_linux else stack_bytes)


def _port(core: Core, board: Board | None, port: str | None) -> str:
    if port is None:
        return "linux" if core.is_linux else "semihosting" if board is None else "uart"
    if port not in PORTS:
        raise errors.unknown_name("port", port, PORTS)
    if (port == "linux") != core.is_linux or (port == "uart" and board is None):
        raise errors.UsageError(
            f"{board.name if board else core.name} has no port '{port}'",
            fix="leave the port out" if board is None else "use semihosting or uart",
        )
    return port


def read_image(path: Path, *, stack_reserve: int = 0) -> Image:
    """Sizes and symbols of an ELF.

    Raises:
        ModelFileError: the file is missing or no ELF.
    """
    errors.require("elftools", extra="emulate")
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    sections: dict[str, int] = {}
    flash = ram = 0
    symbols: dict[str, Symbol] = {}
    functions: list[tuple[str, Symbol]] = []
    try:
        with path.open("rb") as stream:
            elf = ELFFile(stream)
            thumb = 1 if elf["e_machine"] == "EM_ARM" else 0
            for section in elf.iter_sections():
                if not section["sh_flags"] & _SHF_ALLOC or not section["sh_size"]:
                    continue
                size = section["sh_size"]
                sections[section.name] = sections.get(section.name, 0) + size
                ram += size if section["sh_flags"] & _SHF_WRITE else 0
                flash += size if section["sh_type"] != "SHT_NOBITS" else 0
            table: Any = elf.get_section_by_name(".symtab")
            for symbol in table.iter_symbols() if table is not None else ():
                function = symbol["st_info"]["type"] == "STT_FUNC"
                if symbol.name and symbol["st_shndx"] != "SHN_UNDEF":
                    address = symbol["st_value"] & ~thumb if function else symbol["st_value"]
                    symbols[symbol.name] = Symbol(address, symbol["st_size"], function)
                    if function:
                        functions.append((symbol.name, symbols[symbol.name]))
    except (OSError, ELFError) as error:
        raise errors.ModelFileError("this is not a readable ELF image", where=str(path), why=str(error)) from error
    return Image(
        path=path,
        sections=sections,
        flash_bytes=flash,
        ram_bytes=ram,
        stack_reserve=stack_reserve,
        symbols=symbols,
        functions=tuple(functions),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
