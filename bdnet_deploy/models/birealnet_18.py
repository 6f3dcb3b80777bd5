"""Bi-Real Net and ReActNet on ResNet-18, for 224x224 images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bdnet_deploy.errors import require
from bdnet_deploy.models.bdnet_options import check_count
from bdnet_deploy.models.published import Rule, layout, negated, reshaped
from bdnet_deploy.models.registry import register
from bdnet_deploy.models.zoo_options import TwoStageOptions, batch_norm, check_counts, check_strides

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class BiReal18Config(TwoStageOptions):
    """Size of the network; the other options are those of ZooOptions and TwoStageOptions.

    Attributes:
        width: channels of the stem and of the first stage; every further stage has twice as many.
        blocks: binary convolutions, each with a shortcut of its own, in each stage; 4, 4, 4, 4 is ResNet-18 and
            6, 8, 12, 6 is ResNet-34.
    """

    width: int = 64
    blocks: Sequence[int] = (4, 4, 4, 4)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("width", self.width)
        check_counts("blocks", self.blocks)
        check_strides(self.input_size, [2, 2, *[2] * (len(self.blocks) - 1)])


# github.com/liuzechun/Bi-Real-net, pytorch_implementation/BiReal18_34 keeps binary weights as (N, 1) under "weights";
# github.com/liuzechun/ReActNet, resnet/ as (O, I, 3, 3) under "weight". Its second stage files hold latent weights or
# -1 and +1, which have the scale 1.
_BLOCK = r"layer(\d+)\.(\d+)\."
_SKELETON = (
    Rule(r"conv1\.weight", "stem.conv.weight"),
    batch_norm("bn1", "stem.bn"),
    Rule(_BLOCK + r"binary_conv\.weights?", r"stages.layer\1.\2.conv.weight", reshaped),
    batch_norm(_BLOCK + "bn1", r"stages.layer\1.\2.bn"),
    Rule(_BLOCK + r"downsample\.1\.weight", r"stages.layer\1.\2.shortcut.conv.weight"),
    batch_norm(_BLOCK + r"downsample\.2", r"stages.layer\1.\2.shortcut.bn"),
    Rule(r"fc\.(weight|bias)", r"classifier.\1"),
)
_REACT = (
    Rule(_BLOCK + r"move0\.bias", r"stages.layer\1.\2.activation.threshold", negated),
    Rule(_BLOCK + r"move1\.bias", r"stages.layer\1.\2.rprelu.shift_in", reshaped),
    Rule(_BLOCK + r"prelu\.weight", r"stages.layer\1.\2.rprelu.slope", reshaped),
    Rule(_BLOCK + r"move2\.bias", r"stages.layer\1.\2.rprelu.shift_out", reshaped),
)


@register("birealnet_18", BiReal18Config, layout(*_SKELETON))
def birealnet_18(config: BiReal18Config) -> nn.Module:
    """Bi-Real Net 18 (arXiv 1808.00278): ResNet-18 with a shortcut around every one of 16 binary 3x3 convolutions.

    Full-precision 7x7 stem of stride 2, batch normalization, 3x3 max pool; a block is sign, convolution, batch
    normalization, + shortcut; the shortcut of a smaller map is a 2x2 average pool, a full-precision 1x1 convolution
    and a batch normalization; global average pool, linear classifier. Weights are scaled by the mean of their sizes.
    As released (github.com/liuzechun/Bi-Real-net, the PyTorch code), but sign(0) is +1 where the released code has 0,
    and the gradient of a weight has the scale as a factor ("magnitude-aware"), as in the paper.
    """
    return _build(config, react=False)


@register("reactnet_18", BiReal18Config, layout(*_SKELETON, *_REACT))
def reactnet_18(config: BiReal18Config) -> nn.Module:
    """ReActNet on ResNet-18 (arXiv 2003.03488, "Bi-Real based"): birealnet_18 with RSign and RPReLU.

    A block is RSign, convolution, batch normalization, + shortcut, RPReLU. As released
    (github.com/liuzechun/ReActNet, resnet/), with the readings of birealnet_18.
    """
    return _build(config, react=True)


def _build(config: BiReal18Config, *, react: bool) -> nn.Module:
    require("torch", extra="torch")
    from bdnet_deploy.models.birealnet import BiRealNet

    return BiRealNet(config, react=react)
