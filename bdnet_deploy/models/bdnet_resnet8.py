"""BD-Net in the shape of MLPerf Tiny's image classification network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bdnet_deploy.errors import require
from bdnet_deploy.models.bdnet_options import BDNetOptions, check_choice, check_count
from bdnet_deploy.models.registry import register

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ResNet8Config(BDNetOptions):
    """Size of the network; the other options are those of BDNetOptions.

    Attributes:
        convolutions: ``"separable"``: each 3x3 convolution of ResNet-8 becomes a depth-wise and a 1x1 convolution, the
            pair that BD-Net is about. ``"full"``: it stays one; the options for 1x1 convolutions are then its own.
        width: channels of the stem and the first of three stages; the next ones have twice and four times that.
        input_size: height and width of the image, a multiple of 4.
        classes: outputs.
        in_channels: channels of the image.
    """

    convolutions: str = "separable"
    width: int = 16
    input_size: int = 32
    classes: int = 10
    in_channels: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("convolutions", self.convolutions, ("separable", "full"))
        for option in ("width", "input_size", "classes", "in_channels"):
            check_count(option, getattr(self, option))


@register("bdnet_resnet8", ResNet8Config)
def bdnet_resnet8(config: ResNet8Config) -> nn.Module:
    """BD-Net in the shape of MLPerf Tiny's ResNet-8: 32x32 colour images, ten classes (CIFAR-10).

    The sizes are those of arXiv 2106.07597 (github.com/mlcommons/tiny, benchmark/training/image_classification/
    keras_model.py): full-precision 3x3 stem, three stages of two 3x3 convolutions each, average pool, linear
    classifier. What is binary is BD-Net's (arXiv 2511.17633), see BDNetOptions. Our reading: every convolution has a
    broadcast residual of its own, so that ResNet-8's three shortcuts, of which two are 1x1 convolutions, are not
    there a second time.
    """
    require("torch", extra="torch")
    from bdnet_deploy.models.bdnet import BDNet

    width = config.width
    return BDNet(
        widths=[width, width, width, 2 * width, 2 * width, 4 * width, 4 * width],
        strides=[1, 1, 2, 1, 2, 1],
        stem_stride=1,
        in_channels=config.in_channels,
        input_size=config.input_size,
        classes=config.classes,
        options=config,
        separable=config.convolutions == "separable",
    )
