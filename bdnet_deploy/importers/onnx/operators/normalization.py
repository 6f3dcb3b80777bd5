"""Normalizations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bdnet_deploy.importers.onnx.file import Node
from bdnet_deploy.importers.onnx.operators.common import axis_of


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


def _rms(node: Node, x: Tensor, scale: Tensor) -> Tensor:
    axes = list(range(axis_of(node, x.dim(), -1), x.dim()))
    return x * torch.rsqrt((x * x).mean(axes, keepdim=True) + node.get("epsilon", 1e-5)) * scale


def _first_output_only(node: Node) -> None:
    if any(node.outputs[1:]):
        raise node.refused("its mean or deviation is used", "use the normalized values only")


OPERATORS: dict[str, Callable[..., Any]] = {
    "BatchNormalization": _batch,
    "GroupNormalization": _group,
    "LayerNormalization": _layer,
    "RMSNormalization": _rms,
}
