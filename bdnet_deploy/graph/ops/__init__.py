"""The operator table: importing this package registers every operator."""

from bdnet_deploy.graph.ops.binarize import Sign, Ternarize
from bdnet_deploy.graph.ops.convolution import REPLICATE, Conv2d, Linear
from bdnet_deploy.graph.ops.joining import Concat
from bdnet_deploy.graph.ops.moving import Flip, Gather, Move, Pad, Shuffle, Slice, Upsample
from bdnet_deploy.graph.ops.permuting import Permutation, PixelShuffle, PixelUnshuffle, Reshape, Transpose
from bdnet_deploy.graph.ops.pointwise import Affine, TwoSlope
from bdnet_deploy.graph.ops.pooling import AvgPool, GlobalAvgPool
from bdnet_deploy.graph.ops.quantizing import Dequantize, Quantize
from bdnet_deploy.graph.ops.shaping import GroupMean, Repeat

__all__ = [
    "REPLICATE",
    "Affine",
    "AvgPool",
    "Concat",
    "Conv2d",
    "Dequantize",
    "Flip",
    "Gather",
    "GlobalAvgPool",
    "GroupMean",
    "Linear",
    "Move",
    "Pad",
    "Permutation",
    "PixelShuffle",
    "PixelUnshuffle",
    "Quantize",
    "Repeat",
    "Reshape",
    "Shuffle",
    "Sign",
    "Slice",
    "Ternarize",
    "Transpose",
    "TwoSlope",
    "Upsample",
]
