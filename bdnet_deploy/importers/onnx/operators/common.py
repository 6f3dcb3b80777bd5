"""What the operators share: constant operands as Python numbers, axes, and types."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bdnet_deploy.importers.onnx.file import Node
from bdnet_deploy.importers.torch.recorder import is_traced

_MAX_NUMBERS = 1 << 20


def numbers(node: Node, tensor: Tensor | None, what: str) -> list[float]:
    """The values of a constant operand.

    Raises:
        UnsupportedError: it is computed from the input.
        ModelFileError: it is missing, or absurdly large.
    """
    if tensor is None:
        raise node.damaged(f"it has no {what}")
    if is_traced(tensor):
        raise node.refused(f"its {what} depends on values of the input", "export a model of fixed shapes")
    if tensor.numel() > _MAX_NUMBERS:
        raise node.damaged(f"its {what} has {tensor.numel()} numbers")
    return list(tensor.reshape(-1).tolist())


def integers(node: Node, tensor: Tensor | None, what: str) -> list[int]:
    """As :func:`numbers`, in integers."""
    return [int(v) for v in numbers(node, tensor, what)]


def scalar(node: Node, tensor: Tensor, what: str) -> float:
    """The one value of a constant operand."""
    values = numbers(node, tensor, what)
    if len(values) != 1:
        raise node.damaged(f"its {what} is no single number")
    return values[0]


def axes_of(node: Node, axes: Tensor | None) -> list[int] | None:
    """Axes from the operand of newer opsets or the attribute of older ones; None where neither is given."""
    return integers(node, axes, "axes") if axes is not None else node.ints("axes")


def nonnegative(node: Node, axes: Sequence[int], rank: int) -> list[int]:
    """Axes counted from the front.

    Raises:
        ModelFileError: there is no such axis, or one is named twice.
    """
    found = [a + rank if a < 0 else a for a in axes]
    if any(not 0 <= a < rank for a in found) or len(set(found)) != len(found):
        raise node.damaged(f"axes {list(axes)[:8]} of a tensor with {rank} axes")
    return found


def axis_of(node: Node, rank: int, default: int) -> int:
    """The attribute ``axis``, counted from the front."""
    return nonnegative(node, [node.get("axis", default)], rank)[0]


def given(x: Tensor | None, node: Node, what: str = "input") -> Tensor:
    """An operand that is not optional."""
    if x is None:
        raise node.damaged(f"it has no {what}")
    return x
