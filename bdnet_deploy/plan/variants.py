"""Which kernels have faster implementations, for which sets of instructions: ``runtime/kernels/variants.def``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from bdnet_deploy.resources import runtime_dir

SETS = ("avx512", "avx2", "dotprod", "neon64", "neon32", "mve", "dsp", "v7m", "v6m")
"""The sets of instructions that variants are written for, better ones of a family first."""


@cache
def variants() -> dict[str, tuple[str, ...]]:
    """Kernel -> the sets that it has variants for, the best first.

    Raises:
        BdnetError: the installation lacks the runtime's sources.
    """
    text = (runtime_dir() / "kernels" / "variants.def").read_text(encoding="utf-8")
    found: dict[str, tuple[str, ...]] = {}
    for kernel, name in re.findall(r"^BD_VARIANT\((\w+), (\w+)\)", text, re.MULTILINE):
        found[kernel] = (*found.get(kernel, ()), name)
    return found


def switch(name: str) -> str:
    """The macro that says that ``kernels/<name>`` is in a build."""
    return f"BD_WITH_{name.upper()}"


def variant_sources(sets: Sequence[str]) -> list[Path]:
    """The C files of the variants for these sets."""
    kernels = runtime_dir() / "kernels"
    return sorted(path for name in sets for path in (kernels / name).glob("*.c"))


def best_symbol(kernel: str) -> str:
    """C text of an initializer of the kernel's best implementation among those whose switches are defined."""
    sets = variants().get(kernel, ())
    if not sets:
        return f"&{kernel},"
    lines = []
    for i, name in enumerate(sets):
        lines += [f"#{'el' if i else ''}if defined({switch(name)})", f"    &{kernel}_on_{name},"]
    return "\n".join([*lines, "#else", f"    &{kernel},", "#endif"])
