"""BD-Net: full-precision stem and classifier, between them binary depth-wise and point-wise convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from bdnet_deploy.models.bdnet_options import BDNetOptions
from bdnet_deploy.nn import BDBlockHalf


def half(
    c_in: int,
    c_out: int,
    kernel: int,
    stride: int,
    options: BDNetOptions,
    *,
    depthwise: bool = False,
    uneven: bool = False,
    linear: bool = False,
) -> BDBlockHalf:
    """One convolution with its residual as the options say; all that is not depth-wise goes by the point-wise ones."""
    ternary = options.ternary == "both" or (options.ternary == "depthwise" and depthwise)
    return BDBlockHalf(
        c_in,
        c_out,
        kernel,
        stride,
        groups=c_in if depthwise else 1,
        activation="ternary" if ternary else "binary",
        residual=options.residual_dw if depthwise else options.residual_pw,
        thresholds=options.thresholds,
        threshold_per=options.threshold_per,
        half_width=options.half_width,
        gradient=options.gradient,
        activation_clip=options.activation_clip,
        alpha=options.alpha,
        weights=options.weights_dw if depthwise else options.weights_pw,
        weight_std=options.weight_std,
        weight_clip=options.weight_clip,
        bn_momentum=options.bn_momentum,
        uneven=uneven,
        linear=linear,
    )


class BDNet(nn.Module):
    """MobileNet V1's skeleton with binary convolutions (BD-Net, arXiv 2511.17633).

    Input (N, in_channels, H, W), output logits (N, classes). Each block: 3x3 depth-wise, then 1x1, each with
    a residual. H and W are multiples of the product of all strides; of the blocks' strides behind a stem that
    pads (``stem_padding``).

    Args:
        widths: channels of the stem, then of each block's output; each divides or is divided by the one
            before.
        strides: stride of each block's depth-wise convolution, one fewer than widths.
        stem_stride: stride of the stem.
        in_channels: channels of the image.
        input_size: H and W, one number where they are equal; kept as ``input_shape`` (H, W, C), the network
            itself is convolutional.
        classes: outputs.
        options: how the paper is read.
        stem_kernel: height and width of the stem.
        stem_padding: zeros (left, right, top, bottom) around the image; None: half the kernel on each side.
        separable: False makes each block one 3x3 convolution.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int],
        strides: Sequence[int],
        stem_stride: int,
        in_channels: int,
        input_size: int | tuple[int, int],
        classes: int,
        options: BDNetOptions,
        stem_kernel: tuple[int, int] = (3, 3),
        stem_padding: tuple[int, int, int, int] | None = None,
        separable: bool = True,
    ) -> None:
        super().__init__()
        if len(strides) != len(widths) - 1:
            raise ValueError(f"{len(widths)} widths need {len(widths) - 1} strides, not {len(strides)}")
        total = stem_stride if stem_padding is None else 1
        for stride in strides:
            total *= stride
        height, width = (input_size, input_size) if isinstance(input_size, int) else input_size
        if height % total or width % total:
            raise ValueError(f"input_size is {input_size}; it is a multiple of {total}, the product of all strides")
        self.input_shape = (height, width, in_channels)
        self.stem_padding = stem_padding
        padding = (0, 0) if stem_padding else (stem_kernel[0] // 2, stem_kernel[1] // 2)
        self.stem = nn.Conv2d(in_channels, widths[0], stem_kernel, stem_stride, padding, bias=False)
        self.stem_bn = nn.BatchNorm2d(widths[0])
        blocks: list[nn.Module] = []
        for c_in, c_out, stride in zip(widths[:-1], widths[1:], strides, strict=True):
            if separable:
                pair = {
                    "dw": half(c_in, c_in, 3, stride, options, depthwise=True),
                    "pw": half(c_in, c_out, 1, 1, options),
                }
            else:
                pair = {"conv": half(c_in, c_out, 3, stride, options)}
            blocks.append(nn.ModuleDict(pair))
        self.blocks = nn.ModuleList(blocks)
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        if self.stem_padding is not None:
            x = functional.pad(x, self.stem_padding)
        x = self.stem_bn(self.stem(x))
        for block in self.blocks:
            for convolution in block.values():
                x = convolution(x)
        logits: Tensor = self.classifier(torch.mean(x, (2, 3)))
        return logits
