"""Sizes of trainable networks, counted by hooks; on the meta device nothing is computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bdnet_deploy import models
from bdnet_deploy.nn import BinaryConv2d

LAYERS = (BinaryConv2d, torch.nn.Conv2d, torch.nn.Linear)


@dataclass
class Counts:
    """Multiply-accumulates of one image and stored numbers, by kind.

    Attributes:
        binary_macs, real_macs: of binary layers; of real convolutions and linear layers that have parameters.
        bits: weights of binary layers.
        parameters: all that is trained, ``bits`` among them.
        statistics: running means and variances.
        logits: shape of the output for a batch of 2.
    """

    binary_macs: int = 0
    real_macs: int = 0
    bits: int = 0
    parameters: int = 0
    statistics: int = 0
    logits: tuple[int, ...] = ()


def counts(arch: str, **config: object) -> Counts:
    with torch.device("meta"):
        return counts_of(models.create(arch, **config))


def counts_of(module: torch.nn.Module) -> Counts:
    """Of a network on any device."""
    result = Counts()

    def hook(layer: torch.nn.Module, _inputs: object, y: torch.Tensor) -> None:
        work = layer.weight[0].numel() * y[0].numel()
        if isinstance(layer, BinaryConv2d):
            result.binary_macs += work
            result.bits += layer.weight.numel()
        else:
            result.real_macs += work

    for layer in module.modules():
        if isinstance(layer, LAYERS):
            layer.register_forward_hook(hook)
    height, width, channels = module.input_shape
    x = torch.zeros(2, channels, height, width, device=next(module.parameters()).device)
    with torch.no_grad():
        result.logits = tuple(module.eval()(x).shape)
    result.parameters = sum(p.numel() for p in module.parameters())
    result.statistics = sum(b.numel() for name, b in module.named_buffers() if ".running_" in f".{name}")
    return result
