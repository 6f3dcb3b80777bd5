"""QuickNet's layers and the network."""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from bdnet_deploy.models.quicknet import QuickNetConfig
from bdnet_deploy.nn import BinaryConv2d, SamePad2d, Sign

_STEM_EPS = 1e-3
_EPS = 1e-5


def _real_conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, stride, groups=groups, bias=False)


class BlurPool(nn.Module):
    """Depth-wise 3x3 filter [1 2 1] x [1 2 1] / 16 of stride 2, "same" padding (arXiv 1904.11486).

    Input (N, C, H, W), output (N, C, ceil(H / 2), ceil(W / 2)). The filter is in the state dict and not trained.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pad = SamePad2d(3, 2)
        row = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("weight", torch.outer(row, row).repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.get_buffer("weight")
        return functional.conv2d(self.pad(x), weight, stride=2, groups=weight.shape[0])


class QuickBlock(nn.Module):
    """sign -> binary 3x3 convolution, +1 around the map -> ReLU -> batch normalization -> + x; (N, C, H, W)."""

    def __init__(self, channels: int, config: QuickNetConfig) -> None:
        super().__init__()
        self.activation = Sign(clip=config.clip, gradient=config.gradient)
        self.pad = SamePad2d(3, value=1.0)
        # Keras' "glorot_normal".
        std = math.sqrt(2 / (2 * 9 * channels))
        self.conv = BinaryConv2d(channels, channels, 3, alpha="one", weight_std=std, weight_clip=config.clip)
        self.bn = nn.BatchNorm2d(channels, _EPS, config.bn_momentum)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(functional.relu(self.conv(self.pad(self.activation(x)))))
        return y + x


def _transition(in_channels: int, out_channels: int, config: QuickNetConfig) -> nn.Module:
    """Between two sections: (N, in_channels, H, W) to (N, out_channels, ceil((H - 1) / 2), ceil((W - 1) / 2))."""
    layers = {
        "relu": nn.ReLU(),
        "pool": nn.MaxPool2d(2, 1),
        "blur": BlurPool(in_channels),
        "conv": _real_conv(in_channels, out_channels, 1),
        "bn": nn.BatchNorm2d(out_channels, _EPS, config.bn_momentum),
    }
    return nn.Sequential(OrderedDict(layers))


class QuickNet(nn.Module):
    """QuickNet; input (N, in_channels, H, W), output logits (N, classes)."""

    def __init__(self, config: QuickNetConfig) -> None:
        super().__init__()
        self.input_shape = (config.input_size, config.input_size, config.in_channels)
        channels, momentum = config.filters[0], config.bn_momentum / 10
        narrow = channels // 4
        stem = {
            "pad": SamePad2d(3, 2),
            "conv": _real_conv(config.in_channels, narrow, 3, 2),
            "bn": nn.BatchNorm2d(narrow, _STEM_EPS, momentum),
            "relu": nn.ReLU(),
            "depthwise_pad": SamePad2d(3, 2),
            "depthwise": _real_conv(narrow, narrow, 3, 2, narrow),
            "depthwise_bn": nn.BatchNorm2d(narrow, _STEM_EPS, momentum, affine=False),
            "pointwise": _real_conv(narrow, channels, 1),
            "pointwise_bn": nn.BatchNorm2d(channels, _STEM_EPS, momentum),
        }
        self.stem = nn.Sequential(OrderedDict(stem))
        blocks: list[nn.Module] = []
        for filters, count in zip(config.filters, config.blocks, strict=True):
            if filters != channels:
                blocks.append(_transition(channels, filters, config))
                channels = filters
            blocks.extend(QuickBlock(channels, config) for _ in range(count))
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.blocks(self.stem(x)))
        logits: Tensor = self.classifier(torch.mean(x, (2, 3)))
        return logits
