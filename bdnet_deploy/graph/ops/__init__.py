"""The operator table: importing this package registers every operator."""

from bdnet_deploy.graph.ops.binarize import Sign, Ternarize
from bdnet_deploy.graph.ops.convolution import REPLICATE, Conv2d, Linear
from bdnet_deploy.graph.ops.pointwise import Affine, TwoSlope
from bdnet_deploy.graph.ops.pooling import AvgPool, GlobalAvgPool
from bdnet_deploy.graph.ops.shaping import GroupMean, Repeat, Reshape

__all__ = [
    "REPLICATE",
    "Affine",
    "AvgPool",
    "Conv2d",
    "GlobalAvgPool",
    "GroupMean",
    "Linear",
    "Repeat",
    "Reshape",
    "Sign",
    "Ternarize",
    "TwoSlope",
]
