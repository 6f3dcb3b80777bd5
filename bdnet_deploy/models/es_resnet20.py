"""ES-BNN on ResNet-20, for 32x32 images such as CIFAR's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bdnet_deploy.errors import require
from bdnet_deploy.models.bdnet_options import check_choice, check_count
from bdnet_deploy.models.registry import register

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ESResNet20Config:
    """Size of the network and how it is trained.

    Attributes:
        tau: expansion ratio of ES-BNN; 1 is the plain binary ResNet-20.
        width: channels of the first of three stages before widening; the next ones have twice and four times that.
        blocks: residual blocks of two convolutions in each stage; 3 make ResNet-20.
        input_size: height and width of the image, a multiple of 4.
        classes: outputs.
        in_channels: channels of the image.
        gradient: straight-through window of the activations: ``"clipped"`` or ``"quadratic"``.
        clip: half-width of the straight-through windows of activations and weights.
        bn_momentum: momentum of the running statistics of the batch normalizations.
    """

    tau: int = 2
    width: int = 16
    blocks: int = 3
    input_size: int = 32
    classes: int = 10
    in_channels: int = 3
    gradient: str = "clipped"
    clip: float = 1.5
    bn_momentum: float = 0.1

    def __post_init__(self) -> None:
        for option in ("tau", "width", "blocks", "input_size", "classes", "in_channels"):
            check_count(option, getattr(self, option))
        check_choice("gradient", self.gradient, ("clipped", "quadratic"))
        if not self.clip > 0:
            raise ValueError(f"clip is {self.clip!r}; it is greater than 0")
        if self.width % self.tau:
            raise ValueError(f"tau is {self.tau}; it divides width, {self.width}")
        if self.input_size % 4:
            raise ValueError(f"input_size is {self.input_size}; it is a multiple of 4, the product of all strides")


@register("es_resnet20", ESResNet20Config)
def es_resnet20(config: ESResNet20Config) -> nn.Module:
    """ES-BNN (CVPR 2025) on ResNet-20 (arXiv 1512.03385): every map is ``tau`` times as wide, no layer has more weights.

    Full-precision 3x3 stem, replicated tau times, batch normalization; 18 binary 3x3 convolutions, each an
    ESBlockHalf with a residual of its own; of the last map the first 4 * width channels, their average, a linear
    classifier. Our readings, since the paper's ResNet-20 was not released: see ESBlockHalf; the two down-sampling
    shortcuts are a 2x2 average pool and a repeat of the channels, without weights.
    """
    require("torch", extra="torch")
    from bdnet_deploy.models.es_resnet import ESResNet

    return ESResNet(config)
