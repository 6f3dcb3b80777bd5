"""ResNets expanded and shrunk (ES-BNN)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from bdnet_deploy.models.es_resnets import ESOptions
from bdnet_deploy.nn import ESBlockHalf


class ESResNet(nn.Module):
    """Stages of binary convolutions, each with a residual, on maps of width * tau * groups channels.

    Input (N, in_channels, H, W), output logits (N, classes). Stages behind the first begin with stride 2.

    Args:
        widths: channels of each stage before widening; a stage's is a multiple of the one before.
        convolutions: binary convolutions in each stage.
        stem: kernel of the full-precision stem. 3: stride 1. 7: stride 2, and a 3x3 maximum pool of stride 2 behind
            the batch normalization.
        in_channels: channels of the image.
        input_size: its height and width.
        classes: outputs.
        options: expansion and training.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int],
        convolutions: Sequence[int],
        stem: int,
        in_channels: int,
        input_size: int,
        classes: int,
        options: ESOptions,
    ) -> None:
        super().__init__()
        self.copies = options.tau * options.groups
        self.input_shape = (input_size, input_size, in_channels)
        self.pools = stem == 7
        self.stem = nn.Conv2d(in_channels, widths[0], stem, 2 if self.pools else 1, stem // 2, bias=False)
        self.stem_bn = nn.BatchNorm2d(widths[0] * self.copies, momentum=options.bn_momentum)
        halves: list[nn.Module] = []
        channels = widths[0]
        for stage, (width, count) in enumerate(zip(widths, convolutions, strict=True)):
            for i in range(count):
                halves.append(
                    ESBlockHalf(
                        channels,
                        width,
                        2 if stage and i == 0 else 1,
                        tau=options.tau,
                        groups=options.groups,
                        downsample=options.downsample,
                        gradient=options.gradient,
                        clip=options.clip,
                        bn_momentum=options.bn_momentum,
                    )
                )
                channels = width
        self.blocks = nn.Sequential(*halves)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_bn(self.stem(x).repeat(1, self.copies, 1, 1))
        if self.pools:
            x = functional.max_pool2d(x, 3, 2, 1)
        features = torch.mean(self.blocks(x), (2, 3))
        # The classifier sees the first channels only (ES-BNN's head).
        logits: Tensor = self.classifier(features[:, : self.classifier.in_features])
        return logits
