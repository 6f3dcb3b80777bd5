"""Builds of the runtime with sanitizers."""

from __future__ import annotations

import os
import platform
import subprocess
from concurrent.futures import ThreadPoolExecutor
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


#: Options of the sets whose variants gcc builds for this processor's architecture, as in runtime/CMakeLists.txt.
_AVX2 = ["-mavx2", "-mpopcnt"]
SETS = {"avx2": _AVX2, "avx512": [*_AVX2, *(f"-mavx512{x}" for x in ("f", "dq", "bw", "vl", "vpopcntdq"))]}


def variant_objects(root: Path, folder: Path, flags: list[str]) -> list[str]:
    """Objects of the variants and the options that go with them; none on other architectures than x86-64."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return []
    jobs = [(name, source) for name in SETS for source in sorted((root / "runtime/kernels" / name).glob("*.c"))]

    def compiled(job: tuple[str, Path]) -> str:
        name, source = job
        made = str(folder / f"{name}-{source.stem}.o")
        command = ["gcc", *FLAGS, *flags, *SETS[name], "-c", str(source), "-o", made]
        done = subprocess.run(command, cwd=root / "runtime", capture_output=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr
        return made

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return [*(f"-DBD_WITH_{name.upper()}" for name in SETS), *pool.map(compiled, jobs)]


def sanitized_environment(root: Path, folder: Path) -> dict[str, str]:
    """The environment of a Python process whose host library has the address and undefined behaviour sanitizers."""
    library = folder / "libbdnet.so"
    flags = ["-fPIC", "-fsanitize=address,undefined", "-pthread", "-Ihost"]
    variants = variant_objects(root, folder, flags)
    build(root, "gcc", [*flags, *variants, "-shared", "host/bdnet_host.c", "-o", str(library)])
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
