"""Writing files: whole or not at all."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bdnet_deploy.errors import ModelFileError


def write_all(files: Mapping[Path, bytes]) -> None:
    """Write files that belong together: all content is on the disk before the first old file is replaced, the first last.

    Args:
        files: path -> content; the first is the one that refers to the others.

    Raises:
        OSError: as :func:`write_atomic`; where the disk is full or a folder is not writable, nothing was replaced.
    """
    temporary: dict[Path, Path] = {}
    try:
        for path, content in files.items():
            temporary[path] = _temporary(path, content)
        for path in reversed(list(files)):
            temporary[path].replace(path)
    finally:
        for name in temporary.values():
            name.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the new one, never a part.

    Args:
        path: the file; its folder must exist. An existing file is replaced.
        data: bytes, or text that is written as UTF-8 with ``\\n`` line ends on every system.

    Raises:
        OSError: when the folder is missing or not writable, or the disk is full; nothing is left behind then.
    """
    write_all({path: data.encode("utf-8") if isinstance(data, str) else data})


def _temporary(path: Path, content: bytes) -> Path:
    """A file of that content that can take the place of ``path``."""
    # In the same folder: os.replace is atomic within one file system only.
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        temporary.chmod(_mode(path))  # mkstemp gives 0600
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _mode(path: Path) -> int:
    """The permissions of the file that is replaced, else those that a new file gets."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def no_such_file(path: Path) -> ModelFileError:
    """The error for a missing file; files of the same kind in its folder with like names are named."""
    folder = path.parent
    if not folder.is_dir():
        return ModelFileError("there is no such file", where=str(path), why=f"there is no folder {folder}")
    names = sorted(entry.name for entry in folder.glob(f"*{path.suffix}") if entry.is_file()) if path.suffix else []
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.0)
    fix = f"nearest: {', '.join(near)}" if near else f"check the path; it was looked for in {folder.resolve()}"
    return ModelFileError("there is no such file", where=str(path), fix=fix)
