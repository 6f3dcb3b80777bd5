"""The binary layers of BinaryViT: linear, attention, feed-forward. Tokens are maps (N, C, H, W)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from bdnet_deploy.models.es_binaryvit import ESBinaryViTConfig
from bdnet_deploy.nn import BinaryConv2d, BinaryProbabilities, BroadcastResidual, RPReLU, RSign


def norm(channels: int, config: ESBinaryViTConfig) -> nn.BatchNorm2d:
    """Batch normalization over all tokens."""
    return nn.BatchNorm2d(channels, momentum=config.bn_momentum)


class BinaryLinear(nn.Module):
    """shift and sign -> binary linear -> replicate -> batch normalization -> residual -> RPReLU.

    On each token, as a 1x1 convolution; input (N, in_channels, H, W), output (N, out_channels, H, W). Weights are
    mean|W| times the sign of W less its mean, per output. The residual repeats the channels or takes their means.

    Args:
        in_channels, out_channels: one divides the other.
        config: training.
        copies_in: the input is repeated so often, with shifts of its own, before the sign.
        copies_out: the sums are; there are out_channels / copies_out filters.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        config: ESBinaryViTConfig,
        *,
        copies_in: int = 1,
        copies_out: int = 1,
    ) -> None:
        super().__init__()
        self.copies_in, self.copies_out = copies_in, copies_out
        wide = in_channels * copies_in
        self.activation = RSign(wide, gradient=config.gradient)
        self.conv = BinaryConv2d(wide, out_channels // copies_out, 1, weight_clip=1.0, center=True)
        self.norm = norm(out_channels, config)
        self.shortcut = BroadcastResidual(in_channels, out_channels)
        self.rprelu = RPReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = x.repeat(1, self.copies_in, 1, 1) if self.copies_in > 1 else x
        y = self.conv(self.activation(y))
        if self.copies_out > 1:
            y = y.repeat(1, self.copies_out, 1, 1)
        out: Tensor = self.rprelu(self.norm(y) + self.shortcut(x))
        return out


class Attention(nn.Module):
    """Attention of binary queries, keys and values by probabilities in {0, c}.

    With q, k, v the three BinaryLinear of the tokens (of k and v those averaged over squares of ``reduction`` tokens a
    side, and passed through one more), the result is ``RPReLU(n(P sign(v)) + q + k + v)``, where P are the binary
    probabilities of ``softmax(sign(q) sign(k)^T / sqrt(C / heads))`` and k and v are brought back to the size of q
    by repeating pixels. Input and output (N, C, H, W).
    """

    def __init__(self, channels: int, heads: int, reduction: int, config: ESBinaryViTConfig) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.factor = 1 / math.sqrt(channels // heads)
        if reduction > 1:
            self.reduce = BinaryLinear(channels, channels, config)
        self.query, self.key, self.value = (BinaryLinear(channels, channels, config) for _ in range(3))
        self.sign_query, self.sign_key, self.sign_value = (RSign(channels, gradient=config.gradient) for _ in range(3))
        self.probabilities = BinaryProbabilities(config.probability)
        self.norm = norm(channels, config)
        self.rprelu = RPReLU(channels)

    def _tokens(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, heads, H * W, C / heads)."""
        return x.flatten(2).unflatten(1, (self.heads, x.shape[1] // self.heads)).transpose(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        q = self.query(x)
        seen = x
        if self.reduction > 1:
            seen = self.reduce(functional.avg_pool2d(x, self.reduction))
        k, v = self.key(seen), self.value(seen)
        queries, keys = self._tokens(self.sign_query(q)), self._tokens(self.sign_key(k))
        scores = torch.matmul(queries, keys.transpose(2, 3)) * self.factor
        p = self.probabilities(torch.softmax(scores, 3))
        context = torch.matmul(p, self._tokens(self.sign_value(v)))
        context = context.transpose(2, 3).reshape(x.shape)
        if self.reduction > 1:
            k, v = (functional.interpolate(y, scale_factor=self.reduction, mode="nearest") for y in (k, v))
        out: Tensor = self.rprelu(self.norm(context) + q + k + v)
        return out


class FeedForward(nn.Module):
    """Two BinaryLinear over ``channels * ratio`` hidden channels, expanded and shrunk by tau; see ``es_binaryvit``."""

    def __init__(self, channels: int, ratio: int, config: ESBinaryViTConfig) -> None:
        super().__init__()
        tau = config.tau
        hidden = channels * ratio * tau
        copies = tau if config.expand == "both" else 1
        self.up = BinaryLinear(channels, hidden, config, copies_in=copies, copies_out=tau * copies)
        self.down = BinaryLinear(hidden, channels, config, copies_out=tau)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.up(x))
        return out
