"""One scale where all channels have the same: equal to the runtime, 12 bytes a channel shorter."""

from __future__ import annotations

import dataclasses

from bdnet_deploy.export.tflite.schema import Array, Tensor


def with_one_scale(tensor: Tensor) -> Tensor:
    """The tensor with a single scale and zero point if those of all its channels are equal."""
    if tensor.scale is None or tensor.scale.size < 2 or not _alike(tensor.scale):
        return tensor
    zero = tensor.zero_point
    if zero is not None and not _alike(zero):
        return tensor
    return dataclasses.replace(tensor, scale=tensor.scale[:1], zero_point=None if zero is None else zero[:1], axis=0)


def _alike(values: Array) -> bool:
    return bool((values == values[0]).all())
