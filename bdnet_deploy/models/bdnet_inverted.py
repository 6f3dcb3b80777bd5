"""BD-Net on inverted residuals: MobileNet V2 and EfficientNet-Lite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bdnet_deploy.errors import require
from bdnet_deploy.models.bdnet_options import BDNetOptions, check_count
from bdnet_deploy.models.registry import register

if TYPE_CHECKING:
    from torch import nn

# (expansion, kernel, stride, channels, blocks) of each stage.
Stage = tuple[int, int, int, int, int]
MOBILENET_V2: tuple[Stage, ...] = (  # arXiv 1801.04381, table 2
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 3, 2, 32, 3),
    (6, 3, 2, 64, 4),
    (6, 3, 1, 96, 3),
    (6, 3, 2, 160, 3),
    (6, 3, 1, 320, 1),
)
EFFICIENTNET_LITE0: tuple[Stage, ...] = (  # github.com/tensorflow/tpu, models/official/efficientnet/lite
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def divisible(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and not below nine tenths: MobileNet V2's rule for scaled widths."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


@dataclass(frozen=True)
class InvertedConfig(BDNetOptions):
    """Size of the network and readings of inverted residuals; the other options are those of BDNetOptions.

    Attributes:
        width: multiplier of all widths but the head's.
        head: channels of the last 1x1 convolution, before the classifier.
        input_size: height and width of the image, a multiple of 16 * stem_stride.
        classes: outputs.
        in_channels: channels of the image.
        stem_stride: 2; 1 suits small images.
        block_shortcut: whether a block that keeps its shape adds its input to its output, as the real network does,
            beside the residuals that each of its convolutions has.
        linear_bottleneck: whether a block ends without RPReLU, as the real network does.
    """

    width: float = 1.0
    head: int = 1280
    input_size: int = 224
    classes: int = 1000
    in_channels: int = 3
    stem_stride: int = 2
    block_shortcut: bool = True
    linear_bottleneck: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("head", "input_size", "classes", "in_channels"):
            check_count(option, getattr(self, option))
        if not 0 < self.width <= 16:
            raise ValueError(f"width is {self.width!r}; it is in (0, 16]")
        if self.stem_stride not in (1, 2):
            raise ValueError(f"stem_stride is {self.stem_stride!r}; it is 1 or 2")
        if self.input_size % (16 * self.stem_stride):
            raise ValueError(f"input_size is {self.input_size}; it is a multiple of {16 * self.stem_stride}")


@register("bdnet_mobilenet_v2", InvertedConfig)
def bdnet_mobilenet_v2(config: InvertedConfig) -> nn.Module:
    """BD-Net (arXiv 2511.17633) on MobileNet V2 (arXiv 1801.04381): 17 inverted residuals of binary convolutions.

    BD-Net's abstract says that "broadcast residuals" carry it to other efficient networks. Our reading: every
    convolution keeps its residual; an expansion repeats the channels, a projection takes means over groups of
    neighbouring ones. Where neither width divides the other (144 -> 32, 576 -> 160) the means go down to the greatest
    common divisor, which is then repeated. Binary are all convolutions but the stem's, the last 1x1 included.
    """
    return _inverted(config, MOBILENET_V2)


@register("bdnet_efficientnet_lite0", InvertedConfig)
def bdnet_efficientnet_lite0(config: InvertedConfig) -> nn.Module:
    """BD-Net on EfficientNet-Lite0 (arXiv 1905.11946; github.com/tensorflow/tpu): inverted residuals, 3x3 and 5x5.

    As ``bdnet_mobilenet_v2``. Of the efficient networks this one has no squeeze and excitation and no swish to begin
    with, and 5x5 depth-wise convolutions, whose sums of 25 taps suffer less from the low variance that BD-Net
    names as the cause of unstable training. Padding is symmetric where TensorFlow's is not.
    """
    return _inverted(config, EFFICIENTNET_LITE0)


def _inverted(config: InvertedConfig, stages: Sequence[Stage]) -> nn.Module:
    require("torch", extra="torch")
    from bdnet_deploy.models.inverted_residual import InvertedNet

    return InvertedNet(stages, config)
