"""ResNets with a shortcut around every binary convolution: Bi-Real Net, and ReActNet on its skeleton."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from bdnet_deploy.models.birealnet_18 import BiReal18Config
from bdnet_deploy.nn import BinaryConv2d, RPReLU, RSign, Sign


class BiRealBlock(nn.Module):
    """sign -> binary 3x3 convolution -> batch normalization -> + shortcut; with ``react`` RSign, and RPReLU last.

    Input (N, in_channels, H, W), output (N, out_channels, H / stride, W / stride).
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, config: BiReal18Config, *, react: bool
    ) -> None:
        super().__init__()
        momentum = config.bn_momentum
        self.activation = RSign(in_channels, gradient=config.gradient) if react else Sign(gradient=config.gradient)
        self.conv = BinaryConv2d(in_channels, out_channels, 3, stride, 1, weights=config.weights, weight_clip=1.0)
        self.bn = nn.BatchNorm2d(out_channels, momentum=momentum)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            layers: dict[str, nn.Module] = {} if stride == 1 else {"pool": nn.AvgPool2d(stride)}
            layers["conv"] = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            layers["bn"] = nn.BatchNorm2d(out_channels, momentum=momentum)
            self.shortcut = nn.Sequential(OrderedDict(layers))
        self.rprelu: nn.Module = RPReLU(out_channels) if react else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rprelu(self.bn(self.conv(self.activation(x))) + self.shortcut(x))
        return out


class BiRealNet(nn.Module):
    """Stages of width, 2 * width, 4 * width, ... channels; input (N, in_channels, H, W), output logits (N, classes)."""

    def __init__(self, config: BiReal18Config, *, react: bool) -> None:
        super().__init__()
        self.input_shape = (config.input_size, config.input_size, config.in_channels)
        channels = config.width
        stem = {
            "conv": nn.Conv2d(config.in_channels, channels, 7, 2, 3, bias=False),
            "bn": nn.BatchNorm2d(channels, momentum=config.bn_momentum),
            "pool": nn.MaxPool2d(3, 2, 1),
        }
        self.stem = nn.Sequential(OrderedDict(stem))
        stages: dict[str, nn.Module] = {}
        for stage, count in enumerate(config.blocks):
            width = config.width << stage
            blocks = []
            for i in range(count):
                blocks.append(BiRealBlock(channels, width, 2 if stage and i == 0 else 1, config, react=react))
                channels = width
            stages[f"layer{stage + 1}"] = nn.Sequential(*blocks)
        self.stages = nn.Sequential(OrderedDict(stages))
        self.classifier = nn.Linear(channels, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(torch.mean(self.stages(self.stem(x)), (2, 3)))
        return logits
