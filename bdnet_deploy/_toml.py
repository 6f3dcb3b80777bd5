"""Reading TOML on every supported Python: ``tomllib`` came with Python 3.11, ``tomli`` is the same parser for 3.10."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from .errors import BdnetError


def read_toml(path: Path) -> dict[str, Any]:
    """The contents of a TOML file.

    Raises:
        BdnetError: the file cannot be read or is not TOML.
    """
    parser = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        parsed: dict[str, Any] = parser.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BdnetError("cannot read this TOML file", where=str(path), why=str(error)) from error
    return parsed
