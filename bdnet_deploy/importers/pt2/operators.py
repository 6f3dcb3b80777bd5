"""Which operators a ``.pt2`` program may call: tensor functions without side effects, files, or random numbers."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from bdnet_deploy.importers.torch.aten import (
    BATCH_NORMS,
    CONVOLUTIONS,
    ELEMENTWISE,
    LINEARS,
    MATRIX_PRODUCTS,
    MAX_POOLS,
    MOVES,
    REDUCTIONS,
    SOFTMAXES,
)

#: Names in ``torch.ops.aten``, without the underscore of in-place variants.
ATEN = (
    ELEMENTWISE
    | MOVES
    | BATCH_NORMS
    | CONVOLUTIONS
    | LINEARS
    | MATRIX_PRODUCTS
    | MAX_POOLS
    | REDUCTIONS
    | SOFTMAXES
    | frozenset(
        "_log_softmax _softmax _to_copy acos acosh adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d addbmm "
        "addcdiv addcmul all amax amin any arange argmax argmin asin asinh atan atanh baddbmm bmm broadcast_to "
        "broadcast_tensors celu channel_shuffle clip concatenate constant_pad_nd conv1d conv3d conv_transpose1d "
        "conv_transpose2d cos cosh count_nonzero cross cumsum diagonal div dot einsum embedding erf expm1 eye "
        "feature_dropout flip floor_divide fmax fmin fmod full gather gelu glu group_norm hardshrink index index_put "
        "instance_norm isfinite isinf isnan item layer_norm lerp linalg_vector_norm log10 log1p log2 log_sigmoid log_softmax "
        "logical_xor logsumexp masked_fill matmul max max_pool1d max_pool2d max_pool2d_with_indices max_pool3d min mish "
        "native_group_norm native_layer_norm narrow norm numel ones outer pad pixel_shuffle pixel_unshuffle prod "
        "reflection_pad1d reflection_pad2d relu6 remainder repeat_interleave replication_pad1d replication_pad2d "
        "rms_norm roll rot90 scaled_dot_product_attention scatter selu select_scatter sin sinh slice_scatter softmax "
        "softplus softshrink softsign sort square std sum swapaxes tan tile topk trapezoid tril triu unfold "
        "upsample_bilinear2d upsample_nearest1d upsample_nearest2d var var_mean vstack hstack where zeros".split()
    )
)

#: Checks that were true when the program was exported; they do nothing to the result.
CHECKS = frozenset(
    "_assert_async _assert_scalar _assert_tensor_metadata sym_constrain_range sym_constrain_range_for_size".split()
)

#: Arithmetic of sizes, and taking one of several results.
PYTHON: dict[str, Callable[..., Any]] = {
    f"_operator.{name}": getattr(operator, name)
    for name in "add eq floordiv ge getitem gt le lt mod mul ne neg sub truediv".split()
}
