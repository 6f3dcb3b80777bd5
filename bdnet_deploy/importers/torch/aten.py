"""What the importer knows about PyTorch's operators, by name (without overload and in-place underscore)."""

from __future__ import annotations

#: The value is unchanged.
IDENTITY = frozenset(
    "alias clone contiguous detach dropout lift lift_fresh lift_fresh_copy native_dropout _to_copy to view_as".split()
)

#: Constants of an activation's shape.
FILLS = frozenset(
    "empty_like fill full_like new_full new_ones new_zeros ones_like scalar_tensor zero zeros_like".split()
)

#: Steps: without one of them a function cannot take few levels.
DISCRETE = frozenset(
    "ceil eq floor ge gt heaviside isfinite le logical_and logical_not logical_or lt masked_fill ne round sgn "
    "sign signbit trunc where".split()
)

#: Quantizers of activations to integers and back, with one scale for all elements; a mask is their second output.
FAKE_QUANTIZERS = frozenset(
    "_fake_quantize_learnable_per_tensor_affine _fake_quantize_per_tensor_affine_cachemask_tensor_qparams "
    "fake_quantize_per_tensor_affine fake_quantize_per_tensor_affine_cachemask".split()
)
DISCRETE |= FAKE_QUANTIZERS

#: Functions that the graph has by name.
UNARY = {
    "abs": "abs",
    "erf": "erf",
    "exp": "exp",
    "hardsigmoid": "hard_sigmoid",
    "hardswish": "hard_swish",
    "log": "log",
    "mish": "mish",
    "rsqrt": "rsqrt",
    "sigmoid": "sigmoid",
    "silu": "silu",
    "sqrt": "sqrt",
    "square": "square",
    "tanh": "tanh",
}

#: The output's element depends on the same element of the input alone (and on constants).
ELEMENTWISE = (
    IDENTITY
    | FILLS
    | DISCRETE
    | UNARY.keys()
    | frozenset(
        "_prelu_kernel add bitwise_and bitwise_not bitwise_or bitwise_xor clamp clamp_max clamp_min copy div elu expand "
        "expand_as gelu hardtanh leaky_relu logical_xor maximum minimum mul neg pow prelu reciprocal relu relu6 rsub "
        "softplus sub threshold type_as".split()
    )
)

#: ``a * x + b`` with constants, when one argument depends on the input.
CONSTANT_AFFINE = frozenset("add sub rsub mul div neg".split())

#: Elements keep their values and change their places; some stand several times, beside them constants.
MOVES = frozenset(
    "_reshape_alias _unsafe_view as_strided cat channel_shuffle chunk concat constant_pad_nd expand expand_as flatten flip im2col index "
    "index_select movedim narrow native_channel_shuffle permute pixel_shuffle pixel_unshuffle reflection_pad1d "
    "reflection_pad2d repeat replication_pad1d replication_pad2d reshape roll select slice split split_with_sizes squeeze "
    "stack t tile transpose unbind unflatten unfold unsafe_chunk unsafe_split unsafe_split_with_sizes unsqueeze "
    "_upsample_nearest_exact2d upsample_nearest1d upsample_nearest2d view".split()
)

#: Sums, means and maxima of elements.
REDUCTIONS = frozenset(
    "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d amax avg_pool1d avg_pool2d avg_pool3d max mean sum".split()
)

BATCH_NORMS = frozenset(
    "_batch_norm_no_update _batch_norm_with_update _native_batch_norm_legit _native_batch_norm_legit_no_training "
    "batch_norm cudnn_batch_norm miopen_batch_norm native_batch_norm".split()
)

CONVOLUTIONS = frozenset("_convolution conv1d conv2d convolution cudnn_convolution mkldnn_convolution".split())

LINEARS = frozenset("addmm linear mm mkldnn_linear".split())

#: Products that are linear layers where one factor is constant, and attention where none is.
MATRIX_PRODUCTS = frozenset("bmm matmul mm".split())

SOFTMAXES = frozenset("_safe_softmax _softmax softmax".split())

LOG_SOFTMAXES = frozenset(["_log_softmax", "log_softmax"])

MAX_POOLS = frozenset("max_pool2d max_pool2d_with_indices".split())

_SHOWN = {
    "_prelu_kernel": "prelu",
    "_adaptive_avg_pool2d": "adaptive_avg_pool2d",
    "_unsafe_view": "view",
    "_to_copy": "to",
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams": "fake_quantize_per_tensor_affine",
    "fake_quantize_per_tensor_affine_cachemask": "fake_quantize_per_tensor_affine",
    "fake_quantize_per_channel_affine_cachemask": "fake_quantize_per_channel_affine",
    "constant_pad_nd": "pad",
    "max_pool2d_with_indices": "max_pool2d",
    "addmm": "linear",
    "mm": "linear",
    "bmm": "matmul",
    "convolution": "conv2d",
    "_softmax": "softmax",
    "_log_softmax": "log_softmax",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
}


def shown(name: str) -> str:
    """The name that a user knows the operator by."""
    return "batch_norm" if name in BATCH_NORMS else _SHOWN.get(name, name)
