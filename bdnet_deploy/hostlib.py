"""Where the runtime's shared library for this machine lies."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import bdnet_deploy
from bdnet_deploy.errors import BdnetError, unknown_name

OVERRIDE = "BDNET_HOST_LIBRARY"
"""Environment variable that names another build of the library, for instance one with sanitizers."""

KERNELS = "BDNET_KERNELS"
"""Environment variable that names the kernels to run with, one of :func:`levels`; all give the same bytes."""


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


def levels(library: ctypes.CDLL) -> dict[str, int]:
    """The tables of kernels that this processor runs: name -> address, the fastest last, the first always ``generic``.

    A build without variants (another :data:`OVERRIDE`) has ``generic`` only.
    """
    if not hasattr(library, "bd_host_levels"):
        return {"generic": ctypes.addressof(ctypes.c_char.in_dll(library, "bd_kernels_all"))}
    library.bd_host_levels.restype = ctypes.c_uint32
    library.bd_host_level_name.restype = ctypes.c_char_p
    library.bd_host_level_kernels.restype = ctypes.c_void_p
    found = {}
    for level in map(ctypes.c_uint32, range(library.bd_host_levels())):
        name: bytes = library.bd_host_level_name(level)
        found[name.decode("ascii")] = int(library.bd_host_level_kernels(level))
    return found


def level(library: ctypes.CDLL) -> str:
    """The name of the kernels to run with: those of :data:`KERNELS`, else the fastest.

    Raises:
        UsageError: this processor, or this build, does not run those.
    """
    known = list(levels(library))
    wanted = os.environ.get(KERNELS)
    if not wanted:
        return known[-1]
    if wanted not in known:
        raise unknown_name(f"level of kernels in the environment variable {KERNELS}", wanted, known)
    return wanted
