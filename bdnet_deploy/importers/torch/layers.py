"""Convolution and linear layers, batch normalization and pooling: PyTorch's arguments to the graph's operators."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.graph import Array, AvgPool, Conv2d, DType, GlobalAvgPool, Graph, Linear, Op, Reshape, Value
from bdnet_deploy.importers.torch.aten import LINEARS, shown
from bdnet_deploy.importers.torch.emitted import Emitted, affine, real
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


def product_input(step: Step) -> Traced:
    """The activation of a convolution or linear layer."""
    x = step.argument({"addmm": "mat1", "mm": "self"}.get(step.name, "input"))
    if x is None:
        x = step.argument("self")
    if not isinstance(x, Traced):
        raise refuse(step, "its weights depend on the input", "only constant weights can be deployed")
    return x


def emit_product(graph: Graph, step: Step, x: Emitted, source: str, activation: str) -> Value:
    """A convolution or linear layer with what must follow it: scale and bias in one Affine.

    ``activation`` says why the input is not binary; ``graph.reasons`` takes it, or the reason that the weights give.
    """
    op, w, bias = _linear(step, x) if step.name in LINEARS else _conv(step, x)
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
    if w.ndim != 4 or step.argument("transposed"):
        kind = "transposed" if step.argument("transposed") else f"{w.ndim - 2}-dimensional"
        raise refuse(step, f"it is {kind}", "only 2-D convolutions can be deployed")
    padding = step.argument("padding")
    if isinstance(padding, str):
        raise refuse(step, f"padding is '{padding}'", "give the padding as numbers")
    ph, pw = (int(p) for p in _pair(padding))
    if x.padded and (ph or pw) and x.pad_value != 0:
        raise refuse(step, "it pads with 0 a map that is padded with another value before", "pad once, with one value")
    top, bottom, left, right = x.padding
    bias = step.argument("bias")
    op = Conv2d(
        strides=_pair(step.argument("stride")),
        padding=(top + ph, bottom + ph, left + pw, right + pw),
        dilation=_pair(step.argument("dilation")),
        groups=int(step.argument("groups")),
    )
    return op, w.transpose(0, 2, 3, 1), None if bias is None else array(step, bias, "bias")


def _linear(step: Step, x: Emitted) -> tuple[Linear, Array, Array | None]:
    if len(x.value.type.shape) != 2:
        raise refuse(step, "its input is not a vector", "pool or flatten the map first")
    if step.name == "addmm":
        w = array(step, step.argument("mat2"), "weight").T
        scales = (float(step.argument("alpha")), float(step.argument("beta")))
        bias = array(step, step.argument("self"), "bias")
    elif step.name == "mm":
        w, bias, scales = array(step, step.argument("mat2"), "weight").T, None, (1.0, 1.0)
    else:
        given = step.argument("bias")
        w, scales = array(step, step.argument("weight"), "weight"), (1.0, 1.0)
        bias = None if given is None else array(step, given, "bias")
    if bias is not None:
        bias = np.broadcast_to(bias * scales[1], (1, w.shape[0]))[0]
    return Linear(), w * scales[0], bias


def _pair(value: Any) -> tuple[int, int]:
    values = tuple(int(v) for v in value) if isinstance(value, list | tuple) else (int(value),)
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


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
    else:
        kernel = _pair(step.argument("kernel_size"))
        strides = _pair(step.argument("stride")) if step.argument("stride") else kernel
        if any(_pair(step.argument("padding"))):
            raise refuse(step, "it pads its input", "pool without padding")
        divisor = step.argument("divisor_override")
        if divisor not in (None, math.prod(kernel)):
            raise refuse(step, f"divisor_override is {divisor}", "leave it out")
        uneven = (h - kernel[0]) % strides[0] or (w - kernel[1]) % strides[1]
        if step.argument("ceil_mode") and uneven:
            raise refuse(step, "ceil_mode makes windows that leave the map", "use ceil_mode=False")
    if kernel == (h, w):
        return GlobalAvgPool(), Reshape((1, 1, 1, c))
    return (AvgPool(kernel, strides),)
