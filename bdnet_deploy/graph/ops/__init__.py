"""The operator table: importing this package registers every operator."""

from bdnet_deploy.graph.ops.binarize import Sign, Ternarize
from bdnet_deploy.graph.ops.bit_maps import BitLogic, BoxSum
from bdnet_deploy.graph.ops.convolution import REPLICATE, Conv2d, Linear
from bdnet_deploy.graph.ops.elementwise import Clamp, Mul
from bdnet_deploy.graph.ops.functions import Lut, Unary
from bdnet_deploy.graph.ops.matmul import Matmul
from bdnet_deploy.graph.ops.max_pool import MaxPool
from bdnet_deploy.graph.ops.normalization import GroupNorm, LayerNorm
from bdnet_deploy.graph.ops.pointwise import Affine, TwoSlope
from bdnet_deploy.graph.ops.pooling import AvgPool, GlobalAvgPool
from bdnet_deploy.graph.ops.reduce import Reduce
from bdnet_deploy.graph.ops.shaping import GroupMean, Repeat, Reshape
from bdnet_deploy.graph.ops.softmax import Softmax

__all__ = [
    "REPLICATE",
    "Affine",
    "AvgPool",
    "BitLogic",
    "BoxSum",
    "Clamp",
    "Conv2d",
    "GlobalAvgPool",
    "GroupMean",
    "GroupNorm",
    "LayerNorm",
    "Linear",
    "Lut",
    "Matmul",
    "MaxPool",
    "Mul",
    "Reduce",
    "Repeat",
    "Reshape",
    "Sign",
    "Softmax",
    "Ternarize",
    "TwoSlope",
    "Unary",
]
