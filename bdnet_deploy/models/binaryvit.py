"""BinaryViT: stages of binary Transformer layers on maps of tokens (N, C, H, W)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bdnet_deploy.models.binaryvit_layers import Attention, BinaryLinear, FeedForward, norm
from bdnet_deploy.models.es_binaryvit import ESBinaryViTConfig
from bdnet_deploy.nn import BinaryConv2d, BroadcastResidual, RPReLU, RSign


class LayerScale(nn.Module):
    """A factor and an addend per channel; the addend is 0 at first."""

    def __init__(self, channels: int, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((1, channels, 1, 1), factor))
        self.addend = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor + self.addend


class Layer(nn.Module):
    """``x + attention(n(x))``, then ``x + feed_forward(n(x))`` plus average pools of the same n(x).

    The pools are 1 x l and l x 1 tokens of stride 1, zeros outside counted, each behind a LayerScale that starts at 0.
    """

    def __init__(self, stage: int, config: ESBinaryViTConfig) -> None:
        super().__init__()
        channels = config.widths[stage]
        self.norm_before, self.norm_after = norm(channels, config), norm(channels, config)
        self.attention = Attention(channels, config.heads[stage], config.reductions[stage], config)
        self.output = BinaryLinear(channels, channels, config)
        self.feed_forward = FeedForward(channels, config.ratios[stage], config)
        scaled = config.layer_scale
        self.scale_attention = LayerScale(channels, 0.1) if scaled else nn.Identity()
        self.scale_feed_forward = LayerScale(channels, 0.1) if scaled else nn.Identity()
        self.pools = [kernel for length in config.pools for kernel in ((length, 1), (1, length))]
        self.scale_pools = nn.ModuleList(LayerScale(channels, 0.0) for _ in self.pools)

    def forward(self, x: Tensor) -> Tensor:
        x = self.scale_attention(self.output(self.attention(self.norm_before(x)))) + x
        normed = self.norm_after(x)
        x = self.scale_feed_forward(self.feed_forward(normed)) + x
        for kernel, scale in zip(self.pools, self.scale_pools, strict=True):
            pooled = functional.avg_pool2d(normed, kernel, 1, (kernel[0] // 2, kernel[1] // 2))
            x = x + scale(pooled)
        return x


class Merging(nn.Module):
    """Between two stages: batch normalization, a 2x2 convolution of stride 2, positions.

    The binary one has a residual: the 2x2 mean, repeated along the channels; and RPReLU.
    """

    def __init__(self, in_channels: int, out_channels: int, side: int, config: ESBinaryViTConfig) -> None:
        super().__init__()
        self.norm_in, self.norm_out = norm(in_channels, config), norm(out_channels, config)
        self.binary = config.merging == "binary"
        self.conv: nn.Module
        if self.binary:
            self.activation = RSign(in_channels, gradient=config.gradient)
            self.conv = BinaryConv2d(in_channels, out_channels, 2, 2, weight_clip=1.0)
            self.shortcut = BroadcastResidual(in_channels, out_channels, 2)
            self.rprelu = RPReLU(out_channels)
        else:
            self.conv = nn.Conv2d(in_channels, out_channels, 2, 2, bias=False)
        self.positions = positions(out_channels, side)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm_in(x)
        if self.binary:
            x = self.rprelu(self.norm_out(self.conv(self.activation(x))) + self.shortcut(x))
        else:
            x = self.norm_out(self.conv(x))
        return x + self.positions


def positions(channels: int, side: int) -> nn.Parameter:
    """Learned position embeddings (1, channels, side, side)."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, channels, side, side), std=0.02))


class BinaryViT(nn.Module):
    """Full-precision patches and classifier, between them stages of binary layers.

    Input (N, in_channels, input_size, input_size), output logits (N, classes).
    """

    def __init__(self, config: ESBinaryViTConfig) -> None:
        super().__init__()
        self.input_shape = (config.input_size, config.input_size, config.in_channels)
        side = config.input_size // config.patch
        self.patches = nn.Conv2d(config.in_channels, config.widths[0], config.patch, config.patch)
        self.patches_norm = norm(config.widths[0], config)
        self.positions = positions(config.widths[0], side)
        stages: list[nn.Module] = []
        for stage, depth in enumerate(config.depths):
            layers: list[nn.Module] = []
            if stage:
                side //= 2
                layers.append(Merging(config.widths[stage - 1], config.widths[stage], side, config))
            layers += [Layer(stage, config) for _ in range(depth)]
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.norm = norm(config.widths[-1], config)
        self.classifier = nn.Linear(config.widths[-1], config.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches_norm(self.patches(x)) + self.positions
        x = self.norm(self.stages(x))
        logits: Tensor = self.classifier(torch.mean(x, (2, 3)))
        return logits
