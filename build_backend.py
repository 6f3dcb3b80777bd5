"""Build backend: scikit-build-core, with zig as the C compiler where the machine has none.

The host library is plain C99 for GCC or Clang. A machine without either (a fresh container, Windows) gets the
``ziglang`` wheel as an extra build requirement, and CMake is told to use its ``cc``.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from scikit_build_core import build as _backend
from scikit_build_core.build import (
    build_sdist,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

_ZIG = "ziglang==0.17.0" if sys.platform == "linux" else "ziglang>=0.12,<0.18"

_Settings = dict[str, "list[str] | str"] | None


def _has_compiler() -> bool:
    return bool(os.environ.get("CC")) or any(shutil.which(name) for name in ("cc", "gcc", "clang"))


def _requires(base: list[str]) -> list[str]:
    # Ninja too: there may be no make, and on Windows CMake would look for Visual Studio.
    return base if _has_compiler() else [*base, _ZIG, "ninja>=1.11"]


def _use_zig() -> None:
    if _has_compiler():
        return
    spec = find_spec("ziglang")
    if spec is None or spec.origin is None:
        raise RuntimeError("no C compiler: install gcc or clang, set CC, or pip install " + _ZIG)
    zig = Path(spec.origin).parent / ("zig.exe" if os.name == "nt" else "zig")
    # Without -mcpu=baseline zig compiles for the building machine's own CPU.
    os.environ["CC"] = f"{zig.as_posix()} cc -mcpu=baseline"
    os.environ.setdefault("CMAKE_GENERATOR", "Ninja")


def get_requires_for_build_wheel(config_settings: _Settings = None) -> list[str]:
    return _requires(_backend.get_requires_for_build_wheel(config_settings))


def get_requires_for_build_editable(config_settings: _Settings = None) -> list[str]:
    return _requires(_backend.get_requires_for_build_editable(config_settings))


def build_wheel(wheel_directory: str, config_settings: _Settings = None, metadata_directory: str | None = None) -> str:
    _use_zig()
    return _backend.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(
    wheel_directory: str, config_settings: _Settings = None, metadata_directory: str | None = None
) -> str:
    _use_zig()
    return _backend.build_editable(wheel_directory, config_settings, metadata_directory)
