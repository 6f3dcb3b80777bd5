"""ResNets for small images, expanded and shrunk (ES-BNN)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bdnet_deploy.models.es_resnet20 import ESResNet20Config
from bdnet_deploy.nn import ESBlockHalf


class ESResNet(nn.Module):
    """Three stages of residual blocks on maps of width * tau, 2 * width * tau and 4 * width * tau channels.

    Input (N, in_channels, H, W), output logits (N, classes).
    """

    def __init__(self, config: ESResNet20Config) -> None:
        super().__init__()
        self.tau = config.tau
        self.input_shape = (config.input_size, config.input_size, config.in_channels)
        self.stem = nn.Conv2d(config.in_channels, config.width, 3, 1, 1, bias=False)
        self.stem_bn = nn.BatchNorm2d(config.width * config.tau, momentum=config.bn_momentum)
        halves: list[nn.Module] = []
        channels = config.width
        for stage in range(3):
            for i in range(2 * config.blocks):
                width = config.width << stage
                halves.append(
                    ESBlockHalf(
                        channels,
                        width,
                        2 if stage and i == 0 else 1,
                        tau=config.tau,
                        gradient=config.gradient,
                        clip=config.clip,
                        bn_momentum=config.bn_momentum,
                    )
                )
                channels = width
        self.blocks = nn.Sequential(*halves)
        self.classifier = nn.Linear(channels, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_bn(self.stem(x).repeat(1, self.tau, 1, 1))
        features = torch.mean(self.blocks(x), (2, 3))
        # The classifier sees the first channels only (ES-BNN's head); as zero weights for the others, which is the
        # same number and needs no operator that slices.
        unseen = features.shape[1] - self.classifier.in_features
        weight = functional.pad(self.classifier.weight, (0, unseen))
        return functional.linear(features, weight, self.classifier.bias)
