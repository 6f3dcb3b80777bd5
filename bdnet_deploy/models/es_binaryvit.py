"""BinaryViT, a binary vision Transformer, with ES-BNN in its feed-forward part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bdnet_deploy.errors import require
from bdnet_deploy.models.bdnet_options import check_choice, check_count
from bdnet_deploy.models.registry import register

if TYPE_CHECKING:
    from torch import nn

_PER_STAGE = ("depths", "heads", "reductions", "ratios")


@dataclass(frozen=True)
class ESBinaryViTConfig:
    """Size of the network and how it is trained.

    Attributes:
        tau: expansion ratio of ES-BNN in the feed-forward part; 1 is BinaryViT itself.
        expand: what tau widens. ``"both"``: both maps that the two linear layers read, the first by copies of the
            tokens with shifts of their own; ``"hidden"``: the hidden map alone.
        widths: channels of each stage, each a multiple of the one before.
        depths: layers of each stage.
        heads: attention heads of each stage.
        reductions: each stage's keys and values are averaged over squares of so many tokens a side.
        ratios: hidden channels of each stage's feed-forward part, in units of its width, before tau.
        patch: height and width of the first patches.
        merging: convolutions between the stages: ``"binary"`` with a pooled residual, or ``"real"``.
        pools: lengths of the average pools, along rows and along columns, whose results are added to each layer's.
        layer_scale: whether a factor and an addend per channel, 0.1 and 0 at first, stand before each residual.
        probability: first upper level of the binary attention probabilities.
        input_size: height and width of the image.
        classes: outputs.
        in_channels: channels of the image.
        gradient: straight-through window of the activations: ``"clipped"`` or ``"quadratic"``.
        bn_momentum: momentum of the running statistics of the batch normalizations.
    """

    tau: int = 2
    expand: str = "both"
    widths: Sequence[int] = (64, 128, 256, 512)
    depths: Sequence[int] = (3, 4, 8, 4)
    heads: Sequence[int] = (1, 2, 4, 8)
    reductions: Sequence[int] = (8, 4, 1, 1)
    ratios: Sequence[int] = (8, 8, 4, 4)
    patch: int = 4
    merging: str = "binary"
    pools: Sequence[int] = (3, 5)
    layer_scale: bool = True
    probability: float = 0.005
    input_size: int = 224
    classes: int = 1000
    in_channels: int = 3
    gradient: str = "quadratic"
    bn_momentum: float = 0.1

    def __post_init__(self) -> None:
        for option in ("tau", "patch", "input_size", "classes", "in_channels"):
            check_count(option, getattr(self, option))
        check_choice("expand", self.expand, ("both", "hidden"))
        check_choice("merging", self.merging, ("binary", "real"))
        check_choice("gradient", self.gradient, ("clipped", "quadratic"))
        for option in ("widths", "pools", *_PER_STAGE):
            values = getattr(self, option)
            if not isinstance(values, list | tuple):
                raise ValueError(f"{option} is {values!r}; it is a list of numbers")
            for value in values:
                check_count(option, value)
        for option in _PER_STAGE:
            if len(getattr(self, option)) != len(self.widths):
                raise ValueError(f"{option} has {len(getattr(self, option))} numbers and widths {len(self.widths)}")
        if any(length % 2 == 0 for length in self.pools):
            raise ValueError(f"pools is {self.pools!r}; the lengths are odd")
        if not self.probability > 0:
            raise ValueError(f"probability is {self.probability!r}; it is greater than 0")
        self._check_shapes()

    def _check_shapes(self) -> None:
        for before, after in zip(self.widths, self.widths[1:]):
            if after % before:
                raise ValueError(f"widths go from {before} to {after}; each is a multiple of the one before")
        for width, heads in zip(self.widths, self.heads):
            if width % heads or width % self.tau:
                raise ValueError(f"a width is {width}; its heads, {heads}, and tau, {self.tau}, divide it")
        side = self.input_size
        for stage, reduction in enumerate(self.reductions):
            divisor = 2 if stage else self.patch
            if side % divisor or side // divisor % reduction:
                raise ValueError(
                    f"input_size is {self.input_size}; patch {self.patch}, 2 for each further stage and the "
                    f"reductions {tuple(self.reductions)} divide the side of the map that they meet"
                )
            side //= divisor


@register("es_binaryvit", ESBinaryViTConfig)
def es_binaryvit(config: ESBinaryViTConfig) -> nn.Module:
    """BinaryViT (arXiv 2306.16678) with ES-BNN (CVPR 2025) in the feed-forward part; ``tau=1`` is BinaryViT.

    A pyramid of four stages of binary Transformer layers, batch normalization instead of layer normalization, no class
    token: the mean of all tokens goes to the full-precision classifier. Built from the paper and its published code
    (github.com/Phuoc-Hoan-Le/BinaryViT, transformer/modeling_vit_extra_res_pyramid.py, config
    binaryvit-small-patch4-224), without its drop-outs, whose rates are 0 there. Tokens are kept as a map, so
    that a linear layer on tokens is a 1x1 convolution. sign(0) is +1 here.

    Our reading of ES-BNN's Transformer, of which no code was released: attention is unchanged. With C channels and H
    hidden ones, ``expand="both"``: tau copies of the C with shifts of their own -> H / tau filters, replicated
    tau**2 times -> H * tau -> C / tau filters, replicated tau times -> C; ``"hidden"`` has no copies at first, H
    filters and tau replicas. Each replica has its own batch normalization; weights and multiply-accumulates stay.
    """
    require("torch", extra="torch")
    from bdnet_deploy.models.binaryvit import BinaryViT

    return BinaryViT(config)
