"""What the rules of fixed point share: scales from ranges, affine maps to integers, the graph under construction.

Feature maps between layers (the trunk) are int16 (``fixed16``) or int8 (``fixed8``) with a scale and a zero point per
channel; a residual is then an integer multiply-accumulate, or a plain addition where the scales allow it. Weights that
are not binary are int8 per output channel. Vectors after global pooling stay int16. The ranges come from calibration.
One rule per operator lies in ``passes/quantize_rules/``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

import numpy as np

from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.graph import (
    Affine,
    Array,
    Clamp,
    DType,
    Graph,
    Node,
    Op,
    Quant,
    Quantize,
    Sign,
    Ternarize,
    TwoSlope,
    Value,
)
from bdnet_deploy.passes.fixed_point import FixedAffine, Term, fit_affine
from bdnet_deploy.passes.ranges import Ranges

#: Ranges are widened by this much over what calibration saw: 16 bits can spare it, 8 cannot.
HEADROOM = {DType.I16: 1.5, DType.I8: 1.0}


@dataclass
class QuantizeReport:
    """What the pass decided. ``rows``: per trunk edge its name, dtype, range seen and range representable."""

    numerics: str
    timing_only: bool
    samples: int
    rows: list[dict[str, object]] = field(default_factory=list)


#: From a quantizer and a real node to the value in the new graph that stands for its output.
Rule = Callable[["Quantizer", Node], Value]
_R = TypeVar("_R", bound=Rule)
RULES: dict[type[Op], Rule] = {}


def rule(*ops: type[Op]) -> Callable[[_R], _R]:
    """Decorator: the function is the rule of these operators."""

    def enter(function: _R) -> _R:
        RULES.update(dict.fromkeys(ops, function))
        return function

    return enter


def signed(op: Quantize) -> tuple[DType, Quant]:
    """The integers of the model's own quantization; those of u8 are those of i8, with the zero point moved."""
    dtype = DType.I8 if op.dtype is DType.U8 else op.dtype
    return dtype, Quant.of(op.scale, op.zero_point + dtype.range[0] - op.dtype.range[0])


