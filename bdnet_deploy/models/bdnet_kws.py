"""BD-Net in the shape of MLPerf Tiny's keyword spotting network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bdnet_deploy.errors import require
from bdnet_deploy.models.bdnet_options import BDNetOptions, check_count
from bdnet_deploy.models.registry import register

if TYPE_CHECKING:
    from torch import nn

_STEM = (10, 4)
_STRIDE = 2


@dataclass(frozen=True)
class KWSConfig(BDNetOptions):
    """Size of the network; the other options are those of BDNetOptions.

    Attributes:
        width: channels of the stem and of every block.
        blocks: depth-wise and point-wise pairs.
        frames: rows of the input: windows of the audio clip.
        coefficients: columns of the input: cepstral coefficients of a window.
        classes: outputs.
    """

    width: int = 64
    blocks: int = 4
    frames: int = 49
    coefficients: int = 10
    classes: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("width", "blocks", "frames", "coefficients", "classes"):
            check_count(option, getattr(self, option))


@register("bdnet_kws", KWSConfig)
def bdnet_kws(config: KWSConfig) -> nn.Module:
    """BD-Net in the shape of MLPerf Tiny's DS-CNN: 12 keywords from 49 windows of 10 coefficients.

    Full-precision 10x4 stem of stride 2, blocks of a 3x3 depth-wise and a 1x1 convolution, average pool, linear
    classifier: the sizes of DS-CNN (arXiv 1711.07128) in MLPerf Tiny (arXiv 2106.07597; github.com/mlcommons/tiny,
    benchmark/training/keyword_spotting/keras_model.py). The stem pads as there ("same": 4 and 5 rows, a column on
    each side). What is binary and where residuals are is BD-Net's (arXiv 2511.17633), see BDNetOptions. Our
    readings: the average is over the whole map, where MLPerf Tiny's leaves out the last of 25 rows; there is no
    drop-out.
    """
    require("torch", extra="torch")
    from bdnet_deploy.models.bdnet import BDNet
    from bdnet_deploy.nn import same_padding

    top, bottom = same_padding(config.frames, _STEM[0], _STRIDE)
    left, right = same_padding(config.coefficients, _STEM[1], _STRIDE)
    return BDNet(
        widths=[config.width] * (config.blocks + 1),
        strides=[1] * config.blocks,
        stem_stride=_STRIDE,
        in_channels=1,
        input_size=(config.frames, config.coefficients),
        classes=config.classes,
        options=config,
        stem_kernel=_STEM,
        stem_padding=(left, right, top, bottom),
    )
