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
from bdnet_deploy.importers.torch.levels import Levels, levels_of, of_filters, product
from bdnet_deploy.importers.torch.trace import Step, Traced
from bdnet_deploy.importers.torch.weights import Weights, recognise_weights

#: The reason of layers that read the model's input.
FIRST_LAYER = "first layer: its input is real"


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
    padded = isinstance(op, Conv2d) and any(op.padding)
    levels = levels_of(x, op.groups if isinstance(op, Conv2d) else 1, w.shape[0], padded) if x.packed else activation
    if isinstance(levels, Levels) and isinstance(weights, Weights):
        return product(graph, op, levels, weights, bias, source)
    reasons = [r for r in (levels, weights) if isinstance(r, str)]
    if isinstance(weights, Weights) and activation != FIRST_LAYER:
        reasons.append(f"its weights have {'two' if weights.dtype is DType.BIT else 'three'} levels")
    if reasons:
        graph.reasons[source] = "; ".join(reasons)
    return _real_product(graph, op, x, w, bias, step, source)


def _real_product(
    graph: Graph, op: Conv2d | Linear, x: Emitted, w: Array, bias: Array | None, step: Step, source: str
) -> Value:
    """With weights as they are. The input may be levels -1, 0 and +1 all the same."""
    groups = op.groups if isinstance(op, Conv2d) else 1
    levels = levels_of(x, groups, w.shape[0], isinstance(op, Conv2d) and any(op.padding)) if x.packed else None
    if isinstance(levels, Levels) and levels.border is None and not levels.offset.any():
        value, after = levels.value, levels.size
        w = w * of_filters(levels.flip, groups, w.shape)
        pad = levels.pad
    else:
        value, after = real(graph, replace(x, padding=(0, 0, 0, 0)), step.where), np.ones(w.shape[0])
        pad = _real_padding(x, step)
    if isinstance(op, Conv2d):
        op = replace(op, pad_value=pad)
    y = graph.add(op, [value, graph.parameter(f"{source}.weight", w)], source, source=source)
    if bias is not None or np.any(after != 1.0):
        y = affine(graph, [y], [after], np.zeros(w.shape[0]) if bias is None else bias, f"{source}.bias", source)
    return y


def _real_padding(x: Emitted, step: Step) -> int:
    if not x.padded:
        return 0
    if x.pad_value not in (-1.0, 0.0, 1.0):
        raise refuse(step, f"its input is padded with {x.pad_value:g}", "pad with -1, 0 or +1")
    return int(x.pad_value)


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
        if bias.ndim > 1 and bias.size not in (1, bias.shape[-1]):
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
        divisor = step.argument("divisor_override")
        if divisor not in (None, math.prod(kernel)):
            raise refuse(step, f"divisor_override is {divisor}", "leave it out")
        output = step.outputs[0]
        assert output is not None
        counted = bool(step.argument("count_include_pad"))
        sides = [
            _overhang(step, (h, w)[i], output.shape[2 + i], kernel[i], strides[i], padding[i], counted) for i in (0, 1)
        ]
        if any(mode == "replicate" for *_, mode in sides):
            if any(mode == "constant" for *_, mode in sides):
                raise refuse(step, "some of its padding counts and some does not", "pool without padding")
            (top, bottom, _), (left, right, _) = sides
            return Pad((top, bottom, left, right, 0, 0), "replicate"), AvgPool(kernel, strides)
    if kernel == (h, w) and not any(padding):
        return GlobalAvgPool(), Reshape((1, 1, 1, c))
    pad = (padding[0], padding[0], padding[1], padding[1], 0, 0)
    return (*([Pad(pad)] if any(padding) else []), AvgPool(kernel, strides))


def _overhang(
    step: Step, size: int, outputs: int, kernel: int, stride: int, padding: int, counted: bool
) -> tuple[int, int, str]:
    """Rows that windows reach beyond the map before and behind it, and what they must hold that only others count.

    A window of which a single row lies within the map has its mean if that row stands in place of all others.
    """
    before, after = padding, max((outputs - 1) * stride + kernel - size - padding, 0)
    if counted and after <= padding:  # zeros that count
        return before, after, "constant" if padding else ""
    inside = [min(i * stride - padding + kernel, size) - max(i * stride - padding, 0) for i in range(outputs)]
    if (counted and padding) or any(n not in (1, kernel) for n in inside):
        raise refuse(
            step,
            "windows leave the map, and what is beyond does not count",
            "use ceil_mode=False and count_include_pad=True, or pool without padding",
        )
    return before, after, "replicate" if before or after else ""


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
    if step.name == "softplus":  # behind its threshold PyTorch's is the line y = x
        return "softplus" if step.argument("beta") == 1 and step.argument("threshold") == 20 else None
    if step.name == "pow" and step.argument("exponent") == 2:
        return "square"
    return UNARY.get(step.name)
