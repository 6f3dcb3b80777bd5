"""A C++ application compiles the operators and adds them to its resolver, without TensorFlow's headers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tflite_kernels import NAMES

C_FLAGS = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror"]
CPP_FLAGS = ["-std=c++11", "-Wall", "-Wextra", "-pedantic", "-Werror"]


def _compilers() -> tuple[list[str], list[str]]:
    for pair in (("gcc", "g++"), ("clang", "clang++")):
        if all(map(shutil.which, pair)):
            return [pair[0]], [pair[1]]
    pytest.importorskip("ziglang")
    zig = [sys.executable, "-m", "ziglang"]
    return [*zig, "cc"], [*zig, "c++"]


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_resolver_gets_all_operators(root: Path, tmp_path: Path) -> None:
    cc, cpp = _compilers()
    folder = root / "runtime" / "tflite"
    objects = []
    for source in sorted(folder.glob("*.c")):
        objects.append(str(tmp_path / f"{source.stem}.o"))
        _run(*cc, *C_FLAGS, "-c", str(source), "-o", objects[-1])
    program = str(tmp_path / "resolver")
    main = str(Path(__file__).with_name("tflite_resolver.cpp"))
    _run(*cpp, *CPP_FLAGS, f"-I{folder}", main, *objects, "-o", program)
    assert _run(program).split() == list(NAMES)
