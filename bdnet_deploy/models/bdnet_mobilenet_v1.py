"""BD-Net on MobileNet V1 with ReActNet's widths, for images of 224x224 and smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bdnet_deploy.errors import require
from bdnet_deploy.models.bdnet_options import BDNetOptions, check_count
from bdnet_deploy.models.registry import register

if TYPE_CHECKING:
    from torch import nn

# ReActNet's widths 32, 64, 128x2, 256x2, 512x6, 1024x2 (ECCV 2020) in units of the stem's.
_MULTIPLES = (1, 2, 4, 4, 8, 8, 16, 16, 16, 16, 16, 16, 32, 32)
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


@dataclass(frozen=True)
class MobileNetV1Config(BDNetOptions):
    """Size of the network; the other options are those of BDNetOptions.

    Attributes:
        width: multiplier of all widths. The stem's 32 channels times it are rounded to a multiple of 8 and
            every other width is a multiple of the stem's, so that broadcast residuals exist at any width.
        input_size: height and width of the image, a multiple of 16 * stem_stride.
        classes: outputs.
        in_channels: channels of the image.
        stem_stride: 2; 1 suits small images such as CIFAR's 32x32.
    """

    width: float = 1.0
    input_size: int = 224
    classes: int = 1000
    in_channels: int = 3
    stem_stride: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("input_size", "classes", "in_channels"):
            check_count(option, getattr(self, option))
        if not 0 < self.width <= 16:
            raise ValueError(f"width is {self.width!r}; it is in (0, 16]")
        if self.stem_stride not in (1, 2):
            raise ValueError(f"stem_stride is {self.stem_stride!r}; it is 1 or 2")


@register("bdnet_mobilenet_v1", MobileNetV1Config)
def bdnet_mobilenet_v1(config: MobileNetV1Config) -> nn.Module:
    """BD-Net on MobileNet V1: full-precision 3x3 stem, 13 blocks, global average pool, linear classifier."""
    return _mobilenet_v1(config)


def _mobilenet_v1(config: MobileNetV1Config) -> nn.Module:
    require("torch", extra="torch")
    from bdnet_deploy.models.bdnet import BDNet

    stem = max(8, round(32 * config.width / 8) * 8)
    return BDNet(
        widths=[stem * multiple for multiple in _MULTIPLES],
        strides=_STRIDES,
        stem_stride=config.stem_stride,
        in_channels=config.in_channels,
        input_size=config.input_size,
        classes=config.classes,
        options=config,
    )


@dataclass(frozen=True)
class VWWConfig(MobileNetV1Config):
    """MobileNetV1Config with the visual wake words sizes as defaults: width 0.25, 96x96, 2 classes."""

    width: float = 0.25
    input_size: int = 96
    classes: int = 2


@register("bdnet_vww", VWWConfig)
def bdnet_vww(config: VWWConfig) -> nn.Module:
    """BD-Net in the shape of MLPerf Tiny's visual wake words network: person or no person in 96x96 colour images.

    The layers are those of MLPerf Tiny's MobileNet V1 of width 0.25 (arXiv 2106.07597;
    github.com/mlcommons/tiny, benchmark/training/visual_wake_words/vww_model.py), each convolution but the
    stem's made binary as in ``bdnet_mobilenet_v1``.
    """
    return _mobilenet_v1(config)
