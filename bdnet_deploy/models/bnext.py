"""BNext, and ES-BNN on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from bdnet_deploy.errors import require
from bdnet_deploy.models.bdnet_options import check_choice, check_count
from bdnet_deploy.models.registry import register

if TYPE_CHECKING:
    from torch import nn

# Channels of the stem, then of each block's output (github.com/hpi-xnor/BNext, src/bnext.py).
SIZES = {
    "tiny": (32, 64, *[128] * 2, *[256] * 2, *[512] * 6, *[1024] * 2),
    "small": (48, 96, *[192] * 2, *[384] * 2, *[768] * 6, *[1536] * 2),
    "middle": (48, 96, *[192] * 4, *[384] * 4, *[768] * 8, *[1536] * 4),
    "large": (64, 128, *[256] * 4, *[512] * 4, *[1024] * 16, *[2048] * 4),
}


def strides(widths: Sequence[int]) -> list[int]:
    """Stride of each block: 2 where the width grows, but in the first."""
    return [2 if i and after != before else 1 for i, (before, after) in enumerate(pairwise(widths))]


@dataclass(frozen=True)
class BNextConfig:
    """Size of the network and how it is trained.

    Attributes:
        size: ``"tiny"``, ``"small"``, ``"middle"`` or ``"large"``.
        widths: instead of ``size``: channels of the stem, then of each block's output, which are those of the
            block before or twice as many; multiples of 8.
        input_size: height and width of the image, a multiple of stem_stride and of 2 for each block behind the
            first that grows.
        classes: outputs.
        in_channels: channels of the image.
        stem_stride: 2; the published code takes 1 with any other number of classes than ImageNet's 1000.
        temperature: of the weights at first, see ``bdnet_deploy.nn.AnnealedConv2d``. 0 is binary from the start;
            the paper starts at 1 and calls ``bdnet_deploy.nn.anneal(net)`` after each epoch.
        gradient: straight-through window of the activations: ``"clipped"`` or ``"quadratic"``.
        clip: half-width of that window, and bound of the latent weights.
        bn_momentum: momentum of the running statistics of the batch normalizations.
    """

    size: str = "tiny"
    widths: Sequence[int] | None = None
    input_size: int = 224
    classes: int = 1000
    in_channels: int = 3
    stem_stride: int = 2
    temperature: float = 0.0
    gradient: str = "clipped"
    clip: float = 1.5
    bn_momentum: float = 0.1

    def __post_init__(self) -> None:
        for option in ("input_size", "classes", "in_channels"):
            check_count(option, getattr(self, option))
        check_choice("size", self.size, tuple(SIZES))
        check_choice("gradient", self.gradient, ("clipped", "quadratic"))
        if self.stem_stride not in (1, 2):
            raise ValueError(f"stem_stride is {self.stem_stride!r}; it is 1 or 2")
        if not self.temperature >= 0:
            raise ValueError(f"temperature is {self.temperature!r}; it is 0 or more")
        if not self.clip > 0:
            raise ValueError(f"clip is {self.clip!r}; it is greater than 0")
        if self.widths is not None and not isinstance(self.widths, list | tuple):
            raise ValueError(f"widths is {self.widths!r}; it is a list of numbers")
        if len(self.channels()) < 2:
            raise ValueError("widths has no block; it is the stem's width and one for each block")
        for width in self.channels():
            check_count("widths", width)
            if width % 8:
                raise ValueError(f"a width is {width}; it is a multiple of 8, by which squeeze and excitation divides")
        for before, after in pairwise(self.channels()):
            if after not in (before, 2 * before):
                raise ValueError(f"widths go from {before} to {after}; a block keeps or doubles its width")
        total = self.stem_stride
        for stride in strides(self.channels()):
            total *= stride
        if self.input_size % total:
            raise ValueError(
                f"input_size is {self.input_size}; it is a multiple of {total}, the product of all strides"
            )

    def channels(self) -> tuple[int, ...]:
        """Channels of the stem, then of each block's output, before widening."""
        return SIZES[self.size] if self.widths is None else tuple(self.widths)


@dataclass(frozen=True)
class ESBNextConfig(BNextConfig):
    """BNext's options and those of ES-BNN.

    Attributes:
        tau: expansion ratio; 1 (with groups 1) is ``bnext``.
        groups: g of the group variant, of which no code was released, see ``bdnet_deploy.nn.ESBlockHalf``. Our
            reading: the squeeze and excitation has g groups, too, where it is ops-matched.
        ops_matched: True: squeeze and excitation is expanded and shrunk as well and the classifier sees the first
            channels only, so that the network costs what BNext costs (the published ES-BNext-T). False: squeeze
            and excitation and classifier see all channels.
    """

    tau: int = 2
    groups: int = 1
    ops_matched: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("tau", "groups"):
            check_count(option, getattr(self, option))
        if not isinstance(self.ops_matched, bool):
            raise ValueError(f"ops_matched is {self.ops_matched!r}; it is true or false")
        widths = self.channels()
        if self.ops_matched and self.tau * self.groups > 1 and widths[-1] != widths[-2]:
            raise ValueError(
                "the last block doubles its width, and the head would see one of the two 1x1 convolutions beside each "
                "other alone; append a block that keeps it, or set ops_matched to false"
            )
        for width in self.channels():
            if width % (8 * self.tau * self.groups):
                raise ValueError(
                    f"a width is {width}; with tau {self.tau} and groups {self.groups} it is a multiple of "
                    f"{8 * self.tau * self.groups}"
                )


@register("bnext", BNextConfig)
def bnext(config: BNextConfig) -> nn.Module:
    """BNext (arXiv 2211.12933): a binary network whose convolutions are recalibrated by squeeze and excitation.

    Full-precision 3x3 stem and classifier; blocks of a binary 3x3 convolution (every second one multiplies its input
    back in) and one or two binary 1x1 convolutions, each with a residual; see ``models/bnext_blocks.py``. The state
    dict has the keys of the published code (github.com/hpi-xnor/BNext, src/bnext.py), parameters that it never
    reads included, so that its checkpoints load. Differs in sign(0) = +1.
    """
    return _bnext(ESBNextConfig(**vars(config), tau=1))


@register("es_bnext", ESBNextConfig)
def es_bnext(config: ESBNextConfig) -> nn.Module:
    """ES-BNN (CVPR 2025) on BNext: every map is ``tau`` times as wide, no convolution has more weights.

    The state dict has the keys of the published code (github.com/imfinethanks/ESBNN, src/bnext_rep_ops.py, and
    src/bnext_rep.py for ``ops_matched=False``). Its training scripts never lower the temperature, because they look
    for another module's classes: a checkpoint that they wrote has temperature 1, which is real weights.
    """
    return _bnext(config)


def _bnext(config: ESBNextConfig) -> nn.Module:
    require("torch", extra="torch")
    from bdnet_deploy.models.bnext_net import BNext

    return BNext(config)
