"""Where the runtime's shared library for this machine lies."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bdnet_deploy
from bdnet_deploy.errors import BdnetError

OVERRIDE = "BDNET_HOST_LIBRARY"
"""Environment variable that names another build of the library, for instance one with sanitizers."""


def host_library_name() -> str:
    """The library's file name on this system."""
    if sys.platform == "win32":
        return "libbdnet.dll"
    return "libbdnet.dylib" if sys.platform == "darwin" else "libbdnet.so"


def host_library() -> Path:
    """The shared library that runs ``.bdn`` files on this machine.

    Raises:
        BdnetError: when it was not built, or :data:`OVERRIDE` names no file.
    """
    override = os.environ.get(OVERRIDE)
    if override:
        if not Path(override).is_file():
            raise BdnetError(
                "no such host library",
                where=override,
                fix=f"correct or unset the environment variable {OVERRIDE}",
            )
        return Path(override)
    # An editable install gives the package two folders: the source tree's, and one with the build.
    candidates = [Path(folder) / "_host" / host_library_name() for folder in bdnet_deploy.__path__]
    for path in candidates:
        if path.is_file():
            return path
    raise BdnetError(
        "the host library was not built",
        where=str(candidates[0]),
        fix="reinstall bdnet-deploy; in a source tree: make install",
    )
