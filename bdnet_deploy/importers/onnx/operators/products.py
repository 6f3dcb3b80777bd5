"""Convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bdnet_deploy.importers.onnx.file import Node

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def explicit_pads(
    node: Node, size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Padding before and behind each spatial axis, from ``pads`` or ``auto_pad``."""
    rank, mode = len(size), node.get("auto_pad", "NOTSET")
    if mode == "NOTSET":
        pads = node.ints("pads") or [0] * (2 * rank)
        if len(pads) != 2 * rank or min(pads) < 0:
            raise node.damaged(f"pads {pads[:12]} for {rank} axes")
        return pads[:rank], pads[rank:]
    if mode == "VALID":
        return [0] * rank, [0] * rank
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise node.damaged(f"auto_pad is '{mode}'")
    total = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in zip(size, kernel, strides, dilations)]
    less, more = [t // 2 for t in total], [t - t // 2 for t in total]
    return (less, more) if mode == "SAME_UPPER" else (more, less)


def per_axis(node: Node, name: str, rank: int) -> list[int]:
    """Strides or dilations, 1 by default.

    Raises:
        ModelFileError: not one positive number for each axis.
    """
    values = node.ints(name) or [1] * rank
    if len(values) != rank or min(values) < 1:
        raise node.damaged(f"{name} {values[:8]} for {rank} axes")
    return values


def padded(x: Tensor, before: Sequence[int], behind: Sequence[int], value: float = 0.0) -> Tensor:
    """Padding of the last axes with one value."""
    amounts = [a for pair in zip(reversed(before), reversed(behind)) for a in pair]
    return F.pad(x, amounts, value=value) if any(amounts) else x


def _conv(node: Node, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = w.dim() - 2
    if rank not in _CONV or x.dim() != w.dim():
        raise node.damaged(f"a convolution of {x.dim()} axes with weights of {w.dim()}")
    strides, dilations = per_axis(node, "strides", rank), per_axis(node, "dilations", rank)
    before, behind = explicit_pads(node, x.shape[2:], w.shape[2:], strides, dilations)
    groups = node.get("group", 1)
    if before == behind:
        return _CONV[rank](x, w, bias, strides, before, dilations, groups)
    return _CONV[rank](padded(x, before, behind), w, bias, strides, 0, dilations, groups)


def _conv_transpose(node: Node, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """The whole result, then cut by the padding at each side."""
    rank = w.dim() - 2
    if rank not in _CONV_TRANSPOSE or x.dim() != w.dim():
        raise node.damaged(f"a convolution of {x.dim()} axes with weights of {w.dim()}")
    strides, dilations = per_axis(node, "strides", rank), per_axis(node, "dilations", rank)
    extra = node.ints("output_padding") or [0] * rank
    full = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(x.shape[2:], strides, w.shape[2:], dilations)]
    mode, wanted = node.get("auto_pad", "NOTSET"), node.ints("output_shape")
    if wanted is None and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [n * s for n, s in zip(x.shape[2:], strides)]
    if wanted is not None:
        total = [max(f + e - n, 0) for f, e, n in zip(full, extra, wanted[-rank:])]
        before = [t - t // 2 if mode == "SAME_LOWER" else t // 2 for t in total]
        if mode == "NOTSET":
            before = [t - t // 2 for t in total]
        behind = [t - b for t, b in zip(total, before)]
    else:
        before, behind = explicit_pads(node, x.shape[2:], w.shape[2:], strides, dilations)
    if before == behind and all(e < max(s, d) for e, s, d in zip(extra, strides, dilations)):
        return _CONV_TRANSPOSE[rank](x, w, bias, strides, before, extra, node.get("group", 1), dilations)
    y = _CONV_TRANSPOSE[rank](x, w, bias, strides, 0, 0, node.get("group", 1), dilations)
    for axis, (size, b, e, more) in enumerate(zip(full, before, behind, extra), 2):
        y = padded(y.transpose(axis, -1), [0], [max(more - e, 0)]).transpose(axis, -1)
        y = y.narrow(axis, b, size + more - b - e)
    return y


def _gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    a = a.t() if node.get("transA", 0) else a
    b = b if node.get("transB", 0) else b.t()
    plain = c is None or (c.dim() <= 2 and c.numel() == b.shape[0] and c.shape[-1:] == b.shape[:1])
    if alpha == 1 and (c is None or beta == 1) and plain:
        return F.linear(a, b, None if c is None else c.reshape(-1))
    product = F.linear(a, b) * alpha if alpha != 1 else F.linear(a, b)
    return product if c is None else product + (c if beta == 1 else beta * c)


def _einsum(node: Node, *xs: Tensor) -> Tensor:
    return torch.einsum(node.get("equation", ""), *xs)


OPERATORS: dict[str, Callable[..., Any]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": lambda node, a, b: torch.matmul(a, b),
}
