"""ReActNet-A: MobileNet V1's skeleton with binary convolutions, for 224x224 images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bdnet_deploy.errors import require
from bdnet_deploy.models.published import Rule, layout, negated, reshaped
from bdnet_deploy.models.registry import register
from bdnet_deploy.models.zoo_options import TwoStageOptions, batch_norm, check_counts, check_strides

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ReActNetAConfig(TwoStageOptions):
    """Size of the network; the other options are those of ZooOptions and TwoStageOptions.

    Attributes:
        widths: channels of the stem, then of each block's output; each is the one before or twice that.
        strides: stride of the stem, then of each block, as many as widths.
    """

    widths: Sequence[int] = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    strides: Sequence[int] = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts("widths", self.widths)
        check_counts("strides", self.strides)
        if len(self.strides) != len(self.widths):
            raise ValueError(f"{len(self.widths)} widths need as many strides, not {len(self.strides)}")
        for before, after in zip(self.widths[:-1], self.widths[1:], strict=True):
            if after not in (before, 2 * before):
                raise ValueError(f"widths are {before} and then {after}; a block keeps or doubles the width")
        check_strides(self.input_size, self.strides)


# github.com/liuzechun/ReActNet, mobilenet/: step 2 keeps binary weights as (N, 1) under "weights", step 1 real ones as
# (O, I, kh, kw) under "weight". The released files hold latent weights or -1 and +1, which have the scale 1.
_BLOCK = r"feature\.(\d+)\."
_PUBLISHED = layout(
    Rule(r"feature\.0\.conv1\.weight", "features.0.conv.weight"),
    batch_norm(r"feature\.0\.bn1", "features.0.bn"),
    Rule(_BLOCK + r"move([12])1\.bias", r"features.\1.activation\2.threshold", negated),
    Rule(_BLOCK + r"move([12])2\.bias", r"features.\1.rprelu\2.shift_in", reshaped),
    Rule(_BLOCK + r"prelu([12])\.weight", r"features.\1.rprelu\2.slope", reshaped),
    Rule(_BLOCK + r"move([12])3\.bias", r"features.\1.rprelu\2.shift_out", reshaped),
    Rule(_BLOCK + r"binary_3x3\.weights?", r"features.\1.conv1.weight", reshaped),
    Rule(_BLOCK + r"binary_pw\.weights?", r"features.\1.conv2.0.weight", reshaped),
    Rule(_BLOCK + r"binary_pw_down1\.weights?", r"features.\1.conv2.0.weight", reshaped),
    Rule(_BLOCK + r"binary_pw_down2\.weights?", r"features.\1.conv2.1.weight", reshaped),
    batch_norm(_BLOCK + "bn1", r"features.\1.bn1"),
    batch_norm(_BLOCK + "bn2", r"features.\1.bn2.0"),
    batch_norm(_BLOCK + "bn2_1", r"features.\1.bn2.0"),
    batch_norm(_BLOCK + "bn2_2", r"features.\1.bn2.1"),
    Rule(r"fc\.(weight|bias)", r"classifier.\1"),
)


@register("reactnet_a", ReActNetAConfig, _PUBLISHED)
def reactnet_a(config: ReActNetAConfig) -> nn.Module:
    """ReActNet-A (arXiv 2003.03488): full-precision 3x3 stem, 13 blocks, global average pool, linear classifier.

    A block is a dense binary 3x3 convolution and a binary 1x1 one, each with RSign before it, batch normalization, a
    shortcut around it and RPReLU behind; where the width doubles there are two 1x1 convolutions side by side with the
    same shortcut. Weights are scaled by the mean of their sizes. As released (github.com/liuzechun/ReActNet), but
    sign(0) is +1 where the released code has 0, and the gradient of a weight has the scale as a factor, as in the
    paper.
    """
    require("torch", extra="torch")
    from bdnet_deploy.models.reactnet import ReActNetA

    return ReActNetA(config)
