"""Bits, trits and ubits read as numbers: every operator runs in every numerics or is refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bdn_cases import CODES, Bdn, draw
from random_levels import STAGES
from random_networks import Builder
from test_ops_elementwise import check_core

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.bdn_reader import BdnReader
from bdnet_deploy.errors import ModelFileError, UnsupportedError
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.graph import (
    NUMERICS,
    Affine,
    Array,
    AvgPool,
    Clamp,
    Concat,
    DType,
    Graph,
    GraphError,
    GroupMean,
    GroupNorm,
    LayerNorm,
    Linear,
    MaxPool,
    Mul,
    Op,
    Reduce,
    Repeat,
    Sign,
    Softmax,
    TensorType,
    Ternarize,
    TwoSlope,
    Unary,
    Value,
    evaluate,
)
from bdnet_deploy.host import HostModel
from bdnet_deploy.lowering import Lowered, lower

INPUT, OUTPUT = bdn.Place.INPUT, bdn.Place.OUTPUT
PACKED = [DType.BIT, DType.TRIT, DType.UBIT]
SHAPES = [(3, 4, 5), (1, 1, 32), (2, 3, 33), (4, 1, 70), (1, 5, 64)]


class Net:
    """A graph of one real map."""

    def __init__(self, *shape: int, seed: int = 0) -> None:
        self.graph = Graph()
        self.rng = np.random.default_rng(seed)
        self.x = self.graph.input("input", (1, *shape), DType.F64)

    def add(self, op: Op, *inputs: Value) -> Value:
        return self.graph.add(op, inputs, op.name, source=op.name)

    def parameters(self, channels: int, count: int) -> list[Value]:
        return [self.graph.parameter("p", self.rng.normal(size=channels)) for _ in range(count)]

    def levels(self, dtype: DType, x: Value | None = None) -> Value:
        x = x or self.x
        if dtype is DType.TRIT:
            low, high = np.sort(self.rng.normal(0, 0.7, (2, x.type.channels)), 0)
            return self.add(Ternarize(), x, self.graph.parameter("low", low), self.graph.parameter("high", high))
        return self.add(Sign(dtype), x, *self.parameters(x.type.channels, 1))

    def affine(self, *xs: Value) -> Value:
        return self.add(Affine(len(xs)), *xs, *self.parameters(xs[0].type.channels, len(xs) + 1))

    def lowered(self, y: Value, numerics: str, samples: Array) -> Lowered:
        self.graph.outputs = [y]
        return lower(self.graph, numerics, samples=samples)


def vector_of(net: Net, dtype: DType) -> Value:
    return net.affine(net.x, net.levels(dtype, net.affine(net.add(Reduce("max", "map"), net.x))))


def repeated(net: Net, dtype: DType) -> Value:
    """The residual of an epilogue has fewer channels: they go round in the middle of words."""
    return net.affine(net.add(Repeat(3), net.affine(net.x)), net.add(Repeat(3), net.levels(dtype)))


def thresholds_of(net: Net, dtype: DType) -> Value:
    t, channels = net.levels(dtype), net.x.type.channels
    limits = np.sort(net.rng.integers(-1, 3, (2, channels)), 0)
    low, high = (net.graph.constant("limit", v, DType.I32) for v in limits)
    return net.affine(net.add(Sign(), t, low), net.add(Ternarize(), t, low, high))


READERS: dict[str, Callable[[Net, DType], Value]] = {
    "affine": lambda net, t: net.affine(net.levels(t)),
    "first of two": lambda net, t: net.affine(net.levels(t), net.x),
    "second of two": lambda net, t: net.affine(net.x, net.levels(t)),
    "both": lambda net, t: net.affine(net.levels(t), net.levels(DType.TRIT, net.affine(net.x))),
    "twice": lambda net, t: (lambda levels: net.affine(levels, levels))(net.levels(t)),
    "vector": vector_of,
    "repeated": repeated,
    "repeated accumulators": lambda net, t: net.affine(net.add(Repeat(3), net.levels(t))),
    "two slopes": lambda net, t: net.add(TwoSlope(), net.levels(t), *net.parameters(net.x.type.channels, 3)),
    "thresholds": thresholds_of,
    "product": lambda net, t: net.add(Mul(), net.affine(net.levels(t)), net.x),
    "concatenation": lambda net, t: net.add(Concat(), net.affine(net.levels(t)), net.x),
    "mean of windows": lambda net, t: net.add(AvgPool((1, 1), (1, 1)), net.affine(net.levels(t))),
    "maximum of windows": lambda net, t: net.affine(net.add(MaxPool((1, 1), (1, 1)), net.levels(t))),
    "sum over the map": lambda net, t: net.add(Reduce("sum", "map"), net.affine(net.levels(t))),
    "sum over channels": lambda net, t: net.add(Reduce("sum", "channels"), net.affine(net.levels(t))),
}


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("dtype", PACKED)
@pytest.mark.parametrize("reader", READERS)
def test_levels_are_numbers(reader: str, dtype: DType, numerics: str) -> None:
    """On the host the reference's bytes, step by step; and in float the real graph's numbers."""
    for seed, shape in enumerate(SHAPES):
        net = Net(*shape, seed=seed)
        y = READERS[reader](net, dtype)
        samples = net.rng.normal(size=(6, *shape))
        lowered = net.lowered(y, numerics, samples)
        x = lowered.encode(samples)
        values = evaluate(lowered.graph, [x], keep=True)
        expected = values[lowered.graph.outputs[0].name]
        data = write_bdn(lowered.plan)
        tensor = lowered.plan.tensor_of(lowered.graph.outputs[0])
        assert tensor is not None
        found = HostModel(data).run(x)[0]
        assert found.dtype == tensor.dtype.numpy and np.array_equal(found.reshape(expected.shape), expected)
        reader_of_file = BdnReader(data)
        assert not reader_of_file.other_steps(lowered.plan)
        for name, _, made, wanted in reader_of_file.layers(lowered, x, values):
            assert np.array_equal(made, wanted), name
        if numerics == "float":
            real = evaluate(net.graph, [samples.astype(np.float32)])[y.name]
            assert np.abs(expected - real).max() <= 1e-5 * (np.abs(real).max() + 1)


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("seed", range(12))
def test_random_graphs_that_read_levels(seed: int, stage: Callable[[Builder, Value], Value], numerics: str) -> None:
    rng = np.random.default_rng([seed, STAGES.index(stage)])
    shape = (int(rng.integers(1, 8)), int(rng.integers(1, 8)), int(rng.choice([1, 4, 9, 33])))
    b = Builder(rng, shape)
    y = b.affine(stage(b, b.affine(b.x, gain=1.0)), gain=1.0)
    b.graph.outputs = [y]
    b.graph.prune()
    samples = rng.normal(size=(5, *b.x.type.shape[1:]))
    lowered = lower(b.graph, numerics, samples=samples)
    x = lowered.encode(samples)
    assert np.array_equal(
        HostModel(write_bdn(lowered.plan)).run(x)[0], evaluate(lowered.graph, [x])[lowered.graph.outputs[0].name]
    )


@pytest.mark.parametrize("numerics", NUMERICS)
def test_the_modules_own_levels_are_its_output(numerics: str) -> None:
    """alpha * (sign((x - beta) / alpha) + beta / alpha), alone as a network."""
    torch = pytest.importorskip("torch")
    from bdnet_deploy.importers.torch import import_module
    from bdnet_deploy.nn import AdaBinActivation, RSign, TernaryActivation

    rng = np.random.default_rng(0)
    samples = rng.normal(size=(4, 6, 6, 4))
    for module in (AdaBinActivation(), RSign(4), TernaryActivation(4)):
        graph = import_module(module.eval(), (1, 4, 6, 6))
        lowered = lower(graph, numerics, samples=samples)
        x = lowered.encode(samples)
        found = HostModel(write_bdn(lowered.plan)).run(x)[0]
        assert np.array_equal(found, evaluate(lowered.graph, [x])[lowered.graph.outputs[0].name])
        if numerics == "float":
            with torch.no_grad():
                expected = module(torch.tensor(x.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
            assert np.abs(found - expected).max() <= 1e-6


@pytest.mark.parametrize(
    ("core", "numerics"), [("cortex-m0plus", "fixed8"), ("cortex-m4", "fixed16"), ("cortex-a72", "float")]
)
def test_emulated(core: str, numerics: str) -> None:
    """The same bytes on cores; in fixed point every input costs the same instructions."""
    net = Net(3, 4, 35)
    y = net.affine(net.levels(DType.BIT), net.levels(DType.TRIT, net.affine(net.x)))
    y = net.affine(net.add(Repeat(2), y), net.add(Repeat(2), net.levels(DType.UBIT, y)))
    samples = net.rng.normal(size=(6, 3, 4, 35))
    lowered = net.lowered(y, numerics, samples)
    check_core(core, lowered, np.concatenate([samples[:2], np.full((1, 3, 4, 35), 50.0)]))


# -- refusals ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("dtype", PACKED)
def test_levels_themselves_are_no_output(dtype: DType, numerics: str) -> None:
    net = Net(2, 3, 4)
    with pytest.raises(UnsupportedError, match=f"packed {dtype.value}s, not numbers"):
        net.lowered(net.levels(dtype), numerics, np.zeros((1, 2, 3, 4)))


@pytest.mark.parametrize("dtype", PACKED)
@pytest.mark.parametrize(
    "op",
    [AvgPool(), Clamp(), GroupMean(2), Reduce(), Reduce("sum", "channels"), Mul(), Softmax(), LayerNorm(), GroupNorm(),
     Unary("tanh")],
    ids=str,
)  # fmt: skip
def test_operators_that_take_no_levels_say_so(op: Op, dtype: DType) -> None:
    """While the graph is built: no plan can meet them."""
    net = Net(4, 4, 4)
    t = net.levels(dtype)
    more = [net.x] if isinstance(op, Mul) else net.parameters(4, 2) if isinstance(op, Clamp) else []
    with pytest.raises(GraphError, match=op.name):
        net.add(op, t, *more)


def test_concatenation_of_levels_and_numbers_is_refused() -> None:
    net = Net(4, 4, 4)
    with pytest.raises(GraphError, match="differ in dtype"):
        net.add(Concat(), net.levels(DType.BIT), net.x)


# -- kernels ----------------------------------------------------------------------------------------------------------------


def epilogue_file(dtype: DType, out: str, shape: tuple[int, int, int], repeats: int, residual: bool, **arrays: Array) -> Bdn:  # fmt: skip
    """One epilogue over packed accumulators, perhaps with packed residuals of the same shape."""
    b = Bdn()
    xs = [b.tensor(shape, CODES[dtype], INPUT) for _ in range(1 + residual)]
    wide = (*shape[:2], shape[2] * (repeats + 1))
    y = b.tensor(wide, bdn.DType[out.upper()], OUTPUT)
    channels = shape[2] if residual else 0
    at = b.epilogue(bdn.DType[out.upper()], residual_channels=channels, repeats=repeats, shift=3, **arrays)
    b.step(None, xs, [y], shape, epilogue=f"bd_epilogue_{out}", epilogue_at=at, acc_dtype=bdn.DType.I8)
    return b


@pytest.mark.parametrize("dtype", PACKED)
@pytest.mark.parametrize("out", ["f32", "i16", "i8"])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("repeats", [0, 2])
def test_epilogues_read_levels(dtype: DType, out: str, residual: bool, repeats: int) -> None:
    """Against the reference of Affine, with factors of any size."""
    rng = np.random.default_rng(1)
    for shape in (*SHAPES, (1, 1, 1)):
        channels, terms = shape[2] * (repeats + 1), 1 + residual
        if out == "f32":
            parameters = [rng.normal(size=channels).astype(np.float32) for _ in range(terms + 1)]
            op = Affine(terms, DType.F32)
        else:
            parameters = [rng.integers(-30000, 30000, channels).astype(np.int32) for _ in range(terms + 1)]
            op = Affine(terms, DType(out), (3, 0)[:terms])
        xs = [draw(rng, (2, *shape), dtype) for _ in range(terms)]
        names = ("mul", *(("residual_mul",) if residual else ()), "add")
        b = epilogue_file(dtype, out, shape, repeats, residual, **dict(zip(names, parameters, strict=True)))
        wide = [np.tile(x, repeats + 1) for x in xs]
        types = [TensorType((1, *shape[:2], channels), dtype)] * terms
        types += [TensorType((channels,), DType.F32 if out == "f32" else DType.I32)] * (terms + 1)
        expected = op.reference(types, [*wide, *parameters], op.infer(types))
        found = HostModel(b.write()).run(xs)[0]
        assert found.dtype == expected.dtype and np.array_equal(found, expected)


@pytest.mark.parametrize("dtype", PACKED)
def test_epilogues_do_not_store_levels(dtype: DType) -> None:
    """A packed trunk would be written as elements, which are longer."""
    for code, fits in ((CODES[dtype], False), (bdn.DType.I32, True)):
        b = Bdn()
        x, y = b.tensor((2, 2, 40), CODES[dtype], INPUT), b.tensor((2, 2, 40), code, OUTPUT)
        at = b.epilogue(code)
        b.step(None, [x], [y], (2, 2, 40), epilogue="bd_epilogue_i32", epilogue_at=at, acc_dtype=bdn.DType.I8)
        if not fits:
            with pytest.raises(ModelFileError, match="STEP"):
                HostModel(b.write())
            continue
        levels = draw(np.random.default_rng(2), (1, 2, 2, 40), dtype)
        assert np.array_equal(HostModel(b.write()).run(levels)[0], levels)


@pytest.mark.parametrize("change", [{"channels": 39}, {"width": 3}, {"height": 1}, {"dtype": 8}, {"order": 1}], ids=str)
@pytest.mark.parametrize("which", [0, 1])
def test_damaged_levels_are_refused(which: int, change: dict[str, Any]) -> None:
    ones = {name: np.ones(40, np.int32) for name in ("mul", "add", "residual_mul")}

    def file() -> Bdn:
        return epilogue_file(DType.TRIT, "i8", (2, 2, 40), 0, True, **ones)

    HostModel(file().write())
    b = file()
    tensor = b.tensors[which]
    for name, value in change.items():
        tensor[name] = value
    tensor["rows_held"] = tensor["height"]
    if int(tensor["dtype"]) < 8:
        tensor["row_stride"] = bdn.row_bytes(int(tensor["width"]), int(tensor["channels"]), int(tensor["dtype"]))
    with pytest.raises(ModelFileError, match=r"STEP|TENSOR"):
        HostModel(b.write())


def test_a_classifier_of_levels() -> None:
    """Levels of a vector as logits, in every numerics."""
    for numerics in NUMERICS:
        net = Net(3, 3, 6)
        pooled = net.add(Reduce("max", "map"), net.x)
        weight = net.graph.constant("w", net.rng.choice([-1, 1], (9, 6)), DType.BIT)
        y = net.affine(net.levels(DType.BIT, net.affine(net.add(Linear(), net.levels(DType.UBIT, pooled), weight))))
        samples = net.rng.normal(size=(6, 3, 3, 6))
        lowered = net.lowered(y, numerics, samples)
        x = lowered.encode(samples)
        expected = evaluate(lowered.graph, [x])[lowered.graph.outputs[0].name]
        assert np.array_equal(HostModel(write_bdn(lowered.plan)).run(x)[0].reshape(expected.shape), expected)
