"""Compiling and linking C with the clang and lld inside the ``ziglang`` wheel: no system compiler, the same bytes on every machine.

Options, and why:

* ``-ffreestanding``: no C library is linked; the four functions a compiler calls on its own come from ``common/mem.c``, integer
  division and soft-float from zig's compiler-rt. It also stops clang from turning loops into calls of memcpy; a copy of fixed size
  that must be inlined is written ``__builtin_memcpy``.
* ``-ffp-contract=off``: no fused multiply-add, so floats are the same bytes on every core.
* ``-fno-sanitize=all``: zig adds undefined-behaviour traps otherwise, which change the instruction counts.
* ``-ffunction-sections`` with ``--gc-sections``: only what is used is linked.
* ``-g0``, ``-ffile-prefix-map`` and a linker script that drops debug sections: no path of this machine reaches the ELF.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from .. import errors
from ..targets import Core
from .cache import Fingerprint, cache_dir

COMMON_FLAGS = (
    "-std=c99",
    "-O2",
    "-g0",
    "-ffreestanding",
    "-fno-sanitize=all",
    "-fomit-frame-pointer",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-fno-stack-protector",
    "-ffunction-sections",
    "-fdata-sections",
    "-ffp-contract=off",
)
"""Options of every compilation, before those of the core and the caller."""


@cache
def version() -> str:
    """The compiler's version, e.g. ``"zig 0.17.0 (clang version 22.1.8)"``.

    Raises:
        MissingPackageError: ziglang is not installed.
    """
    errors.require("ziglang", extra="emulate")
    zig = importlib.metadata.version("ziglang")
    clang = _run(["--version"]).stdout.splitlines()[0].strip()
    return f"zig {zig} ({clang})"


def target_flags(core: Core) -> list[str]:
    """The options that select a core."""
    return ["-target", core.target, f"-mcpu={core.cpu}", *core.flags]


def compile_objects(
    sources: Sequence[Path],
    core: Core,
    flags: Sequence[str] = (),
    out_dir: Path | None = None,
    includes: Sequence[Path] = (),
    defines: Mapping[str, str | int | None] | None = None,
) -> list[Path]:
    """Compiles C (``.c``) or assembly (``.S``) files, taking what it can from the object cache.

    Args:
        sources: the files.
        core: what to compile for.
        flags: further compiler options, after :data:`COMMON_FLAGS`.
        out_dir: where the objects are put; by default they stay in the cache.
        includes: include folders, in order.
        defines: macros; None defines one without a value. A file gets those that it, or what it includes, names.

    Returns:
        One object per source, in order.

    Raises:
        MissingPackageError: ziglang is not installed.
        BdnetError: a source is missing or does not compile; carries the compiler's first lines.
    """
    for source in sources:
        if not source.is_file():
            raise errors.BdnetError("this source file does not exist", where=str(source))
    sources = [source.resolve() for source in sources]
    includes = [folder.resolve() for folder in includes]
    macros = {name: f"-D{name}" if value is None else f"-D{name}={value}" for name, value in (defines or {}).items()}
    common = [*target_flags(core), *COMMON_FLAGS, *flags]
    fingerprint = Fingerprint(includes)
    kept = cache_dir() / "objects"
    wanted, jobs = [], {}
    for source in sources:  # sizes of one model must not have the runtime compiled again
        options = [*common, *(text for name, text in macros.items() if fingerprint.names(source, name))]
        wanted.append(kept / f"{fingerprint.key(source, [version(), *options])}.o")
        if not wanted[-1].is_file():
            jobs[wanted[-1]] = (source, options)
    if jobs:
        kept.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            list(pool.map(lambda job: _compile(job[1][0], job[0], job[1][1], includes), jobs.items()))
    if out_dir is None:
        return wanted
    out_dir.mkdir(parents=True, exist_ok=True)
    placed = []
    for index, (source, built) in enumerate(zip(sources, wanted, strict=True)):
        placed.append(out_dir / f"{index:03d}_{source.stem}.o")
        placed[-1].write_bytes(built.read_bytes())
    return placed


def _compile(source: Path, built: Path, options: Sequence[str], includes: Sequence[Path]) -> None:
    folders = dict.fromkeys((source.parent, *includes))
    maps = [f"-ffile-prefix-map={folder}={'.' if i == 0 else f'include{i}'}" for i, folder in enumerate(folders)]
    with TemporaryDirectory(dir=built.parent) as scratch:
        fresh = Path(scratch) / "out.o"
        search = [f"-I{folder}" for folder in includes]
        command = [*options, *maps, *search, "-c", source.name, "-o", str(fresh)]
        result = _run(command, cwd=source.parent)
        if result.returncode != 0 or not fresh.is_file():
            raise errors.BdnetError(
                f"the compiler rejects {source.name}", where=str(source), why=_first_lines(result.stderr)
            )
        _publish(fresh, built)


def shared_library(source: Path, defines: Mapping[str, str | int]) -> Path:
    """One C file as a shared library for the machine that this runs on; what it does not define, its loader has.

    Raises:
        MissingPackageError: ziglang is not installed.
        BdnetError: it does not compile.
    """
    options = ["-shared", "-fPIC", "-O2", "-g0", "-pthread", *(f"-D{name}={value}" for name, value in defines.items())]
    options.append("-Wl,-undefined,dynamic_lookup" if sys.platform == "darwin" else "-Wl,-z,undefs")
    key = Fingerprint([]).key(source, [version(), sys.platform, platform.machine(), *options])
    built = cache_dir() / "objects" / f"{key}.so"
    if not built.is_file():
        built.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=built.parent) as scratch:
            fresh = Path(scratch) / "out.so"
            result = _run([*options, source.name, "-o", str(fresh)], cwd=source.parent)
            if result.returncode != 0 or not fresh.is_file():
                raise errors.BdnetError(
                    f"the compiler rejects {source.name}", where=str(source), why=_first_lines(result.stderr)
                )
            _publish(fresh, built)
    return built


def _publish(fresh: Path, final: Path) -> None:
    # Another process may have published the same bytes; Windows refuses to replace a file that is open.
    with contextlib.suppress(PermissionError):
        Path(fresh).replace(final)


def link(objects: Sequence[Path], core: Core, out: Path, *, script: str) -> None:
    """Links objects into an ELF, atomically.

    Args:
        objects: what :func:`compile_objects` returned.
        core: what to link for.
        out: the ELF to write.
        script: the linker script, see :mod:`.linker`.

    Raises:
        DoesNotFitError: code or data exceed the memory map.
        BdnetError: any other linker error, e.g. an undefined symbol.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent) as scratch:
        folder = Path(scratch)
        names = []
        for index, built in enumerate(objects):  # short names: the linker may record them
            names.append(f"{index:03d}.o")
            (folder / names[-1]).write_bytes(built.read_bytes())
        command = [*target_flags(core), "-nostdlib", "-static", "-rtlib=compiler-rt"]
        command += ["-Wl,--gc-sections", "-Wl,--build-id=none", "-Wl,-z,norelro"]
        (folder / "image.ld").write_text(script, encoding="utf-8", newline="\n")
        command += ["-T", "image.ld", f"-Wl,--entry={'_start' if core.is_linux else 'bd_reset'}"]
        (folder / "link.rsp").write_text(
            "\n".join([*command, *names, "-o", "image.elf"]), encoding="utf-8", newline="\n"
        )
        result = _run(["@link.rsp"], cwd=folder)
        if result.returncode != 0 or not (folder / "image.elf").is_file():
            raise _link_error(out, result.stderr)
        Path(folder / "image.elf").replace(out)


