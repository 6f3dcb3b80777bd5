"""ReActNet on MobileNet V1."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from bdnet_deploy.models.reactnet_a import ReActNetAConfig
from bdnet_deploy.nn import BinaryConv2d, RPReLU, RSign


class ReActBlock(nn.Module):
    """Binary 3x3 convolution at the input's width, then one or two binary 1x1 convolutions, each with a shortcut.

    Input (N, in_channels, H, W), output (N, out_channels, H / stride, W / stride); out_channels is in_channels or
    twice that.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, config: ReActNetAConfig) -> None:
        super().__init__()
        momentum, weights = config.bn_momentum, config.weights
        self.activation1 = RSign(in_channels, gradient=config.gradient)
        self.conv1 = BinaryConv2d(in_channels, in_channels, 3, stride, 1, weights=weights, weight_clip=1.0)
        self.bn1 = nn.BatchNorm2d(in_channels, momentum=momentum)
        self.pool = nn.AvgPool2d(2) if stride == 2 else nn.Identity()
        self.rprelu1 = RPReLU(in_channels)
        self.activation2 = RSign(in_channels, gradient=config.gradient)
        copies = range(out_channels // in_channels)
        self.conv2 = nn.ModuleList(
            BinaryConv2d(in_channels, in_channels, 1, weights=weights, weight_clip=1.0) for _ in copies
        )
        self.bn2 = nn.ModuleList(nn.BatchNorm2d(in_channels, momentum=momentum) for _ in copies)
        self.rprelu2 = RPReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.rprelu1(self.bn1(self.conv1(self.activation1(x))) + self.pool(x))
        signs = self.activation2(y)
        parts = [bn(conv(signs)) + y for conv, bn in zip(self.conv2, self.bn2, strict=True)]
        out: Tensor = self.rprelu2(parts[0] if len(parts) == 1 else torch.cat(parts, 1))
        return out


class ReActNetA(nn.Module):
    """ReActNet-A; input (N, in_channels, H, W), output logits (N, classes)."""

    def __init__(self, config: ReActNetAConfig) -> None:
        super().__init__()
        self.input_shape = (config.input_size, config.input_size, config.in_channels)
        widths, strides = config.widths, config.strides
        conv = nn.Conv2d(config.in_channels, widths[0], 3, strides[0], 1, bias=False)
        stem = OrderedDict(conv=conv, bn=nn.BatchNorm2d(widths[0], momentum=config.bn_momentum))
        blocks = [
            ReActBlock(before, after, stride, config)
            for before, after, stride in zip(widths[:-1], widths[1:], strides[1:], strict=True)
        ]
        self.features = nn.Sequential(nn.Sequential(stem), *blocks)
        self.classifier = nn.Linear(widths[-1], config.classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(torch.mean(self.features(x), (2, 3)))
        return logits
