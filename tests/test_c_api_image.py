"""Firmware images of the page's programs: what they link, and what they do on an emulated core."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from c_programs import PAGE, PROGRAMS, kernels_of_table, models, printed, write_folder

from bdnet_deploy import firmware, targets
from bdnet_deploy.plan.kernels import kernel_names

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
    return kernels_of_table((folder / f"{name}.c").read_text(encoding="utf-8"))


def test_kept_kernels_are_in_the_table_once(folder: Path) -> None:
    own, other = models()["digits"].plan.kernels, models()["digits8"].plan.kernels
    assert set(other) - set(own)
    assert table_of(folder, "digits") == own
    assert table_of(folder, "digits_more") == [*own, *sorted(set(other) - set(own))]
