"""Operators that move values, and those that compute with shapes (which are constant: they fold)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bdnet_deploy.importers.onnx.file import Node
from bdnet_deploy.importers.onnx.operators.common import (
    axes_of,
    axis_of,
    given,
    integers,
    nonnegative,
    numbers,
    scalar,
)
from bdnet_deploy.importers.onnx.tensors import torch_type
from bdnet_deploy.importers.torch.interpreter import MAX_ELEMENTS
from bdnet_deploy.importers.torch.recorder import is_traced


def _constant(node: Node) -> Tensor:
    for name, value in node.attributes.items():
        if name == "value" and isinstance(value, Tensor):
            return value
        if name in ("value_float", "value_floats"):
            return torch.tensor(value, dtype=torch.float32)
        if name in ("value_int", "value_ints"):
            return torch.tensor(value, dtype=torch.int64)
    raise node.refused("its value is a string or sparse", "use dense numbers")


def _filled(node: Node, shape: Tensor) -> Tensor:
    value = node.attributes.get("value", torch.zeros(1))
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise node.damaged("its value is no single number")
    return value.reshape(()).expand(_bounded(node, integers(node, shape, "shape"))).clone()


def _bounded(node: Node, shape: list[int]) -> list[int]:
    if min(shape, default=0) < 0 or math.prod(shape) > MAX_ELEMENTS:
        raise node.damaged(f"a tensor of shape {'x'.join(map(str, shape[:8]))}")
    return shape


def _shape(node: Node, x: Tensor) -> Tensor:
    sizes = list(x.shape)
    end = node.get("end", len(sizes))
    return torch.tensor(sizes[slice(node.get("start", 0), end)], dtype=torch.int64)


def _range(node: Node, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    first, last, step = (scalar(node, t, "range") for t in (start, limit, delta))
    if not step or not math.isfinite((last - first) / step) or (last - first) / step > MAX_ELEMENTS:
        raise node.damaged(f"a range from {first:g} to {last:g} in steps of {step:g}")
    count = max(math.ceil((last - first) / step), 0)
    return start.reshape(()) + torch.arange(count).to(start.dtype) * delta.reshape(())


def _reshape(node: Node, x: Tensor, shape: Tensor | None = None) -> Tensor:
    wanted = integers(node, shape, "shape") if shape is not None else node.ints("shape") or []
    if not node.get("allowzero", 0):
        wanted = [x.shape[i] if n == 0 and i < x.dim() else n for i, n in enumerate(wanted)]
    return x if wanted == list(x.shape) else x.reshape(wanted)


def _flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(node.ints("perm") or list(range(x.dim()))[::-1])


def _squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    chosen = axes_of(node, axes)
    if chosen is None:
        chosen = [i for i, n in enumerate(x.shape) if n == 1]
    chosen = nonnegative(node, chosen, x.dim())
    if any(x.shape[a] != 1 for a in chosen):
        raise node.damaged(f"it drops axes that are longer than 1 of {list(x.shape)}")
    return x.reshape([n for i, n in enumerate(x.shape) if i not in chosen])


def _unsqueeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    chosen = axes_of(node, axes) or []
    for axis in sorted(nonnegative(node, chosen, x.dim() + len(chosen))):
        x = x.unsqueeze(axis)
    return x


def _concat(node: Node, *xs: Tensor) -> Tensor:
    return torch.cat(xs, axis_of(node, xs[0].dim(), 1))


def _split(node: Node, x: Tensor, sizes: Tensor | None = None) -> list[Tensor]:
    axis = axis_of(node, x.dim(), 0)
    parts = integers(node, sizes, "split") if sizes is not None else node.ints("split")
    if parts is None:
        count = node.get("num_outputs", len(node.outputs))
        each = -(-x.shape[axis] // max(count, 1))
        parts = [max(min(each, x.shape[axis] - i * each), 0) for i in range(count)]
    return list(torch.split(x, parts, axis))


def _slice(node: Node, x: Tensor, starts: Tensor | None = None, ends: Tensor | None = None,
           axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:  # fmt: skip
    first = integers(node, starts, "starts") if starts is not None else node.ints("starts") or []
    last = integers(node, ends, "ends") if ends is not None else node.ints("ends") or []
    along = nonnegative(node, axes_of(node, axes) or list(range(len(first))), x.dim())
    by = integers(node, steps, "steps") if steps is not None else [1] * len(first)
    if not len(first) == len(last) == len(along) == len(by) or 0 in by:
        raise node.damaged("starts, ends, axes and steps do not belong together")
    for axis, start, end, step in zip(along, first, last, by):
        # Behind the front there is nothing: Python would count -1 from the back.
        stop: int | None = end + x.shape[axis] if end < 0 else end
        start = start + x.shape[axis] if start < 0 else start
        if step < 0:
            start = min(start, x.shape[axis] - 1)
            table = list(range(start, max(stop or 0, -1), step)) if start >= 0 else []
            x = x.index_select(axis, torch.tensor(table, dtype=torch.int64))
        else:
            start, stop = max(start, 0), max(stop or 0, 0)
            if (start, step) != (0, 1) or stop < x.shape[axis]:
                x = torch.ops.aten.slice(x, axis, start, max(stop, start), step)
    return x


def _gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = axis_of(node, x.dim(), 0)
    if is_traced(indices):
        raise node.refused("its indices depend on values of the input", "only constant indices can be deployed")
    indices = torch.where(indices < 0, indices + x.shape[axis], indices)
    if indices.dim() == 0:
        return x.select(axis, int(indices))
    picked = x.index_select(axis, indices.reshape(-1))
    if indices.dim() == 1:
        return picked
    return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _gather_elements(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = axis_of(node, x.dim(), 0)
    return torch.gather(x, axis, torch.where(indices < 0, indices + x.shape[axis], indices))


def _gather_nd(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    if node.get("batch_dims", 0):
        raise node.refused("it gathers in batches", "gather along one axis")
    return x[tuple(indices.movedim(-1, 0))]


def _scatter_nd(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    if node.get("reduction", "none") != "none":
        raise node.refused("it adds where it writes", "write with Concat or Where")
    return torch.index_put(x, tuple(indices.movedim(-1, 0)), updates)


def _pad(node: Node, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None,
         axes: Tensor | None = None) -> Tensor:  # fmt: skip
    amounts = integers(node, pads, "pads") if pads is not None else node.ints("pads") or []
    along = nonnegative(node, integers(node, axes, "axes"), x.dim()) if axes is not None else list(range(x.dim()))
    if len(amounts) != 2 * len(along):
        raise node.damaged(f"pads {amounts[:12]} for {len(along)} axes")
    pairs = dict(zip(along, zip(amounts[: len(along)], amounts[len(along) :])))
    mode, fill = node.get("mode", "constant"), node.get("value", 0.0)
    if value is not None and value.numel():
        fill = scalar(node, value, "value")
    flat = [a for axis in reversed(range(x.dim())) for a in pairs.get(axis, (0, 0))]
    while len(flat) > 2 and not any(flat[-2:]):
        flat = flat[:-2]
    if not any(flat):
        return x
    if mode == "constant":
        return F.pad(x, flat, value=fill)
    if mode not in ("reflect", "edge") or not 3 <= x.dim() <= 5 or len(flat) > 2 * (x.dim() - 2):
        raise node.refused(f"it pads in mode '{mode}' along these axes", "pad height and width")
    flat += [0] * (2 * (x.dim() - 2) - len(flat))
    return F.pad(x, flat, mode="replicate" if mode == "edge" else "reflect")


def _expand(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    wanted = torch.broadcast_shapes(tuple(x.shape), tuple(_bounded(node, integers(node, shape, "shape"))))
    return x if wanted == tuple(x.shape) else x.expand(wanted)


def _tile(node: Node, x: Tensor, repeats: Tensor) -> Tensor:
    times = integers(node, repeats, "repeats")
    _bounded(node, [n * t for n, t in zip(x.shape, times)])
    return x.repeat(times)


def _one_hot(node: Node, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    size, (off, on) = int(scalar(node, depth, "depth")), numbers(node, values, "values")
    _bounded(node, [*indices.shape, size])
    axis = axis_of(node, indices.dim() + 1, -1)
    places = torch.arange(size)
    hot = torch.where(indices < 0, indices + size, indices).unsqueeze(-1) == places
    return torch.where(hot, on, off).to(values.dtype).movedim(-1, axis)


def _triangle(node: Node, x: Tensor, k: Tensor | None = None) -> Tensor:
    diagonal = int(scalar(node, k, "k")) if k is not None else 0
    return torch.triu(x, diagonal) if node.get("upper", 1) else torch.tril(x, diagonal)


def _eye_like(node: Node, x: Tensor) -> Tensor:
    dtype = torch_type(node.get("dtype", 0)) or x.dtype
    rows, columns = x.shape
    return (torch.arange(columns) - torch.arange(rows)[:, None] == node.get("k", 0)).to(dtype)


OPERATORS: dict[str, Callable[..., Any]] = {
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "Expand": _expand,
    "EyeLike": _eye_like,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "ScatterND": _scatter_nd,
    "Shape": _shape,
    "Size": lambda node, x: torch.tensor(given(x, node).numel()),
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _triangle,
    "Unsqueeze": _unsqueeze,
}
