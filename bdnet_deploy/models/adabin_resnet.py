"""ResNets for small images with adaptive binary sets (AdaBin)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from bdnet_deploy.models.adabin_resnet20 import AdaBinResNet20Config
from bdnet_deploy.nn import AdaBinActivation, AdaBinConv2d, Maxout


class SubsampleShortcut(nn.Module):
    """Every stride-th pixel, and zero channels in equal numbers before and behind: (N, C_in, ...) to (N, C_out, ...).

    "Option A" of the ResNet paper (arXiv 1512.03385), with the zeros on both sides as AdaBin's code has them.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.zeros = stride, (out_channels - in_channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, self.zeros, self.zeros))


class AdaBinBlock(nn.Module):
    """Two halves of activation -> convolution -> batch normalization -> + shortcut -> Maxout.

    Input (N, in_channels, H, W), output (N, out_channels, H / stride, W / stride).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, config: AdaBinResNet20Config) -> None:
        super().__init__()
        self.activation1 = AdaBinActivation(gradient=config.gradient)
        self.conv1 = AdaBinConv2d(in_channels, out_channels, 3, stride, 1, weight_clip=config.weight_clip)
        self.bn1 = nn.BatchNorm2d(out_channels, momentum=config.bn_momentum)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else SubsampleShortcut(in_channels, out_channels, stride)
        self.maxout1 = Maxout(out_channels)
        self.activation2 = AdaBinActivation(gradient=config.gradient)
        self.conv2 = AdaBinConv2d(out_channels, out_channels, 3, 1, 1, weight_clip=config.weight_clip)
        self.bn2 = nn.BatchNorm2d(out_channels, momentum=config.bn_momentum)
        self.maxout2 = Maxout(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.maxout1(self.bn1(self.conv1(self.activation1(x))) + self.shortcut(x))
        out: Tensor = self.maxout2(self.bn2(self.conv2(self.activation2(y))) + y)
        return out


class AdaBinResNet(nn.Module):
    """Three stages of width, 2 * width and 4 * width channels; input (N, in_channels, H, W), logits (N, classes)."""

    def __init__(self, config: AdaBinResNet20Config) -> None:
        super().__init__()
        self.input_shape = (config.input_size, config.input_size, config.in_channels)
        channels = config.width
        self.stem = nn.Conv2d(config.in_channels, channels, 3, 1, 1, bias=False)
        self.stem_bn = nn.BatchNorm2d(channels, momentum=config.bn_momentum)
        self.stem_maxout = Maxout(channels)
        stages: dict[str, nn.Module] = {}
        for stage in range(3):
            width = config.width << stage
            blocks = []
            for i in range(config.blocks):
                blocks.append(AdaBinBlock(channels, width, 2 if stage and i == 0 else 1, config))
                channels = width
            stages[f"layer{stage + 1}"] = nn.Sequential(*blocks)
        self.stages = nn.Sequential(OrderedDict(stages))
        self.feature_bn = nn.BatchNorm1d(channels, momentum=config.bn_momentum)
        self.classifier = nn.Linear(channels, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.stem_maxout(self.stem_bn(self.stem(x))))
        logits: Tensor = self.classifier(self.feature_bn(torch.mean(x, (2, 3))))
        return logits
