"""QuickNet, Larq's network for fast inference, in three sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bdnet_deploy.errors import require
from bdnet_deploy.models.bdnet_options import check_choice
from bdnet_deploy.models.quicknet_keras import from_keras
from bdnet_deploy.models.registry import register
from bdnet_deploy.models.zoo_options import ZooOptions, check_counts

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class QuickNetConfig(ZooOptions):
    """Size of the network; the other options are those of ZooOptions.

    Attributes:
        filters: channels of each section; the first a multiple of 4.
        blocks: binary convolutions in each section.
        gradient: straight-through window of the activations: ``"clipped"`` or ``"quadratic"``.
        clip: half-width of the straight-through windows of activations and weights. Larq also clips the latent
            weights to it after each training step.
        bn_momentum: of the batch normalizations behind the stem; those in the stem have a tenth of it, as in Keras.
    """

    filters: Sequence[int] = (64, 128, 256, 512)
    blocks: Sequence[int] = (4, 4, 4, 4)
    gradient: str = "clipped"
    clip: float = 1.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts("filters", self.filters)
        check_counts("blocks", self.blocks)
        check_choice("gradient", self.gradient, ("clipped", "quadratic"))
        if len(self.filters) != len(self.blocks):
            raise ValueError(f"{len(self.filters)} filters need as many blocks, not {len(self.blocks)}")
        if self.filters[0] % 4:
            raise ValueError(f"filters begins with {self.filters[0]}; it is a multiple of 4")
        if not self.clip > 0:
            raise ValueError(f"clip is {self.clip!r}; it is greater than 0")
        size = -(-self.input_size // 4)
        for before, after in zip(self.filters[:-1], self.filters[1:], strict=True):
            if size < 2 and before != after:
                raise ValueError(f"input_size is {self.input_size}; a 2x2 pool meets a map of {size}x{size}")
            size = -(-(size - 1) // 2) if before != after else size


@register("quicknet", QuickNetConfig, from_keras)
def quicknet(config: QuickNetConfig) -> nn.Module:
    """QuickNet (arXiv 2011.09398), as in Larq Zoo (github.com/larq/zoo, larq_zoo/sota/quicknet.py).

    Stem: 3x3 convolution of stride 2, batch normalization, ReLU, 3x3 depth-wise convolution of stride 2, batch
    normalization without parameters, 1x1 convolution, batch normalization. A block: sign, binary 3x3 convolution
    with +1 at the border and weights without a scale, ReLU, batch normalization, + shortcut. Between sections: ReLU,
    2x2 max pool of stride 1, blur pool of stride 2 (arXiv 1904.11486), 1x1 convolution, batch normalization. ReLU,
    average pool, linear classifier. Padding is TensorFlow's "same". The output is the logits; Larq Zoo's model ends
    with a softmax.
    """
    return _build(config)


def _build(config: QuickNetConfig) -> nn.Module:
    require("torch", extra="torch")
    from bdnet_deploy.models.quicknet_layers import QuickNet

    return QuickNet(config)


@dataclass(frozen=True)
class QuickNetSmallConfig(QuickNetConfig):
    """QuickNetConfig with the small network's filters as default."""

    filters: Sequence[int] = (32, 64, 256, 512)


@register("quicknet_small", QuickNetSmallConfig, from_keras)
def quicknet_small(config: QuickNetSmallConfig) -> nn.Module:
    """QuickNet with fewer filters in its first sections, see quicknet."""
    return _build(config)


@dataclass(frozen=True)
class QuickNetLargeConfig(QuickNetConfig):
    """QuickNetConfig with the large network's blocks as default."""

    blocks: Sequence[int] = (6, 8, 12, 6)


@register("quicknet_large", QuickNetLargeConfig, from_keras)
def quicknet_large(config: QuickNetLargeConfig) -> nn.Module:
    """QuickNet with more blocks, see quicknet."""
    return _build(config)
