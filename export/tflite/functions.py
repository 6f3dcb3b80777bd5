"""Functions of single elements: a built-in operator where there is one, else a few, in the order of the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bdnet_deploy.export.tflite.encoding import FLOAT, Encoded
from bdnet_deploy.export.tflite.schema import TensorKind
from bdnet_deploy.graph import Node, Unary
from bdnet_deploy.graph.float_functions import ATANH, ERF

if TYPE_CHECKING:
    from bdnet_deploy.export.tflite.lowering import Lowering


class _Tape:
    """Operators on float32 tensors of one shape, for one node; numbers are constants."""

    def __init__(self, low: Lowering, name: str) -> None:
        self.low, self.name = low, name

    def _tensor(self, operand: int | float) -> int:
        return operand if isinstance(operand, int) else self.low.number(operand)

    def one(self, operator: str, x: int, **options: float) -> int:
        return self.low.b.unary(operator, x, f"{self.name}/{operator.lower()}", **options)

    def two(self, operator: str, a: int | float, b: int | float) -> int:
        return self.low.b.binary(operator, self._tensor(a), self._tensor(b), f"{self.name}/{operator.lower()}")

    def add(self, a: int | float, b: int | float) -> int:
        return self.two("ADD", a, b)

    def mul(self, a: int | float, b: int | float) -> int:
        return self.two("MUL", a, b)

    def horner(self, x: int, coefficients: tuple[float, ...]) -> int:
        """Ascending coefficients, from the last one on."""
        y = self.add(self.mul(x, coefficients[-1]), coefficients[-2])
        for c in coefficients[-3::-1]:
            y = self.add(self.mul(y, x), c)
        return y

    def where_less(self, a: int, b: float, yes: int, no: int) -> int:
        builder = self.low.b
        condition = builder.binary("LESS", a, self._tensor(b), f"{self.name}/less", TensorKind.BOOL)
        output = builder.tensor(f"{self.name}/selected", builder.shape(a))
        return builder.op("SELECT_V2", (condition, yes, no), output)


def _hard_sigmoid(t: _Tape, x: int) -> int:
    return t.mul(t.one("RELU6", t.add(x, 3.0)), 1.0 / 6.0)


def _softplus(t: _Tape, x: int) -> int:
    """max(x, 0) + log(1 + e) with e = exp(-|x|), and log(1 + e) = 2 atanh(e / (2 + e)), which keeps small e."""
    e = t.one("EXP", t.mul(t.one("ABS", x), -1.0))
    s = t.two("DIV", e, t.add(e, 2.0))
    u = t.mul(s, s)
    log1p = t.add(t.mul(t.horner(u, ATANH), t.mul(u, s)), t.add(s, s))
    return t.add(t.one("RELU", x), log1p)


def _mish(t: _Tape, x: int) -> int:
    """x w / (w + 2) with w = e (e + 2), e = exp(x)."""
    e = t.one("EXP", t.two("MINIMUM", x, 20.0))
    w = t.mul(e, t.add(e, 2.0))
    return t.mul(x, t.two("DIV", w, t.add(w, 2.0)))


def _gelu_tanh(t: _Tape, x: int) -> int:
    """x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x**3)): GELU itself loses what is far below zero."""
    cube = t.mul(t.mul(x, x), x)
    return t.mul(x, t.one("LOGISTIC", t.mul(t.add(x, t.mul(cube, 0.044715)), 1.5957691)))


def _erf(t: _Tape, x: int) -> int:
    """A polynomial near 0; elsewhere 2 gelu(z) / z - 1 at z = sqrt(2) x."""
    u = t.mul(x, x)
    small = t.add(t.mul(t.horner(u, ERF), x), x)
    z = t.mul(t.two("MAXIMUM", t.two("MINIMUM", x, 10.0), -10.0), 2.0**0.5)
    big = t.add(t.two("DIV", t.mul(t.one("GELU", z, approximate=0), 2.0), z), -1.0)
    return t.where_less(t.one("ABS", x), 1.0, small, big)


_FUNCTIONS: dict[str, Callable[[_Tape, int], int]] = {
    "abs": lambda t, x: t.one("ABS", x),
    "erf": _erf,
    "exp": lambda t, x: t.one("EXP", x),
    "gelu": lambda t, x: t.one("GELU", x, approximate=0),
    "gelu_tanh": _gelu_tanh,
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": lambda t, x: t.one("HARD_SWISH", x),
    "log": lambda t, x: t.one("LOG", x),
    "mish": _mish,
    "rsqrt": lambda t, x: t.one("RSQRT", x),
    "sigmoid": lambda t, x: t.one("LOGISTIC", x),
    "silu": lambda t, x: t.mul(x, t.one("LOGISTIC", x)),
    "softplus": _softplus,
    "sqrt": lambda t, x: t.one("SQRT", x),
    "square": lambda t, x: t.one("SQUARE", x),
    "tanh": lambda t, x: t.one("TANH", x),
}


def _unary(low: Lowering, node: Node) -> Encoded:
    assert isinstance(node.op, Unary)
    function = _FUNCTIONS[node.op.function]
    return Encoded(FLOAT, (function(_Tape(low, node.name), low.f32(node.inputs[0])),))


EMIT = {"unary": _unary}
