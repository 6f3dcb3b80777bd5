"""Builds of the runtime with sanitizers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

FLAGS = [
    "-std=c99",
    "-g",
    "-O1",
    "-ffp-contract=off",
    "-fno-sanitize-recover=all",
    "-Iinclude",
    "-Isrc",
    "-Ikernels",
    "-Itflite",
]


def sources(root: Path) -> list[str]:
    runtime = root / "runtime"
    files = [
        *(runtime / "src").glob("*.c"),
        *(runtime / "kernels/generic").glob("*.c"),
        *(runtime / "tflite").glob("*.c"),
    ]
    return [str(f.relative_to(runtime)) for f in sorted(files)]


def build(root: Path, compiler: str, arguments: list[str]) -> None:
    command = [compiler, *FLAGS, *arguments, *sources(root)]
    done = subprocess.run(command, cwd=root / "runtime", capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


def sanitized_environment(root: Path, folder: Path) -> dict[str, str]:
    """The environment of a Python process whose host library has the address and undefined behaviour sanitizers."""
    library = folder / "libbdnet.so"
    build(root, "gcc", ["-fPIC", "-shared", "-fsanitize=address,undefined", "-pthread", "-o", str(library)])
    runtimes = [
        subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, encoding="utf-8").stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    return {
        **os.environ,
        "LD_PRELOAD": ":".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0",
        "BDNET_HOST_LIBRARY": str(library),
    }
