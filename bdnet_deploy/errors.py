"""Every error that a user can meet: what happened, where, why, and what to do about it.

The command line prints these without a traceback and exits with :attr:`BdnetError.exit_code`; the Python API raises them.

=====  =======================================================
code   meaning
=====  =======================================================
0      success
1      failure: bad file, unsupported layer, missing package
2      usage: unknown option, name or value
3      the model does not fit the board or the firmware
4      mismatch: two artifacts of one model differ
5      device: no board, no probe, lost connection
=====  =======================================================
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class BdnetError(Exception):
    """A failure that the user can understand and act on.

    Args:
        what: one sentence: what could not be done, or what is wrong.
        where: the file, layer, option or node concerned.
        why: the reason, when ``what`` does not say it already.
        fix: what the user can do about it, preferably a command.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, why: str | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.why:
            lines.append(f"why: {self.why}")
        if self.fix:
            lines.append(f"fix: {self.fix}")
        return "\n".join(lines)


class UsageError(BdnetError):
    """An option, name or value that does not exist or does not fit the others."""

    exit_code = 2


class DoesNotFitError(BdnetError):
    """The model needs more flash or RAM than the board has, or a kernel that its firmware lacks."""

    exit_code = 3


class MismatchError(BdnetError):
    """Two artifacts that must agree differ."""

    exit_code = 4


class DeviceError(BdnetError):
    """A board, probe or serial line is missing, busy or lost."""

    exit_code = 5


class ModelFileError(BdnetError):
    """A model file is missing, truncated, damaged, of another kind, or wants to run code."""


class UnsupportedError(BdnetError):
    """A layer, operator or combination that bdnet-deploy cannot carry over; ``where`` names its place."""


class MissingPackageError(BdnetError):
    """An optional package is not installed."""


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional package or say how to install it.

    Args:
        module: the module's import name, e.g. ``"onnxruntime"``.
        extra: the extra of bdnet-deploy that brings it, e.g. ``"onnx"``.

    Raises:
        MissingPackageError: when the import fails, with the ``pip install`` line.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"this needs the Python package '{module}', which cannot be imported",
            why=str(error),
            fix=f"pip install 'bdnet-deploy[{extra}]'",
        ) from error


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """A :class:`UsageError` for an unknown name, with the nearest three known ones.

    Args:
        kind: what the name should be, e.g. ``"core"``.
        name: what the user typed.
        known: all valid names.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=len(names) or 1, cutoff=0.0)
    near = sorted(near, key=lambda other: not other.startswith(name))[:3]  # names that continue it come first
    return UsageError(f"unknown {kind} '{name}'", fix=f"nearest: {', '.join(near)}" if near else None)
