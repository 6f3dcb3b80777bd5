"""Pooling, resizing, and the rearrangement of pixels into channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bdnet_deploy.importers.onnx.file import Node
from bdnet_deploy.importers.onnx.operators.common import integers, numbers
from bdnet_deploy.importers.onnx.operators.products import explicit_pads, padded, per_axis

_AVERAGE: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_MAXIMUM: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MODES = (
    "asymmetric",
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "tf_half_pixel_for_nn",
)


class _Windows:
    """The geometry of a pool. Where PyTorch cannot express the padding, the map is padded before."""

    def __init__(self, node: Node, x: Tensor) -> None:
        self.rank = x.dim() - 2
        kernel = node.ints("kernel_shape")
        if self.rank not in _AVERAGE or kernel is None or len(kernel) != self.rank or min(kernel) < 1:
            raise node.damaged(f"a pool of windows {kernel} over {x.dim()} axes")
        self.kernel = kernel
        self.strides, self.dilations = per_axis(node, "strides", self.rank), per_axis(node, "dilations", self.rank)
        self.size = list(x.shape[2:])
        self.before, self.behind = explicit_pads(node, self.size, kernel, self.strides, self.dilations)
        self.ceil = bool(node.get("ceil_mode", 0)) and node.get("auto_pad", "NOTSET") == "NOTSET"

    @property
    def native(self) -> bool:
        return self.before == self.behind and all(2 * p <= k for p, k in zip(self.before, self.kernel))

    def cut(self, y: Tensor) -> Tensor:
        """Without the windows that would start in the padding behind the map."""
        for axis in range(self.rank):
            reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1
            room = self.size[axis] + self.before[axis] + self.behind[axis] - reach
            windows = (-(-room // self.strides[axis]) if self.ceil else room // self.strides[axis]) + 1
            if self.ceil and (windows - 1) * self.strides[axis] >= self.size[axis] + self.before[axis]:
                windows -= 1
            if windows < y.shape[axis + 2]:
                y = y.narrow(axis + 2, 0, windows)
        return y


def _average_pool(node: Node, x: Tensor) -> Tensor:
    w = _Windows(node, x)
    if any(d != 1 for d in w.dilations):
        raise node.refused("its windows are dilated", "pool without dilation")
    pool, counted = _AVERAGE[w.rank], bool(node.get("count_include_pad", 0))
    if w.native:
        return pool(x, w.kernel, w.strides, w.before, w.ceil, counted)
    means = pool(padded(x, w.before, w.behind), w.kernel, w.strides, 0, w.ceil)
    if not counted:
        inside = padded(torch.ones((1, 1, *w.size)), w.before, w.behind)
        means = means / pool(inside, w.kernel, w.strides, 0, w.ceil)
    return w.cut(means)


def _max_pool(node: Node, x: Tensor) -> Tensor:
    if len(node.outputs) > 1 and node.outputs[1]:
        raise node.refused("its indices are used", "use the maxima only")
    w = _Windows(node, x)
    pool = _MAXIMUM[w.rank]
    if w.native:
        return pool(x, w.kernel, w.strides, w.before, w.dilations, w.ceil)
    return w.cut(pool(padded(x, w.before, w.behind, -math.inf), w.kernel, w.strides, 0, w.dilations, w.ceil))


def _global(node: Node, x: Tensor, function: Callable[..., Tensor]) -> Tensor:
    if x.dim() < 3:
        raise node.damaged(f"a map of {x.dim()} axes")
    return function(x, tuple(range(2, x.dim())), keepdim=True)


def _resize(node: Node, x: Tensor, *operands: Tensor | None) -> Tensor:
    if node.opset < 11 or node.op == "Upsample":
        attribute = node.attributes.get("scales")  # of opset 7
        scales = attribute if isinstance(attribute, list) else numbers(node, (*operands, None)[0], "scales")
        transform, rounding = "asymmetric", "floor"
        wanted = [math.floor(n * s) for n, s in zip(x.shape, scales)]
    else:
        scales, wanted = _scales(node, x, *operands)
        transform = node.get("coordinate_transformation_mode", "half_pixel")
        rounding = node.get("nearest_mode", "round_prefer_floor")
    if node.get("mode", "nearest") != "nearest":
        raise node.refused(f"it interpolates ('{node.get('mode', '')}')", "resize with nearest neighbours")
    if transform not in _MODES:
        raise node.refused(f"its coordinates are '{transform}'", "use asymmetric or half_pixel")
    if len(scales) != x.dim() or min(scales) <= 0 or not all(map(math.isfinite, scales)) or max(wanted) > 1 << 24:
        raise node.damaged(f"scales {scales[:8]} of a tensor with {x.dim()} axes")
    for axis, (scale, size) in enumerate(zip(scales, wanted)):
        table = _nearest(x.shape[axis], size, scale, transform, rounding)
        if not np.array_equal(table, np.arange(x.shape[axis])):
            x = x.index_select(axis, torch.from_numpy(table))
    return x


def _scales(node: Node, x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None,
            sizes: Tensor | None = None) -> tuple[list[float], list[int]]:  # fmt: skip
    """Scales and sizes of all axes of x."""
    axes = node.ints("axes") or list(range(x.dim()))
    factors, wanted = [1.0] * x.dim(), list(x.shape)
    if sizes is not None and sizes.numel():
        if node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise node.refused("it keeps the aspect ratio", "give the size of each axis")
        for axis, size in zip(axes, integers(node, sizes, "sizes")):
            wanted[axis], factors[axis] = size, size / x.shape[axis]
    else:
        for axis, scale in zip(axes, numbers(node, scales, "scales")):
            wanted[axis], factors[axis] = math.floor(x.shape[axis] * scale), scale
    return factors, wanted


def _nearest(
    size: int, wanted: int, scale: float, transform: str, rounding: str
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The source index of each output index along one axis."""
    i = np.arange(max(wanted, 0), dtype=np.float64)
    if transform == "align_corners":
        at = i * (size - 1) / (wanted - 1) if wanted > 1 else 0 * i
    elif transform == "asymmetric":
        at = i / scale
    elif transform == "tf_half_pixel_for_nn":
        at = (i + 0.5) / scale
    else:
        at = (i + 0.5) / scale - 0.5
        if transform == "pytorch_half_pixel" and wanted == 1:
            at = 0 * i
        if transform == "half_pixel_symmetric":
            at += size / 2 * (1 - wanted / (scale * size))
    functions: dict[str, Callable[[Any], Any]] = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_ceil": lambda v: np.floor(v + 0.5),
    }
    nearest = functions.get(rounding, lambda v: np.ceil(v - 0.5))(at)
    return np.clip(nearest, 0, size - 1).astype(np.int64)


def _block(node: Node, x: Tensor) -> int:
    if x.dim() != 4 or node.get("blocksize", 0) < 1:
        raise node.damaged("it takes maps and a positive block size")
    return node.get("blocksize", 0)


def _depth_to_space(node: Node, x: Tensor) -> Tensor:
    block = _block(node, x)
    if node.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    n, c, h, w = x.shape
    parts = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // block**2, h * block, w * block)


def _space_to_depth(node: Node, x: Tensor) -> Tensor:
    block = _block(node, x)
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, c * block**2, h // block, w // block)


def _mean(x: Tensor, axes: Sequence[int], keepdim: bool) -> Tensor:
    return x.mean(list(axes), keepdim=keepdim)


OPERATORS: dict[str, Callable[..., Any]] = {
    "AveragePool": _average_pool,
    "DepthToSpace": _depth_to_space,
    "GlobalAveragePool": lambda node, x: _global(node, x, _mean),
    "GlobalMaxPool": lambda node, x: _global(node, x, torch.amax),
    "MaxPool": _max_pool,
    "Resize": _resize,
    "SpaceToDepth": _space_to_depth,
    "Upsample": _resize,
}
