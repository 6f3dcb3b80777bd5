"""UF2 files: what a board with a mass-storage boot loader takes by drag and drop.

Format: https://github.com/microsoft/uf2, "File format": blocks of 512 bytes, each with its own address, so order and losses do no
harm. Family IDs: ``utils/uf2families.json`` there.
"""

from __future__ import annotations

import struct
from pathlib import Path
from tempfile import TemporaryDirectory

from .. import errors

PAGE = 256
FAMILIES = {"RP2040": 0xE48BFF56}
"""Chip -> family ID."""

_MAGIC_START = (0x0A324655, 0x9E5D5157)
_MAGIC_END = 0x0AB16F30
_FLAG_FAMILY = 0x00002000


def uf2_bytes(segments: list[tuple[int, bytes]], family: int) -> bytes:
    """UF2 blocks of (address, bytes) segments: 256-byte pages in ascending order, gaps inside a page filled with zeros."""
    pages: dict[int, bytearray] = {}
    for address, data in segments:
        for offset in range(0, len(data)):
            at = address + offset
            pages.setdefault(at - at % PAGE, bytearray(PAGE))[at % PAGE] = data[offset]
    blocks = []
    for number, address in enumerate(sorted(pages)):
        head = struct.pack("<8I", *_MAGIC_START, _FLAG_FAMILY, address, PAGE, number, len(pages), family)
        blocks.append(head + bytes(pages[address]) + bytes(476 - PAGE) + struct.pack("<I", _MAGIC_END))
    return b"".join(blocks)


def write_uf2(elf: Path, out: Path, chip: str) -> int:
    """Writes the UF2 file of an ELF image, atomically; returns its number of blocks.

    Raises:
        UsageError: UF2 is not known for this chip.
        ModelFileError: the image is not readable.
    """
    if chip not in FAMILIES:
        raise errors.unknown_name("UF2 chip", chip, FAMILIES)
    errors.require("elftools", extra="emulate")
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        with elf.open("rb") as stream:
            loaded = [s for s in ELFFile(stream).iter_segments() if s["p_type"] == "PT_LOAD" and s["p_filesz"]]
            segments = [(s["p_paddr"], s.data()) for s in loaded]
    except (OSError, ELFError) as error:
        raise errors.ModelFileError("this is not a readable ELF image", where=str(elf), why=str(error)) from error
    data = uf2_bytes(segments, FAMILIES[chip])
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent) as scratch:
        fresh = Path(scratch) / "image.uf2"
        fresh.write_bytes(data)
        Path(fresh).replace(out)
    return len(data) // 512
