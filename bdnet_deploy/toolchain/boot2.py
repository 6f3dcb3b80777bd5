"""The RP2040's second-stage boot: 252 bytes of code and their CRC-32 at the start of flash.

RP2040 datasheet, section 2.8.1.3.1 "Checksum": polynomial 0x04c11db7, initial value 0xffffffff, no reflection, no final XOR,
little-endian in the last four bytes. The boot ROM copies the 256 bytes to SRAM and runs them if the checksum is right.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from .. import errors
from ..targets import Board
from . import zig

CODE_BYTES = 252


def crc32(data: bytes) -> int:
    """The checksum that the RP2040 boot ROM computes (CRC-32/MPEG-2)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = ((crc << 1) ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
    return crc


def boot2_bytes(board: Board) -> bytes:
    """The 256 bytes of a board's second-stage boot, from ``boot2.S`` in its folder.

    Raises:
        DoesNotFitError: the code is longer than 252 bytes.
        BdnetError: it does not compile, or is not position-independent.
    """
    errors.require("elftools", extra="emulate")
    from elftools.elf.elffile import ELFFile

    source = board.folder / "boot2.S"
    (built,) = zig.compile_objects([source], board.core)
    with built.open("rb") as stream:
        elf = ELFFile(stream)
        text = elf.get_section_by_name(".text.boot2")
        if text is None or any(elf.get_section_by_name(kind + ".text.boot2") for kind in (".rel", ".rela")):
            raise errors.BdnetError(
                "the second-stage boot must be one position-independent section .text.boot2", where=str(source)
            )
        code = text.data()
    if len(code) > CODE_BYTES:
        raise errors.DoesNotFitError(
            f"the second-stage boot has {len(code)} bytes, {CODE_BYTES} fit", where=str(source)
        )
    code = code.ljust(CODE_BYTES, b"\0")
    return code + crc32(code).to_bytes(4, "little")


def boot2_object(board: Board) -> Path:
    """An object with the 256 bytes in section ``.boot2``, for the linker."""
    words = ",".join(f"0x{byte:02x}" for byte in boot2_bytes(board))
    text = f'.section .boot2, "a"\n.byte {words}\n'
    folder = zig.cache_dir() / "generated"
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / f"boot2_{board.name}.S"
    if not source.is_file() or source.read_text(encoding="utf-8") != text:
        with TemporaryDirectory(dir=folder) as scratch:
            fresh = Path(scratch) / "boot2.S"
            fresh.write_text(text, encoding="utf-8", newline="\n")
            Path(fresh).replace(source)
    return zig.compile_objects([source], board.core)[0]
