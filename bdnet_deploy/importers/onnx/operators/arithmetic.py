"""Element by element: arithmetic, comparisons, activations, casts."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bdnet_deploy.importers.onnx.file import Node
from bdnet_deploy.importers.onnx.operators.common import integers, scalar
from bdnet_deploy.importers.onnx.tensors import torch_type
from bdnet_deploy.importers.torch.recorder import is_traced


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda node, *xs: function(*xs)


def _variadic(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda node, *xs: functools.reduce(function, xs)


def _is_number(x: Tensor | None) -> bool:
    return x is not None and x.numel() == 1 and not is_traced(x)


def _div(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Integers round to zero; a divisor of -1 is left to a negation, since the least integer has no counterpart."""
    if a.is_floating_point():
        return a / b
    quotient = torch.div(a, torch.where(b == -1, 1, b), rounding_mode="trunc")
    return torch.where(b == -1, -quotient, quotient)


def _mod(node: Node, a: Tensor, b: Tensor) -> Tensor:
    if not a.is_floating_point():
        a, b = torch.where(b == -1, 0, a), torch.where(b == -1, 1, b)
    return torch.fmod(a, b) if node.get("fmod", 0) else torch.remainder(a, b)


def _pow(node: Node, a: Tensor, b: Tensor) -> Tensor:
    if _is_number(b) and b.dim() == 0:
        exponent = scalar(node, b, "exponent")
        if a.is_floating_point() or (exponent >= 0 and float(exponent).is_integer()):
            return torch.pow(a, exponent if a.is_floating_point() else int(exponent))
    return torch.pow(a, b.to(a.dtype) if a.is_floating_point() else b).to(a.dtype)


def _clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Limits that are infinite, or the largest float32, limit nothing."""
    lowest = scalar(node, low, "lower limit") if low is not None else node.get("min", -math.inf)
    highest = scalar(node, high, "upper limit") if high is not None else node.get("max", math.inf)
    if x.is_floating_point():
        largest = torch.finfo(torch.float32).max
        lowest = -math.inf if lowest <= -largest else lowest
        highest = math.inf if highest >= largest else highest
    if highest < lowest:
        return torch.clamp(x, highest, highest)
    if lowest == -math.inf and highest == math.inf:
        return x
    limits = [None if math.isinf(v) else v if x.is_floating_point() else int(v) for v in (lowest, highest)]
    return torch.clamp(x, *limits)


def _prelu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    """A slope of each channel, or one for all, is PyTorch's PReLU."""
    axis = slope.dim() - x.dim() + 1
    channels = x.shape[1] if x.dim() > 1 else 1
    at_channel = slope.numel() == channels and 0 <= axis < slope.dim() and slope.shape[axis] == channels
    if slope.numel() == 1 or at_channel:
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x >= 0, x, x * slope)


def _cast(node: Node, x: Tensor) -> Tensor:
    dtype = torch_type(node.get("to", 0))
    if dtype is None:
        raise node.refused("it casts to a type that networks do not have", "cast to a float or integer type")
    return x if x.dtype == dtype else x.to(dtype)


def _sum(node: Node, *xs: Tensor) -> Tensor:
    return functools.reduce(torch.add, xs)


def _mean(node: Node, *xs: Tensor) -> Tensor:
    return _sum(node, *xs) / len(xs)


def _hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, 0.0, 1.0)


def _gelu(node: Node, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=node.get("approximate", "none"))


def _shrink(node: Node, x: Tensor) -> Tensor:
    limit, bias = node.get("lambd", 0.5), node.get("bias", 0.0)
    return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, torch.zeros_like(x)))


def _is_inf(node: Node, x: Tensor) -> Tensor:
    negative, positive = node.get("detect_negative", 1), node.get("detect_positive", 1)
    return torch.isinf(x) & ((x < 0) & bool(negative) | (x > 0) & bool(positive))


def _selu(node: Node, x: Tensor) -> Tensor:
    alpha, gamma = node.get("alpha", 1.67326319217681884765625), node.get("gamma", 1.05070102214813232421875)
    return gamma * torch.where(x > 0, x, alpha * (torch.exp(torch.clamp(x, max=0.0)) - 1))


def _thresholded(node: Node, x: Tensor) -> Tensor:
    return torch.where(x > node.get("alpha", 1.0), x, torch.zeros_like(x))


def _where(node: Node, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(condition, a, b)


def _dropout(node: Node, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None) -> list[Tensor]:
    if training is not None and any(integers(node, training, "training mode")):
        raise node.refused("it is in training mode", "export after model.eval()")
    return [x, torch.ones(x.shape, dtype=torch.bool)]


def _swish(node: Node, x: Tensor) -> Tensor:
    alpha = node.get("alpha", 1.0)
    return F.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


OPERATORS: dict[str, Callable[..., Any]] = {
    "Abs": _plain(torch.abs),
    "Acos": _plain(torch.acos),
    "Acosh": _plain(torch.acosh),
    "Add": _plain(torch.add),
    "And": _plain(torch.logical_and),
    "Asin": _plain(torch.asin),
    "Asinh": _plain(torch.asinh),
    "Atan": _plain(torch.atan),
    "Atanh": _plain(torch.atanh),
    "Cast": _cast,
    "CastLike": lambda node, x, like: x if x.dtype == like.dtype else x.to(like.dtype),
    "Ceil": _plain(torch.ceil),
    "Celu": lambda node, x: F.celu(x, node.get("alpha", 1.0)),
    "Clip": _clip,
    "Cos": _plain(torch.cos),
    "Cosh": _plain(torch.cosh),
    "Div": _div,
    "Dropout": _dropout,
    "Elu": lambda node, x: F.elu(x, node.get("alpha", 1.0)),
    "Equal": _plain(torch.eq),
    "Erf": _plain(torch.erf),
    "Exp": _plain(torch.exp),
    "Floor": _plain(torch.floor),
    "Gelu": _gelu,
    "Greater": _plain(torch.gt),
    "GreaterOrEqual": _plain(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(F.hardswish),
    "Identity": _plain(lambda x: x),
    "IsInf": _is_inf,
    "IsNaN": _plain(torch.isnan),
    "LeakyRelu": lambda node, x: F.leaky_relu(x, node.get("alpha", 0.01)),
    "Less": _plain(torch.lt),
    "LessOrEqual": _plain(torch.le),
    "Log": _plain(torch.log),
    "Max": _variadic(torch.maximum),
    "Mean": _mean,
    "Min": _variadic(torch.minimum),
    "Mish": _plain(F.mish),
    "Mod": _mod,
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "Not": _plain(torch.logical_not),
    "Or": _plain(torch.logical_or),
    "PRelu": _prelu,
    "Pow": _pow,
    "Reciprocal": _plain(torch.reciprocal),
    "Relu": _plain(torch.relu),
    "Round": _plain(torch.round),
    "Selu": _selu,
    "Shrink": _shrink,
    "Sigmoid": _plain(torch.sigmoid),
    "Sign": _plain(torch.sign),
    "Sin": _plain(torch.sin),
    "Sinh": _plain(torch.sinh),
    "Softplus": _plain(F.softplus),
    "Softsign": _plain(F.softsign),
    "Sqrt": _plain(torch.sqrt),
    "Sub": _plain(torch.sub),
    "Sum": _sum,
    "Swish": _swish,
    "Tan": _plain(torch.tan),
    "Tanh": _plain(torch.tanh),
    "ThresholdedRelu": _thresholded,
    "Where": _where,
    "Xor": _plain(torch.logical_xor),
}
