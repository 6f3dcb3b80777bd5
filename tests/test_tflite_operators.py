"""Every operator of the graph in stock Larq Compute Engine: bits and integers equal, reals within 1e-5, each layer alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from export_graphs import Net, assert_layer
from random_networks import random_network

from bdnet_deploy.errors import MissingPackageError, UnsupportedError
from bdnet_deploy.export.tflite import write
from bdnet_deploy.export.tflite.lowering import OPERATORS
from bdnet_deploy.graph import (
    OPS,
    REPLICATE,
    AddMap,
    Affine,
    AvgPool,
    BitLogic,
    BoxSum,
    Clamp,
    Concat,
    Conv2d,
    Dequantize,
    DType,
    Flip,
    Gather,
    GlobalAvgPool,
    Graph,
    GroupMean,
    GroupNorm,
    LayerNorm,
    Linear,
    Lut,
    Matmul,
    MaxPool,
    Mul,
    MulMap,
    Op,
    Pad,
    PixelShuffle,
    PixelUnshuffle,
    Quantize,
    Reduce,
    Repeat,
    Reshape,
    Shuffle,
    Sign,
    Slice,
    Softmax,
    Ternarize,
    Transpose,
    TwoSlope,
    Unary,
    Upsample,
    Value,
    difference,
    evaluate,
)
from bdnet_deploy.graph.float_functions import REAL
from bdnet_deploy.importers.tflite import read_graph, split_layers
from bdnet_deploy.lowering import float_graph
from bdnet_deploy.peers import lce


def _available() -> bool:
    try:
        lce.find_interpreter()
    except MissingPackageError:
        return False
    return True


pytestmark = [
    pytest.mark.skipif(not _available(), reason="larq-compute-engine cannot run here"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
KINDS = ("bit", "trit", "ubit", "i32", "u8", "f32")


def check(graphs: Sequence[tuple[Graph, np.ndarray]], modes: Sequence[str] = lce.MODES) -> None:
    """Write, read back, and run every layer on the reference's own values, then the whole file."""
    jobs, expected = [], []
    for i, (graph, x) in enumerate(graphs):
        data = write(graph).data
        assert difference(graph, read_graph(data)[0]) is None
        values = evaluate(graph, [x], keep=True)
        for layer in split_layers(data):
            jobs.append((layer.model, layer.feed(values)))
            expected.append((f"{i}: {layer.nodes} of\n{graph}", values[layer.name]))
        jobs.append((data, [x]))
        expected.append(
            (f"{i}: the file of\n{graph}", None if len(graph.outputs) > 1 else values[graph.outputs[0].name])
        )
    for mode in modes:
        for (name, values), outputs in zip(expected, lce.run_many(jobs, mode=mode), strict=True):
            if values is not None and "the file" not in name:
                assert_layer(f"{mode}: {name}", outputs[0], values)
            elif values is not None:
                assert outputs[0].shape == values.shape, name


def level(net: Net, kind: str, x: Value | None = None) -> Value:
    """A value of that kind made of the input."""
    x = net.x if x is None else x
    if kind == "trit":
        return net.ternarize(x)
    if kind == "i32":
        return net.conv(net.sign(x), x.type.channels)
    if kind == "u8":
        return net.add(Quantize(DType.U8, 0.02, 100), x)
    if kind == "ubit":
        return net.add(Sign(DType.UBIT), x, net.constant(net.rng.normal(size=x.type.channels) * 0.3))
    return net.sign(x) if kind == "bit" else net.affine(x)


def samples(net: Net) -> np.ndarray:
    return net.samples(2)


# -- products ---------------------------------------------------------------------------------------------------------


