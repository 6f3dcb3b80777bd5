"""Seeded random real graphs, as an importer makes them, over everything that the runtime claims to run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import random_attention
import random_elementwise
import random_levels
import random_maps
import random_moves

from bdnet_deploy.graph import (
    NUMERICS,
    REPLICATE,
    Affine,
    Array,
    AvgPool,
    Conv2d,
    DType,
    GlobalAvgPool,
    Graph,
    GroupMean,
    Linear,
    Op,
    Repeat,
    Reshape,
    Sign,
    Ternarize,
    TwoSlope,
    Unary,
    Value,
)
from bdnet_deploy.iodesc import InputDescription, IODescription
from bdnet_deploy.lowering import Lowered

CHANNELS = (1, 2, 3, 5, 7, 8, 12, 16, 17, 24, 31, 32, 33, 40, 48, 63, 64, 65, 70)
#: Multiplications of a whole network, and of a layer with real weights: the emulated cores without an FPU set these.
MAX_MACS, MAX_REAL_MACS = 300_000, 12_000


#: Stages of other operators, by family: from a builder and a real map to a real map.
FAMILIES: list[list[Callable[[Builder, Value], Value]]] = [
    random_attention.STAGES,
    random_elementwise.STAGES,
    random_levels.STAGES,
    random_maps.STAGES,
    random_moves.STAGES,
]


@dataclass(frozen=True, eq=False)
class RandomNetwork:
    """A real graph, the meaning of its input (None: floats as they are) and calibration samples (N, H, W, C)."""

    seed: int
    graph: Graph
    io: IODescription | None
    samples: Array

    def inputs(self, lowered: Lowered) -> Array:
        """Three inputs as the lowered graph takes them: a sample, a noisier one, an extreme one."""
        rng = np.random.default_rng([self.seed, 1])
        typical = self.samples[:2] * np.array([1.0, 3.0]).reshape(2, *[1] * (self.samples.ndim - 1))
        value = lowered.graph.inputs[0].type
        extreme = np.zeros((1, *value.shape[1:]), value.dtype.numpy)
        if value.dtype.is_float:
            limits = np.finfo(np.float32)
            flat = extreme.reshape(-1)
            choices = [limits.max, -limits.max, 1e30, -1e4, limits.tiny, -0.0]
            flat[:] = rng.choice(choices, p=[0.2, 0.2, 0.1, 0.2, 0.2, 0.1])
            if rng.random() < 0.3:
                flat[:] = rng.choice(np.array([1e-45, -1e-40, 0.0, -0.0, 1e-38, 1.5], np.float32), flat.size)
        else:
            extreme[:] = rng.choice(value.dtype.range)
        return np.concatenate([lowered.encode(typical), extreme])


def random_network(seed: int) -> RandomNetwork:
    """The network of this seed."""
    rng = np.random.default_rng([seed, 0])
    shape = (int(rng.integers(1, 13)), int(rng.integers(1, 13)), int(rng.choice([1, 1, 2, 3, 3, 4, 9, 33])))
    io, samples = None, rng.standard_normal((6, *shape)) * rng.choice([0.5, 1.0, 4.0])
    if rng.random() < 0.4:
        scale, zero = float(rng.choice([1 / 255, 1 / 16, 0.02])), float(rng.choice([0, 0, 1, 127, 128, 255]))
        if rng.random() < 0.4:
            mean, std = rng.uniform(50, 150, shape[2]), rng.uniform(20, 90, shape[2])
            description = InputDescription(shape=shape, dtype="u8", mean=tuple(mean), std=tuple(std))
        else:
            description = InputDescription(shape=shape, dtype="u8", scale=scale, zero_point=zero)
        io = IODescription((description,))
        samples = io.preprocess(rng.integers(0, 256, (6, *shape), dtype=np.uint8)).astype(np.float64)
    graph = Builder(rng, shape).build(f"random{seed}", seed // len(NUMERICS))
    return RandomNetwork(seed, graph, io, samples)


class Builder:
    """A graph that grows at ``y``, a real map; every method that adds a stage returns the new ``y``."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> None:
        self.rng = rng
        self.graph = Graph()
        self.x = self.graph.input("input", (1, *shape), DType.F64)
        self.macs = 0

    def build(self, name: str, turn: int) -> Graph:
        """``turn``: networks take turns in their first stage, so that each is there in each numerics."""
        self.graph.name = name
        y = self._stem()
        stages: list[Callable[[Value], Value]] = [
            self._bdnet_block, self._bdnet_block, self._bdnet_block, self._folded_chain, self._folded_chain,
            self._expand_and_shrink, self._two_readers, self._real_conv, self._real_weights, self._bare, self._pointwise, self._moves,
        ]  # fmt: skip
        others = [functools.partial(stage, self) for family in FAMILIES for stage in family]
        every = [*dict.fromkeys(stages), *others]
        y = every[turn % len(every)](y)
        for _ in range(int(self.rng.integers(0, 4))):
            if self.macs < MAX_MACS // 2:
                chosen = others if self.chance(0.5) else stages
                y = chosen[int(self.rng.integers(len(chosen)))](y)
        self.graph.outputs = [self._head(y)]
        self.graph.prune()
        return self.graph

    # -- random choices -------------------------------------------------------------------------------------------

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def one_of(self, *choices: int) -> int:
        return int(self.rng.choice(choices))

    def add(self, op: Op, *inputs: Value) -> Value:
        return self.graph.add(op, inputs, op.name, source=f"layer{len(self.graph.nodes)}.{op.name}")

    def parameter(self, data: Array) -> Value:
        return self.graph.parameter("parameter", data)

    def weights(self, shape: tuple[int, ...], dtype: DType) -> Value:
        if dtype is DType.F64:
            return self.graph.constant("weight", self.rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:])), dtype)
        return self.graph.constant(
            "weight", self.rng.choice([-1, 1] if dtype is DType.BIT else [-1, 0, 1], shape), dtype
        )

    def binary_dtype(self) -> DType:
        return DType.TRIT if self.chance(0.25) else DType.BIT

    # -- single operators -----------------------------------------------------------------------------------------

    def affine(self, *xs: Value, gain: float | None = None) -> Value:
        """Batch normalization of the first term, plus the second with a factor of its own."""
        rng, channels = self.rng, xs[0].type.channels
        producer = xs[0].node
        if gain is None:
            taps = 1.0
            if producer is not None and isinstance(producer.op, Conv2d | Linear) and xs[0].type.dtype is DType.I32:
                taps = float(np.prod(producer.inputs[1].type.shape[1:]))
            gain = 1.0 / np.sqrt(taps)
        first = gain * rng.normal(1.0, 0.4, channels)
        kind = rng.integers(6)
        if kind == 0:
            first = first * rng.choice([-1.0, 1.0], channels)
        elif kind == 1:
            first = first * rng.choice([1.0, 1e-3, 1e-6], channels)
        elif kind == 2:
            first[rng.integers(channels)] = 0.0
        muls = [first]
        for _ in xs[1:]:
            post = np.ones(channels) if self.chance(0.5) else rng.normal(0.8, 0.5, channels)
            muls.append(post * rng.choice([1.0, -1.0, 1e-4]) if self.chance(0.1) else post)
        add = rng.normal(0.0, 0.5, channels) * (not self.chance(0.2))
        return self.add(Affine(len(xs)), *xs, *map(self.parameter, muls), self.parameter(add))

    def scaled(self, x: Value, mul: Array) -> Value:
        """``x * mul``."""
        return self.add(Affine(), x, self.parameter(mul), self.parameter(np.zeros(len(mul))))

    def affine_above_zero(self, x: Value) -> Value:
        """Some function of the map that is never below 1/2."""
        half = np.full(x.type.channels, 0.5)
        return self.add(Affine(), self.add(Unary("softplus"), x), self.parameter(2 * half), self.parameter(half))

    def two_slope(self, x: Value) -> Value:
        rng, channels = self.rng, x.type.channels
        slopes = [
            (np.ones(channels), np.zeros(channels)),  # ReLU
            (np.ones(channels), rng.normal(0.25, 0.1, channels)),  # PReLU
            (np.ones(channels), rng.normal(0.0, 0.5, channels)),
            (rng.normal(1.2, 0.5, channels), rng.normal(0.3, 0.5, channels)),
            (rng.normal(2.0, 0.5, channels), np.abs(rng.normal(1.5, 0.5, channels))),
            (np.zeros(channels), -np.ones(channels)),
        ][int(rng.choice(6, p=[0.2, 0.3, 0.2, 0.1, 0.1, 0.1]))]
        bias = rng.normal(0.0, 0.3, channels) * (not self.chance(0.4))
        return self.add(TwoSlope(), x, *map(self.parameter, (*slopes, bias)))

    def sign(self, x: Value, out: DType | None = None) -> Value:
        op = Sign(out) if out else self.sign_op()
        if x.type.dtype is DType.I32:
            limits = self.graph.constant("threshold", self.rng.integers(-5, 6, x.type.channels), DType.I32)
            return self.add(op, x, limits)
        threshold = self.rng.normal(0.0, 0.3, x.type.channels) * (not self.chance(0.5))
        return self.add(op, x, self.parameter(threshold))

    def sign_op(self) -> Sign:
        return Sign(DType.UBIT) if self.chance(0.2) else Sign()

    def ternarize(self, x: Value) -> Value:
        low, high = np.sort(self.rng.normal(0.0, 0.5, (2, x.type.channels)), 0)
        if x.type.dtype is DType.I32:
            limits = [self.graph.constant("limit", np.rint(6 * v), DType.I32) for v in (low, high)]
            return self.add(Ternarize(), x, *limits)
        return self.add(Ternarize(), x, self.parameter(low), self.parameter(high))

    def binarize(self, x: Value) -> Value:
        return self.sign(x) if self.chance(0.6) else self.ternarize(x)

    def conv(self, x: Value, outputs: int, *, dtype: DType | None = None, depthwise: bool = False,
              window: tuple[int, int] | None = None, plain: bool = False) -> Value:  # fmt: skip
        """A convolution of random geometry; ``plain`` keeps the map's size. Narrower than asked for if it is too large."""
        rng, channels = self.rng, x.type.channels
        _, height, width, _ = x.type.shape
        dtype = dtype or self.binary_dtype()
        kh, kw = window or [(3, 3), (3, 3), (3, 3), (1, 1), (5, 5), (1, 3), (2, 2)][int(rng.integers(7))]
        dilation = (2, 2) if self.chance(0.15) else (1, 1)
        reach = [(k - 1) * d for k, d in zip((kh, kw), dilation, strict=True)]
        padding = [reach[0] // 2, reach[0] - reach[0] // 2, reach[1] // 2, reach[1] - reach[1] // 2]
        strides = (1, 1)
        if not plain:
            if self.chance(0.3):
                padding = [int(p) for p in rng.integers(0, 3, 4)]
            strides = (2, 2) if self.chance(0.3) else (1, 2) if self.chance(0.1) else (1, 1)
            for axis, size in enumerate((height, width)):  # at least one position
                padding[2 * axis + 1] += max(0, reach[axis] + 1 - size - padding[2 * axis] - padding[2 * axis + 1])
        groups = 1
        if depthwise:
            groups, outputs = channels, channels * (outputs // channels or 1)
        elif self.chance(0.25):
            common = [g for g in range(2, channels + 1) if channels % g == 0]
            if common:
                groups = int(rng.choice(common))
                outputs = max(1, outputs // groups) * groups
        real = dtype is DType.F64 or not x.type.dtype.is_packed
        values = [0, 0, REPLICATE] if real else [0, 0, REPLICATE, 1, 1 if x.type.dtype is DType.UBIT else -1]
        op = Conv2d(strides, tuple(padding), self.one_of(*values), dilation, groups)  # type: ignore[arg-type]
        oh, ow = op.output_size(height, width, kh, kw)
        macs = oh * ow * kh * kw * channels // groups
        limit = MAX_REAL_MACS if real else MAX_MACS // 2
        if not depthwise:
            outputs = max(1, min(outputs, limit // macs) // groups) * groups
        self.macs += macs * outputs * (8 if real else 1)
        return self.add(op, x, self.weights((outputs, kh, kw, channels // groups), dtype))

    # -- stages ---------------------------------------------------------------------------------------------------

    def _stem(self) -> Value:
        outputs = int(self.rng.choice(CHANNELS))
        if self.chance(0.15):  # the image itself is made binary
            return self.affine(self.conv(self.binarize(self.affine(self.x)), outputs))
        y = self.conv(self.x, outputs, dtype=DType.F64 if self.chance(0.85) else self.binary_dtype())
        y = self.affine(y)
        return self.two_slope(y) if self.chance(0.6) else y

    def residual(self, acc: Value, y: Value) -> Value:
        """Accumulators and the shortcut that fits them, in one of the orders that models use."""
        shortcut: Value | None = None
        (_, h, w, c), (_, oh, ow, oc) = y.type.shape, acc.type.shape
        same_map, same_width = (h, w) == (oh, ow), c == oc
        if not same_map and self.pooling(y, (oh, ow)) is not None:
            shortcut = self.add(self.pooling(y, (oh, ow)), y)  # type: ignore[arg-type]
        elif same_map:
            shortcut = y
        if shortcut is not None and not same_width:
            if oc % c == 0:
                shortcut = self.add(Repeat(oc // c), shortcut)
            elif c % oc == 0:
                shortcut = self.add(GroupMean(c // oc), shortcut)
            else:
                shortcut = None
        if shortcut is None or self.chance(0.2):
            return self.affine(acc)
        if self.chance(0.5):  # batch normalization, then the residual
            xs = [self.affine(acc), shortcut]
            if self.chance(0.2):
                xs.reverse()
            return self.affine(*xs, gain=1.0)
        return self.affine(self.affine(acc, shortcut), gain=1.0)

    def pooling(self, y: Value, size: tuple[int, int]) -> AvgPool | None:
        for kernel in ((2, 2), (1, 2), (3, 3)):
            op = AvgPool(kernel, (2, 2) if kernel != (1, 2) else (1, 2))
            oh = (y.type.shape[1] - kernel[0]) // op.strides[0] + 1
            ow = (y.type.shape[2] - kernel[1]) // op.strides[1] + 1
            if (oh, ow) == size:
                return op
        return None

    def activation(self, y: Value) -> Value:
        if self.chance(0.4):  # RPReLU: shift, slopes, shift
            shift = [self.rng.normal(0.0, 0.2, y.type.channels) for _ in range(2)]
            one = np.ones(y.type.channels)
            y = self.add(Affine(), y, self.parameter(one), self.parameter(shift[0]))
            y = self.two_slope(y)
            return self.add(Affine(), y, self.parameter(one), self.parameter(shift[1]))
        return self.two_slope(y) if self.chance(0.6) else y

    def _bdnet_block(self, y: Value) -> Value:
        acc = self.conv(self.binarize(y), y.type.channels, depthwise=self.chance(0.8))
        y = self.activation(self.residual(acc, y))
        c = y.type.channels
        outputs = int(self.rng.choice([c, c, 2 * c if c <= 35 else c, c // 2 if c % 2 == 0 else c]))
        acc = self.conv(self.binarize(y), outputs, window=(1, 1), plain=True)
        return self.activation(self.residual(acc, y))

    def _folded_chain(self, y: Value) -> Value:
        """Convolutions with nothing but per-channel functions and thresholds between them."""
        t = self.binarize(y)
        for _ in range(self.one_of(1, 1, 2)):
            value = self.affine(self.conv(t, int(self.rng.choice(CHANNELS)), depthwise=self.chance(0.4)))
            if self.chance(0.4):
                value = self.two_slope(value)
            t = self.binarize(value)
        return self.residual(self.conv(t, y.type.channels, plain=self.chance(0.5)), y)

    def _expand_and_shrink(self, y: Value) -> Value:
        """ES: few filters, whose accumulators are repeated, each replica with a batch normalization of its own."""
        times = self.one_of(2, 4)
        channels = y.type.channels
        filters = channels // times if channels % times == 0 and self.chance(0.7) else self.one_of(1, 3, 8, 9)
        acc = self.conv(self.binarize(y), filters, plain=self.chance(0.7))
        if self.chance(0.15):  # another reader of the accumulators
            return self.affine(self.affine(self.add(Repeat(times), acc)), self.affine(self.add(Repeat(times), acc)))
        acc = self.add(Repeat(times), acc)
        if self.chance(0.2):  # no residual: several thresholds on one accumulator
            bits = self.binarize(self.affine(acc) if self.chance(0.7) else acc)
            return self.residual(self.conv(bits, channels, window=(1, 1), plain=True), y)
        return self.activation(self.residual(acc, y))

    def _two_readers(self, y: Value) -> Value:
        """Two thresholds on one map, and the sum of what the two convolutions give."""
        first, second = self.binarize(y), self.binarize(y)
        a = self.conv(first, y.type.channels, window=(3, 3), plain=True)
        b = self.conv(second, a.type.channels, window=(1, 1), plain=True)
        y = self.affine(a)
        if b.type.shape == y.type.shape:
            y = self.affine(b, y)
        return self.activation(y)

    def _real_conv(self, y: Value) -> Value:
        return self.activation(self.affine(self.conv(y, int(self.rng.choice(CHANNELS)), dtype=DType.F64)))

    def _real_weights(self, y: Value) -> Value:
        """A binary activation and real weights."""
        bits = self.sign(y) if self.chance(0.4) else self.binarize(y)
        return self.residual(self.conv(bits, y.type.channels, dtype=DType.F64), y)

    def _bare(self, y: Value) -> Value:
        """Integer thresholds right on the accumulators, alone or with a second reader."""
        acc = self.conv(self.binarize(y), int(self.rng.choice(CHANNELS)), depthwise=self.chance(0.3))
        t = self.binarize(acc)
        out = self.affine(self.conv(t, y.type.channels, plain=True))
        if self.chance(0.5) and out.type.shape == acc.type.shape:
            return self.affine(out, self.affine(acc), gain=1.0)
        return self.two_slope(acc) if self.chance(0.3) else out

    def _pointwise(self, y: Value) -> Value:
        """Per-channel functions without a convolution, with a second reader."""
        z = self.two_slope(self.affine(y, gain=1.0))
        return self.affine(z, y, gain=1.0) if self.chance(0.6) else self.two_slope(z)

    def _moves(self, y: Value) -> Value:
        """Pooling, repetition and group means in the trunk itself."""
        _, height, width, channels = y.type.shape
        if height > 1 and width > 1 and self.chance(0.4):
            return self.add(AvgPool((2, 2), (self.one_of(1, 2), 2)), y)
        if channels <= 20 and self.chance(0.5):
            return self.add(Repeat(self.one_of(2, 3)), y)
        sizes = [s for s in range(2, channels + 1) if channels % s == 0]
        return self.add(GroupMean(int(self.rng.choice(sizes))), y) if sizes else y

    def _head(self, y: Value) -> Value:
        kind = self.rng.random()
        if kind < 0.1:  # a map
            return self.affine(y, gain=1.0) if self.chance(0.7) else y
        pooled = self.add(GlobalAvgPool(), y)
        if kind < 0.15:
            return pooled
        if self.chance(0.3):
            pooled = self.add(Reshape((1, y.type.channels)), pooled)
        classes = self.one_of(1, 2, 10, 33)
        dtype = DType.F64
        if self.chance(0.2):  # a binary classifier
            pooled, dtype = self.binarize(pooled), self.binary_dtype()
        elif self.chance(0.2):
            pooled = self.two_slope(self.affine(pooled, gain=1.0))
        elif self.chance(0.1):
            dtype = self.binary_dtype()
        logits = self.add(Linear(), pooled, self.weights((classes, pooled.type.channels), dtype))
        if self.chance(0.1):
            return logits
        return self.affine(logits)
