"""The passes: what they may change, what they must prove, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from random_networks import RandomNetwork, random_network

import bdnet_deploy
from bdnet_deploy.errors import UnsupportedError, UsageError
from bdnet_deploy.graph import (
    AddMap,
    Affine,
    Array,
    AvgPool,
    BoxSum,
    Clamp,
    Concat,
    Conv2d,
    DType,
    GlobalAvgPool,
    Graph,
    GroupMean,
    Linear,
    Matmul,
    MaxPool,
    Move,
    Mul,
    MulMap,
    Op,
    Permutation,
    Quant,
    Reduce,
    Repeat,
    Sign,
    Ternarize,
    TwoSlope,
    Value,
    evaluate,
)
from bdnet_deploy.importers.torch import import_module
from bdnet_deploy.iodesc import IODescription
from bdnet_deploy.lowering import Lowered, lower
from bdnet_deploy.model import Model
from bdnet_deploy.passes import Ranges, calibrate, fold_thresholds, merge_affine, quantize, to_float

FIXED = ("fixed16", "fixed8")
DIGITS = Path(__file__).parents[1] / "examples" / "digits"


@pytest.fixture(scope="module")
def digits() -> Model:
    return bdnet_deploy.load(DIGITS / "model.pt")


def ops_of(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


class Net:
    """A real graph by hand."""

    def __init__(self, *shape: int, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = Graph()
        self.x = self.graph.input("x", (1, *shape), DType.F64)

    def add(self, op: Op, *inputs: Value) -> Value:
        return self.graph.add(op, inputs, op.name, source=f"my.{op.name}")

    def affine(self, *xs: Value, mul: object = None, add: object = None) -> Value:
        shape = (xs[0].type.channels,)
        muls = [self.rng.normal(size=shape) if mul is None else np.broadcast_to(mul, shape) for _ in xs]  # type: ignore[arg-type]
        offset = self.rng.normal(size=shape) if add is None else np.broadcast_to(add, shape)  # type: ignore[arg-type]
        return self.add(Affine(len(xs)), *xs, *(self.graph.parameter("p", p) for p in (*muls, offset)))

    def slopes(self, x: Value, positive: object, negative: object, bias: object = 0.0) -> Value:
        arrays = [np.broadcast_to(p, (x.type.channels,)) for p in (positive, negative, bias)]  # type: ignore[arg-type]
        return self.add(TwoSlope(), x, *(self.graph.parameter("p", p) for p in arrays))

    def sign(self, x: Value, threshold: object = 0.0) -> Value:
        return self.add(Sign(), x, self.graph.parameter("t", np.broadcast_to(threshold, (x.type.channels,))))  # type: ignore[arg-type]

    def ternarize(self, x: Value, low: object = -0.5, high: object = 0.5) -> Value:
        limits = [np.broadcast_to(t, (x.type.channels,)) for t in (low, high)]  # type: ignore[arg-type]
        return self.add(Ternarize(), x, *(self.graph.parameter("t", t) for t in limits))

    def conv(self, x: Value, outputs: int, k: int = 1, dtype: DType = DType.BIT, **geometry: int) -> Value:
        shape = (outputs, k, k, x.type.channels // geometry.get("groups", 1))
        data = self.rng.normal(size=shape) if dtype is DType.F64 else self.rng.choice([-1, 1], shape)
        return self.add(Conv2d(**geometry), x, self.graph.constant("w", data, dtype))  # type: ignore[arg-type]

    def done(self, *outputs: Value) -> Graph:
        self.graph.outputs = list(outputs)
        return self.graph


# -- merge_affine -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
def test_merging_keeps_the_values(seed: int) -> None:
    network = random_network(seed)
    merged = merge_affine(network.graph)
    assert len(merged.nodes) <= len(network.graph.nodes)
    old, new = (evaluate(g, [network.samples], keep=True) for g in (network.graph, merged))
    for node in merged.nodes:
        if node.name not in old:
            continue
        kept = next(n for n in network.graph.nodes if n.name == node.name)
        if isinstance(kept.op, Affine | TwoSlope) and node.name in {n.name for n in merged.nodes}:
            scale = max(float(np.abs(old[node.name]).max()), 1e-30)
            assert np.abs(new[node.name] - old[node.name]).max() <= 1e-12 * scale, node.name
        else:  # thresholds included: no input is that close to one
            np.testing.assert_allclose(new[node.name], old[node.name], rtol=1e-9, atol=1e-9)
    before, after = old[network.graph.outputs[0].name], new[merged.outputs[0].name]
    assert np.abs(after - before).max() <= 1e-12 * max(float(np.abs(before).max()), 1e-30)


def test_chains_of_affine_maps_become_one() -> None:
    net = Net(3, 3, 4)
    y = net.affine(net.affine(net.affine(net.conv(net.x, 4, dtype=DType.F64))))
    merged = merge_affine(net.done(y))
    assert ops_of(merged) == ["conv2d", "affine"]


@pytest.mark.parametrize("order", [0, 1])
def test_a_residual_sum_takes_the_affine_maps_around_it(order: int) -> None:
    net = Net(3, 3, 4)
    trunk = net.slopes(net.x, 1.0, 0.2)
    acc = net.conv(net.sign(trunk), 4)
    terms = [net.affine(acc), trunk]
    merged = merge_affine(net.done(net.slopes(net.affine(net.affine(*terms[:: 1 - 2 * order])), 1.0, 0.1)))
    assert ops_of(merged) == ["two_slope", "sign", "conv2d", "affine", "two_slope"]
    assert merged.nodes[3].op == Affine(2)


def test_an_affine_map_goes_into_the_slopes_before_it() -> None:
    net = Net(2, 2, 3)
    merged = merge_affine(net.done(net.affine(net.slopes(net.affine(net.x), 1.0, -0.5, 0.3), mul=-2.0)))
    assert ops_of(merged) == ["affine", "two_slope"]


def test_identities_vanish_and_other_readers_stay() -> None:
    net = Net(2, 2, 3)
    first = net.affine(net.x)
    same = net.affine(first, mul=1.0, add=0.0)
    second = net.affine(same)
    merged = merge_affine(net.done(net.affine(second, same)))
    assert ops_of(merged) == ["affine", "affine"]
    assert merged.nodes[1].inputs[0] is merged.nodes[1].inputs[1]


def test_an_output_in_the_middle_is_not_merged() -> None:
    net = Net(2, 2, 3)
    first = net.affine(net.x)
    assert ops_of(merge_affine(net.done(first, net.affine(first)))) == ["affine", "affine"]


def test_the_graph_given_is_not_changed() -> None:
    graph = random_network(3).graph
    before = str(graph)
    merge_affine(graph)
    to_float(graph)
    assert str(graph) == before


# -- to_float -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_to_float_rounds_every_parameter_once(seed: int) -> None:
    real = merge_affine(random_network(seed).graph)
    new = to_float(real)
    assert ops_of(new) == ops_of(real) and new.numerics == "float"
    assert not any(v.type.dtype is DType.F64 for n in new.nodes for v in (*n.inputs, n.output))
    for old_node, new_node in zip(real.nodes, new.nodes, strict=True):
        assert old_node.source == new_node.source
        for a, b in zip(old_node.inputs, new_node.inputs, strict=True):
            if a.data is not None and b.data is not None:
                expected = a.data.astype(np.float32) if a.type.dtype is DType.F64 else a.data
                np.testing.assert_array_equal(b.data, expected)


# -- fold_thresholds ------------------------------------------------------------------------------------------------------


def chain(net: Net, slopes: tuple[object, object] | None, ternary: bool, *, mul: object, add: object) -> Graph:
    channels = 8
    acc = net.conv(net.sign(net.x), channels, 3, padding=(1, 1, 1, 1))  # type: ignore[arg-type]
    y = net.affine(acc, mul=mul, add=add)
    if slopes is not None:
        y = net.slopes(y, *slopes)
    t = net.ternarize(y, -1.0, 1.0) if ternary else net.sign(y, 0.0)
    return net.done(net.affine(net.conv(t, 3), mul=1.0, add=0.0))


def levels(graph: Graph, acc: Array, flipped: Array) -> Array:
    """What the thresholds on the accumulators of a folded graph say."""
    node = next(n for n in graph.nodes if isinstance(n.op, Sign | Ternarize) and n.inputs[0].type.dtype is DType.I32)
    arrays = [np.where(flipped, -acc, acc), *(v.data for v in node.inputs[1:] if v.data is not None)]
    return node.op.reference([v.type for v in node.inputs], arrays, node.output.type)


FACTORS = {
    "positive": np.full(8, 0.5),
    "ties": np.array([1.0, -1.0, 0.5, -0.5, 0.25, -0.25, 2.0, -2.0]),
    "zero": np.array([0.0, -0.0, 1.0, -1.0, 0.0, 1e-30, -1e-30, 1e-3]),
    "odd": np.array([0.1, -0.3, 0.7, 1 / 3, -1 / 3, 1e-4, 17.3, -1e4]),
}


@pytest.mark.parametrize("numerics", ["float", *FIXED])
@pytest.mark.parametrize("mul", list(FACTORS))
@pytest.mark.parametrize("ternary", [False, True])
@pytest.mark.parametrize("slopes", [None, (1.0, 0.25), (1.0, 0.0), (-1.0, -0.5)])
def test_folding_is_exact_at_every_accumulator(
    numerics: str, mul: str, ternary: bool, slopes: tuple[object, object] | None
) -> None:
    net = Net(4, 4, 2)
    add = np.array([0.0, 1.0, -1.0, 0.5, 2.0, -0.0, 3.0, -5.0])
    real = merge_affine(chain(net, slopes, ternary, mul=FACTORS[mul], add=add))
    graph = to_float(real) if numerics == "float" else quantize(real, numerics, calibrate(real, None))[0]
    reasons: list[str] = []
    folded = fold_thresholds(graph, report=reasons.append)
    assert not reasons
    assert len(folded.nodes) < len(graph.nodes)
    nodes = {n.name: n for n in graph.nodes}
    start = next(i for i, n in enumerate(graph.nodes) if isinstance(n.op, Conv2d))
    conv = graph.nodes[start]
    acc = np.repeat(np.arange(-18, 19, dtype=np.int32)[:, None], 8, 1)
    values: Array = acc
    for node in graph.nodes[start + 1 :]:
        if isinstance(node.op, Conv2d):
            break
        arrays = [values, *(v.data for v in node.inputs[1:] if v.data is not None)]
        values = node.op.reference([v.type for v in node.inputs], arrays, node.output.type)
    before, after = conv.inputs[1].data, next(n for n in folded.nodes if n.name == conv.name).inputs[1].data
    assert before is not None and after is not None and nodes
    flipped = (before != after).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(after[flipped], -before[flipped])
    np.testing.assert_array_equal(levels(folded, acc, flipped), values)


def test_a_chain_that_is_not_monotone_is_left_alone() -> None:
    net = Net(4, 4, 2)
    graph = to_float(merge_affine(chain(net, (1.0, -1.0), False, mul=1.0, add=-3.0)))
    # |x| - 3 >= 0 at both ends
    graph.nodes[-3].inputs[1].data[:] = 3.0  # type: ignore[index]
    reasons: list[str] = []
    folded = fold_thresholds(graph, report=reasons.append)
    assert ops_of(folded) == ops_of(graph)
    assert len(reasons) == 1 and "slope is negative" in reasons[0] and reasons[0].startswith("my.sign")


def test_shared_filters_are_left_alone() -> None:
    net = Net(4, 4, 2)
    bits = net.sign(net.x)
    weight = net.graph.constant("w", net.rng.choice([-1, 1], (2, 1, 1, 2)), DType.BIT)
    first = net.sign(net.affine(net.add(Conv2d(), bits, weight), mul=-1.0))
    graph = to_float(net.done(net.affine(net.add(Conv2d(), first, weight))))
    reasons: list[str] = []
    folded = fold_thresholds(graph, report=reasons.append)
    assert ops_of(folded) == ops_of(graph)
    assert reasons and "shared" in reasons[0]


@pytest.mark.parametrize("reader", ["second sign", "output"])
def test_values_with_other_readers_are_left_alone(reader: str) -> None:
    net = Net(4, 4, 2)
    y = net.affine(net.conv(net.sign(net.x), 4))
    outputs = [net.affine(net.conv(net.sign(y), 4))]
    outputs.append(y if reader == "output" else net.affine(net.conv(net.sign(y, 0.3), 4)))
    graph = to_float(net.done(*outputs))
    assert ops_of(fold_thresholds(graph)) == ops_of(graph)


@pytest.mark.parametrize("numerics", ["float", *FIXED])
def test_nodes_of_one_input_do_not_disturb(numerics: str) -> None:
    """A model without residuals folds everything, past its global average pool."""
    import torch

    from bdnet_deploy.models import registry

    torch.manual_seed(0)
    options = {"ternary": "both", "residual_dw": "none", "residual_pw": "none"}
    module = registry.create("bdnet_digits", widths=(8, 16, 8), strides=(1, 1), **options).eval()
    real = import_module(module, (1, 1, 8, 8))
    lowered = lower(real, numerics, samples=np.random.default_rng(0).normal(size=(4, 8, 8, 1)))
    thresholds = [n for n in lowered.graph.nodes if isinstance(n.op, Sign | Ternarize)]
    assert any(n.inputs[0].type.dtype is DType.I32 for n in thresholds)


# -- quantize ---------------------------------------------------------------------------------------------------------------


def lowered_or_none(network: RandomNetwork, numerics: str) -> Lowered | None:
    try:
        return lower(network.graph, numerics, io=network.io, samples=network.samples)
    except UnsupportedError:
        return None


def largest_value(value: Value, taps: dict[Value, Array]) -> Array:
    """(C,) largest absolute integer that a value of a fixed graph can take."""
    if value in taps:
        return taps[value]
    low, high = value.type.dtype.range
    return np.full(value.type.channels, max(-low, high), np.int64)


def largest_factor(x: Value) -> int:
    """The largest absolute value that an operand puts into a product, its zero point taken off."""
    zero = 0 if x.type.quant is None else int(x.type.quant.zero_point)
    low, high = x.type.dtype.range
    return max(high - zero, zero - low, 1)


def check_proofs(graph: Graph) -> int:
    """Every fixed Affine of the graph stays within 32 bits, whatever its inputs; the number of them."""
    bounds: dict[Value, Array] = {}
    count = 0
    for node in graph.nodes:
        op = node.op
        if isinstance(op, Conv2d | Linear):
            x, w, *border = node.inputs
            assert w.data is not None
            taps = np.abs(w.data.astype(np.int64)).reshape(len(w.data), -1).sum(1)
            if border:  # of raw pixels: their means lie in it
                assert x.type.dtype is DType.U8 and border[0].data is not None
                bounds[node.output] = taps * 255 + np.abs(border[0].data.astype(np.int64)).max((0, 1))
            else:
                bounds[node.output] = taps * largest_factor(x)
            assert bounds[node.output].max() < 2**31, node
        elif isinstance(op, Matmul):
            zero = 0 if node.inputs[0].type.quant is None else int(node.inputs[0].type.quant.zero_point)
            (low, high), (least, most) = (v.type.dtype.range for v in node.inputs)
            product = max(high - zero, zero - low) * max(-least, most) * node.inputs[0].type.channels
            bounds[node.output] = np.full(node.output.type.channels, product, np.int64)
            assert product < 2**31, node
        elif isinstance(op, GlobalAvgPool):
            pixels = node.inputs[0].type.size // node.inputs[0].type.channels
            bounds[node.output] = largest_value(node.inputs[0], bounds) * pixels
        elif isinstance(op, MaxPool) and node.inputs[0] in bounds:
            bounds[node.output] = bounds[node.inputs[0]]
        elif isinstance(op, BoxSum):
            taps = op.kernel[0] * op.kernel[1] * node.inputs[0].type.channels // op.groups
            bounds[node.output] = np.full(op.groups, taps, np.int64)
        elif isinstance(op, Reduce) and op.kind == "sum":
            terms = node.inputs[0].type.size // node.output.type.size
            bounds[node.output] = np.resize(largest_value(node.inputs[0], bounds) * terms, node.output.type.channels)
        elif isinstance(op, Matmul):
            bound = largest_factor(node.inputs[0]) * largest_factor(node.inputs[1]) * node.inputs[0].type.channels
            bounds[node.output] = np.full(node.output.type.channels, bound, np.int64)
            assert bound < 2**31, node
        elif isinstance(op, Mul):
            assert all(v.type.dtype in (DType.I8, DType.I16) for v in node.inputs), node
            bounds[node.output] = np.prod([largest_value(v, bounds) for v in node.inputs], axis=0)
        elif isinstance(op, AddMap | MulMap):
            constant = node.inputs[1].data
            assert constant is not None and node.inputs[0] not in bounds, node
            largest = largest_value(node.inputs[0], bounds) * (16 if node.inputs[0].type.dtype is not DType.I16 else 1)
            most = np.abs(constant.astype(np.int64)).max((0, 1, 2))
            if isinstance(op, MulMap):
                largest = largest_value(node.inputs[0], bounds)
            bounds[node.output] = largest + most if isinstance(op, AddMap) else largest * most
        elif isinstance(op, Repeat):
            bounds[node.output] = np.tile(largest_value(node.inputs[0], bounds), op.times)
        elif isinstance(op, Move | Permutation | Concat):
            maps = [np.broadcast_to(largest_value(v, bounds), v.type.shape) for v in node.inputs]
            moved = op.reference([v.type for v in node.inputs], maps, node.output.type)
            bounds[node.output] = np.abs(moved).reshape(-1, node.output.type.channels).max(0)
        elif isinstance(op, Affine):
            count += 1
            parameters = [v.data for v in node.inputs[op.terms :] if v.data is not None]
            total = np.abs(parameters[-1].astype(np.int64))
            for x, mul, shift in zip(node.inputs[: op.terms], parameters[:-1], op.shifts, strict=True):
                bound = largest_value(x, bounds)
                if shift > 0:
                    shifted = bound << shift
                    assert shifted.max() < 2**15, f"{node}: a left shift overflows 16 bits"
                else:
                    shifted = np.minimum(-(-bound >> -shift) if shift else bound, 2**15)
                low = (mul.astype(np.int64) & 0xFFFF).astype(np.uint16).astype(np.int16).astype(np.int64)
                k = (mul.astype(np.int64) - low) >> 16
                assert ((k == 0) | (k == 1)).all(), f"{node}: k is {set(k.tolist())}"
                total = total + shifted * np.abs(low)
            assert total.max() < 2**31, f"{node}: {total.max()}"
        elif isinstance(op, TwoSlope):
            assert node.inputs[0].type.dtype in (DType.I8, DType.I16), node
    return count


@pytest.mark.parametrize("numerics", FIXED)
@pytest.mark.parametrize("first", range(0, 100, 10))
def test_no_sum_can_leave_32_bits(numerics: str, first: int) -> None:
    count = 0
    for seed in range(first, first + 10):
        lowered = lowered_or_none(random_network(seed), numerics)
        count += check_proofs(lowered.graph) if lowered else 0
    assert count > 10


@pytest.mark.parametrize("numerics", FIXED)
@pytest.mark.parametrize("features", [300, 1024, 4000])
def test_wide_classifiers_fit_32_bits(numerics: str, features: int) -> None:
    net = Net(1, 1, features)
    pooled = net.add(GlobalAvgPool(), net.affine(net.x))
    w = net.graph.constant("w", np.full((3, features), 0.5), DType.F64)
    lowered = lower(net.done(net.affine(net.add(Linear(), pooled, w))), numerics)
    check_proofs(lowered.graph)
    x = np.full((1, 1, 1, features), 127, np.int8)
    real = evaluate(net.graph, [np.asarray(lowered.graph.inputs[0].type.quant.dequantize(x))])  # type: ignore[union-attr]
    assert evaluate(lowered.graph, [x])[lowered.graph.outputs[0].name].dtype == np.int16 and len(real) == 1


@pytest.mark.parametrize("numerics", FIXED)
@pytest.mark.parametrize("seed", range(30))
def test_scales_cover_the_calibrated_ranges(numerics: str, seed: int) -> None:
    network = random_network(seed)
    real = merge_affine(network.graph)
    ranges = calibrate(real, [network.samples])
    try:
        graph, report = quantize(real, numerics, ranges)
    except UnsupportedError:
        pytest.skip("not possible")
    assert report.samples == len(network.samples) and not report.timing_only
    assert all(row["saturating_channels"] == 0 for row in report.rows)
    for node in graph.nodes:
        if isinstance(node.op, Affine | TwoSlope) and node.name in ranges.low:
            quant = node.output.type.quant
            assert quant is not None
            low, high = node.output.type.dtype.range
            users = [n for n in real.nodes if any(v.name == node.name for v in n.inputs)]
            clamped = len(users) == 1 and isinstance(users[0].op, Clamp)  # beyond its limits nothing is kept
            seen = users[0].name if clamped else node.name
            assert ((low - 0.5 - quant.zero_point) * quant.scale <= ranges.low[seen]).all()
            assert ((high + 0.5 - quant.zero_point) * quant.scale >= ranges.high[seen]).all()


@pytest.mark.parametrize(("numerics", "most"), [("fixed16", 4), ("fixed8", 11)])
def test_digits_in_fixed_point_predict_as_in_float(digits: Model, numerics: str, most: int) -> None:
    samples = digits.samples(DIGITS / "test.npz")
    predictions = []
    for lowered in (digits.lowered("float"), digits.lowered(numerics, DIGITS / "calibration.npz")):
        values = evaluate(lowered.graph, [lowered.encode(samples.x)])
        predictions.append(lowered.decode(values[lowered.graph.outputs[0].name]).argmax(1))
    assert len(samples.x) == 360
    assert (predictions[0] != predictions[1]).sum() <= most


@pytest.mark.parametrize(("numerics", "most"), [("fixed16", 0.02), ("fixed8", 0.1)])
@pytest.mark.parametrize("seed", range(4))
def test_a_chain_without_thresholds_is_close_to_the_real_one(numerics: str, most: float, seed: int) -> None:
    """No sign that could flip: the error is that of the rounding (inputs and weights are int8 in both)."""
    net = Net(5, 6, 3, seed=seed)
    y = net.slopes(net.affine(net.conv(net.x, 8, 3, DType.F64)), 1.0, 0.25, 0.1)
    y = net.add(GroupMean(2), net.affine(net.affine(net.conv(y, 8, 1, DType.F64)), y))
    graph = net.done(net.affine(net.add(GlobalAvgPool(), y)))
    x = np.random.default_rng(0).normal(size=(50, 5, 6, 3))
    lowered = lower(graph, numerics, samples=x)
    real = evaluate(graph, [x])[graph.outputs[0].name]
    got = lowered.decode(evaluate(lowered.graph, [lowered.encode(x)])[lowered.graph.outputs[0].name])
    assert np.sqrt(((got - real) ** 2).mean()) <= most * np.sqrt((real**2).mean())


@pytest.mark.parametrize(("numerics", "most"), [("fixed16", 0.02), ("fixed8", 0.1)])
@pytest.mark.parametrize("form", ["slopes twice", "pool between", "of a sum", "of raw pixels"])
def test_slopes_bend_at_the_real_zero(form: str, numerics: str, most: float) -> None:
    """The input of a two-slope may have a zero point (a bias before it, raw pixels): q = 0 is not zero then."""
    net = Net(8, 8, 3)
    io = None
    if form == "of raw pixels":
        io = IODescription.from_settings(
            {"dtype": "u8", "scale": 1 / 64, "zero_point": 100, "shape": (8, 8, 3)}, None, None
        )
        y = net.slopes(net.x, 1.0, 0.1)
    else:
        y = net.slopes(net.affine(net.conv(net.x, 8, 3, DType.F64)), 1.0, 0.25, np.linspace(-2, 2, 8))
        if form == "pool between":
            y = net.add(AvgPool(), y)
        y = net.affine(net.slopes(y, 1.0, 0.1), y, mul=1.0, add=0.0) if form == "of a sum" else net.slopes(y, 1.0, 0.1)
    graph = net.done(net.affine(net.add(GlobalAvgPool(), y)))
    x = np.random.default_rng(0).uniform(-1.5, 2.4, (30, 8, 8, 3)).astype(np.float32)
    lowered = lower(graph, numerics, samples=x, io=io)
    real = evaluate(graph, [x])[graph.outputs[0].name]
    got = lowered.decode(evaluate(lowered.graph, [lowered.encode(x)])[lowered.graph.outputs[0].name])
    assert np.sqrt(((got - real) ** 2).mean()) <= most * np.sqrt((real**2).mean())


@pytest.mark.parametrize("numerics", FIXED)
def test_means_of_too_many_elements_are_refused(numerics: str) -> None:
    """1/count with 16 fractional bits is coarse: better a word than 4 %."""
    for size, fits in ((2, True), (7, True), (16, True), (112, False)):
        net = Net(size, size, 3)
        graph = net.done(net.affine(net.add(AvgPool((size, size), (size, size)), net.affine(net.x))))
        if fits:
            lower(graph, numerics)
        else:
            with pytest.raises(UnsupportedError, match=r"too few for 12544 elements") as error:
                lower(graph, numerics)
            assert error.value.where == "my.avg_pool"


@pytest.mark.parametrize("numerics", FIXED)
def test_quantize_is_deterministic(numerics: str) -> None:
    for seed in range(5):
        network = random_network(seed)
        first, second = (lowered_or_none(network, numerics) for _ in range(2))
        assert (first is None) == (second is None)
        if first is not None and second is not None:
            assert str(first.graph) == str(second.graph)
            for a, b in zip(first.graph.constants(), second.graph.constants(), strict=True):
                assert a.data is not None and b.data is not None and a.data.tobytes() == b.data.tobytes()


def test_zero_points_of_slopes_are_per_channel() -> None:
    net = Net(2, 2, 3)
    bias = np.array([0.0, 1.0, -2.0])
    y = net.slopes(net.affine(net.x), 1.0, 0.25, bias)
    lowered = lower(net.done(net.affine(net.affine(net.conv(y, 3, dtype=DType.F64)), y)), "fixed16")
    node = next(n for n in lowered.graph.nodes if isinstance(n.op, TwoSlope))
    quant = node.output.type.quant
    assert quant is not None
    np.testing.assert_allclose(-quant.zero_point * quant.scale, bias)


@pytest.mark.parametrize("numerics", FIXED)
def test_group_means_get_one_scale(numerics: str) -> None:
    net = Net(2, 2, 6)
    y = net.affine(net.x, mul=np.array([1, 2, 3, 4, 5, 6.0]), add=0.0)
    lowered = lower(net.done(net.affine(net.add(GroupMean(3), y))), numerics)
    node = next(n for n in lowered.graph.nodes if isinstance(n.op, GroupMean))
    quant = node.inputs[0].type.quant
    assert quant is not None and np.ptp(np.broadcast_to(quant.scale, 6)) == 0.0
    assert np.ptp(np.broadcast_to(quant.zero_point, 6)) == 0.0


def test_raw_pixels_stay_as_they_are() -> None:
    net = Net(3, 3, 2)
    real = net.done(net.affine(net.conv(net.x, 3, dtype=DType.F64)))
    graph, _ = quantize(real, "fixed16", calibrate(real, None), inputs=[(DType.U8, Quant.of(1 / 255, 128))])
    assert graph.inputs[0].type.dtype is DType.U8
    assert graph.nodes[0].inputs[0] is graph.inputs[0]


def test_every_output_has_one_scale() -> None:
    net = Net(3, 3, 4)
    y = net.slopes(net.affine(net.conv(net.x, 4, dtype=DType.F64)), 1.0, 0.25, np.arange(4.0))
    lowered = lower(net.done(y), "fixed8")
    quant = lowered.graph.outputs[0].type.quant
    assert quant is not None and np.ndim(quant.scale) == 0 and float(quant.zero_point) == 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["affine", "two_slope", "conv2d"])
@pytest.mark.parametrize("numerics", FIXED)
def test_parameters_that_are_no_numbers_are_refused(value: float, where: str, numerics: str) -> None:
    net = Net(3, 3, 2)
    graph = net.done(net.slopes(net.affine(net.conv(net.x, 3, dtype=DType.F64)), 1.0, 0.25))
    node = next(n for n in graph.nodes if n.op.name == where)
    damaged = node.inputs[-1]
    assert damaged.data is not None
    damaged.data = damaged.data.copy()
    damaged.data.reshape(-1)[0] = value
    high = {v: np.ones(3) for v in ("conv2d", "affine", "two_slope")} | {"x": np.ones(2)}
    ranges = Ranges({v: -a for v, a in high.items()}, high, 1)
    with pytest.raises(UnsupportedError, match="NaN or infinite") as caught:
        quantize(graph, numerics, ranges)
    assert caught.value.where == f"my.{where}"


def test_an_infinite_threshold_is_never_reached() -> None:
    net = Net(3, 3, 2)
    bits = net.sign(net.affine(net.conv(net.x, 4, dtype=DType.F64)), np.array([np.inf, -np.inf, 0.0, 1.0]))
    lowered = lower(net.done(net.affine(net.conv(bits, 4))), "fixed16")
    values = evaluate(lowered.graph, [np.full((1, 3, 3, 2), 100, np.int8)], keep=True)["sign"]
    assert (values[..., 0] == -1).all() and (values[..., 1] == 1).all()


@pytest.mark.parametrize("numerics", FIXED)
def test_padding_of_one_around_real_values_is_refused(numerics: str) -> None:
    net = Net(3, 3, 2)
    graph = net.done(net.affine(net.conv(net.x, 4, 3, DType.F64, padding=(1, 1, 1, 1), pad_value=1)))  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match="padding of 1") as caught:
        lower(graph, numerics)
    assert caught.value.where == "my.conv2d"
    lower(graph, "float")


def test_bad_calibration_samples_are_refused() -> None:
    net = Net(2, 2, 1)
    with pytest.raises(UsageError, match="NaN or infinity"):
        lower(net.done(net.affine(net.x)), "fixed8", samples=np.full((1, 2, 2, 1), np.nan))
    with pytest.raises(UsageError, match="unknown numerics"):
        lower(net.graph, "fixed4")


def test_ranges_are_of_all_samples_and_random_ones_are_marked() -> None:
    net = Net(2, 2, 3)
    graph = net.done(net.affine(net.x, mul=2.0, add=1.0))
    x = np.random.default_rng(0).normal(size=(70, 2, 2, 3))
    done: list[int] = []
    ranges = calibrate(graph, [x], progress=lambda n, _: done.append(n))
    np.testing.assert_array_equal(ranges.high["affine"], (x * 2 + 1).reshape(-1, 3).max(0))
    np.testing.assert_array_equal(ranges.low["affine"], (x * 2 + 1).reshape(-1, 3).min(0))
    assert ranges.samples == 70 and done[-1] == 70 and not ranges.timing_only
    assert calibrate(graph, None).timing_only
