"""Unary functions."""

from __future__ import annotations

import math
from collections.abc import Callable

from bdnet_deploy.export.onnx.body import Body, Call
from bdnet_deploy.export.onnx.emit.pointwise import limited
from bdnet_deploy.graph import Unary


def _plain(operator: str) -> Callable[[Body, str], str]:
    return lambda b, x: b.op(operator, x)


def _gelu(b: Body, x: str) -> str:
    """x times the normal distribution function, 0.5 (1 + erf(x / sqrt(2)))."""
    error = b.op("Erf", b.op("Mul", x, b.const(math.sqrt(0.5))))
    return b.op("Mul", x, b.op("Mul", b.op("Add", error, b.const(1.0)), b.const(0.5)))


def _gelu_tanh(b: Body, x: str) -> str:
    cube = b.op("Mul", b.op("Mul", x, b.op("Mul", x, x)), b.const(0.044715))
    argument = b.op("Mul", b.op("Add", x, cube), b.const(2.0 * math.sqrt(2.0 / math.pi)))
    return b.op("Mul", x, b.op("Sigmoid", argument))


def _hard_sigmoid(b: Body, x: str) -> str:
    inside = limited(b, b.op("Add", x, b.const(3.0)), b.const(0.0), b.const(6.0))
    return b.op("Mul", inside, b.const(1.0 / 6.0))


def _mish(b: Body, x: str) -> str:
    """x w / (w + 2) with w = e (e + 2), e = exp(x): beyond 20 the quotient is 1."""
    twenty = b.const(20.0)
    e = b.op("Exp", b.where(b.op("Greater", x, twenty), twenty, x))
    w = b.op("Mul", e, b.op("Add", e, b.const(2.0)))
    return b.op("Mul", x, b.op("Div", w, b.op("Add", w, b.const(2.0))))


FUNCTIONS: dict[str, Callable[[Body, str], str]] = {
    "abs": _plain("Abs"),
    "erf": _plain("Erf"),
    "exp": _plain("Exp"),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": lambda b, x: b.op("Mul", x, _hard_sigmoid(b, x)),
    "log": _plain("Log"),
    "mish": _mish,
    "rsqrt": lambda b, x: b.op("Reciprocal", b.op("Sqrt", x)),
    "sigmoid": _plain("Sigmoid"),
    "silu": lambda b, x: b.op("Mul", x, b.op("Sigmoid", x)),
    "softplus": _plain("Softplus"),
    "sqrt": _plain("Sqrt"),
    "square": lambda b, x: b.op("Mul", x, x),
    "tanh": _plain("Tanh"),
}


def _unary(b: Body, call: Call) -> str:
    return FUNCTIONS[call.as_op(Unary).function](b, call.inputs[0])


EMIT: dict[str, Callable[[Body, Call], str]] = {"unary": _unary}
