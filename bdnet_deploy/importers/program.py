"""What the readers of exported programs share."""

from __future__ import annotations

from collections.abc import Sequence

from bdnet_deploy.errors import UsageError


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
        UsageError: an axis other than the batch has no size and none was given, or what was given contradicts the file.
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
        raise UsageError(
            f"axes of the input '{name}' have no size in the file: {listed}",
            why=f"its shape is {axes}; networks are deployed with fixed shapes",
            fix=f"add --input, for example --input {example}",
        )
    shape = tuple(1 if d is None else d for d in dims)
    if shape and shape[0] != 1:
        raise UsageError(
            f"the batch of the input '{name}' is {shape[0]}",
            why="one input is run at a time",
            fix="export the model with a batch of 1, or with a dynamic batch",
        )
    return shape, ["the batch is dynamic in the file; it is 1 from here on"] if open_axes else []


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
