"""Choose fixed-point numerics: every real operator becomes an integer one whose reference defines every byte.

Feature maps between layers (the trunk) are int16 (``fixed16``) or int8 (``fixed8``) with a scale and a zero point per
channel; a residual is then an integer multiply-accumulate, or a plain addition where the scales allow it. Weights that
are not binary are int8 per output channel. Vectors after global pooling stay int16. The ranges come from calibration.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np

from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.graph import (
    Affine,
    Array,
    AvgPool,
    Conv2d,
    DType,
    GlobalAvgPool,
    Graph,
    GroupMean,
    Linear,
    Node,
    Quant,
    Repeat,
    Reshape,
    Sign,
    Ternarize,
    TwoSlope,
    Value,
)
from bdnet_deploy.graph.ops.pooling import reciprocal
from bdnet_deploy.passes.fixed_point import ONE, Term, fit_affine
from bdnet_deploy.passes.ranges import Ranges

#: Ranges are widened by this much over what calibration saw: 16 bits can spare it, 8 cannot.
HEADROOM = {DType.I16: 1.5, DType.I8: 1.0}
_WEIGHT_MAX = 127
#: Largest relative error of the 16-bit reciprocal by which fixed-point means are taken.
MEAN_TOLERANCE = 1 / 256


@dataclass
class QuantizeReport:
    """What the pass decided. ``rows``: per trunk edge its name, dtype, range seen and range representable."""

    numerics: str
    timing_only: bool
    samples: int
    rows: list[dict[str, object]] = field(default_factory=list)


def quantize(
    graph: Graph, numerics: str, ranges: Ranges, *, inputs: list[tuple[DType, Quant]] | None = None
) -> tuple[Graph, QuantizeReport]:
    """The real graph ``graph`` in ``numerics``.

    Args:
        graph: real, with affine maps merged.
        numerics: ``"fixed16"`` or ``"fixed8"``.
        ranges: of the same graph's values.
        inputs: dtype and quantization of each graph input (raw pixels: u8 with the scale and zero point of the I/O
            description); None for int8 by the calibrated range.

    Raises:
        UnsupportedError: parameters that fixed point cannot carry; names the layer.
    """
    return _Quantizer(graph, numerics, ranges, inputs).run()


class _Quantizer:
    def __init__(self, graph: Graph, numerics: str, ranges: Ranges, inputs: list[tuple[DType, Quant]] | None) -> None:
        self.old = graph
        self.ranges = ranges
        self.trunk = {"fixed16": DType.I16, "fixed8": DType.I8}[numerics]
        self.input_types = inputs
        self.new = Graph(graph.name, numerics, reasons=dict(graph.reasons))
        self.values: dict[Value, Value] = {}
        #: Largest absolute integer that a new value can take, per channel, where less than its dtype allows.
        self.magnitudes: dict[Value, Array] = {}
        #: Largest absolute integer that calibration lets expect of wide sums, per channel.
        self.typical: dict[Value, Array] = {}
        self.report = QuantizeReport(numerics, ranges.timing_only, ranges.samples)

    def run(self) -> tuple[Graph, QuantizeReport]:
        for i, value in enumerate(self.old.inputs):
            dtype, quant = self.input_types[i] if self.input_types else (DType.I8, self._symmetric(value, DType.I8))
            self.values[value] = self.new.input(value.name, value.type.shape, dtype, quant)
        for node in self.old.nodes:
            self.values[node.output] = self._node(node)
        self.new.outputs = [self._output(v) for v in self.old.outputs]
        return self.new, self.report

    # -- helpers ------------------------------------------------------------------------------------------------------

    def _range(self, value: Value) -> Array:
        """(C,) largest absolute value seen."""
        return np.maximum(np.abs(self.ranges.low[value.name]), np.abs(self.ranges.high[value.name]))

    def _symmetric(self, value: Value, dtype: DType) -> Quant:
        """One scale for the whole tensor, zero point 0."""
        return Quant.of(max(float(self._range(value).max()), 1e-12) / dtype.range[1])

    def _need(self, value: Value, dtype: DType) -> Array:
        """(C,) smallest scales at which the range seen fits; quiet channels get a share of the loud ones'."""
        seen = self._range(value) * HEADROOM[dtype] / dtype.range[1]
        return np.maximum(seen, max(float(seen.max()) / 256, 1e-12))

    def _dtype_of(self, value: Value) -> DType:
        """Maps are trunk; vectors are int16, they cost nothing."""
        return self.trunk if len(value.type.shape) == 4 and value not in self.old.outputs else DType.I16

    def _constant(self, name: str, data: Array, dtype: DType, quant: Quant | None = None) -> Value:
        return self.new.constant(name, data, dtype, quant)

    def _magnitude(self, x: Value) -> Array:
        if x in self.magnitudes:
            return self.magnitudes[x]
        low, high = x.type.dtype.range
        return np.full(x.type.channels, float(max(-low, high)))

    def _vectors(self, x: Value) -> tuple[Array, Array]:
        """Scale and zero point of a new value as (C,)."""
        quant = x.type.quant or Quant.of(1.0)
        shape = (x.type.channels,)
        return np.broadcast_to(quant.scale, shape), np.broadcast_to(quant.zero_point, shape)

    # -- operators ----------------------------------------------------------------------------------------------------

    def _output(self, old: Value) -> Value:
        """An output of the model: its elements have one scale, so that a reader needs no table and can compare them."""
        value = self.values[old]
        quant = value.type.quant
        if quant is None or (np.ndim(quant.scale) == 0 and float(quant.zero_point) % 1 == 0):
            return value
        return self._uniform(old, value, DType.I16)

    def _check_finite(self, node: Node) -> None:
        """A threshold may be infinite: it is never (or always) reached."""
        threshold = isinstance(node.op, Sign | Ternarize)
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
        op = node.op
        self._check_finite(node)
        if isinstance(op, Conv2d | Linear):
            return self._product(node)
        x = self.values[node.inputs[0]]
        if isinstance(op, Affine):
            parameters = [cast(Array, v.data) for v in node.inputs[op.terms :]]
            terms = [self.values[v] for v in node.inputs[: op.terms]]
            return self._affine(node.name, node.output, terms, parameters[:-1], parameters[-1], node.source)
        if isinstance(op, TwoSlope):
            return self._two_slope(node, x)
        if isinstance(op, Sign | Ternarize):
            scale, zero = self._vectors(x)
            limits = (-(2**31), 2**31 - 1)
            thresholds = [
                self._constant(v.name, np.clip(np.ceil(cast(Array, v.data) / scale + zero), *limits), DType.I32)
                for v in node.inputs[1:]
            ]
            return self.new.add(op, [x, *thresholds], node.name, source=node.source)
        if isinstance(op, GlobalAvgPool):
            pooled = self.new.add(op, [x], node.name, source=node.source)
            pixels = x.type.size // x.type.channels
            self.magnitudes[pooled] = self._magnitude(x) * pixels
            self._expect(pooled, node.output)
            return pooled
        if isinstance(op, AvgPool | GroupMean):
            count = op.size if isinstance(op, GroupMean) else op.kernel[0] * op.kernel[1]
            if abs(reciprocal(count) * count / ONE - 1) > MEAN_TOLERANCE:
                raise UnsupportedError(
                    f"{self.new.numerics} takes means with 16 fractional bits, too few for {count} elements",
                    where=node.source or node.name,
                    fix="pool in two stages or globally, or export with numerics float",
                )
        if isinstance(op, GroupMean):
            x = self._uniform(node.inputs[0], x, self.trunk)
        if isinstance(op, Repeat):
            y = self.new.add(op, [x], node.name, source=node.source)
            for known in (self.magnitudes, self.typical):  # replicas of accumulators are as small as these
                if x in known:
                    known[y] = np.tile(known[x], op.times)
            return y
        if isinstance(op, AvgPool | GroupMean | Reshape):
            return self.new.add(op, [x], node.name, source=node.source)
        raise UnsupportedError(f"{self.new.numerics} has no rule for {op.name}", where=node.source or node.name)

    def _product(self, node: Node) -> Value:
        x, weight = self.values[node.inputs[0]], node.inputs[1]
        data = cast(Array, weight.data)
        if weight.type.dtype.is_packed and x.type.dtype.is_packed:
            w = self._constant(weight.name, data, weight.type.dtype)
        else:
            if not x.type.dtype.is_packed:
                x = self._uniform(node.inputs[0], x, DType.I16 if len(x.type.shape) == 2 else DType.I8)
                if isinstance(node.op, Conv2d) and node.op.pad_value != 0 and any(node.op.padding):
                    raise UnsupportedError(
                        f"{self.new.numerics} has no padding of {node.op.pad_value} for a real input",
                        where=node.source or node.name,
                        fix="pad with 0, or export with numerics float",
                    )
            real = np.abs(data.astype(np.float64)).reshape(data.shape[0], -1)
            # Sums of products stay within 32 bits, whatever the input.
            most = (2**31 - 1) / self._largest(x) - 0.5 * real.shape[1]
            scale = np.maximum(np.maximum(real.max(1), 1e-12) / _WEIGHT_MAX, real.sum(1) / most)
            quantized = np.rint(data / scale.reshape(-1, *[1] * (data.ndim - 1)))
            w = self._constant(weight.name, quantized, DType.I8, Quant.of(scale))
        y = self.new.add(node.op, [x, w], node.name, source=node.source)
        taps = np.abs(cast(Array, w.data).astype(np.float64)).reshape(data.shape[0], -1).sum(1)
        self.magnitudes[y] = taps * self._largest(x)
        if not w.type.dtype.is_packed:
            self._expect(y, node.output)
        return y

    def _largest(self, x: Value) -> float:
        """Largest factor that an input of a convolution puts into a product, its zero point taken off."""
        zero = float(x.type.quant.zero_point) if x.type.quant else 0.0
        low, high = x.type.dtype.range
        return max(high - zero, zero - low, 1.0)

    def _expect(self, y: Value, old: Value) -> None:
        """Wide sums stay far below their bound: keep 16 bits for twice what calibration saw, saturate beyond."""
        scale, zero = self._vectors(y)
        seen = np.maximum(
            np.abs(self.ranges.low[old.name] / scale + zero), np.abs(self.ranges.high[old.name] / scale + zero)
        )
        self.typical[y] = np.minimum(2 * seen + 1, self.magnitudes[y])

    def _uniform(self, old: Value, x: Value, dtype: DType) -> Value:
        """``x`` with one scale and zero point 0, as the inputs of convolutions and group means need it."""
        quant = x.type.quant
        plain = quant is not None and np.ndim(quant.scale) == 0 and np.ndim(quant.zero_point) == 0
        if plain and x.type.dtype in (DType.U8, DType.I8, DType.I16) and float(quant.zero_point) % 1 == 0:  # type: ignore[union-attr]
            return x
        need = np.full(x.type.channels, float(self._need(old, dtype).max()))
        one, zero = np.ones(len(need)), np.zeros(len(need))
        return self._affine_to(f"{x.name}.uniform", [x], [one], zero, need, dtype, "", True)

    def _affine(self, name: str, old: Value, terms: list[Value], muls: list[Array], add: Array, source: str) -> Value:
        dtype = self._dtype_of(old)
        need = self._need(old, dtype)
        uniform = old in self.old.outputs
        if uniform:  # one scale for all logits, so that they can be compared
            need = np.full_like(need, need.max())
        y = self._affine_to(name, terms, muls, add, need, dtype, source, uniform)
        self._row(old, y)
        return y

    def _affine_to(
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
        inputs = []
        for x, mul in zip(terms, muls, strict=True):
            scale, zero = self._vectors(x)
            whole = x.type.dtype in (DType.I16, DType.I8)
            magnitude = self._magnitude(x)
            inputs.append(Term(mul * scale, magnitude, self.typical.get(x, magnitude), zero, whole))
        while True:
            try:
                fixed = fit_affine(inputs, add, need)
            except ArithmeticError as error:
                raise UnsupportedError(
                    f"{self.new.numerics} cannot carry the parameters", where=source or name, why=str(error)
                ) from error
            if not uniform or np.ptp(fixed.scale) == 0.0:
                break
            need = np.full_like(need, fixed.scale.max())
        op = Affine(len(terms), dtype, fixed.shifts)
        constants = [self._constant(f"{name}.mul{i}", f, DType.I32) for i, f in enumerate(fixed.factors)]
        constants.append(self._constant(f"{name}.add", fixed.add, DType.I32))
        quant = Quant.of(fixed.scale[0] if uniform else fixed.scale)
        return self.new.add(op, [*terms, *constants], name, source=source, quant=quant)

    def _two_slope(self, node: Node, x: Value) -> Value:
        positive, negative, bias = (cast(Array, v.data) for v in node.inputs[1:])
        dtype = self._dtype_of(node.output)
        _, zero_point = self._vectors(x)
        if x.type.dtype not in (DType.I16, DType.I8) or np.any(zero_point):  # the slopes take 16 bits and bend at q = 0
            one, zero = np.ones(x.type.channels), np.zeros(x.type.channels)
            need = self._need(node.inputs[0], dtype)
            x = self._affine_to(f"{x.name}.narrow", [x], [one], zero, need, dtype, node.source, False)
        low, high = self.ranges.low[node.output.name] - bias, self.ranges.high[node.output.name] - bias
        seen = np.maximum(np.abs(low), np.abs(high))
        loudest = max(float(seen.max()), float(np.abs(bias).max()), 1e-12)
        need = np.maximum(seen, loudest / 256) / dtype.range[1]  # as in _need; the zero points stay small, too
        scale, _ = self._vectors(x)
        # The positive slope becomes 1 where the output can take the input's scale times it.
        natural = scale * positive
        coarser = np.maximum(need, scale * np.abs(positive) / 4)
        out = np.where((natural >= need) & (natural <= 4 * need), natural, coarser)
        out = np.maximum(out, scale * np.abs(negative) / 4)
        slopes = [
            self._constant(f"{node.name}.{n}", np.rint(s * scale / out * ONE), DType.I32)
            for n, s in (("positive", positive), ("negative", negative))
        ]
        y = self.new.add(TwoSlope(dtype), [x, *slopes], node.name, source=node.source, quant=Quant.of(out, -bias / out))
        self._row(node.output, y)
        return y

    def _row(self, old: Value, y: Value) -> None:
        scale, zero = self._vectors(y)
        low, high = y.type.dtype.range
        clipped = (self.ranges.low[old.name] < (low - 0.5 - zero) * scale) | (
            self.ranges.high[old.name] > (high + 0.5 - zero) * scale
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
