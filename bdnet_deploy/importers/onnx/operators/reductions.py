"""Reductions along axes, softmax, and the like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bdnet_deploy.importers.onnx.file import Node
from bdnet_deploy.importers.onnx.operators.common import axes_of, axis_of, integers, nonnegative

_Reduce = Callable[[Tensor, list[int], bool], Tensor]


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _reduction(reduce: _Reduce) -> Callable[..., Tensor]:
    def run(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = axes_of(node, axes)
        if not chosen and chosen is not None and axes is None:
            chosen = None
        if not chosen:
            if node.get("noop_with_empty_axes", 0):
                return reduce(x[None], [0], False) if reduce in _CHANGING else x
            chosen = list(range(x.dim()))
        if not chosen:
            return reduce(x[None], [0], False)
        return reduce(x, nonnegative(node, chosen, x.dim()), bool(node.get("keepdims", 1)))

    return run


def _l1(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.abs().sum(axes, keepdim=keep)


def _l2(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return (x * x).sum(axes, keepdim=keep).sqrt()


def _log_sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep).log()


def _sum_square(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return (x * x).sum(axes, keepdim=keep)


#: These change even what they do not reduce.
_CHANGING = (_l1, _l2, _log_sum, _sum_square)


def _over_classes(function: Callable[[Tensor, int], Tensor]) -> Callable[..., Tensor]:
    """Before opset 13 everything from the axis on is one vector."""

    def run(node: Node, x: Tensor) -> Tensor:
        if node.opset >= 13:
            return function(x, axis_of(node, x.dim(), -1))
        axis = node.get("axis", 1)
        axis = axis + x.dim() if axis < 0 else axis
        if axis == x.dim() - 1:
            return function(x, axis)
        return function(x.reshape(*x.shape[:axis], -1), axis).reshape(x.shape)

    return run


def _hardmax(x: Tensor, axis: int) -> Tensor:
    return F.one_hot(x.argmax(axis), x.shape[axis]).movedim(-1, axis).to(x.dtype)


def _arg(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(node: Node, x: Tensor) -> Tensor:
        if node.get("select_last_index", 0):
            raise node.refused("it selects the last of equal values", "select the first")
        return function(x, axis_of(node, x.dim(), 0), keepdim=bool(node.get("keepdims", 1)))

    return run


def _top_k(node: Node, x: Tensor, k: Tensor | None = None) -> list[Tensor]:
    count = integers(node, k, "k")[0] if k is not None else node.get("k", 0)
    values, indices = torch.topk(
        x, count, axis_of(node, x.dim(), -1), bool(node.get("largest", 1)), bool(node.get("sorted", 1))
    )
    return [values, indices]


def _cumulative(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    along = nonnegative(node, integers(node, axis, "axis"), x.dim())[0]
    x = x.flip(along) if node.get("reverse", 0) else x
    y = x.cumsum(along)
    if node.get("exclusive", 0):
        y = y - x
    return y.flip(along) if node.get("reverse", 0) else y


def _lp_normalization(node: Node, x: Tensor) -> Tensor:
    axis, p = axis_of(node, x.dim(), -1), node.get("p", 2)
    size = x.abs().sum(axis, keepdim=True) if p == 1 else (x * x).sum(axis, keepdim=True).sqrt()
    return torch.where(size == 0, torch.zeros_like(x), x / size)


OPERATORS: dict[str, Callable[..., Any]] = {
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "CumSum": _cumulative,
    "Hardmax": _over_classes(_hardmax),
    "LogSoftmax": _over_classes(torch.log_softmax),
    "LpNormalization": _lp_normalization,
    "ReduceL1": _reduction(_l1),
    "ReduceL2": _reduction(_l2),
    "ReduceLogSum": _reduction(_log_sum),
    "ReduceLogSumExp": _reduction(lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep)),
    "ReduceMax": _reduction(lambda x, axes, keep: torch.amax(x, axes, keepdim=keep)),
    "ReduceMean": _reduction(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceMin": _reduction(lambda x, axes, keep: torch.amin(x, axes, keepdim=keep)),
    "ReduceProd": _reduction(_product),
    "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "ReduceSumSquare": _reduction(_sum_square),
    "Softmax": _over_classes(torch.softmax),
    "TopK": _top_k,
}
