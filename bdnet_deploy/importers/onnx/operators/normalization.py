"""Normalizations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bdnet_deploy.importers.onnx.file import Node
from bdnet_deploy.importers.onnx.operators.common import axis_of, integers
from bdnet_deploy.importers.onnx.rewrites import GROUPS_BY_RESHAPE


def _batch(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    if node.get("training_mode", 0):
        raise node.refused("it takes the statistics of its input", "export after model.eval()")
    return F.batch_norm(x, mean, var, scale, bias, False, 0.0, node.get("epsilon", 1e-5))


def _layer(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    _first_output_only(node)
    shape = list(x.shape[axis_of(node, x.dim(), -1) :])
    return F.layer_norm(
        x, shape, scale.expand(shape), None if bias is None else bias.expand(shape), node.get("epsilon", 1e-5)
    )


def _group(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Up to opset 20 scale and bias are those of groups, since then of channels."""
    groups = node.get("num_groups", 1)
    if groups < 1 or x.shape[1] % groups:
        raise node.damaged(f"{x.shape[1]} channels in {groups} groups")
    if scale.numel() != x.shape[1]:
        scale, bias = (t.repeat_interleave(x.shape[1] // groups) for t in (scale, bias))
    return F.group_norm(x, groups, scale, bias, node.get("epsilon", 1e-5))


def _instance(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return F.group_norm(x, x.shape[1], scale, bias, node.get("epsilon", 1e-5))


def _group_by_reshape(node: Node, x: Tensor, reshaped: Tensor, scale: Tensor, bias: Tensor, shape: Tensor) -> Tensor:
    """See :mod:`bdnet_deploy.importers.onnx.rewrites`."""
    wanted = integers(node, shape, "shape")
    wanted = [reshaped.shape[i] if n == 0 and i < reshaped.dim() else n for i, n in enumerate(wanted)]
    known = math.prod(n for n in wanted if n != -1)
    wanted = [x.numel() // max(known, 1) if n == -1 else n for n in wanted]
    groups = reshaped.shape[1] if reshaped.dim() > 2 else 0
    if reshaped.shape[0] != 1 or x.shape[0] != 1 or wanted != list(x.shape) or not groups or x.shape[1] % groups:
        return _instance(node, reshaped, scale, bias).reshape(wanted)
    weight, offset = (t.repeat_interleave(x.shape[1] // groups) for t in (scale, bias))
    return F.group_norm(x, groups, weight, offset, node.get("epsilon", 1e-5))


def _rms(node: Node, x: Tensor, scale: Tensor) -> Tensor:
    axes = list(range(axis_of(node, x.dim(), -1), x.dim()))
    return x * torch.rsqrt((x * x).mean(axes, keepdim=True) + node.get("epsilon", 1e-5)) * scale


def _first_output_only(node: Node) -> None:
    if any(node.outputs[1:]):
        raise node.refused("its mean or deviation is used", "use the normalized values only")


OPERATORS: dict[str, Callable[..., Any]] = {
    "BatchNormalization": _batch,
    "GroupNormalization": _group,
    "InstanceNormalization": _instance,
    "LayerNormalization": _layer,
    "RMSNormalization": _rms,
    GROUPS_BY_RESHAPE: _group_by_reshape,
}
