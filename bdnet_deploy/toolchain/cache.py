"""The folder where compiled objects are kept between runs, and how a compilation is recognised.

An object is named by the SHA-256 of everything that went into it: compiler version, options, the source and every header it could
see. So a stale object cannot be found, and nothing ever needs to be invalidated; the folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*["<]([^">]+)[">]', re.MULTILINE)
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
    """Keys of compilations that share include folders; headers are read once."""

    def __init__(self, includes: Sequence[Path]) -> None:
        self._includes = tuple(includes)
        self._bytes: dict[Path, bytes] = {}
        self._headers = {folder: _headers_in(folder) for folder in self._includes}

    def key(self, source: Path, parts: Iterable[str]) -> str:
        """Names the object made from ``source`` with the given compiler version and options.

        Covers the source, every header in its folder and in the include folders, and whatever they include by a literal name.
        File names count only relative to their include folder, so a checkout elsewhere finds the same objects.
        """
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part.encode("utf-8") + b"\0")
        seen: set[Path] = set()
        self._add(digest, source, source.name, seen)
        for folder in (source.parent, *self._includes):
            for header in self._headers.setdefault(folder, _headers_in(folder)):
                self._add(digest, header, header.relative_to(folder).as_posix(), seen)
        return digest.hexdigest()

    def _add(self, digest: hashlib._Hash, path: Path, name: str, seen: set[Path]) -> None:
        if path in seen:
            return
        seen.add(path)
        content = self._read(path)
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
        for found in _INCLUDE.findall(content):
            target = found.decode("utf-8", "replace")
            for folder in (path.parent, *self._includes):
                candidate = (folder / target).resolve()
                if candidate.is_file():
                    self._add(digest, candidate, target, seen)
                    break

    def _read(self, path: Path) -> bytes:
        if path not in self._bytes:
            self._bytes[path] = path.read_bytes()
        return self._bytes[path]


def _headers_in(folder: Path) -> list[Path]:
    return sorted(p.resolve() for p in folder.rglob("*") if p.suffix in _HEADERS) if folder.is_dir() else []
