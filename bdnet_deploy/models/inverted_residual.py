"""Networks of inverted residuals with binary convolutions (BD-Net)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bdnet_deploy.models.bdnet import half
from bdnet_deploy.models.bdnet_inverted import InvertedConfig, Stage, divisible

_STEM = 32


class InvertedResidual(nn.Module):
    """1x1 expansion (if any) -> depth-wise -> 1x1 projection, each with a broadcast residual.

    Input (N, C_in, H, W), output (N, C_out, H / stride, W / stride).
    """

    def __init__(self, c_in: int, c_out: int, expansion: int, kernel: int, stride: int, config: InvertedConfig) -> None:
        super().__init__()
        hidden = c_in * expansion
        self.adds = config.block_shortcut and stride == 1 and c_in == c_out
        convolutions: dict[str, nn.Module] = {}
        if expansion > 1:
            convolutions["expand"] = half(c_in, hidden, 1, 1, config)
        convolutions["dw"] = half(hidden, hidden, kernel, stride, config, depthwise=True)
        convolutions["project"] = half(hidden, c_out, 1, 1, config, uneven=True, linear=config.linear_bottleneck)
        self.convolutions = nn.ModuleDict(convolutions)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for convolution in self.convolutions.values():
            y = convolution(y)
        return y + x if self.adds else y


class InvertedNet(nn.Module):
    """Full-precision 3x3 stem and classifier; between them inverted residuals and a last binary 1x1 convolution.

    Input (N, in_channels, H, W), output logits (N, classes).
    """

    def __init__(self, stages: Sequence[Stage], config: InvertedConfig) -> None:
        super().__init__()
        self.input_shape = (config.input_size, config.input_size, config.in_channels)
        channels = divisible(_STEM * config.width)
        self.stem = nn.Conv2d(config.in_channels, channels, 3, config.stem_stride, 1, bias=False)
        self.stem_bn = nn.BatchNorm2d(channels)
        blocks: list[nn.Module] = []
        for expansion, kernel, stride, base, count in stages:
            for i in range(count):
                width = divisible(base * config.width)
                blocks.append(InvertedResidual(channels, width, expansion, kernel, 1 if i else stride, config))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = half(channels, config.head, 1, 1, config, uneven=True)
        self.classifier = nn.Linear(config.head, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.blocks(self.stem_bn(self.stem(x))))
        logits: Tensor = self.classifier(torch.mean(x, (2, 3)))
        return logits
