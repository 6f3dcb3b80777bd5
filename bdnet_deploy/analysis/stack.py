"""The worst-case stack of a model's image, as ``profile`` shows it."""

from __future__ import annotations

from bdnet_deploy.emulated import EmulatedModel
from bdnet_deploy.errors import BdnetError
from bdnet_deploy.report import Column, Table
from bdnet_deploy.toolchain.stack import StackReport, analyse_stack

#: Where a Cortex-M image starts.
START = "bd_reset"


def bound_of(emulated: EmulatedModel) -> StackReport | str:
    """The bounds of the image, or why there is none for the whole of it."""
    if emulated.core.is_linux:
        return "it is found for Cortex-M images only"
    try:
        stack = analyse_stack(emulated.image.path)
        stack.bound(START)
    except BdnetError as error:
        return error.why or error.what
    return stack


def stack_table(stack: StackReport) -> Table:
    """The bound of each function that applications call, with its path."""
    table = Table(
        "worst-case stack",
        [
            Column("function"),
            Column("bytes", align="right", format=","),
            Column("path", "deepest path, bytes of each frame"),
        ],
    )
    for name, bound in stack.bounds.items():
        if name != "main":  # as bd_reset
            path = " > ".join(f"{step.function} {step.bytes}" for step in bound.path)
            table.add(function=name, bytes=bound.bytes, path=path)
    table.notes.append(
        "Of the function and all that it can call, read from the linked image; exceptions are not counted."
    )
    table.notes.append("Nothing that the image runs is recursive.")
    return table