def _link_error(out: Path, messages: str) -> errors.BdnetError:
    why = _first_lines(messages)
    over: dict[str, int] = {}
    for region, size in re.findall(r"will not fit in region '(\w+)': overflowed by (\d+) bytes", messages):
        over[region] = max(over.get(region, 0), int(size))
    if over or "no room for the stack" in messages:
        missing = ", ".join(f"{size:,} bytes of {region}" for region, size in sorted(over.items()))
        return errors.DoesNotFitError(
            "the image does not fit the memory of its target",
            where=out.name,
            why=f"it lacks {missing}" if over else "the stack has no room left",
            fix="fixed8 numerics, a smaller input or narrower layers, or a target with more memory",
        )
    return errors.BdnetError("the image cannot be linked", where=str(out), why=why)


def _first_lines(messages: str, count: int = 6) -> str:
    lines = [line.rstrip() for line in messages.splitlines() if line.strip()]
    picked = [line for line in lines if "error" in line.lower()] or lines
    first = lines.index(picked[0]) if picked else 0
    return "\n".join(lines[first : first + count]) or "the compiler gave no message"


def _run(arguments: Sequence[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    package = errors.require("ziglang", extra="emulate")
    environment = dict(os.environ)
    # zig keeps its own cache (compiler-rt among it): beside ours, so that a read-only home does no harm.
    for name in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"):
        environment[name] = str(cache_dir() / "zig")
    return subprocess.run(
        # Not through "python -m": that would search the user's folder for modules first.
        [str(Path(str(package.__file__)).parent / "zig"), "cc", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
        check=False,
    )
