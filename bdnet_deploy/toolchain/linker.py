"""Linker scripts: for bare-metal images, written from a memory map, and one for Linux programs.

Layout of bare-metal images: vector table, code and constants in flash; initialised data loaded from flash into RAM; ``.bss`` cleared at start-up;
``.noinit`` and ``.arena`` not cleared, the latter in the largest RAM; the stack grows down from the end of the first RAM.
Debug information, also that of compiler-rt, is dropped: it would carry this machine's paths into the file.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import BdnetError
from ..targets import Memory

_DISCARD = "  /DISCARD/ : { *(.ARM.exidx* .ARM.extab* .eh_frame* .comment .debug* .note*) }"

LINUX_SCRIPT = f"""ENTRY(_start)
PHDRS {{ code PT_LOAD FLAGS(5); data PT_LOAD FLAGS(6); stack PT_GNU_STACK FLAGS(6); }}
SECTIONS {{
  . = 0x400000;
  .text : {{ *(.text .text.*) }} :code
  .rodata : ALIGN(16) {{ *(.rodata .rodata.*) }} :code
  . = ALIGN(0x10000);
  .data : {{ *(.data .data.*) }} :data
  .bss : ALIGN(16) {{ *(.bss .bss.* COMMON) }} :data
  .arena (NOLOAD) : ALIGN(16) {{ *(.noinit .noinit.* .arena .arena.*) }} :data
{_DISCARD}
}}
"""
"""For static Linux programs: code and constants read-only, data writable, pages of up to 64 KiB."""


def linker_script(memories: Sequence[Memory], *, vector_table: int, boot2: bool, stack_bytes: int) -> str:
    """A GNU-style linker script that lld accepts.

    Args:
        memories: the map; the first ``flash`` and the first ``ram`` are used, and the largest ``ram`` for the arena.
        vector_table: address of the vector table; must lie in the flash.
        boot2: keep 256 bytes for section ``.boot2`` at the start of flash.
        stack_bytes: linking fails when less RAM than this remains for the stack.

    Raises:
        BdnetError: the map has no flash or no RAM.
    """
    flash = next((m for m in memories if m.kind == "flash"), None)
    rams = [m for m in memories if m.kind == "ram"]
    if flash is None or not rams:
        raise BdnetError("the memory map needs one flash and one ram region")
    ram = rams[0]
    arena = max(rams, key=lambda m: m.length)
    regions = "\n".join(
        f"  {m.name} ({'rx' if m.kind == 'flash' else 'rwx'}) : ORIGIN = 0x{m.origin:08x}, LENGTH = 0x{m.length:x}"
        for m in memories
    )
    boot = f"  .boot2 0x{flash.origin:08x} : {{ KEEP(*(.boot2)) }} > {flash.name}\n" if boot2 else ""
    arena_section = f"  .arena (NOLOAD) : ALIGN(16) {{ *(.arena .arena.*) }} > {arena.name}\n"
    if arena is ram:  # stay below the stack, in address order
        after_noinit, elsewhere = arena_section, ""
    else:
        after_noinit, elsewhere = "", arena_section
    return f"""ENTRY(bd_reset)
MEMORY {{
{regions}
}}
SECTIONS {{
{boot}  .text 0x{vector_table:08x} : {{
    KEEP(*(.vectors))
    *(.text .text.*)
  }} > {flash.name}
  .rodata : ALIGN(16) {{ *(.rodata .rodata.*) . = ALIGN(8); }} > {flash.name}
  .data : ALIGN(8) {{
    bd_data_start = .;
    *(.data .data.*)
    . = ALIGN(8);
    bd_data_end = .;
  }} > {ram.name} AT> {flash.name}
  bd_data_load = LOADADDR(.data);
  .bss (NOLOAD) : ALIGN(8) {{
    bd_bss_start = .;
    *(.bss .bss.* COMMON)
    . = ALIGN(8);
    bd_bss_end = .;
  }} > {ram.name}
  .noinit (NOLOAD) : ALIGN(8) {{ *(.noinit .noinit.*) }} > {ram.name}
{after_noinit}  .stack_limit (NOLOAD) : ALIGN(8) {{ bd_stack_limit = .; }} > {ram.name}
{elsewhere}  bd_stack_top = 0x{ram.end:08x};
  ASSERT(bd_stack_limit + {stack_bytes} <= bd_stack_top, "no room for the stack of {stack_bytes} bytes")
{_DISCARD}
}}
"""
