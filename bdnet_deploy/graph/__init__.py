"""Graph, dtypes, the operator table and the numpy references. Imports nothing else of this project."""

from bdnet_deploy.graph.dtypes import Array, DType, Quant, TensorType
from bdnet_deploy.graph.graph import NUMERICS, Graph, Node, Value, evaluate
from bdnet_deploy.graph.op import OPS, GraphError, Op
from bdnet_deploy.graph.ops import (
    REPLICATE,
    Affine,
    AvgPool,
    Conv2d,
    GlobalAvgPool,
    GroupMean,
    Linear,
    Repeat,
    Reshape,
    Sign,
    Ternarize,
    TwoSlope,
)

__all__ = [
    "NUMERICS",
    "OPS",
    "REPLICATE",
    "Affine",
    "Array",
    "AvgPool",
    "Conv2d",
    "DType",
    "GlobalAvgPool",
    "Graph",
    "GraphError",
    "GroupMean",
    "Linear",
    "Node",
    "Op",
    "Quant",
    "Repeat",
    "Reshape",
    "Sign",
    "TensorType",
    "Ternarize",
    "TwoSlope",
    "Value",
    "evaluate",
]
