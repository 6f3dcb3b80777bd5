"""AdaBin on ResNet-20, for 32x32 images such as CIFAR's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bdnet_deploy.errors import require
from bdnet_deploy.models.bdnet_options import check_choice, check_count
from bdnet_deploy.models.published import Rule, layout, reshaped
from bdnet_deploy.models.registry import register
from bdnet_deploy.models.zoo_options import ZooOptions, batch_norm, check_strides

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class AdaBinResNet20Config(ZooOptions):
    """Size of the network and how it is trained; the other options are those of ZooOptions.

    Attributes:
        input_size: a multiple of 4.
        classes: outputs.
        width: channels of the first of three stages, an even number; the next ones have twice and four times that.
        blocks: residual blocks of two convolutions in each stage; 3 make ResNet-20.
        gradient: straight-through window of the activations: ``"clipped"`` or ``"quadratic"``.
        weight_clip: scale of the straight-through window of the weights, see AdaBinConv2d.
    """

    input_size: int = 32
    classes: int = 10
    width: int = 16
    blocks: int = 3
    gradient: str = "quadratic"
    weight_clip: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("width", self.width)
        check_count("blocks", self.blocks)
        check_choice("gradient", self.gradient, ("clipped", "quadratic"))
        if self.width % 2:
            raise ValueError(f"width is {self.width}; it is even, half of the new channels go on each side")
        if not self.weight_clip > 0:
            raise ValueError(f"weight_clip is {self.weight_clip!r}; it is greater than 0")
        check_strides(self.input_size, (2, 2))


# github.com/huawei-noah/Efficient-Computing, BinaryNetworks/AdaBin/cifar10: latent weights (O, I, 3, 3).
_BLOCK = r"layer(\d+)\.(\d+)\."
_PUBLISHED = layout(
    Rule(r"conv1\.weight", "stem.weight"),
    batch_norm("bn1", "stem_bn"),
    Rule(r"nonlinear1\.pos_scale", "stem_maxout.positive", reshaped),
    Rule(r"nonlinear1\.neg_scale", "stem_maxout.negative", reshaped),
    Rule(_BLOCK + r"conv([12])\.binary_a\.(alpha|beta)_a", r"stages.layer\1.\2.activation\3.\4", reshaped),
    Rule(_BLOCK + r"conv([12])\.weight", r"stages.layer\1.\2.conv\3.weight"),
    batch_norm(_BLOCK + "bn([12])", r"stages.layer\1.\2.bn\3"),
    Rule(_BLOCK + r"nonlinear([12])\.pos_scale", r"stages.layer\1.\2.maxout\3.positive", reshaped),
    Rule(_BLOCK + r"nonlinear([12])\.neg_scale", r"stages.layer\1.\2.maxout\3.negative", reshaped),
    batch_norm("bn2", "feature_bn"),
    Rule(r"linear\.(weight|bias)", r"classifier.\1"),
)


@register("adabin_resnet20", AdaBinResNet20Config, _PUBLISHED)
def adabin_resnet20(config: AdaBinResNet20Config) -> nn.Module:
    """AdaBin (arXiv 2208.08084) on ResNet-20: both levels of weights and of activations follow the data.

    Full-precision 3x3 stem, batch normalization, Maxout; 18 binary 3x3 convolutions with AdaBinActivation before,
    batch normalization, + shortcut and Maxout behind each; the shortcut of a smaller map takes every second pixel and
    sets zero channels around ("option A" of arXiv 1512.03385); average pool, batch normalization, linear classifier.
    As released (github.com/huawei-noah/Efficient-Computing, BinaryNetworks/AdaBin/cifar10), but sign(0) is +1 where
    the released code has 0.
    """
    require("torch", extra="torch")
    from bdnet_deploy.models.adabin_resnet import AdaBinResNet

    return AdaBinResNet(config)
