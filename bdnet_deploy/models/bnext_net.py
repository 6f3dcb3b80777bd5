"""BNext, with or without expansion (ES-BNN)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bdnet_deploy.models.bnext import ESBNextConfig, strides
from bdnet_deploy.models.bnext_blocks import Block


class _Stem(nn.Module):
    """Full-precision 3x3 convolution, replicated tau * groups times, batch normalization."""

    def __init__(self, config: ESBNextConfig) -> None:
        super().__init__()
        width, self.copies = config.channels()[0], config.tau * config.groups
        self.conv1 = nn.Conv2d(config.in_channels, width, 3, config.stem_stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width * self.copies, momentum=config.bn_momentum)
        # In the published keys; never read.
        self.prelu = nn.PReLU(width * self.copies).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        if self.copies > 1:
            x = x.repeat(1, self.copies, 1, 1)
        y: Tensor = self.bn1(x)
        return y


class BNext(nn.Module):
    """Stem, blocks, PReLU, global average pool, linear classifier.

    Input (N, in_channels, H, W), output logits (N, classes). The even blocks, counted from 1, multiply their input
    back in ("attention"). Where squeeze and excitation is ops-matched, the head reads the first channels only.
    """

    def __init__(self, config: ESBNextConfig) -> None:
        super().__init__()
        self.input_shape = (config.input_size, config.input_size, config.in_channels)
        widths = config.channels()
        self.feature = nn.ModuleList([_Stem(config)])
        for i, stride in enumerate(strides(widths)):
            self.feature.append(Block(widths[i], widths[i + 1], stride, attention=i % 2 == 1, config=config))
        wide = widths[-1] * config.tau * config.groups
        self.seen = widths[-1] if config.ops_matched else wide
        self.slices = self.seen < wide
        self.prelu = nn.PReLU(self.seen)
        self.fc = nn.Linear(self.seen, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.feature:
            x = block(x)
        if self.slices:
            x = x[:, : self.seen]
        logits: Tensor = self.fc(torch.mean(self.prelu(x), (2, 3)))
        return logits
