"""ES-BNN on ResNet-20, for 32x32 images such as CIFAR's, and on ResNet-18, for ImageNet's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bdnet_deploy.errors import require
from bdnet_deploy.models.bdnet_options import check_choice, check_count
from bdnet_deploy.models.registry import register

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ESOptions:
    """Expansion and training of an ES-BNN ResNet.

    Attributes:
        tau: expansion ratio of ES-BNN; 1 is the plain binary network.
        groups: groups of the binary convolutions in the paper's group variant, of which no code was released; maps
            are tau * groups times as wide. See ``bdnet_deploy.nn.ESBlockHalf``.
        downsample: shortcuts where the shape changes: ``"pool"``, without weights, or ``"conv"``, a real 1x1
            convolution and batch normalization behind the pool.
        gradient: straight-through window of the activations: ``"clipped"`` or ``"quadratic"``.
        clip: half-width of the straight-through windows of activations and weights.
        bn_momentum: momentum of the running statistics of the batch normalizations.
    """

    tau: int = 2
    groups: int = 1
    downsample: str = "pool"
    gradient: str = "clipped"
    clip: float = 1.5
    bn_momentum: float = 0.1

    def __post_init__(self) -> None:
        for option in ("tau", "groups"):
            check_count(option, getattr(self, option))
        check_choice("downsample", self.downsample, ("pool", "conv"))
        check_choice("gradient", self.gradient, ("clipped", "quadratic"))
        if not self.clip > 0:
            raise ValueError(f"clip is {self.clip!r}; it is greater than 0")

    def check_size(self, width: int, input_size: int, total: int) -> None:
        """Raise a ValueError unless tau * groups divides the width and ``total``, the strides' product, the size."""
        if width % (self.tau * self.groups):
            raise ValueError(f"tau * groups is {self.tau} * {self.groups}; it divides width, {width}")
        if input_size % total:
            raise ValueError(f"input_size is {input_size}; it is a multiple of {total}, the product of all strides")


@dataclass(frozen=True)
class ESResNet20Config(ESOptions):
    """Size of the network; the other options are those of ESOptions.

    Attributes:
        width: channels of the first of three stages before widening; the next ones have twice and four times that.
        blocks: residual blocks of two convolutions in each stage; 3 make ResNet-20.
        input_size: height and width of the image, a multiple of 4.
        classes: outputs.
        in_channels: channels of the image.
    """

    width: int = 16
    blocks: int = 3
    input_size: int = 32
    classes: int = 10
    in_channels: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("width", "blocks", "input_size", "classes", "in_channels"):
            check_count(option, getattr(self, option))
        self.check_size(self.width, self.input_size, 4)


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

    return ESResNet(
        widths=[config.width << stage for stage in range(3)],
        convolutions=[2 * config.blocks] * 3,
        stem=3,
        in_channels=config.in_channels,
        input_size=config.input_size,
        classes=config.classes,
        options=config,
    )


@dataclass(frozen=True)
class ESResNet18Config(ESOptions):
    """Size of the network; the other options are those of ESOptions.

    Attributes:
        downsample: here ``"conv"`` by default, as in Bi-Real Net's and ReActNet's ResNet-18.
        width: channels of the first of four stages before widening; each next one has twice as many.
        blocks: residual blocks of two convolutions in each stage; 2 make ResNet-18.
        stem: ``"7x7"``, stride 2 and a 3x3 maximum pool, or ``"3x3"``, stride 1, for small images.
        input_size: height and width of the image, a multiple of 32, or of 8 with the 3x3 stem.
        classes: outputs.
        in_channels: channels of the image.
    """

    downsample: str = "conv"
    width: int = 64
    blocks: int = 2
    stem: str = "7x7"
    input_size: int = 224
    classes: int = 1000
    in_channels: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("width", "blocks", "input_size", "classes", "in_channels"):
            check_count(option, getattr(self, option))
        check_choice("stem", self.stem, ("7x7", "3x3"))
        self.check_size(self.width, self.input_size, 32 if self.stem == "7x7" else 8)


@register("es_resnet18", ESResNet18Config)
def es_resnet18(config: ESResNet18Config) -> nn.Module:
    """ES-BNN (CVPR 2025) on ResNet-18 (arXiv 1512.03385) with a residual around every convolution (Bi-Real Net).

    Full-precision 7x7 stem, replicated tau times, batch normalization, maximum pool; 16 binary 3x3 convolutions, each
    an ESBlockHalf; of the last map the first 8 * width channels, their average, a linear classifier. Our readings,
    since the paper's ResNet-18 was not released: see ESBlockHalf; the real 1x1 convolutions of the three
    down-sampling shortcuts are expanded and shrunk like the binary ones, so that they cost what they did.
    """
    require("torch", extra="torch")
    from bdnet_deploy.models.es_resnet import ESResNet

    return ESResNet(
        widths=[config.width << stage for stage in range(4)],
        convolutions=[2 * config.blocks] * 4,
        stem=int(config.stem[0]),
        in_channels=config.in_channels,
        input_size=config.input_size,
        classes=config.classes,
        options=config,
    )
