"""Laying an ELF into an emulated memory map."""

from __future__ import annotations

from dataclasses import dataclass

from .. import errors
from ..targets import Board, Core
from ..toolchain.image import Image

PAGE = 0x1000
LINUX_STACK_TOP = {64: 0x7F_FFFF_0000, 32: 0xBFFF_0000}  # by the bits of an address
LINUX_STACK_BYTES = 1 << 20


@dataclass(frozen=True)
class Loaded:
    """What the worker needs to start a program.

    Attributes:
        maps: (address, bytes, writable) of each memory.
        contents: (address, bytes) to write into them.
        code: (address, bytes) where they are when they run; start-up code may have copied them there.
        entry: the first instruction.
        stack_limit, stack_top: the bytes that the stack may use, [limit, top).
    """

    maps: list[tuple[int, int, bool]]
    contents: list[tuple[int, bytes]]
    code: list[tuple[int, bytes]]
    entry: int
    stack_limit: int
    stack_top: int


def load_image(image: Image, core: Core, board: Board | None) -> Loaded:
    """Reads the loadable segments and places them.

    Raises:
        ModelFileError: the ELF is for another processor.
        DoesNotFitError: a segment lies outside the memory map.
    """
    errors.require("elftools", extra="emulate")
    from elftools.elf.elffile import ELFFile

    with image.path.open("rb") as stream:
        elf = ELFFile(stream)
        expected = "EM_AARCH64" if core.pointer_bits == 64 else "EM_ARM"
        if elf["e_machine"] != expected:
            raise errors.ModelFileError(
                f"this image is not for {core.name}",
                where=str(image.path),
                why=f"its machine is {elf['e_machine']}, {expected} is needed",
            )
        segments = [s for s in elf.iter_segments() if s["p_type"] == "PT_LOAD" and s["p_memsz"]]
        parts = [
            (s["p_vaddr"] if core.is_linux else s["p_paddr"], s.data(), s["p_memsz"], s["p_flags"]) for s in segments
        ]
        code = [(s["p_vaddr"], s.data()) for s in segments]
        entry: int = elf["e_entry"]
    contents = [(address, data) for address, data, _, _ in parts if data]
    if core.is_linux:
        stack_top = LINUX_STACK_TOP[core.pointer_bits]
        stack_limit = stack_top - LINUX_STACK_BYTES
        maps = [(stack_limit, LINUX_STACK_BYTES, True), *_linux_pages(parts)]
        return Loaded(maps, contents, code, entry, stack_limit, stack_top)
    memories = board.memories if board is not None else core.memories
    for address, data in contents:
        if not any(m.origin <= address and address + len(data) <= m.end for m in memories):
            raise errors.DoesNotFitError(
                "the image lies outside the memory map",
                where=str(image.path),
                why=f"0x{address:08x} to 0x{address + len(data):08x} is in none of {', '.join(m.name for m in memories)}",
            )
    symbols = image.symbols
    for needed in ("bd_vectors", "bd_stack_limit", "bd_stack_top"):
        if needed not in symbols:
            raise errors.ModelFileError("this image was not built by bdnet-deploy", why=f"it has no symbol {needed}")
    return Loaded(
        maps=[(m.origin, m.length, m.kind == "ram") for m in memories],
        contents=contents,
        code=code,
        entry=symbols["bd_reset"].address,
        stack_limit=symbols["bd_stack_limit"].address,
        stack_top=symbols["bd_stack_top"].address,
    )


def _linux_pages(parts: list[tuple[int, bytes, int, int]]) -> list[tuple[int, int, bool]]:
    writable_flag = 2
    maps = []
    for address, _, size, flags in parts:
        start = address // PAGE * PAGE
        end = -(-(address + size) // PAGE) * PAGE
        maps.append((start, end - start, bool(flags & writable_flag)))
    return maps
