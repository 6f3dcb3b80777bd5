"""The switches at the top of bdnet.h: each does what it says, and there is no other."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from c_programs import PAGE, ROOT, build, run_program, write_folder

from bdnet_deploy import firmware

HEADER = ROOT / "runtime" / "include" / "bdnet.h"
SWITCHES = {"BD_NO_CRC", "BD_API", "BD_MODEL_ATTRIBUTE"}
VISIBLE = '-DBD_API=__attribute__((visibility("default")))'
IN_FLASH = '-DBD_MODEL_ATTRIBUTE=__attribute__((aligned(32), section(".extflash")))'

#: Prints the loader's status of a sound and a damaged model, and what the page's loop says of each.
DAMAGE = """
#include "digits.h"

#include <stdio.h>

static uint8_t arena[DIGITS_ARENA_BYTES] __attribute__((aligned(16)));
static uint32_t copy[DIGITS_BYTES / 4] __attribute__((aligned(16)));
static int fed;

static void feed_watchdog(void) {
    fed++;
}

static int is_damaged(const uint32_t *model) {
SNIPPET
    return damaged;
}

int main(void) {
    for (uint32_t i = 0; i < DIGITS_BYTES / 4; i++) {
        copy[i] = DIGITS_DATA[i];
    }
    for (int i = 0; i < 2; i++) {
        bd_context *context;
        const bd_status status = bd_load(arena, sizeof arena, copy, DIGITS_BYTES, &DIGITS_KERNELS, &context);
        printf("%s %d\\n", bd_status_name(status), is_damaged(copy));
        copy[DIGITS_BYTES / 4 - 40] ^= 1u; /* in the map, which no inference reads */
    }
    return fed < 2 * (int)(DIGITS_BYTES / 1024u);
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_folder(tmp_path_factory.mktemp("switches"))
    snippet = re.search(r"^```\n(uint32_t crc = 0.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert snippet
    (folder / "damage.c").write_text(DAMAGE.replace("SNIPPET", snippet[1]), encoding="utf-8")
    return folder


def test_every_switch_is_documented_and_tested_here() -> None:
    header = HEADER.read_text(encoding="utf-8")
    assert set(re.findall(r"^(?:/\*| \*) (BD_\w+): default", header, re.MULTILINE)) == SWITCHES
    section = PAGE.read_text(encoding="utf-8").split("\n## Switches\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(BD_\w+)`", section, re.MULTILINE)) == SWITCHES
    assert "usually do not need to change anything" in header
    sources = [HEADER, *firmware.runtime_sources(), *(ROOT / "runtime").glob("*/*.h")]
    asked = {
        name
        for path in sources
        for name in re.findall(
            r"^#\s*(?:ifdef|ifndef|if defined)\W+(BD\w+)", path.read_text(encoding="utf-8"), re.MULTILINE
        )
        if not name.endswith("_H")
    }
    assert asked == SWITCHES


@pytest.mark.parametrize("switch", [False, True])
def test_no_crc(folder: Path, switch: bool) -> None:
    options = ["-DBD_NO_CRC"] if switch else []
    sources = [*firmware.runtime_sources(), folder / "digits.c"]
    objects = build(folder, sources, f"crc{switch}", "cc", "-std=c99", "-O1", *options)
    code, output = run_program(folder, objects, "damage.c", cpp=False, options=options)
    assert (code, output) == (0, f"BD_OK 0\n{'BD_OK' if switch else 'BD_ERROR_CRC'} 1\n")


@pytest.mark.parametrize("switch", [False, True])
def test_api_prefix_sets_visibility(folder: Path, switch: bool) -> None:
    """With hidden symbols by default, a shared library shows what bdnet.h declares and nothing else."""
    options = ["-std=c99", "-O1", "-fPIC", "-fvisibility=hidden", *([VISIBLE] if switch else [])]
    objects = build(folder, firmware.runtime_sources(), f"api{switch}", "cc", *options)
    library = folder / f"api{switch}.so"
    subprocess.run(["cc", "-shared", *objects, "-o", str(library)], check=True)
    lib = ctypes.CDLL(str(library))
    declared = re.findall(r"^BD_API .*?(bd_\w+)(?:\(|;)", HEADER.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(declared) == 13
    assert {hasattr(lib, name) for name in declared} == {switch}
    assert not any(hasattr(lib, name) for name in ("bd_find_kernel", "bd_run_rows", "bd_conv_bb_i16"))


def test_every_function_of_the_header_has_the_prefix() -> None:
    header = re.sub(r"/\*.*?\*/", "", HEADER.read_text(encoding="utf-8"), flags=re.DOTALL)
    functions = re.findall(r"^(.*?)\b(bd_\w+)\(", header, re.MULTILINE)
    assert len(functions) == 12
    assert all(before.startswith("BD_API ") for before, _ in functions)


@pytest.mark.parametrize(("options", "section", "align"), [([], ".rodata", 16), ([IN_FLASH], ".extflash", 32)])
def test_model_attribute_places_the_model(folder: Path, options: list[str], section: str, align: int) -> None:
    pytest.importorskip("elftools")
    from elftools.elf.elffile import ELFFile

    (path,) = build(folder, [folder / "digits.c"], f"model{len(options)}", "cc", "-std=c99", *options)
    with Path(path).open("rb") as stream:
        elf = ELFFile(stream)
        symbols = {s.name: s for s in elf.get_section_by_name(".symtab").iter_symbols()}
        where = elf.get_section(symbols["digits_data"]["st_shndx"])
        assert where.name.startswith(section)
        assert where["sh_addralign"] >= align and symbols["digits_data"]["st_value"] % align == 0
    objects = build(folder, firmware.runtime_sources(), f"runtime{len(options)}", "cc", "-std=c99", "-O1")
    assert run_program(folder, [*objects, path], "watchdog.c", cpp=False) == (7, "")


def test_the_header_alone_is_c_and_cpp(tmp_path: Path) -> None:
    """Nothing has to be included before it."""
    source = tmp_path / "only.c"
    source.write_text('#include "bdnet.h"\ntypedef char nothing_else;\n', encoding="utf-8")
    for compiler, language, standard in (("cc", "c", "c99"), ("g++", "c++", "c++98"), ("clang++", "c++", "c++20")):
        if shutil.which(compiler) is None:
            continue
        command = [compiler, "-x", language, f"-std={standard}", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
        subprocess.run([*command, f"-I{HEADER.parent}", str(source)], check=True)
