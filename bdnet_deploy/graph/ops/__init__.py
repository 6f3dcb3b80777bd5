"""The operator table: importing this package registers every operator."""

from bdnet_deploy.graph.ops.binarize import Sign, Ternarize
from bdnet_deploy.graph.ops.bit_maps import BitLogic, BoxSum
from bdnet_deploy.graph.ops.convolution import REPLICATE, Conv2d, Linear
from bdnet_deploy.graph.ops.elementwise import Clamp, Mul
from bdnet_deploy.graph.ops.functions import Lut, Unary
from bdnet_deploy.graph.ops.joining import Concat
from bdnet_deploy.graph.ops.maps import AddMap, MulMap
from bdnet_deploy.graph.ops.matmul import Matmul
from bdnet_deploy.graph.ops.max_pool import MaxPool
from bdnet_deploy.graph.ops.moving import Flip, Gather, Move, Pad, Shuffle, Slice, Upsample
from bdnet_deploy.graph.ops.normalization import GroupNorm, LayerNorm
from bdnet_deploy.graph.ops.permuting import Permutation, PixelShuffle, PixelUnshuffle, Reshape, Transpose
from bdnet_deploy.graph.ops.pointwise import Affine, TwoSlope
from bdnet_deploy.graph.ops.pooling import AvgPool, GlobalAvgPool
from bdnet_deploy.graph.ops.quantizing import Dequantize, Quantize
from bdnet_deploy.graph.ops.reduce import Reduce
from bdnet_deploy.graph.ops.shaping import GroupMean, Repeat
from bdnet_deploy.graph.ops.softmax import Softmax

__all__ = [
    "REPLICATE",
    "AddMap",
    "Affine",
    "AvgPool",
    "BitLogic",
    "BoxSum",
    "Clamp",
    "Concat",
    "Conv2d",
    "Dequantize",
    "Flip",
    "Gather",
    "GlobalAvgPool",
    "GroupMean",
    "GroupNorm",
    "LayerNorm",
    "Linear",
    "Lut",
    "Matmul",
    "MaxPool",
    "Move",
    "Mul",
    "MulMap",
    "Pad",
    "Permutation",
    "PixelShuffle",
    "PixelUnshuffle",
    "Quantize",
    "Reduce",
    "Repeat",
    "Reshape",
    "Shuffle",
    "Sign",
    "Slice",
    "Softmax",
    "Ternarize",
    "Transpose",
    "TwoSlope",
    "Unary",
    "Upsample",
]