class Quantizer:
    """A real graph on its way to integers. Arrays are per channel, ``(C,)``."""

    def __init__(self, graph: Graph, numerics: str, ranges: Ranges, inputs: list[tuple[DType, Quant]] | None) -> None:
        self.old = graph
        self.users = graph.users()
        self.ranges = ranges
        self.trunk = {"fixed16": DType.I16, "fixed8": DType.I8}[numerics]
        self.input_types = inputs
        self.new = Graph(graph.name, numerics, reasons=dict(graph.reasons), lines=dict(graph.lines))
        self.values: dict[Value, Value] = {}
        #: Largest absolute integer that a new value can take, per channel, where less than its dtype allows.
        self.magnitudes: dict[Value, Array] = {}
        #: Largest absolute integer that calibration lets expect of wide sums, per channel.
        self.typical: dict[Value, Array] = {}
        self.report = QuantizeReport(numerics, ranges.timing_only, ranges.samples)

    def run(self) -> tuple[Graph, QuantizeReport]:
        for i, value in enumerate(self.old.inputs):
            dtype, quant = self.input_types[i] if self.input_types else self._input_type(value)
            self.values[value] = self.new.input(value.name, value.type.shape, dtype, quant)
        for node in self.old.nodes:
            if isinstance(node.op, Affine | Clamp) and self.own_integers(node.output):
                self._check_finite(node)  # part of the quantization behind it
            else:
                self.values[node.output] = self._node(node)
        self.new.outputs = [self._output(v) for v in self.old.outputs]
        return self.new, self.report

    def _input_type(self, value: Value) -> tuple[DType, Quant]:
        """Integers of 8 bits: the model's own, where it makes such of its input at once; else by the range seen."""
        quantize = self.own_integers(value)
        if quantize is not None and quantize.dtype is not DType.I16:
            return signed(quantize)
        return DType.I8, self.symmetric(value, DType.I8)

    def own_integers(self, value: Value) -> Quantize | None:
        """The model's own quantization that alone reads an old value, perhaps behind limits; None where there is none."""
        users = self.users.get(value, [])
        if len(users) != 1 or value in self.old.outputs or users[0].inputs[0] is not value:
            return None
        op = users[0].op
        if isinstance(op, Clamp):
            return self.own_integers(users[0].output)
        return op if isinstance(op, Quantize) else None

    # -- ranges and scales ----------------------------------------------------------------------------------------------

    def range_of(self, value: Value) -> Array:
        """(C,) largest absolute value seen."""
        return np.maximum(np.abs(self.ranges.low[value.name]), np.abs(self.ranges.high[value.name]))

    def kept(self, value: Value) -> Value:
        """What must be represented of an old value: the output of the clamp that alone reads it, where there is one."""
        users = self.users.get(value, [])
        alone = len(users) == 1 and isinstance(users[0].op, Clamp) and value not in self.old.outputs
        return users[0].output if alone else value

    def symmetric(self, value: Value, dtype: DType) -> Quant:
        """One scale for the whole tensor, zero point 0."""
        return Quant.of(max(float(self.range_of(value).max()), 1e-12) / dtype.range[1])

    def need(self, value: Value, dtype: DType) -> Array:
        """(C,) smallest scales at which the range seen fits; quiet channels get a share of the loud ones'."""
        seen = self.range_of(self.kept(value)) * HEADROOM[dtype] / dtype.range[1]
        return np.maximum(seen, max(float(seen.max()) / 256, 1e-12))

    def after_slopes(self, node: Node, dtype: DType) -> Array:
        """(C,) smallest scales at which the output of a two-slope fits, its bias aside."""
        bias = cast(Array, node.inputs[3].data)
        kept = self.kept(node.output).name
        seen = np.maximum(np.abs(self.ranges.low[kept] - bias), np.abs(self.ranges.high[kept] - bias))
        loudest = max(float(seen.max()), float(np.abs(bias).max()), 1e-12)
        return np.maximum(seen, loudest / 256) / dtype.range[1]  # as in need(); the zero points stay small, too

    def need_of_slopes(self, value: Value, dtype: DType) -> Array:
        """(C,) smallest scales at which a two-slope that alone reads a value keeps them for its positive side, so that only the
        negative one has a factor; 0 elsewhere."""
        users = self.users.get(value, [])
        if len(users) != 1 or not isinstance(users[0].op, TwoSlope) or value in self.old.outputs:
            return np.zeros(value.type.channels)
        positive = cast(Array, users[0].inputs[1].data)
        need = self.after_slopes(users[0], dtype)
        return np.where(positive > 0, need / np.maximum(positive, 1 / 16), 0.0)

    def dtype_of(self, value: Value) -> DType:
        """Maps are trunk; vectors are int16, they cost nothing."""
        return self.trunk if len(value.type.shape) == 4 and value not in self.old.outputs else DType.I16

    def constant(self, name: str, data: Array, dtype: DType, quant: Quant | None = None) -> Value:
        return self.new.constant(name, data, dtype, quant)

    def magnitude(self, x: Value) -> Array:
        if x in self.magnitudes:
            return self.magnitudes[x]
        low, high = x.type.dtype.range
        return np.full(x.type.channels, float(max(-low, high)))

    def vectors(self, x: Value) -> tuple[Array, Array]:
        """Scale and zero point of a new value as (C,)."""
        quant = x.type.quant or Quant.of(1.0)
        shape = (x.type.channels,)
        return np.broadcast_to(quant.scale, shape), np.broadcast_to(quant.zero_point, shape)

    # -- nodes ----------------------------------------------------------------------------------------------------------

    def _output(self, old: Value) -> Value:
        """An output of the model: its elements have one scale, so that a reader needs no table and can compare them."""
        value = self.values[old]
        quant = value.type.quant
        if quant is None or (np.ndim(quant.scale) == 0 and float(quant.zero_point) % 1 == 0):
            return value
        return self.uniform(old, value, DType.I16)

    def _check_finite(self, node: Node) -> None:
        """A threshold or a limit may be infinite: it is never (or always) reached."""
        threshold = isinstance(node.op, Sign | Ternarize | Clamp)
        for value in node.inputs:
            if value.data is None or not value.type.dtype.is_float:
                continue
            if np.isnan(value.data).any() or not (threshold or np.isfinite(value.data).all()):
                raise UnsupportedError(
                    f"{self.new.numerics} cannot carry a parameter that is NaN or infinite",
                    where=node.source or node.name,
                    why=f"{value.name} holds one",
                    fix="train again, or export with numerics float",
                )

    def _node(self, node: Node) -> Value:
        self._check_finite(node)
        found = RULES.get(type(node.op))
        if found is None:
            raise self.unsupported(node, f"{self.new.numerics} has no rule for {node.op.name}")
        return found(self, node)

    def unsupported(self, node: Node, what: str, *, why: str | None = None, fix: str | None = None) -> UnsupportedError:
        """An error that names the layer."""
        return UnsupportedError(what, where=node.source or node.name, why=why, fix=fix)

    def same(self, node: Node, *inputs: Value) -> Value:
        """The node's own operator on new inputs; its type rule carries the quantization over."""
        return self.new.add(node.op, inputs, node.name, source=node.source)

    # -- integer arithmetic --------------------------------------------------------------------------------------------

    def expect(self, y: Value, old: Value) -> None:
        """Wide sums stay far below their bound: keep 16 bits for twice what calibration saw, saturate beyond."""
        scale, zero = self.vectors(y)
        seen = np.maximum(
            np.abs(self.ranges.low[old.name] / scale + zero), np.abs(self.ranges.high[old.name] / scale + zero)
        )
        self.typical[y] = np.minimum(2 * seen + 1, self.magnitudes[y])

    def uniform(self, old: Value, x: Value, dtype: DType) -> Value:
        """``x`` with one scale and zero point 0, as the inputs of convolutions and group means need it."""
        quant = x.type.quant
        plain = quant is not None and np.ndim(quant.scale) == 0 and np.ndim(quant.zero_point) == 0
        if plain and x.type.dtype in (DType.U8, DType.I8, DType.I16) and float(quant.zero_point) % 1 == 0:  # type: ignore[union-attr]
            return x
        need = np.full(x.type.channels, float(self.need(old, dtype).max()))
        one, zero = np.ones(len(need)), np.zeros(len(need))
        return self.affine_to(f"{x.name}.uniform", [x], [one], zero, need, dtype, "", True)

    def narrow(self, old: Value, x: Value, dtype: DType, source: str) -> Value:
        """``x``, which stands for ``old``, as i16 or i8 with zero points 0; ``dtype`` where it is not."""
        if x.type.dtype in (DType.I16, DType.I8) and not np.any(self.vectors(x)[1]):
            return x
        one, zero = np.ones(x.type.channels), np.zeros(x.type.channels)
        return self.affine_to(f"{x.name}.narrow", [x], [one], zero, self.need(old, dtype), dtype, source, False)

    def carry(self, x: Value, y: Value, times: int = 1) -> Value:
        """``y`` has the values of ``x``, perhaps with repeated channels: what is known of their size holds for it too."""
        for known in (self.magnitudes, self.typical):
            if x in known:
                known[y] = np.tile(known[x], times)
        return y

    def affine(self, name: str, old: Value, terms: list[Value], muls: list[Array], add: Array, source: str) -> Value:
        dtype = self.dtype_of(old)
        need = np.maximum(self.need(old, dtype), self.need_of_slopes(old, dtype))
        uniform = old in self.old.outputs
        if uniform:  # one scale for all logits, so that they can be compared
            need = np.full_like(need, need.max())
        y = self.affine_to(name, terms, muls, add, need, dtype, source, uniform)
        self.record(old, y)
        return y

    def affine_to(
        self,
        name: str,
        terms: list[Value],
        muls: list[Array],
        add: Array,
        need: Array,
        dtype: DType,
        source: str,
        uniform: bool,
    ) -> Value:
        inputs = self.terms(terms, muls)
        while True:
            fixed = self.fit(inputs, add, need, source or name)
            if not uniform or np.ptp(fixed.scale) == 0.0:
                break
            need = np.full_like(need, fixed.scale.max())
        quant = Quant.of(fixed.scale[0] if uniform else fixed.scale)
        return self.fixed(name, terms, fixed, dtype, quant, source)

    def terms(self, xs: list[Value], muls: list[Array]) -> list[Term]:
        """New values and their real factors as the terms of an affine map."""
        found = []
        for x, mul in zip(xs, muls, strict=True):
            scale, zero = self.vectors(x)
            whole = x.type.dtype in (DType.I16, DType.I8)
            magnitude = self.magnitude(x)
            found.append(Term(mul * scale, magnitude, self.typical.get(x, magnitude), zero, whole))
        return found

    def fit(self, terms: list[Term], add: Array, need: Array, where: str, *, keep: bool = True) -> FixedAffine:
        """:func:`fit_affine`, with an error that names the layer."""
        try:
            return fit_affine(terms, add, need, keep=keep)
        except ArithmeticError as error:
            raise UnsupportedError(
                f"{self.new.numerics} cannot carry the parameters", where=where, why=str(error)
            ) from error

    def fixed(self, name: str, xs: list[Value], fixed: FixedAffine, dtype: DType, quant: Quant, source: str) -> Value:
        """Append an affine map with these integer parameters."""
        constants = [self.constant(f"{name}.mul{i}", f, DType.I32) for i, f in enumerate(fixed.factors)]
        constants.append(self.constant(f"{name}.add", fixed.add, DType.I32))
        op = Affine(len(xs), dtype, fixed.shifts)
        return self.new.add(op, [*xs, *constants], name, source=source, quant=quant)

    def record(self, old: Value, y: Value) -> None:
        scale, zero = self.vectors(y)
        low, high = y.type.dtype.range
        kept = self.kept(old).name
        clipped = (self.ranges.low[kept] < (low - 0.5 - zero) * scale) | (
            self.ranges.high[kept] > (high + 0.5 - zero) * scale
        )
        self.report.rows.append(
            {
                "value": old.name,
                "dtype": y.type.dtype.value,
                "low": float(self.ranges.low[old.name].min()),
                "high": float(self.ranges.high[old.name].max()),
                "finest_scale": float(scale.min()),
                "coarsest_scale": float(scale.max()),
                "saturating_channels": int(clipped.sum()),
            }
        )
