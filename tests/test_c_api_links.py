"""What the runtime's objects and images link from outside, against the table of docs/c-api.md; fixed point links no float code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from c_programs import PAGE, build, models

from bdnet_deploy import firmware, targets


def helpers(fpu: bool, armv6: bool) -> set[str]:
    """What the page says that the runtime's objects need on such a core."""
    text = PAGE.read_text(encoding="utf-8")
    rows = dict(
        re.findall(
            r"^\| (everywhere|by normalization|on Armv6-M|by float kernels without an FPU) \| (.*?) \|",
            text,
            re.MULTILINE,
        )
    )
    assert len(rows) == 4
    used = [rows["everywhere"], rows["by normalization"]]
    used += [rows["on Armv6-M"]] * armv6 + [rows["by float kernels without an FPU"]] * (not fpu)
    return set(re.findall(r"`(\w+)`", " ".join(used)))


SOFT_FLOAT = re.compile(r"__aeabi_[fd]\w+|__aeabi_u?[il]2[fd]|__(add|sub|mul|div|float|fix)\w*[sd]f\w*")


@pytest.mark.parametrize("model", ["digits", "digits8"])
@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m33"])
def test_a_fixed_image_links_no_floating_point(core: str, model: str, tmp_path: Path) -> None:
    """Neither a soft-float routine (by symbol) nor an FPU instruction (by disassembly)."""
    for package in ("ziglang", "capstone", "elftools"):
        pytest.importorskip(package)
    elf = firmware.build_with_model("runner", models()[model], targets.core(core), tmp_path)
    assert {"bd_self_test", "bd_run", "bd_load", "bd_push_row"} <= set(elf.symbols)
    assert not [name for name in elf.symbols if SOFT_FLOAT.fullmatch(name)]
    assert fpu_instructions(elf.path) == {}


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m4"])
def test_floating_point_is_found_where_it_is(core: str, tmp_path: Path) -> None:
    for package in ("ziglang", "capstone", "elftools"):
        pytest.importorskip(package)
    from bdnet_deploy.toolchain import build_image

    source = tmp_path / "main.c"
    source.write_text("volatile float x;\nint main(void) {\n    x = x * x;\n    return 0;\n}\n", encoding="utf-8")
    image = build_image(targets.core(core), [source], tmp_path / "main.elf")
    assert (list(fpu_instructions(image.path, at_least=100)) == ["main"]) == (core == "cortex-m4")
    assert ("__aeabi_fmul" in image.symbols) == (core == "cortex-m0plus")


def fpu_instructions(path: Path, *, at_least: int = 10_000) -> dict[str, list[str]]:
    """Function -> its instructions that name an FPU register. Literal pools ($d) are not code."""
    import capstone
    from elftools.elf.elffile import ELFFile

    disassembler = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    found: dict[str, list[str]] = {}
    decoded = 0
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        symbols = list(_section(elf, ".symtab").iter_symbols())
        text = _section(elf, ".text")
        index, start, content = elf.get_section_index(".text"), text["sh_addr"], text.data()
        inside = [s for s in symbols if s["st_shndx"] == index]
        kinds = sorted((s["st_value"], s.name[:2]) for s in inside if s.name[:2] in ("$t", "$d"))
        functions = sorted((s["st_value"] & ~1, s.name) for s in inside if s["st_info"]["type"] == "STT_FUNC")
    assert kinds
    for (address, kind), end in zip(kinds, [*(a for a, _ in kinds[1:]), start + len(content)], strict=True):
        if kind != "$t":
            continue
        for instruction in disassembler.disasm(content[address - start : end - start], address):
            decoded += instruction.size
            if instruction.mnemonic.startswith("v"):
                function = max((f for f in functions if f[0] <= instruction.address), default=(0, "?"))[1]
                found.setdefault(function, []).append(f"{instruction.mnemonic} {instruction.op_str}")
    assert decoded >= at_least  # the mapping symbols are there and were understood
    return found


def _section(elf: Any, name: str) -> Any:
    section = elf.get_section_by_name(name)
    assert section is not None
    return section


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m33"])
def test_what_the_runtime_needs_from_outside(core: str) -> None:
    """Undefined symbols of the objects, without what they define for each other; and no writable data."""
    for package in ("ziglang", "elftools"):
        pytest.importorskip(package)
    from bdnet_deploy.toolchain import zig

    where = targets.core(core)
    objects = zig.compile_objects(firmware.runtime_sources(), where, (), None, firmware.runtime_includes(), None)
    needed = undefined(objects)
    allowed = helpers(where.has_fpu, core == "cortex-m0plus")
    assert needed <= allowed, needed - allowed
    if core == "cortex-m0plus":  # what is needed is found
        assert {"__aeabi_uidiv", "__aeabi_lmul", "__aeabi_fmul"} <= needed


@pytest.mark.slow
@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m3"])
def test_what_the_runtime_needs_when_gcc_compiles_it(core: str, tmp_path: Path) -> None:
    options = [f"-mcpu={core}", "-mthumb", "-std=c99", "-O2", "-ffreestanding"]
    objects = build(tmp_path, firmware.runtime_sources(), "gcc", "arm-none-eabi-gcc", *options)
    needed = undefined([Path(name) for name in objects])
    assert needed <= helpers(False, core == "cortex-m0plus"), needed


def undefined(objects: Sequence[Path]) -> set[str]:
    """Symbols that none of the objects defines. None of them may have writable data."""
    from elftools.elf.elffile import ELFFile

    found: set[str] = set()
    defined: set[str] = set()
    for path in objects:
        with path.open("rb") as stream:
            file = ELFFile(stream)
            for section in file.iter_sections():
                writable = section["sh_flags"] & 3 == 3 and section["sh_size"]
                assert not writable or section.name.startswith(".data.rel.ro"), (path, section.name)
            for symbol in _section(file, ".symtab").iter_symbols():
                (found if symbol["st_shndx"] == "SHN_UNDEF" else defined).add(symbol.name)
    return found - defined - {""}
