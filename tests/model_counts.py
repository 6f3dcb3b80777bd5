"""Counts of a network, and a few steps of training, for the tests of the architectures."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from zoo_counts import counts_of  # noqa: E402

from bdnet_deploy import models  # noqa: E402
from bdnet_deploy.nn import BinaryConv2d  # noqa: E402


def on_meta(arch: str, **options: Any) -> nn.Module:
    """The network without memory for its weights: shapes alone."""
    with torch.device("meta"):
        return models.create(arch, **options).eval()


def image(module: nn.Module, batch: int = 2) -> torch.Tensor:
    height, width, channels = module.input_shape
    return torch.randn(batch, channels, height, width, device=next(module.parameters()).device)


def multiply_accumulates(module: nn.Module) -> tuple[int, int]:
    """Of the binary convolutions, and of the real convolutions and linear layers, for one image."""
    counts = counts_of(module)
    return counts.binary_macs, counts.real_macs


def parameters(module: nn.Module) -> tuple[int, int]:
    """Binary weights, and all other parameters."""
    binary = sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, BinaryConv2d))
    return binary, sum(p.numel() for p in module.parameters()) - binary


def ordinary_parameters(module: nn.Module) -> int:
    """Those of the real network of these sizes: weights and biases of its layers, two vectors a normalization."""
    total = 0
    for layer in module.modules():
        if isinstance(layer, BinaryConv2d):
            total += layer.weight.numel()
        elif isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            total += sum(p.numel() for p in layer.parameters(recurse=False))
    return total


def check_trains(module: nn.Module, steps: int = 10) -> None:
    """Every parameter that is trained has a gradient that is not all zero; a few steps lower the loss of a batch."""
    torch.manual_seed(0)
    x = image(module, 8)
    with torch.no_grad():
        classes = module.eval()(x).shape[1]
    labels = torch.arange(8) % classes
    module.train()
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    optimizer = torch.optim.Adam(trained.values(), 2e-3)
    losses: list[float] = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = functional.cross_entropy(module(x), labels)
        loss.backward()
        if not losses:
            assert [name for name, p in trained.items() if p.grad is None or not p.grad.abs().sum() > 0] == []
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) / 3 < losses[0]
