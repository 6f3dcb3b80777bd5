"""What the readers of exported programs share."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from bdnet_deploy.errors import ModelFileError, UnsupportedError, UsageError

_LONGEST = 200
_MOST = 1 << 25  # elements of an input


def fixed_shape(
    name: str, dims: Sequence[int | None], axes: str, wanted: Sequence[int] | None
) -> tuple[tuple[int, ...], list[str]]:
    """The shape to import with, and remarks on what was chosen.

    Args:
        name: of the input.
        dims: its axes as the file has them, batch first; None for one without a size.
        axes: the same for messages, e.g. ``"Nx3xHxW"``.
        wanted: what the user gave.

    Raises:
        ModelFileError: a shape that cannot be.
        UnsupportedError: an axis other than the batch has no size, and none was given.
        UsageError: what was given contradicts the file.
    """
    if wanted is not None:
        fits = len(wanted) == len(dims) and all(d in (None, w) for d, w in zip(dims, wanted))
        if not fits:
            raise UsageError(
                f"the input '{name}' cannot have the shape {_by(wanted)}",
                where="--input",
                why=f"the file fixes it to {axes or 'a scalar'}",
                fix="leave --input out, or export the model with dynamic axes",
            )
        return tuple(wanted), []
    open_axes = [i for i, d in enumerate(dims) if d is None]
    if [i for i in open_axes if i > 0]:
        example = _by([(1, 3, 224, 224)[min(i, 3)] if d is None else d for i, d in enumerate(dims)])
        names = axes.split("x")
        listed = ", ".join(f"{i} ('{names[i]}')" if i < len(names) else str(i) for i in open_axes if i > 0)
        raise UnsupportedError(
            f"axes of the input '{name}' have no size in the file: {listed}",
            why=f"its shape is {axes}; networks are deployed with fixed shapes",
            fix=f"add --input, for example --input {example}",
        )
    shape = tuple(1 if d is None else d for d in dims)
    if min(shape, default=1) < 1 or math.prod(shape) > _MOST:
        raise ModelFileError(
            f"the input '{name}' has the shape {_by(shape)}", why="no network takes that", fix="export it again"
        )
    if shape and shape[0] != 1:
        raise UsageError(
            f"the batch of the input '{name}' is {shape[0]}",
            why="one input is run at a time",
            fix="export the model with a batch of 1, or with a dynamic batch",
        )
    return shape, ["the batch is dynamic in the file; it is 1 from here on"] if open_axes else []


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def text(value: Any, longest: int = _LONGEST) -> str:
    """Names come from untrusted files: one line, of bounded length. Protobuf gives bytes where they are not UTF-8."""
    string = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return string[:longest] if longest > _LONGEST else re.sub(r"[\x00-\x1f\x7f]", "?", string[:longest])


def source_line(trace: str) -> str:
    """``file:line`` of the innermost frame outside of PyTorch in a printed stack trace."""
    frames: list[tuple[str, str]] = re.findall(r'File "([^"\n]+)", line (\d+)', trace)
    for file, line in reversed(frames):
        parts = PurePath(file.replace("\\", "/")).parts
        if "torch" not in parts[:-1] or "site-packages" not in parts:
            return f"{text(parts[-1])}:{line[:9]}" if parts else ""
    return ""
