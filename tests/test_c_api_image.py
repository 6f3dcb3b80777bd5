"""Firmware images of the page's programs: what they link, and what they do on an emulated core."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from c_programs import PAGE, PROGRAMS, models, printed, write_folder

from bdnet_deploy import firmware, targets
from bdnet_deploy.plan.kernels import kernel_names

#: Of the compiler's own library: integer helpers and block operations.
HELPERS = re.compile(
    r"mem(cpy|move|set|cmp)|__aeabi_mem(cpy|move|set|clr)[48]?|__aeabi_(u?idiv|u?idivmod|lmul|uldivmod|ll[sa][lr]r?)"
    r"|__u?(div|mod|divmod)[sd]i[34]|__clz[sd]i2|__muldi3|__aeabi_unwind_cpp_pr[012]"
)


#: What printf is on the emulated cores, for the conversions that the page uses.
PRINTF = """
#include "port.h"
#include "stdio.h"
#include <stdarg.h>

static void number(int value) {
    char text[12];
    int at = 11;
    unsigned rest = value < 0 ? 0u - (unsigned)value : (unsigned)value;
    text[at] = 0;
    do {
        text[--at] = (char)('0' + rest % 10u);
        rest /= 10u;
    } while (rest != 0u);
    if (value < 0) {
        text[--at] = '-';
    }
    port_print(text + at);
}

int printf(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    for (; *format != 0; format++) {
        if (*format != '%') {
            port_write(format, 1);
        } else if (*++format == 'd') {
            number(va_arg(arguments, int));
        } else if (*format == 's') {
            port_print(va_arg(arguments, const char *));
        }
    }
    va_end(arguments);
    return 0;
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_folder(tmp_path_factory.mktemp("c_api"))
    (folder / "libc").mkdir()
    (folder / "libc" / "stdio.h").write_text("int printf(const char *format, ...);\n", encoding="utf-8")
    (folder / "libc" / "printf.c").write_text(PRINTF, encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=["cortex-m0plus", "cortex-m4"])
def image(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The page's watchdog.c with a self-test, a fixed16 model and the runtime, linked for a core."""
    for package in ("ziglang", "capstone", "elftools", "unicorn"):
        pytest.importorskip(package)
    from bdnet_deploy.toolchain import build_image

    core = targets.core(request.param)
    sources = [folder / "watchdog.c", folder / "digits.c", *firmware.runtime_sources()]
    boot = tmp_path_factory.mktemp("image") / "boot.c"
    boot.write_text(
        '#include "bdnet.h"\nint boot(bd_context *c, void *x, void *y);\n__attribute__((used, retain)) int boot(bd_context *c, '
        "void *x, void *y) {\n    int passed;\n    return bd_self_test(c, x, y, &passed) == BD_OK && passed;\n}\n",
        encoding="utf-8",
    )
    out = tmp_path_factory.mktemp(request.param) / "watchdog.elf"
    return core, build_image(core, [*sources, boot], out, includes=[folder, *firmware.runtime_includes()])


def test_watchdog_runs_on_an_emulated_core(image: Any) -> None:
    from bdnet_deploy.emulator import Emulator

    core, elf = image
    with Emulator(elf, core) as emulator:
        result = emulator.run(count=True)
    assert (result.stopped, result.exit_code) == ("exit", 7)
    shown = re.search(r"at most (\d+)\s+instructions for each byte", PAGE.read_text(encoding="utf-8"))
    assert shown and result.by_function["bd_crc32"] <= int(shown[1]) * elf.symbols["digits_data"].size


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-a72"])
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name.endswith(".c") and name != "watchdog.c"])
def test_programs_of_the_page_run_on_emulated_cores(folder: Path, name: str, core: str, tmp_path: Path) -> None:
    """They print there what they print on a computer."""
    for package in ("ziglang", "capstone", "elftools", "unicorn"):
        pytest.importorskip(package)
    from bdnet_deploy.emulator import Emulator
    from bdnet_deploy.toolchain import build_image

    where = targets.core(core)
    program = (folder / name).read_text(encoding="utf-8")
    used = re.findall(r'#include "(digits\w*)\.h"', program)
    sources = [folder / name, folder / "libc" / "printf.c", *(folder / f"{model}.c" for model in used)]
    includes = [folder, folder / "libc", *firmware.runtime_includes()]
    elf = build_image(where, [*sources, *firmware.runtime_sources()], tmp_path / "program.elf", includes=includes)
    with Emulator(elf, where) as emulator:
        result = emulator.run()
    assert (result.stopped, result.exit_code) == ("exit", 0)
    assert result.output.decode("ascii") == printed(Path(name).stem)
    tables = {symbol for symbol in elf.symbols if symbol.endswith("_kernels") and symbol.startswith("digits")}
    expected = {f"{symbol.lower()}" for symbol in re.findall(r"&(DIGITS\w*_KERNELS)", program)}
    assert tables == expected  # tables that nothing names are dropped
    kernels = {k for symbol in tables for k in table_of(folder, symbol.removesuffix("_kernels"))}
    assert {symbol for symbol in elf.symbols if symbol in kernel_names()} == kernels


def table_of(folder: Path, name: str) -> list[str]:
    return re.findall(r"^    &(\w+)", (folder / f"{name}.c").read_text(encoding="utf-8"), re.MULTILINE)


def test_kept_kernels_are_in_the_table_once(folder: Path) -> None:
    own, other = models()["digits"].plan.kernels, models()["digits8"].plan.kernels
    assert set(other) - set(own)
    assert table_of(folder, "digits") == own
    assert table_of(folder, "digits_more") == [*own, *sorted(set(other) - set(own))]


def test_a_fixed_image_links_no_floating_point(image: Any) -> None:
    """Neither a soft-float routine (by symbol) nor an FPU instruction (by disassembly)."""
    _, elf = image
    assert "bd_self_test" in elf.symbols
    routines = [
        n
        for n in elf.symbols
        if re.search(r"__aeabi_[fd]|__aeabi_u?[il]2[fd]|__(add|sub|mul|div|float|fix)\w*[sd]f", n)
    ]
    assert not routines
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


def test_what_the_runtime_needs_from_outside(image: Any) -> None:
    """Undefined symbols of the objects, without what they define for each other; and no writable data."""
    from elftools.elf.elffile import ELFFile

    from bdnet_deploy.toolchain import zig

    core, elf = image
    objects = zig.compile_objects(firmware.runtime_sources(), core, (), None, firmware.runtime_includes(), None)
    defined: set[str] = set()
    undefined: set[str] = set()
    for path in objects:
        with path.open("rb") as stream:
            file = ELFFile(stream)
            for section in file.iter_sections():
                writable = section["sh_flags"] & 3 == 3 and section["sh_size"]
                assert not writable or section.name.startswith(".data.rel.ro"), (path, section.name)
            for symbol in _section(file, ".symtab").iter_symbols():
                (undefined if symbol["st_shndx"] == "SHN_UNDEF" else defined).add(symbol.name)
    linked = {n for n in undefined - defined if n in elf.symbols}  # float kernels' routines are not
    assert all(HELPERS.fullmatch(name) for name in linked), linked
