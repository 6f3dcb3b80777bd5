"""Resizing and cropping of images in numpy, the same as the usual training pipelines do."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bdnet_deploy.errors import UsageError

Array = npt.NDArray[Any]


def resize_bilinear(images: Array, size: tuple[int, int] | int) -> Array:
    """Resize a batch with an antialiased triangle filter: "bilinear" of Pillow and torchvision's transforms.

    Args:
        images: (N, H, W, C).
        size: the new (H, W), or the new shorter side; the other one keeps the ratio, rounded down.

    Returns:
        (N, H', W', C) in the same dtype; integers are rounded to nearest, even on ties.
    """
    height, width = images.shape[1:3]
    if isinstance(size, int):
        short = min(height, width)
        size = (height * size // short, width * size // short)
    if size == (height, width):
        return images
    resized = _filtered(images, 1, _triangle(height, size[0]))
    resized = _filtered(resized, 2, _triangle(width, size[1]))
    if np.issubdtype(images.dtype, np.integer):
        limits = np.iinfo(images.dtype)
        resized = np.clip(np.rint(resized), limits.min, limits.max)
    return resized.astype(images.dtype)


def _filtered(images: Array, axis: int, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Weighted sums along an axis, terms ascending; weights (target, source) are 0 outside of a narrow band."""
    shape = list(images.shape)
    shape[axis] = len(weights)
    sums = np.zeros(shape)
    source, target = np.moveaxis(images, axis, 0), np.moveaxis(sums, axis, 0)
    for row, total in zip(weights, target, strict=True):
        for i in np.flatnonzero(row):
            total += row[i] * source[i]
    return sums


def _triangle(source: int, target: int) -> npt.NDArray[np.float64]:
    """Weights (target, source) of a triangle as wide as one target pixel, at least one source pixel."""
    ratio = source / target
    support = max(ratio, 1.0)
    centers = (np.arange(target)[:, None] + 0.5) * ratio
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(source)[None] + 0.5 - centers) / support)
    normal: npt.NDArray[np.float64] = weights / weights.sum(1, keepdims=True)
    return normal


def center_crop(images: Array, size: tuple[int, int]) -> Array:
    """The middle (H, W) of a batch (N, H, W, C).

    Raises:
        UsageError: the images are smaller.
    """
    height, width = images.shape[1:3]
    if height < size[0] or width < size[1]:
        raise UsageError(f"cannot cut {size[0]}x{size[1]} out of an image of {height}x{width}", fix="give resize, too")
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return images[:, top : top + size[0], left : left + size[1]]
