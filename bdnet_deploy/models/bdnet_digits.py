"""A small BD-Net that trains in seconds: 8x8 images such as scikit-learn's handwritten digits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bdnet_deploy.errors import require
from bdnet_deploy.models.bdnet_options import BDNetOptions, check_count
from bdnet_deploy.models.registry import register

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class DigitsConfig(BDNetOptions):
    """Size of the network; the other options are those of BDNetOptions.

    Attributes:
        widths: channels of the stem, then of each block's output; neighbours divide each other.
        strides: stride (1 or 2) of each block, one fewer than widths.
        input_size: height and width of the image, a multiple of the product of the strides.
        classes: outputs.
        in_channels: channels of the image.
    """

    widths: Sequence[int] = (32, 32, 64, 64, 128)
    strides: Sequence[int] = (1, 1, 2, 1)
    input_size: int = 8
    classes: int = 10
    in_channels: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("input_size", "classes", "in_channels"):
            check_count(option, getattr(self, option))
        for option in ("widths", "strides"):
            if not isinstance(getattr(self, option), list | tuple):
                raise ValueError(f"{option} is {getattr(self, option)!r}; it is a list of numbers")
            for value in getattr(self, option):
                check_count(option, value)


@register("bdnet_digits", DigitsConfig)
def bdnet_digits(config: DigitsConfig) -> nn.Module:
    """A small BD-Net: full-precision 3x3 stem, four blocks, global average pool, linear classifier."""
    require("torch", extra="torch")
    from bdnet_deploy.models.bdnet import BDNet

    return BDNet(
        widths=config.widths,
        strides=config.strides,
        stem_stride=1,
        in_channels=config.in_channels,
        input_size=config.input_size,
        classes=config.classes,
        options=config,
    )
