"""Where the C sources that travel with the package lie.

An installed wheel carries ``runtime/``, ``firmware_examples/`` and ``examples/`` inside the package; in a source tree they stand
beside it. The package is looked into first, so that an installed copy never picks up a stray folder next to site-packages.
"""

from __future__ import annotations

from pathlib import Path

from .errors import BdnetError

_PACKAGE = Path(__file__).resolve().parent


def _folder(name: str) -> Path:
    for parent in (_PACKAGE, _PACKAGE.parent):
        if (parent / name).is_dir():
            return parent / name
    raise BdnetError(
        f"the folder '{name}' that belongs to bdnet-deploy is missing",
        where=str(_PACKAGE),
        why=f"it is neither in {_PACKAGE} nor in {_PACKAGE.parent}",
        fix="reinstall bdnet-deploy: pip install --force-reinstall bdnet-deploy",
    )


def runtime_dir() -> Path:
    """The C runtime: ``include/``, ``src/``, ``kernels/``."""
    return _folder("runtime")


def firmware_dir() -> Path:
    """Firmware sources: ``boards/<board>/``, ``common/`` and one folder per application."""
    return _folder("firmware_examples")


def examples_dir() -> Path:
    """Python examples with their data."""
    return _folder("examples")
