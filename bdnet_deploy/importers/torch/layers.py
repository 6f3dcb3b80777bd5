"""Convolution and linear layers, batch normalization and pooling: PyTorch's arguments to the graph's operators."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.graph import (
    Array,
    AvgPool,
    Conv2d,
    DType,
    GlobalAvgPool,
    Graph,
    Linear,
    MaxPool,
    Op,
    Pad,
    Reshape,
    Value,
)
from bdnet_deploy.importers.torch.aten import LINEARS, MATRIX_PRODUCTS, UNARY, shown
from bdnet_deploy.importers.torch.emitted import Emitted, affine, real
from bdnet_deploy.importers.torch.layout import Layout
from bdnet_deploy.importers.torch.trace import Step, Traced
from bdnet_deploy.importers.torch.weights import Weights, recognise_weights


def refuse(step: Step, why: str, fix: str) -> UnsupportedError:
    return UnsupportedError(f"'{shown(step.name)}' cannot be carried over", where=step.where, why=why, fix=fix)


def array(step: Step, tensor: Any, what: str) -> Array:
    """A constant tensor as float64.

    Raises:
        UnsupportedError: it depends on the input, or holds NaN or infinity.
    """
    if not isinstance(tensor, Tensor):
        raise refuse(
            step, f"its {what} depends on the input", "only constant parameters can be deployed; fold or remove it"
        )
    result: Array = tensor.double().numpy()
    if not np.isfinite(result).all():
        raise refuse(step, f"its {what} holds NaN or infinity", "train again, or repair the checkpoint")
    return result


def product_input(step: Step) -> tuple[Traced, Layout]:
    """The activation of a convolution or linear layer, and the layout in which its channels are summed."""
    if step.name in MATRIX_PRODUCTS:
        left, right = step.inputs_of_product
        return (left, Layout.LAST) if isinstance(left, Traced) else (right, Layout.SWAPPED)
    x = step.argument({"addmm": "mat1", "mm": "self"}.get(step.name, "input"))
    if x is None:
        x = step.argument("self")
    if not isinstance(x, Traced):
        raise refuse(step, "its weights depend on the input", "only constant weights can be deployed")
    return x, Layout.LAST if step.name in LINEARS else Layout.FIRST


def emit_product(graph: Graph, step: Step, x: Emitted, source: str, activation: str) -> Value:
    """A convolution or linear layer with what must follow it: scale and bias in one Affine.

    ``activation`` says why the input is not binary; ``graph.reasons`` takes it, or the reason that the weights give.
    """
    op, w, bias = _linear(step, x) if step.name in LINEARS | MATRIX_PRODUCTS else _conv(step, x)
    weights = recognise_weights(w)
    groups = op.groups if isinstance(op, Conv2d) else 1
    inputs = w.shape[-1] * groups
    levels = _levels_as_input(x, groups, w.shape[0])
    reasons = [r for r in (None if x.packed and levels else activation, weights) if isinstance(r, str)]
    if x.packed and levels is None:
        reasons[0] = "activation: its levels are not one -c, +c (or -c, 0, +c) for all channels"
    if levels is None:
        value = real(graph, replace(x, padding=(0, 0, 0, 0)), step.where)
        flip, after, pad = np.ones(inputs), np.ones(w.shape[0]), x.pad_value
    else:
        value, (flip, after, pad) = x.value, levels
    binary = isinstance(weights, Weights) and x.packed and levels is not None
    data, dtype = (weights.levels, weights.dtype) if binary and isinstance(weights, Weights) else (w, DType.F64)
    if binary and isinstance(weights, Weights):
        after = after * weights.alpha
    elif reasons:
        graph.reasons[source] = "; ".join(reasons)
    constant = graph.constant(f"{source}.weight", _flip_inputs(data, flip, op), dtype)
    if isinstance(op, Conv2d):
        op = _with_pad_value(op, step, x, pad)
    y = graph.add(op, [value, constant], source, source=source)
    if binary or bias is not None or np.any(after != 1.0):
        name = f"{source}.scale" if binary else f"{source}.bias"
        y = affine(graph, [y], [after], np.zeros(w.shape[0]) if bias is None else bias, name, source)
    return y


def _conv(step: Step, x: Emitted) -> tuple[Conv2d, Array, Array | None]:
    w = array(step, step.argument("weight"), "weight")
    if w.ndim == 3:  # along one axis: a map of one row
        w = w[:, :, None]
    if w.ndim != 4 or step.argument("transposed"):
        kind = "transposed" if step.argument("transposed") else f"{w.ndim - 2}-dimensional"
        raise refuse(step, f"it is {kind}", "only 2-D convolutions can be deployed")
    flat = len(product_input(step)[0].shape) == 3
    padding = step.argument("padding")
    if isinstance(padding, str):
        raise refuse(step, f"padding is '{padding}'", "give the padding as numbers")
    ph, pw = _pair(padding, 0 if flat else None)
    if x.padded and (ph or pw) and x.pad_value != 0:
        raise refuse(step, "it pads with 0 a map that is padded with another value before", "pad once, with one value")
    top, bottom, left, right = x.padding
    bias = step.argument("bias")
    op = Conv2d(
        strides=_pair(step.argument("stride"), 1 if flat else None),
        padding=(top + ph, bottom + ph, left + pw, right + pw),
        dilation=_pair(step.argument("dilation"), 1 if flat else None),
        groups=int(step.argument("groups")),
    )
    return op, w.transpose(0, 2, 3, 1), None if bias is None else array(step, bias, "bias")


def _linear(step: Step, x: Emitted) -> tuple[Linear | Conv2d, Array, Array | None]:
    """Of a vector a Linear, of every token of a map a 1x1 convolution."""
    if step.name == "addmm":
        w = array(step, step.argument("mat2"), "weight").T
        scales = (float(step.argument("alpha")), float(step.argument("beta")))
        bias = array(step, step.argument("self"), "bias")
    elif step.name in MATRIX_PRODUCTS:
        w, bias, scales = constant_factor(step), None, (1.0, 1.0)
    else:
        given = step.argument("bias")
        w, scales = array(step, step.argument("weight"), "weight"), (1.0, 1.0)
        bias = None if given is None else array(step, given, "bias")
    if bias is not None:
        if bias.ndim > 1 and bias.size not in (1, w.shape[0]):
            raise refuse(step, "its bias differs from row to row", "use one bias per output")
        bias = np.broadcast_to(bias.reshape(-1) * scales[1], (w.shape[0],))
    if len(x.value.type.shape) == 2:
        return Linear(), w * scales[0], bias
    return Conv2d(), (w * scales[0])[:, None, None, :], bias


def constant_factor(step: Step) -> Array:
    """The weights (O, I) of a matrix product with one constant factor."""
    left, right = step.inputs_of_product
    w = array(step, right if isinstance(left, Traced) else left, "weight")
    if w.ndim == 3:
        if (w != w[:1]).any():
            raise refuse(step, "its weights differ within the batch", "use one matrix for all")
        w = w[0]
    return w.T if isinstance(left, Traced) else w


def _pair(value: Any, row: int | None = None) -> tuple[int, int]:
    """Of height and width. ``row``: what stands for the height where the value has columns only (one dimension)."""
    values = tuple(int(v) for v in value) if isinstance(value, list | tuple) else (int(value),)
    if len(values) == 1:
        return (values[0] if row is None else row, values[0])
    return values[0], values[1]


def _levels_as_input(x: Emitted, groups: int, outputs: int) -> tuple[Array, Array, float] | None:
    """(sign per input channel, scale per output channel, padding in levels), or None where no scale can move behind.

    A depth-wise layer can take another scale per channel, since each output sees one input channel.
    """
    if not x.packed or np.abs(x.offset()).max() > 1e-6 * np.abs(x.scale()).max() or not x.scale().any():
        return None
    scale = x.scale()
    size, flip = np.abs(scale), np.where(scale < 0, -1.0, 1.0)
    if np.ptp(size) <= 1e-6 * size.max():
        after = np.full(outputs, float(size[0]) if np.ptp(size) == 0 else float(size.mean()))
    elif groups == len(size) and not (x.padded and x.pad_value):
        after = np.repeat(size, outputs // groups)
    else:
        return None
    pad = x.pad_value / float(after[0])
    if abs(pad - round(pad)) > 1e-6 or abs(round(pad)) > 1 or (round(pad) and np.ptp(flip)):
        return None
    return flip, after, float(round(pad) * flip[0])


def _flip_inputs(w: Array, flip: Array, op: Op) -> Array:
    """``w`` (O, [kh, kw,] I / groups) with the weights of input channels in ``flip`` (I,) negated."""
    groups = op.groups if isinstance(op, Conv2d) else 1
    signs = np.repeat(flip.reshape(groups, -1), w.shape[0] // groups, axis=0)
    return w * signs.reshape(w.shape[0], *[1] * (w.ndim - 2), -1).astype(w.dtype)


def _with_pad_value(op: Conv2d, step: Step, x: Emitted, pad: float) -> Conv2d:
    if not x.padded:
        return op
    if pad not in (-1.0, 0.0, 1.0):
        raise refuse(step, f"its input is padded with {x.pad_value:g}", "pad with -1, 0 or +1")
    return replace(op, pad_value=int(pad))


def batch_norm(step: Step) -> tuple[Array, Array]:
    """Factor and offset (C,) of a batch normalization in evaluation mode.

    Raises:
        UnsupportedError: it takes the statistics of its input.
    """
    mean, var = step.argument("running_mean"), step.argument("running_var")
    if mean is None or var is None or step.argument("training"):
        raise refuse(
            step,
            "it has no running statistics: its result depends on the whole input",
            "use track_running_stats=True and train with it",
        )
    mean, var = array(step, mean, "running mean"), array(step, var, "running variance")
    gamma, beta = step.argument("weight"), step.argument("bias")
    epsilon = step.argument("eps") if step.argument("eps") is not None else step.argument("epsilon")
    mul = 1.0 / np.sqrt(var + float(epsilon))
    if gamma is not None:
        mul = mul * array(step, gamma, "weight")
    add = -mean * mul
    return mul, add if beta is None else add + array(step, beta, "bias")


def average_pool(step: Step, x: tuple[int, ...]) -> tuple[Op, ...]:
    """The operators of an avg_pool2d or adaptive_avg_pool2d on a map of shape ``x`` (1, C, H, W)."""
    _, c, h, w = x
    if "adaptive" in step.name:
        oh, ow = _pair(step.argument("output_size"))
        if h % oh or w % ow:
            raise refuse(step, f"{h}x{w} does not divide into {oh}x{ow}", "pool to a divisor of the size")
        kernel = strides = (h // oh, w // ow)
        padding = (0, 0)
    else:
        kernel = _pair(step.argument("kernel_size"))
        strides = _pair(step.argument("stride")) if step.argument("stride") else kernel
        padding = _pair(step.argument("padding"))
        if any(padding) and not step.argument("count_include_pad"):
            raise refuse(step, "its padding does not count", "use count_include_pad=True, or pool without padding")
        divisor = step.argument("divisor_override")
        if divisor not in (None, math.prod(kernel)):
            raise refuse(step, f"divisor_override is {divisor}", "leave it out")
        uneven = (h + 2 * padding[0] - kernel[0]) % strides[0] or (w + 2 * padding[1] - kernel[1]) % strides[1]
        if step.argument("ceil_mode") and uneven:
            raise refuse(step, "ceil_mode makes windows that leave the map", "use ceil_mode=False")
    if kernel == (h, w) and not any(padding):
        return GlobalAvgPool(), Reshape((1, 1, 1, c))
    pad = (padding[0], padding[0], padding[1], padding[1], 0, 0)
    return (*([Pad(pad)] if any(padding) else []), AvgPool(kernel, strides))


def max_pool(step: Step) -> MaxPool:
    """The operator of a max_pool2d: windows that ceil_mode adds are padding at the bottom and to the right."""
    shape = step.inputs[0].shape
    output = step.outputs[0]
    assert output is not None
    if len(shape) != 4 or shape[0] != 1:
        raise refuse(step, f"its input has shape {shape}", "only maps (1, C, H, W) can be pooled")
    kernel = _pair(step.argument("kernel_size"))
    strides = _pair(step.argument("stride")) if step.argument("stride") else kernel
    padding, dilation = _pair(step.argument("padding")), _pair(step.argument("dilation"))
    sides = []
    for axis in (0, 1):
        reach = (output.shape[2 + axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilation[axis] + 1
        sides += [padding[axis], max(reach - shape[2 + axis] - padding[axis], 0)]
    return MaxPool(kernel, strides, (sides[0], sides[1], sides[2], sides[3]), dilation)


def unary_function(step: Step) -> str | None:
    """The graph's name of a function of one tensor, if it has one."""
    if step.name == "gelu":
        return "gelu" if step.argument("approximate") == "none" else "gelu_tanh"
    if step.name == "softplus" and step.argument("beta") == 1:
        return "softplus"
    if step.name == "pow" and step.argument("exponent") == 2:
        return "square"
    return UNARY.get(step.name)
