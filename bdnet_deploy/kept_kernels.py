"""Kernels that a firmware keeps for later models, besides those of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from bdnet_deploy import bdn_format
from bdnet_deploy.bdn_reader import read_bytes
from bdnet_deploy.errors import UsageError, unknown_name
from bdnet_deploy.manifest import read_manifest
from bdnet_deploy.plan.kernels import kernel_names


def kept_kernels(keep: str | os.PathLike[str] | Iterable[str]) -> list[str]:
    """The kernels that ``--keep-kernels`` names.

    Args:
        keep: ``"all"``; names with commas between them, or a sequence of names; or files: a ``.bdn`` or generated ``.c``
            for the kernels of that model, a manifest (``.json``) for those of that firmware.

    Raises:
        UsageError: a name that the runtime does not have; the nearest three are given.
        ModelFileError: a file that cannot be read.
    """
    if isinstance(keep, os.PathLike):
        parts = [os.fspath(keep)]
    else:
        parts = keep.split(",") if isinstance(keep, str) else list(keep)
    found: set[str] = set()
    for part in (p.strip() for p in parts):
        if part == "all":
            found |= kernel_names()
            continue
        suffix = Path(part).suffix.lower()
        if suffix in (".bdn", ".c"):
            names = bdn_format.read(read_bytes(Path(part)), where=part).kernels
        elif suffix == ".json":
            names = list(read_manifest(Path(part)).kernels)
        elif not part:
            raise UsageError("a kernel's name is empty", where="--keep-kernels", fix="all, names, or a .bdn file")
        else:
            names = [part]
        for name in names:
            if name not in kernel_names():
                shown = "".join(c if c.isprintable() else "?" for c in name)
                raise unknown_name("kernel", shown, kernel_names())
        found.update(names)
    return sorted(found)
