"""The folder where compiled objects are kept between runs, and how a compilation is recognised.

An object is named by the SHA-256 of everything that went into it: compiler version, options, the source and every header that it
includes. So a stale object cannot be found, and nothing ever needs to be invalidated; the folder may be deleted at any time.
A header made for one model counts only for the sources that include it: the runtime is compiled once for all models.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*["<]([^">]+)[">]', re.MULTILINE)
_COMPUTED = re.compile(rb"^[ \t]*#[ \t]*include[ \t]*[^ \t\"<]", re.MULTILINE)
_HEADERS = (".h", ".inc", ".def")


def cache_dir() -> Path:
    """The per-user cache folder: ``BDNET_DEPLOY_CACHE`` if set, else the platform's usual place. Not created here."""
    chosen = os.environ.get("BDNET_DEPLOY_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "bdnet-deploy"


class Fingerprint:
    """Keys of compilations that share include folders; files are read once."""

    def __init__(self, includes: Sequence[Path]) -> None:
        self._includes = tuple(includes)
        self._bytes: dict[Path, bytes] = {}
        self._headers: dict[Path, list[Path]] = {}

    def names(self, source: Path, macro: str) -> bool:
        """Whether ``source`` or anything that it includes has the word ``macro``: else its definition cannot matter."""
        word = re.compile(rb"\b" + re.escape(macro.encode("utf-8")) + rb"\b")
        return any(word.search(self._read(path)) for path in self._closure(source))

    def key(self, source: Path, parts: Iterable[str]) -> str:
        """Names the object made from ``source`` with the given compiler version and options.

        Covers the source and whatever it includes by a literal name, by way of other headers too; where a name is computed by
        a macro, every header in the source's folder and in the include folders. Where files lie does not count, so a checkout
        elsewhere finds the same objects.
        """
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part.encode("utf-8") + b"\0")
        for path, name in self._closure(source).items():
            content = self._read(path)
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()

    def _closure(self, source: Path) -> dict[Path, str]:
        """The files that the object is made of, with the names by which they are included."""
        seen: dict[Path, str] = {}
        self._add(source, source.name, seen)
        if any(_COMPUTED.search(self._read(path)) for path in seen):
            for folder in (source.parent, *self._includes):
                for header in self._headers.setdefault(folder, _headers_in(folder)):
                    self._add(header, header.relative_to(folder).as_posix(), seen)
        return seen

    def _add(self, path: Path, name: str, seen: dict[Path, str]) -> None:
        if path in seen:
            return
        seen[path] = name
        for found in _INCLUDE.findall(self._read(path)):
            target = found.decode("utf-8", "replace")
            for folder in (path.parent, *self._includes):
                candidate = (folder / target).resolve()
                if candidate.is_file():
                    self._add(candidate, target, seen)
                    break

    def _read(self, path: Path) -> bytes:
        if path not in self._bytes:
            self._bytes[path] = path.read_bytes()
        return self._bytes[path]


def _headers_in(folder: Path) -> list[Path]:
    return sorted(p.resolve() for p in folder.rglob("*") if p.suffix in _HEADERS) if folder.is_dir() else []
