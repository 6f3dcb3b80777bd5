"""The layers of ``kernels.py``: graphs of one binary layer, with random bits and weights of a fixed seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph import Affine, Array, Conv2d, DType, Graph, Quant, Sign, Ternarize, TwoSlope, Value
from bdnet_deploy.lowering import Lowered
from bdnet_deploy.plan import make_plan
from bdnet_deploy.plan.packings.lut7 import LUT7


@dataclass(frozen=True)
class Layer:
    """A convolution with its whole map: ``side`` x ``side`` pixels, padded by zeros to the same size.

    Attributes:
        name: as on the command line.
        channels, outputs, window, side: its shape.
        trit: whether the input is trits; weights are bits.
        depthwise: one filter a channel.
        accumulators: dtype of the sums that it stores.
    """

    name: str
    channels: int
    outputs: int
    window: int
    side: int
    trit: bool = False
    depthwise: bool = False

    @property
    def accumulators(self) -> str:
        return "i8" if self.depthwise else "i16"

    @property
    def kinds(self) -> tuple[str, ...]:
        """Outputs that the layer is measured with: its accumulators, bits by thresholds on them, or the counts of mismatches of
        packings whose affine takes up the difference."""
        return (self.accumulators, "bits", "counts") if self.window == 1 else (self.accumulators, "bits")

    def alone(self, output: str, sets: tuple[str, ...]) -> bool:
        """Whether the row counts the functions of the kernel and not the step, in which an epilogue follows: on Cortex-M, where
        the epilogue decides in which order the sums of a depth-wise layer wait for it."""
        return self.depthwise and output == self.accumulators and bool({"v7m", "v6m"} & set(sets))

    @property
    def macs(self) -> int:
        """Padded taps count."""
        return self.side**2 * self.window**2 * self.outputs * (1 if self.depthwise else self.channels)


LAYERS = (
    Layer("pw64x128_28", 64, 128, 1, 28),
    Layer("pw256x256_14", 256, 256, 1, 14),
    Layer("pw512x512_14", 512, 512, 1, 14),
    Layer("dw3x3_128_28_bit", 128, 128, 3, 28, depthwise=True),
    Layer("dw3x3_128_28_trit", 128, 128, 3, 28, trit=True, depthwise=True),
    Layer("conv3x3_64_56", 64, 64, 3, 56),
    Layer("conv3x3_256_14", 256, 256, 3, 14),
)


@dataclass(frozen=True)
class Case:
    """A layer with one of its outputs, lowered for a core, the step that it is, and an input. ``counted``: the step stores counts n
    of products, of sums ``counted - 2 n``."""

    lowered: Lowered
    step: int
    x: Array
    counted: int | None = None


def build(layer: Layer, output: str, sets: tuple[str, ...]) -> Case:
    """The graph packs an int16 map, runs the layer, and where it makes bits reads them as numbers, so that all can be compared.

    Where :meth:`Layer.alone` says so, a residual with its normalization and slopes stand behind the accumulators, as in a
    network: so the plan chooses the order in which the kernel leaves them.
    """
    rng = np.random.default_rng(1)
    graph = Graph(layer.name, "fixed16")
    x = graph.input("x", (1, layer.side, layer.side, layer.channels), DType.I16, Quant.of(1.0))
    limit = graph.constant("low", np.full(layer.channels, -300 if layer.trit else 0), DType.I32)
    if layer.trit:
        high = graph.constant("high", np.full(layer.channels, 301), DType.I32)
        levels = graph.add(Ternarize(), [x, limit, high], "levels")
    else:
        levels = graph.add(Sign(), [x, limit], "levels")
    per_group = 1 if layer.depthwise else layer.channels
    shape = (layer.outputs, layer.window, layer.window, per_group)
    w = graph.constant("w", rng.choice([-1, 1], shape), DType.BIT)
    pad = layer.window // 2
    conv = Conv2d(padding=(pad, pad, pad, pad), groups=layer.channels if layer.depthwise else 1)
    y = graph.add(conv, [levels, w], "layer")
    if output == "bits":
        # About what thresholds of trained networks are: within a standard deviation of the sums.
        spread = int(np.sqrt(layer.window**2 * per_group))
        low = graph.constant("thresholds", rng.integers(-spread, spread, layer.outputs, endpoint=True), DType.I32)
        bits = graph.add(Sign(), [y, low], "sign")
        one = graph.constant("one", np.full(layer.outputs, 16384), DType.I32)
        half = graph.constant("half", np.zeros(layer.outputs), DType.I32)
        y = graph.add(Affine(terms=1, shifts=(2,), out=DType.I8), [bits, one, half], "numbers", quant=Quant.of(1.0))
    elif layer.alone(output, sets):
        rows = {"mul": 3000, "factor": 60000, "add": 20000, "positive": 65536, "negative": 16384}
        of = {n: graph.constant(n, np.full(layer.outputs, value), DType.I32) for n, value in rows.items()}
        both = Affine(terms=2, shifts=(8, 0), out=DType.I16)
        y = graph.add(both, [y, x, of["mul"], of["factor"], of["add"]], "affine")
        y = graph.add(TwoSlope(out=DType.I16), [y, of["positive"], of["negative"]], "y", quant=Quant.of(1.0))
    graph.outputs = [y]
    plan = make_plan(graph, sets=sets)
    step = next(i for i, s in enumerate(plan.steps) if any(n.output.name == "layer" for n in s.nodes))
    sample = rng.integers(-1000, 1000, (layer.side, layer.side, layer.channels), dtype=np.int16)
    counted = output == "counts" and LUT7.store_counts(plan.steps[step], sets)
    return Case(Lowered(graph, plan), step, sample, layer.channels if counted else None)


#: What stands behind the accumulators: residual added to the normalized sums (post) or normalized with them (pre), PReLU, an
#: int16 trunk, and the bits or trits that the next layer reads.
EPILOGUES = ("post_bn_sign", "pre_bn_sign", "pre_bn_trit")
EPILOGUE_SHAPE = (28, 28, 128)


def build_epilogue(kind: str, sets: tuple[str, ...]) -> Case:
    """A convolution stores its accumulators of 64 products, since the residual is made of them, too; trunk and packed output are
    read by one more step, to be compared."""
    rng = np.random.default_rng(1)
    graph = Graph(kind, "fixed16")
    channels = EPILOGUE_SHAPE[2]

    def numbers(name: str, low: int, high: int, dtype: DType = DType.I32) -> Value:
        return graph.constant(name, rng.integers(low, high, channels, endpoint=True), dtype)

    def even(name: str, low: int, high: int) -> Value:
        """As the quantizer rounds slopes and a residual's factors."""
        return graph.constant(name, 2 * rng.integers(low // 2, high // 2, channels, endpoint=True), DType.I32)

    def same(name: str, number: int) -> Value:
        return graph.constant(name, np.full(channels, number), DType.I32)

    source = graph.input("x", (1, *EPILOGUE_SHAPE[:2], 64), DType.I16, Quant.of(1.0))
    bits = graph.add(Sign(), [source, graph.constant("limit", np.zeros(64), DType.I32)], "bits")
    w = graph.constant("w", rng.choice([-1, 1], (channels, 1, 1, 64)), DType.BIT)
    x = graph.add(Conv2d(), [bits, w], "accumulators")
    other = Affine(terms=1, shifts=(4,), out=DType.I16)
    residual = graph.add(other, [x, numbers("a", -32768, 32767), numbers("b", -(2**29), 2**29)], "residual")
    factors = same("factor", 65536) if kind.startswith("post") else even("factor", 40000, 65536)
    both = Affine(terms=2, shifts=(8, 0), out=DType.I16)
    v = graph.add(both, [x, residual, numbers("mul", -30000, 30000), factors, numbers("add", -(2**28), 2**28)], "layer")
    y = graph.add(TwoSlope(out=DType.I16), [v, same("positive", 65536), even("negative", -32768, 32767)], "y")
    if kind.endswith("trit"):
        levels = graph.add(Ternarize(), [y, numbers("low", -9000, -1), numbers("high", 0, 9000)], "levels")
    else:
        levels = graph.add(Sign(), [y, numbers("low", -9000, 9000)], "levels")
    last = Affine(terms=2, shifts=(0, 0), out=DType.I16)
    out = graph.add(last, [y, levels, same("m", 32768), same("n", 65536), same("zero", 0)], "out", quant=Quant.of(1.0))
    graph.outputs = [out]
    plan = make_plan(graph, sets=sets)
    step = next(i for i, s in enumerate(plan.steps) if any(n.output.name == "layer" for n in s.nodes))
    return Case(
        Lowered(graph, plan), step, rng.integers(-64, 64, (*EPILOGUE_SHAPE[:2], 64), dtype=np.int16, endpoint=True)
    )
