"""A second opinion on the C sources: GNU compilers, where they are installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bdnet_deploy import firmware, resources

WARNINGS = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic", "-Werror", "-O2", "-ffreestanding"]
COMPILERS = {
    "arm-none-eabi-gcc cortex-m0plus": ["arm-none-eabi-gcc", "-mcpu=cortex-m0plus", "-mthumb"],
    "arm-none-eabi-gcc cortex-m4": ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb"],
    "aarch64-linux-gnu-gcc": ["aarch64-linux-gnu-gcc"],
    "gcc": ["gcc"],
}


def _compile(command: list[str], source: Path, out: Path) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    includes = [f"-I{folder}" for folder in firmware.runtime_includes()]
    result = subprocess.run(
        [*command, *includes, "-c", str(source), "-o", str(out)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("compiler", COMPILERS)
def test_runtime_compiles_without_warnings(compiler: str, tmp_path: Path) -> None:
    for source in firmware.runtime_sources():
        _compile([*COMPILERS[compiler], *WARNINGS], source, tmp_path / f"{source.stem}.o")


def test_public_header_is_cpp(tmp_path: Path) -> None:
    source = tmp_path / "user.cpp"
    source.write_text('#include "bdnet.h"\nint main() { return bd_status_name(BD_OK) == nullptr; }\n', encoding="utf-8")
    _compile(["g++", "-std=c++11", "-Wall", "-Wextra", "-pedantic", "-Werror"], source, tmp_path / "user.o")


def test_public_header_needs_nothing_else() -> None:
    text = (resources.runtime_dir() / "include" / "bdnet.h").read_text(encoding="utf-8")
    included = [line for line in text.splitlines() if line.startswith("#include")]
    assert sorted(included) == ["#include <stddef.h>", "#include <stdint.h>"]
