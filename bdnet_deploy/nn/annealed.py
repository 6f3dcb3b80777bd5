"""Binary weights by a falling temperature (BNext), and the helpers that let it fall."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bdnet_deploy.nn.conv import BinaryConv2d

BINARY_BELOW = 1e-7
"""Temperature below which the weights are signs."""


class _AnnealedSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, temperature: Tensor) -> Tensor:
        levels = (w >= 0).to(w.dtype) * 2 - 1
        soft = (w / temperature.clamp(min=1e-8)).clamp(-1, 1)
        # Chosen by a tensor operation: it records, exports, and runs on the meta device.
        return torch.where(temperature < BINARY_BELOW, levels, soft)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class AnnealedConv2d(BinaryConv2d):
    """``y = sign(W) * x`` once the temperature T is below 1e-7, until then ``clamp(W / T, -1, 1) * x``.

    BNext (arXiv 2211.12933; github.com/hpi-xnor/BNext, src/bnext.py, HardBinaryConv): no scale and no bias; the
    gradient passes unchanged and each forward pass in training clamps the latent weights to +-weight_clip. T is the
    buffer ``temperature`` [1], see :func:`anneal`. **While T is 1e-7 or more, the convolution has real weights**, in
    evaluation too, as in the published code. Differs from it in sign(0) = +1.

    Input (N, in_channels, H, W), output (N, out_channels, H', W').

    Args:
        in_channels, out_channels, kernel_size, stride, padding, groups: as in :class:`torch.nn.Conv2d`.
        temperature: T at first; 1 in the published training, 0 is binary from the start.
        weight_clip: 1.5 in the published code.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        *,
        temperature: float = 1.0,
        weight_clip: float = 1.5,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            groups,
            alpha="one",
            weight_std=1e-3,
            weight_clip=weight_clip,
        )
        self.temperature: Tensor
        self.register_buffer("temperature", torch.full((1,), float(temperature)))

    def quantized_weight(self) -> Tensor:
        levels: Tensor = _AnnealedSTE.apply(self.weight, self.temperature)
        return levels

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.weight.clamp_(-self.weight_clip, self.weight_clip)
        return super().forward(x)


def _annealed(module: nn.Module) -> list[tuple[str, AnnealedConv2d]]:
    return [(name, layer) for name, layer in module.named_modules() if isinstance(layer, AnnealedConv2d)]


def anneal(module: nn.Module, factor: float = 0.9) -> float:
    """Multiply the temperature of every :class:`AnnealedConv2d` inside; call it after each epoch but the last.

    The published schedule starts at 1 and takes 0.9 at each of 512 epochs: the weights are signs from the 154th
    epoch on. A shorter training of E epochs reaches the same share of it with ``0.9 ** (512 / E)``.

    Returns:
        The highest temperature that is left; 0.0 where there is no such convolution.

    Raises:
        ValueError: the factor is not between 0 and 1.
    """
    if not 0 <= factor <= 1:
        raise ValueError(f"factor is {factor!r}; it is between 0 and 1")
    layers = _annealed(module)
    for _, layer in layers:
        layer.temperature.mul_(factor)
    return max((float(layer.temperature) for _, layer in layers), default=0.0)


def not_yet_binary(module: nn.Module) -> list[str]:
    """Names of the convolutions whose temperature still leaves them real weights."""
    return [name for name, layer in _annealed(module) if not float(layer.temperature) < BINARY_BELOW]