def test_convolutions() -> None:
    """Operands, groups, padding, strides and dilation at random; then signs, ternarized values or factors of the sums."""
    rng = np.random.default_rng(11)
    graphs = []
    seen, integers = set(), 0
    for seed in range(300):
        kind, weights = (
            str(rng.choice(KINDS, p=[0.35, 0.25, 0.2, 0.05, 0.05, 0.1])),
            [DType.BIT, DType.BIT, DType.TRIT, DType.F32][rng.integers(4)],
        )
        channels = int(rng.choice([1, 3, 12, 32, 33, 40, 64, 96]))
        groups = int(rng.choice([1, 1, 1, 1, 1, channels, *(g for g in (2, 3, 4, 8) if channels % g == 0)]))
        net = Net(seed, int(rng.integers(1, 8)), int(rng.integers(1, 8)), channels)
        x = level(net, kind)
        k, dilation = int(rng.choice([1, 2, 3, 3, 5])), int(rng.choice([1, 1, 1, 2]))
        reach = (k - 1) * dilation
        values = (
            [0, 0, REPLICATE] if kind in ("f32", "i32", "u8") else [0, 0, 0, REPLICATE, 1, 0 if kind == "ubit" else -1]
        )
        sides = [reach // 2, reach - reach // 2] * 2 if rng.random() < 0.6 else [reach, *rng.integers(0, 3, 3).tolist()]
        sides = [max(sides[0], reach), sides[1], max(sides[2], reach), sides[3]] if rng.random() < 0.5 else sides
        for axis in (0, 1):  # at least one position
            sides[2 * axis + 1] += max(0, reach + 1 - x.type.shape[1 + axis] - sides[2 * axis] - sides[2 * axis + 1])
        stride = tuple(int(s) for s in rng.choice([1, 1, 2], 2))
        op = Conv2d(stride, tuple(sides), int(rng.choice(values)), (dilation, dilation), groups)  # type: ignore[arg-type]
        outputs = groups * int(rng.choice([1, 2, 3])) if groups > 1 else int(rng.choice([1, 7, 33]))
        acc = net.add(op, x, net.weights(outputs, k, k, channels // groups, dtype=weights))
        seen.add((kind, weights, 1 if groups == 1 else 2 if groups == channels else 3))
        last: list[Value] = [acc]
        turn = rng.integers(6)
        if turn == 0:
            last = [net.affine(acc)]
        elif turn == 1:
            last = [net.sign(acc), net.affine(acc)]
        elif turn in (2, 3) and acc.type.dtype is DType.I32:
            thresholds = net.rng.choice([-(2**31), -4, -1, 0, 1, 2, 3, 2**31 - 1], outputs)
            last = [net.add(Sign(DType.UBIT if turn == 3 else DType.BIT), acc, net.constant(thresholds, DType.I32))]
            integers += acc.type.dtype is DType.I32
        elif turn == 4 and acc.type.dtype is DType.I32:
            limits = np.sort(net.rng.integers(-5, 6, (2, outputs)), 0)
            last = [net.add(Ternarize(), acc, *(net.constant(v, DType.I32) for v in limits))]
        graphs.append((net.done(*last).graph, samples(net)))
    assert len(seen) > 30 and integers > 50
    check(graphs)


def test_linear() -> None:
    graphs = []
    for seed, channels in enumerate((1, 20, 32, 70)):
        for kind in KINDS:
            for dtype in (DType.BIT, DType.TRIT, DType.F32):
                net = Net(seed, 1, 1, channels)
                x = net.add(Reshape((1, channels)), level(net, kind))
                y = net.add(Linear(), x, net.weights(9, channels, dtype=dtype))
                graphs.append((net.done(y, net.affine(y), net.sign(y)).graph, samples(net)))
    check(graphs)


def test_sums_over_windows() -> None:
    graphs = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        net = Net(seed, 5, 6, 64 if seed % 2 else 6)
        x = level(net, ("bit", "trit", "ubit")[seed % 3])
        groups = int(rng.choice([1, 2, x.type.channels]))
        pad_value = int(rng.choice([0, 1, REPLICATE]))
        op = BoxSum((3, 2), (1, 2), (1, 1, 0, 1), pad_value, groups=groups)
        numbers = net.add(BoxSum((1, 1), groups=x.type.channels), x)
        graphs.append((net.done(net.add(op, x), net.affine(numbers)).graph, samples(net)))
    check(graphs)


def test_products_of_maps() -> None:
    graphs = []
    for i, a in enumerate(KINDS):
        for j, b in enumerate(KINDS):
            if b == "u8":  # the second operand needs zero point 0
                continue
            net = Net(i * 10 + j, 2, 5, 24)
            x, y = level(net, a), level(net, b, net.affine(net.x))
            graphs.append((net.done(net.add(Matmul(), x, y)).graph, samples(net)))
    check(graphs)


# -- moves --------------------------------------------------------------------------------------------------------------

MOVES: list[Op] = [
    Slice((1, 0, 0), (4, 6, 64), (2, 1, 1)),
    Slice((0, 1, 32), (4, 6, 64), (1, 3, 1)),
    Slice((0, 0, 5), (2, 6, 64), (1, 1, 3)),
    Pad((1, 0, 2, 1, 0, 0), value=1),
    Pad((1, 0, 2, 1, 3, 0), value=1),
    Pad((1, 2, 2, 1, 0, 3), "reflect"),
    Pad((1, 2, 2, 1, 0, 0), "replicate"),
    Shuffle(4),
    Gather((5, 5, 0, 63)),
    Gather((), (3, 3, 0), (1,)),
    Upsample((2, 3)),
    Upsample((1, 49)),
    Flip((0, 1)),
    Flip((0, 2)),
    Flip(()),
    Transpose((1, 0, 2)),
    Transpose((2, 0, 1)),
    Reshape((1, 8, 3, 64)),
    Reshape((1, 1536)),
    Reshape((1, 4, 12, 32)),
    Reshape((1, 4, 64, 6)),
    PixelShuffle(2, "crd"),
    PixelShuffle(4, "dcr"),
    PixelUnshuffle(2, "crd"),
    PixelUnshuffle(2, "dcr"),
    Repeat(3),
    MaxPool((2, 3), (2, 1), (1, 0, 1, 1)),
    MaxPool((2, 2), (1, 1), (0, 1, 0, 1), (2, 1)),
]


@pytest.mark.parametrize("kind", KINDS)
def test_moves(kind: str) -> None:
    """Elements of every dtype, packed or not, read as numbers and by a convolution."""
    graphs = []
    for channels in (64, 40, 20):
        for seed, op in enumerate(MOVES):
            net = Net(seed, 4, 6, channels)
            x = level(net, kind)
            if isinstance(op, Slice):
                op = replace(op, begin=(*op.begin[:2], min(op.begin[2], channels - 8)), end=(*op.end[:2], channels))
            elif isinstance(op, Gather) and op.indices:
                op = Gather((5, 5, 0, channels - 1))
            elif isinstance(op, Reshape):
                op = Reshape(tuple(-(-n * channels // 64) if n > 8 else n for n in op.shape))
                if int(np.prod(op.shape)) != x.type.size:
                    continue
            elif isinstance(op, PixelShuffle) and channels % op.block**2:
                continue
            y = net.add(op, x)
            readers = [y]
            if x.type.dtype.is_packed and len(y.type.shape) == 4:
                readers.append(net.conv(y, 3, 1))
            graphs.append((net.done(*readers).graph, samples(net)))
    check(graphs)
    values = {-1, 1} if kind == "bit" else {0, 1} if kind == "ubit" else {-1, 0, 1}
    if kind in ("bit", "trit", "ubit"):  # what a channel is padded with
        padded = []
        for value in sorted(values):
            for channels in (20, 32, 40):
                net = Net(1 + value, 3, 3, channels)
                y = net.add(Pad((1, 0, 0, 2, 0, 0), value=value), level(net, kind))
                padded.append((net.done(y, net.conv(y, 5, 3)).graph, samples(net)))
        check(padded)


def test_concatenation() -> None:
    graphs = []
    for i, a in enumerate(KINDS):
        for j, b in enumerate(KINDS):
            for channels in (32, 9):
                net = Net(10 * i + j, 2, 3, channels)
                x, y = level(net, a), level(net, b, net.affine(net.x))
                if x.type.dtype is y.type.dtype or (x.type.dtype.is_packed and y.type.dtype.is_packed):
                    z = net.add(Concat(), x, y)
                    more = [net.conv(z, 3)] if z.type.dtype.is_packed else []
                    graphs.append((net.done(z, *more).graph, samples(net)))
    assert len(graphs) >= 24
    check(graphs)


# -- single elements and reductions ------------------------------------------------------------------------------------


def test_elements() -> None:
    graphs = []
    for seed, kind in enumerate(KINDS):
        net = Net(seed, 3, 4, 10)
        x, other = level(net, kind), net.affine(net.x)
        vector = net.add(GlobalAvgPool(), other)
        pixel = net.add(Reshape((1, 1, 1, 10)), vector)
        slopes = [net.constant(net.rng.normal(size=10)) for _ in range(3)]
        outputs = [
            net.affine(x, vector),
            net.affine(x, pixel),
            net.affine(vector, pixel),
            net.affine(other, x),
            net.add(TwoSlope(DType.F32), x, *slopes),
            net.add(Mul(), other, vector),
            net.add(Mul(), vector, pixel),
            net.add(Mul(), other, other),
            net.add(AddMap(), other, net.constant(net.rng.normal(size=(1, 3, 4, 10)))),
            net.add(MulMap(), other, net.constant(net.rng.normal(size=(1, 3, 4, 10)))),
        ]
        for low, high in ((0, 6), (-1, 1), (-0.5, 2)):
            limits = [net.constant(np.full(10, v)) for v in (low, high)]
            outputs.append(net.add(Clamp(), other, *limits))
        if x.type.dtype is not DType.F32:
            levels = np.sort(net.rng.integers(-1, 3, (2, 10)), 0)
            thresholds = [net.constant(v, DType.I32) for v in levels]
            outputs += [net.add(Sign(), x, thresholds[0]), net.add(Ternarize(), x, *thresholds)]
        graphs.append((net.done(*outputs).graph, samples(net)))
    check(graphs)


def test_reductions() -> None:
    graphs = []
    for seed, kind in enumerate(KINDS):
        net = Net(seed, 4, 6, 12)
        x = level(net, kind)
        outputs = []
        if not x.type.dtype.is_packed:
            outputs.append(net.add(GlobalAvgPool(), x))
        if kind in ("f32", "u8"):
            outputs += [net.add(Reduce(k, over), x) for k in ("max", "sum") for over in ("map", "channels")]
        if kind == "f32":
            outputs += [net.add(AvgPool((3, 2), (1, 2)), x), net.add(GroupMean(3), x), net.add(GroupMean(12), x)]
        graphs.append((net.done(x, *outputs).graph, samples(net)))
    check(graphs)


@pytest.mark.parametrize("kind", ["bit", "ubit"])
def test_logic(kind: str) -> None:
    graphs = []
    for channels in (7, 32, 40):
        for logic in ("and", "or", "xor", "xnor"):
            net = Net(channels, 3, 3, channels)
            y = net.add(BitLogic(logic), level(net, kind), level(net, kind, net.affine(net.x)))
            graphs.append((net.done(y, net.conv(y, 4)).graph, samples(net)))
    check(graphs)


@pytest.mark.parametrize("function", sorted(REAL))
def test_functions(function: str) -> None:
    """Over the range of activations, and where the result is tiny: the largest value of a layer is what errors refer to."""
    graphs = []
    for scale, shift in ((1.0, 0.0), (4.0, 0.0), (0.01, 0.0), (0.5, -4.0), (20.0, 0.0)):
        if function == "exp" and scale == 20.0:
            continue
        net = Net(3, 4, 4, 16)
        x = (net.samples(2) * scale + shift).astype(np.float32)
        x = np.abs(x) + np.float32(1e-3) if function in ("log", "sqrt", "rsqrt") else x
        graphs.append((net.done(net.add(Unary(function), net.x)).graph, x))
    check(graphs)


def test_normalization_and_softmax() -> None:
    graphs = []
    for seed in range(8):
        net = Net(seed, 3, 5, 12)
        x = net.affine(net.x)
        vector = net.add(Reshape((1, 180)), x)
        outputs = [
            net.add(op, x)
            for op in (LayerNorm(), LayerNorm(1e-12), Softmax(), GroupNorm(1), GroupNorm(4), GroupNorm(12))
        ]
        outputs += [net.add(LayerNorm(), vector), net.add(Softmax(), vector)]
        graphs.append((net.done(*outputs).graph, samples(net) * np.float32(1 + 3 * seed)))
    check(graphs)


def test_quantization() -> None:
    """Halves go to the even integer, and what lies beyond the range saturates."""
    graphs = []
    for dtype, zero in ((DType.U8, 7), (DType.U8, 0), (DType.I8, -3), (DType.I16, 300)):
        for scale in (0.25, 0.1, 1e-3):
            net = Net(2, 4, 4, 8)
            q = net.add(Quantize(dtype, scale, zero), net.x)
            x = np.round(net.samples(2) * 16).astype(np.float32) / 8 * np.float32(scale * 4)
            x.ravel()[:4] = [1e9, -1e9, 0.0, -0.0]
            graphs.append((net.done(q, net.add(Dequantize(DType.F32), net.add(Flip((2,)), q))).graph, x))
    check(graphs)


def test_residual_with_an_unpacked_shortcut() -> None:
    """One value read as bits by a convolution and as numbers by an addition and by a pool."""
    graphs = []
    for seed, kind in enumerate(("bit", "trit", "ubit")):
        net = Net(seed, 6, 6, 40)
        t = level(net, kind)
        y = net.affine(net.conv(t, 40, 3, padding=(1, 1, 1, 1)), t)
        z = net.depthwise(t, padding=(1, 1, 1, 1))
        pooled = net.add(MaxPool((2, 2), (2, 2)), t)
        graphs.append((net.done(y, z, net.affine(pooled), net.conv(pooled, 8, 3)).graph, samples(net)))
    check(graphs)


# -- whole networks -----------------------------------------------------------------------------------------------------


def random_graphs(seeds: Sequence[int]) -> list[tuple[Graph, np.ndarray]]:
    networks = map(random_network, seeds)
    return [(float_graph(n.graph)[0], n.samples[:2].astype(np.float32)) for n in networks]


@pytest.mark.parametrize("mode", lce.MODES)
def test_random_networks(mode: str) -> None:
    check(random_graphs(range(100)), [mode])


@pytest.mark.slow
@pytest.mark.parametrize("mode", lce.MODES)
@pytest.mark.parametrize("part", range(5))
def test_many_random_networks(part: int, mode: str) -> None:
    check(random_graphs(range(1000 + 300 * part, 1300 + 300 * part)), [mode])


def test_every_operator_but_tables() -> None:
    """A table of integers belongs to fixed point."""
    assert set(OPS) - OPERATORS == {Lut.name}


def test_nothing_but_the_input_goes_out() -> None:
    net = Net(0, 2, 2, 3)
    check([(net.done(net.x).graph, samples(net))])
    net = Net(0, 2, 2, 3)
    y = net.affine(net.x)
    net.done(y, y, net.sign(y))
    data, x = write(net.graph).data, samples(net)
    expected = evaluate(net.graph, [x])
    for got, value in zip(lce.run(data, x), net.graph.outputs, strict=True):
        assert np.array_equal(got, expected[value.name])


def test_refusals_name_the_reason() -> None:
    net = Net(0, 4, 4, 3)
    big = net.add(
        Conv2d(), net.add(Quantize(DType.I16, 1.0, 0), net.x), net.constant(np.full((1, 4, 4, 3), 300), DType.I32)
    )
    with pytest.raises(UnsupportedError, match=r"(?s)conv2d cannot be exported.*float32 is exact up to 16777216"):
        write(net.done(big).graph)
    net = Net(0, 4, 4, 3)
    q = net.add(Quantize(DType.I8, 0.1, 0), net.x)
    with pytest.raises(UnsupportedError, match=r"(?s)avg_pool cannot be exported.*rounding integers"):
        write(net.done(net.add(AvgPool(), q)).graph)
    net = Net(0, 4, 4, 3)
    with pytest.raises(UnsupportedError, match=r"(?s)affine cannot be exported.*parameters are computed"):
        vector = net.add(Reshape((1, 3)), net.add(GlobalAvgPool(), net.x))
        node_inputs = (net.x, net.constant(np.ones(3)), net.constant(np.ones(3)))
        y = net.add(Affine(1, DType.F32), *node_inputs)
        assert y.node is not None
        computed = Value("computed", y.node.inputs[1].type, None, vector.node)
        y.node.inputs = (net.x, computed, y.node.inputs[2])
        write(net.done(y).graph)
