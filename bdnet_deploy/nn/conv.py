"""Convolution with binary or ternary weights kept as latent real weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from bdnet_deploy.nn.quantizers import sign_ste, ternary_weight_ste

ALPHAS = ("mean", "learned", "one")
WEIGHTS = ("binary", "ternary", "real")


class BinaryConv2d(nn.Module):
    """``y = alpha * (sign(W) * x)``: a convolution whose weights take two values per output channel, no bias.

    Input (N, C_in, H, W), already binary or ternary where a binary kernel is wanted; output (N, C_out, H',
    W'). Zero padding. Depth-wise is ``groups == in_channels``, point-wise ``kernel_size == 1``.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, groups: as in :class:`torch.nn.Conv2d`.
        alpha: the scale per output channel. ``"mean"``: mean of |W|, no gradient through it (XNOR-Net, ECCV
            2016); ``"learned"``: a parameter ``scale`` that starts there; ``"one"``: none.
        weights: ``"binary"``; ``"ternary"``: {-1, 0, +1}, alpha = mean of |W| where the weight is not zero
            (Ternary Weight Networks, 2016); ``"real"``: the latent weights themselves, the first of two
            training stages: its state dict loads into the binary module.
        weight_std: standard deviation of the initial latent weights; None is Kaiming's sqrt(2 / fan_in). With
            ``alpha="mean"`` it sets the size of the output: 1e-3, usual before a post-BN, would make a
            convolution that meets its residual before the BN vanish.
        weight_clip: latent weights beyond it receive no gradient.
        center: subtract the mean of each output channel's weights before the sign (BinaryBERT, BiT, BinaryViT);
            alpha stays the mean of the |W| as they were.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        *,
        alpha: str = "mean",
        weights: str = "binary",
        weight_std: float | None = None,
        weight_clip: float = 1.5,
        center: bool = False,
    ) -> None:
        super().__init__()
        if alpha not in ALPHAS or weights not in WEIGHTS:
            raise ValueError(f"alpha must be one of {ALPHAS} and weights one of {WEIGHTS}: {alpha!r}, {weights!r}")
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.groups = stride, padding, groups
        self.alpha, self.weights, self.weight_clip = alpha, weights, weight_clip
        self.center = center
        fan_in = in_channels // groups * kernel_size**2
        std = math.sqrt(2 / fan_in) if weight_std is None else weight_std
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels // groups, kernel_size, kernel_size) * std)
        if alpha == "learned":
            self.scale = nn.Parameter(self.weight.detach().abs().mean((1, 2, 3), keepdim=True))

    def quantized_weight(self) -> Tensor:
        """The weights that the convolution uses, alpha included: (C_out, C_in / groups, k, k)."""
        if self.weights == "real":
            return self.weight
        if self.weights == "binary":
            latent = self.weight - self.weight.mean((1, 2, 3), keepdim=True) if self.center else self.weight
            levels = sign_ste(latent, self.weight_clip)
        else:
            levels = ternary_weight_ste(self.weight, self.weight_clip)
        if self.alpha == "one":
            return levels
        if self.alpha == "learned":
            return self.scale * levels
        size = self.weight.detach().abs()
        if self.weights == "binary":
            return size.mean((1, 2, 3), keepdim=True) * levels
        kept = levels.detach().abs()
        # An all-zero filter keeps no weight: clamp so that its alpha is 0 and not 0/0.
        return (size * kept).sum((1, 2, 3), keepdim=True) / kept.sum((1, 2, 3), keepdim=True).clamp(min=1) * levels

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.quantized_weight(), None, self.stride, self.padding, 1, self.groups)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, groups={self.groups}, alpha={self.alpha}, weights={self.weights}"
        )
