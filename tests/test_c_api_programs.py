"""The programs of docs/c-api.md: compiled and run as C and C++."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from c_programs import (
    MODELS,
    PAGE,
    PROGRAMS,
    ROOT,
    blocks,
    build,
    logits_of,
    models,
    printed,
    run_program,
    sample,
    write_folder,
)

from bdnet_deploy import firmware


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("c_api"))


@pytest.fixture(scope="module")
def objects(folder: Path) -> list[str]:
    """The runtime and the models, compiled as C."""
    sources = [*firmware.runtime_sources(), *(folder / f"{name}.c" for name in MODELS)]
    return build(folder, sources, "objects", "cc", "-std=c99", "-O1")


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_of_the_page(folder: Path, objects: list[str], name: str) -> None:
    code, output = run_program(folder, objects, name, cpp=name.endswith(".cpp"))
    shown = printed(Path(name).stem)
    assert output == (shown or "")
    assert (code, shown is None) == ((7, True) if name == "watchdog.c" else (0, False))


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
@pytest.mark.parametrize("standard", ["c++11", "c++20"])
def test_the_headers_are_cpp_too(folder: Path, objects: list[str], compiler: str, standard: str) -> None:
    """Warnings that C has not are errors here: casts, and macros that are no C++."""
    options = [f"-std={standard}", "-Wold-style-cast", "-Wzero-as-null-pointer-constant"]
    found = run_program(folder, objects, "application.cpp", cpp=True, compiler=compiler, options=options)
    assert found == (0, printed("application"))


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_a_c_program_is_cpp_too(folder: Path, objects: list[str], compiler: str) -> None:
    assert run_program(folder, objects, "one_call.c", cpp=True, compiler=compiler) == (0, printed("one_call"))


def test_sources_that_may_stay_out(folder: Path) -> None:
    """all.c, self_test.c and status.c, where nothing names what is in them."""
    out = {"all.c", "self_test.c", "status.c"}
    sources = [s for s in firmware.runtime_sources() if s.name not in out]
    assert len(sources) == len(firmware.runtime_sources()) - 3
    few = build(folder, [*sources, folder / "digits.c"], "few", "cc", "-std=c99", "-O1")
    assert run_program(folder, few, "watchdog.c", cpp=False) == (7, "")


def test_two_exports_in_one_translation_unit(folder: Path) -> None:
    """No name clashes, not even of what is static."""
    (folder / "both.c").write_text('#include "digits.c"\n#include "digits8.c"\n', encoding="utf-8")
    both = build(folder, [*firmware.runtime_sources(), folder / "both.c"], "unity", "cc", "-std=c99", "-O1")
    assert run_program(folder, both, "two_models.c", cpp=False) == (0, printed("two_models"))


@pytest.mark.slow
def test_programs_under_sanitizers(folder: Path) -> None:
    """No access outside the arrays of the programs: each is an object of its own."""
    options = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]
    sources = [*firmware.runtime_sources(), *(folder / f"{name}.c" for name in MODELS)]
    checked = build(folder, sources, "sanitized", "gcc", "-std=c99", "-O1", *options)
    for name in PROGRAMS[:-1]:
        code, output = run_program(folder, checked, name, cpp=False, options=options)
        assert (code, output) == (7 if name == "watchdog.c" else 0, printed(Path(name).stem) or "")


def test_the_page_has_all_programs_and_right_numbers() -> None:
    found = blocks()
    assert set(found) == {*PROGRAMS, "digit.h"}
    rows = re.findall(r"^    \{([\d, ]+)\},$", found["digit.h"], re.MULTILINE)
    assert [int(v) for row in rows for v in row.split(",")] == sample().reshape(-1).tolist()
    logits = logits_of(models()["digits"], sample())
    assert printed("one_call") == f"logits {' '.join(map(str, logits))}\nthis is a {int(np.argmax(logits))}\n"
    assert int(np.argmax(logits_of(models()["digits8"], sample()))) == 7


def test_the_page_names_every_status_and_macro(folder: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    header = (ROOT / "runtime" / "include" / "bdnet.h").read_text(encoding="utf-8")
    codes = re.findall(r"^\s+(BD_(?:OK|ERROR_\w+)) =\s+(\d+)", header, re.MULTILINE)
    assert len(codes) == 12
    for name, value in codes:
        assert f"| `{name}` | {value} |" in page, name
    for model in MODELS:
        header = (folder / f"{model}.h").read_text(encoding="utf-8")
        macros = re.findall(rf"^#define {model.upper()}_(\w+) ", header, re.MULTILINE)
        assert len(macros) > 10
        for macro in macros:
            assert f"DIGITS_{macro}`" in page or f"..._{macro.split('_', 1)[1]}`" in page, macro
