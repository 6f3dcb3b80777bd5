"""Limits, products, gates and vectors for all pixels: references, runtime, fixed point, squeeze and excitation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bdn_cases import CODES, Bdn, draw
from test_ops_pooling import INPUT, OUTPUT, same, special

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.emulated import EmulatedModel
from bdnet_deploy.errors import ModelFileError, UnsupportedError
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.graph import (
    NUMERICS,
    Affine,
    Clamp,
    Conv2d,
    DType,
    GlobalAvgPool,
    Graph,
    GraphError,
    Linear,
    Mul,
    Op,
    Quant,
    Reduce,
    Sign,
    TensorType,
    TwoSlope,
    Value,
    evaluate,
)
from bdnet_deploy.host import HostModel
from bdnet_deploy.lowering import Lowered, lower

Array = np.ndarray[Any, np.dtype[Any]]
LETTER = {DType.F32: "f", DType.I16: "h", DType.I8: "q"}


class Net:
    """A graph of one real map."""

    def __init__(self, *shape: int) -> None:
        self.graph = Graph()
        self.x = self.graph.input("input", (1, *shape), DType.F64)

    def add(self, op: Op, *inputs: Value, source: str = "") -> Value:
        return self.graph.add(op, inputs, op.name, source=source)

    def vector(self, *values: Any) -> list[Value]:
        return [self.graph.parameter("p", np.asarray(v, np.float64)) for v in values]

    def lowered(self, y: Value, numerics: str, samples: Array) -> Lowered:
        self.graph.outputs = [y]
        return lower(self.graph, numerics, samples=samples)


def check_host(lowered: Lowered, x: Array) -> Array:
    """The host library gives the reference's bytes; the real numbers that these stand for."""
    q = lowered.encode(x)
    expected = evaluate(lowered.graph, [q])[lowered.graph.outputs[0].name]
    tensor = lowered.plan.tensor_of(lowered.graph.outputs[0])
    assert tensor is not None
    same(HostModel(write_bdn(lowered.plan)).run(q)[0], expected.astype(tensor.dtype.numpy))
    return lowered.decode(expected)


def check_core(core: str, lowered: Lowered, inputs: Array) -> None:
    """The reference's bytes on an emulated core; in fixed point every input costs the same instructions."""
    q = lowered.encode(inputs)
    expected = evaluate(lowered.graph, [q])[lowered.graph.outputs[0].name]
    counts = set()
    with EmulatedModel(lowered, core) as model:
        for x, wanted in zip(q, expected, strict=True):
            found, result = model.count(x)
            same(found, wanted)
            counts.add(result.instructions)
    assert len(counts) == 1 or lowered.graph.numerics == "float"


# -- clamp ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [DType.F32, DType.I16, DType.I8])
@pytest.mark.parametrize("seed", range(6))
def test_clamp(dtype: DType, seed: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    channels = int(rng.integers(1, 70))
    x = draw(rng, (2, 3, 5, channels), dtype, ("random", "random", "low", "high", "random", "random")[seed])
    low, high = np.sort(draw(rng, (2, channels), dtype), 0)
    if dtype is DType.F32:
        x, low[0], high[-1] = special(rng, x), -np.inf, np.inf
    op = Clamp()
    limit = TensorType((channels,), dtype if dtype is DType.F32 else DType.I32)
    types = [TensorType((1, *x.shape[1:]), dtype), limit, limit]
    y = op.reference(types, [x, low.astype(limit.dtype.numpy), high.astype(limit.dtype.numpy)], op.infer(types))
    np.testing.assert_array_equal(y, torch.clamp(torch.tensor(x), torch.tensor(low), torch.tensor(high)).numpy())
    b = Bdn()
    source, target = (b.tensor(x.shape[1:], CODES[dtype], place) for place in (INPUT, OUTPUT))
    b.step(f"bd_clamp_{dtype.value}", [source], [target], x.shape[1:], weights=np.stack([low, high]), rows_per_call=2)
    same(HostModel(b.write()).run(x)[0], y)


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("limits", [(0.0, 6.0), (-1.0, 1.0), (-np.inf, 0.5), (0.0, np.inf)])
def test_limits_behind_a_normalization(numerics: str, limits: tuple[float, float]) -> None:
    """What lies beyond the limits costs no precision: the affine map saturates there."""
    rng = np.random.default_rng(2)
    net = Net(6, 5, 3)
    acc = net.add(Conv2d(), net.x, net.graph.constant("w", rng.normal(size=(8, 3, 3, 3)), DType.F64))
    normal = net.add(Affine(), acc, *net.vector(rng.normal(1.0, 0.2, 8), rng.normal(size=8)))
    y = net.add(Clamp(), normal, *net.vector(np.full(8, limits[0]), np.full(8, limits[1])))
    samples = rng.normal(size=(16, 6, 5, 3))
    lowered = net.lowered(y, numerics, samples)
    real = evaluate(net.graph, [samples])[y.name]
    assert np.abs(check_host(lowered, samples) - real).max() <= (1e-5 if numerics == "float" else 0.3)
    if numerics != "fixed8":  # in fixed16 the factors end at 1/2 before the scales do
        return
    quant = next(n.output.type.quant for n in lowered.graph.nodes if isinstance(n.op, Clamp))
    largest = np.abs(real).reshape(-1, 8).max(0)
    unit = np.maximum(largest, largest.max() / 256) / 127
    assert quant is not None and (quant.scale <= 1.001 * unit).all()


def test_infinite_limits_are_possible_and_no_number_is_not() -> None:
    net = Net(2, 2, 1)
    y = net.add(Clamp(), net.x, *net.vector([np.nan], [1.0]), source="act")
    with pytest.raises(UnsupportedError, match="NaN") as error:
        net.lowered(y, "fixed16", np.zeros((1, 2, 2, 1)))
    assert error.value.where == "act"


def test_limits_before_a_sign_fold_into_thresholds() -> None:
    rng = np.random.default_rng(3)
    net = Net(4, 4, 8)
    bits = net.add(Sign(), net.x, *net.vector(np.zeros(8)))
    weight = [net.graph.constant("w", rng.choice([-1, 1], (8, 3, 3, 8)), DType.BIT) for _ in range(2)]
    normal = net.add(
        Affine(), net.add(Conv2d(), bits, weight[0]), *net.vector(rng.normal(0.1, 0.1, 8), rng.normal(size=8))
    )
    limited = net.add(Clamp(), normal, *net.vector(-np.ones(8), np.ones(8)))
    t = net.add(Sign(), limited, *net.vector(rng.uniform(-1.5, 1.5, 8)))
    y = net.add(Affine(), net.add(Conv2d((1, 1), (1, 1, 1, 1)), t, weight[1]), *net.vector(np.ones(8), np.zeros(8)))
    samples = rng.normal(size=(5, 4, 4, 8))
    for numerics in NUMERICS:
        lowered = net.lowered(y, numerics, samples)
        assert not any(isinstance(n.op, Clamp) for n in lowered.graph.nodes)
        check_host(lowered, samples)


# -- mul --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", [None, (1, 1)], ids=["map", "gate"])
@pytest.mark.parametrize(
    "pair", [(DType.F32, DType.F32)] + [(a, b) for a in (DType.I16, DType.I8) for b in (DType.I16, DType.I8)], ids=str
)
@pytest.mark.parametrize("how", ["random", "low", "high"])
def test_mul(pair: tuple[DType, DType], gate: tuple[int, int] | None, how: str) -> None:
    rng = np.random.default_rng(5)
    for shape in ((4, 5, 7), (1, 1, 33), (6, 1, 3), (1, 8, 2)):
        a = draw(rng, (2, *shape), pair[0], how)
        b = draw(rng, (2, *(gate or shape[:2]), shape[2]), pair[1], "low" if how == "high" else how)
        op, types = Mul(), [TensorType((1, *x.shape[1:]), t) for x, t in zip((a, b), pair, strict=True)]
        y = op.reference(types, [a, b], op.infer(types))
        wide = a.astype(np.float64) * b
        assert np.array_equal(y, wide.astype(np.float32) if pair[0] is DType.F32 else wide)
        if gate:  # the same gate as a vector
            vector = TensorType((1, shape[2]), pair[1])
            assert np.array_equal(
                op.reference([types[0], vector], [a, b.reshape(2, -1)], op.infer([types[0], vector])), y
            )
        f = Bdn()
        sources = [f.tensor(x.shape[1:], CODES[t], INPUT) for x, t in zip((a, b), pair, strict=True)]
        out = bdn.DType.F32 if pair[0] is DType.F32 else bdn.DType.I32
        kernel = f"bd_mul_{LETTER[pair[0]]}{LETTER[pair[1]]}_{out.name.lower()}"
        f.step(kernel, sources, [f.tensor(shape, out, OUTPUT)], shape, acc_dtype=out, rows_per_call=3)
        same(HostModel(f.write()).run([a, b])[0], y)


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("reader", ["affine", "output", "sign", "two readers"])
def test_products_in_every_numerics(numerics: str, reader: str) -> None:
    rng = np.random.default_rng(6)
    net = Net(5, 6, 4)
    slopes = net.vector(np.ones(4), np.full(4, 0.25), np.array([0.5, -0.25, 0.0, 1.0]))
    a = net.add(TwoSlope(), net.x, *slopes)  # a zero point that is not 0
    y = net.add(Mul(), a, net.x)
    if reader == "affine":
        y = net.add(Affine(), y, *net.vector(np.array([2.0, -1.0, 0.1, 1.0]), np.ones(4)))
    elif reader == "sign":
        bits = net.add(Sign(), y, *net.vector(np.full(4, 0.3)))
        weight = net.graph.constant("w", np.eye(4).reshape(4, 1, 1, 4) * 2 - 1, DType.BIT)
        y = net.add(Affine(), net.add(Conv2d(), bits, weight), *net.vector(np.ones(4), np.zeros(4)))
    elif reader == "two readers":
        y = net.add(
            Affine(2),
            net.add(Affine(), y, *net.vector(np.ones(4), np.ones(4))),
            y,
            *net.vector(*np.ones((2, 4)), np.zeros(4)),
        )
    samples = rng.normal(size=(8, 5, 6, 4))
    lowered = net.lowered(y, numerics, samples)
    found = check_host(lowered, samples)
    if reader != "sign":
        real = evaluate(net.graph, [samples])[y.name]
        assert (
            np.abs(found - real).max()
            <= {"float": 1e-5, "fixed16": 0.02, "fixed8": 0.05}[numerics] * np.abs(real).max()
        )


@pytest.mark.parametrize(
    ("op", "types", "message"),
    [
        (Mul(), [((1, 2, 2, 3), DType.F32), ((1, 2, 3, 3), DType.F32)], "neither of one shape"),
        (Mul(), [((1, 2, 2, 3), DType.F32), ((1, 2), DType.F32)], "neither of one shape"),
        (Mul(), [((1, 2, 2, 3), DType.F32), ((1, 3), DType.I16)], "no product"),
        (Mul(), [((1, 2, 2, 3), DType.BIT), ((1, 2, 2, 3), DType.BIT)], "no product"),
        (Clamp(), [((1, 2, 2, 3), DType.F32), ((1,), DType.F32), ((3,), DType.F32)], "limit has shape"),
        (Clamp(), [((1, 2, 2, 3), DType.I8), ((3,), DType.F32), ((3,), DType.I32)], "f32 limits"),
        (Clamp(), [((1, 2, 2, 3), DType.I32), ((3,), DType.I32), ((3,), DType.I32)], "no limits on i32"),
    ],
)  # fmt: skip
def test_what_the_graph_refuses(op: Op, types: list[tuple[tuple[int, ...], DType]], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        op.infer([TensorType(*t) for t in types])


def test_factors_need_zero_points_of_0() -> None:
    x = TensorType((1, 2, 2, 3), DType.I16, Quant.of(0.5, [0.0, 1.0, 0.0]))
    with pytest.raises(GraphError, match="zero points"):
        Mul().infer([x, x])


# -- a vector for all pixels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("flat", [True, False], ids=["(1, C)", "(1, 1, 1, C)"])
def test_a_bias_that_the_data_decides(numerics: str, flat: bool) -> None:
    """Fused into the convolution's epilogue: no step, no map of its own."""
    rng = np.random.default_rng(7)
    net = Net(6, 7, 5)
    bits = net.add(Sign(), net.x, *net.vector(np.zeros(5)))
    if flat:
        weight = net.graph.constant("l", rng.normal(size=(40, 5)), DType.F64)
        vector = net.add(Linear(), net.add(Reduce("max", "map"), net.x), weight)
    else:
        weight = net.graph.constant("l", rng.normal(size=(40, 6, 7, 5)) / 9, DType.F64)
        vector = net.add(Conv2d(), net.x, weight)
    acc = net.add(
        Conv2d((1, 1), (1, 1, 1, 1)), bits, net.graph.constant("w", rng.choice([-1, 1], (40, 3, 3, 5)), DType.BIT)
    )
    y = net.add(
        Affine(2), acc, vector, *net.vector(rng.normal(0.1, 0.1, 40), rng.normal(1, 0.1, 40), rng.normal(size=40))
    )
    samples = rng.normal(size=(6, 6, 7, 5))
    lowered = net.lowered(y, numerics, samples)
    assert lowered.plan.steps[-1].kernel == "bd_conv_bb_i16" and len(lowered.plan.steps[-1].nodes) == 2
    found = check_host(lowered, samples)
    q = lowered.encode(samples)
    value = evaluate(lowered.graph, [q], keep=True)
    assert value[lowered.graph.outputs[0].name].shape == (6, 6, 7, 40)
    real = evaluate(net.graph, [samples])[y.name]
    wrong_signs = np.mean(np.abs(found - real) > 0.05 * np.abs(real).max())
    assert wrong_signs <= (0 if numerics == "float" else 0.05)  # a sign of the 8-bit input may differ


def test_the_first_term_is_the_map() -> None:
    vector, factor = TensorType((1, 3), DType.F32), TensorType((3,), DType.F32)
    with pytest.raises(GraphError, match="second term"):
        Affine(2, DType.F32).infer([vector, TensorType((1, 2, 2, 3), DType.F32), factor, factor, factor])


# -- squeeze and excitation -------------------------------------------------------------------------------------------------


def excited(channels: int = 12, hidden: int = 5) -> tuple[Net, Value, Array, Any]:
    """A convolution and squeeze-and-excitation with a hard sigmoid: graph, output, samples, and the same in PyTorch."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    rng = np.random.default_rng(8)
    conv, down, up = (
        torch.nn.Conv2d(3, channels, 3, padding=1),
        torch.nn.Linear(channels, hidden),
        torch.nn.Linear(hidden, channels),
    )

    def module(x: Any) -> Any:
        y = torch.relu(conv(x))
        gate = torch.nn.functional.hardsigmoid(4 * up(torch.nn.functional.leaky_relu(down(y.mean((2, 3))), 0.1)))
        return y * gate[:, :, None, None]

    net = Net(7, 6, 3)
    f64 = [p.detach().double().numpy() for p in (conv.weight, conv.bias, down.weight, down.bias, up.weight, up.bias)]

    def constant(a: Array) -> Value:
        return net.graph.constant("w", a, DType.F64)

    def biased(acc: Value, scale: float, bias: Array) -> Value:
        return net.add(Affine(), acc, *net.vector(np.full(len(bias), scale), scale * bias))

    y = biased(net.add(Conv2d((1, 1), (1, 1, 1, 1)), net.x, constant(f64[0].transpose(0, 2, 3, 1))), 1.0, f64[1])
    y = net.add(TwoSlope(), y, *net.vector(np.ones(channels), *np.zeros((2, channels))))
    h = biased(net.add(Linear(), net.add(GlobalAvgPool(), y), constant(f64[2])), 1.0, f64[3])
    h = net.add(TwoSlope(), h, *net.vector(np.ones(hidden), np.full(hidden, 0.1), np.zeros(hidden)))
    gate = biased(net.add(Linear(), h, constant(f64[4])), 4.0, f64[5])
    gate = net.add(Affine(), gate, *net.vector(np.full(channels, 1 / 6), np.full(channels, 0.5)))
    gate = net.add(Clamp(), gate, *net.vector(np.zeros(channels), np.ones(channels)))
    return net, net.add(Mul(), y, gate), rng.normal(size=(8, 7, 6, 3)), module


@pytest.mark.parametrize(("numerics", "most"), [("float", 1e-5), ("fixed16", 0.02), ("fixed8", 0.05)])
def test_squeeze_and_excitation_is_that_of_torch(numerics: str, most: float) -> None:
    import torch

    net, y, samples, module = excited()
    with torch.no_grad():
        expected = (
            module(torch.tensor(samples.transpose(0, 3, 1, 2), dtype=torch.float32)).numpy().transpose(0, 2, 3, 1)
        )
    lowered = net.lowered(y, numerics, samples)
    assert np.abs(check_host(lowered, samples) - expected).max() <= most * np.abs(expected).max()
    if numerics != "float":
        product = next(n for n in lowered.graph.nodes if isinstance(n.op, Mul))
        gate = product.inputs[1].type
        assert gate.dtype is DType.I16 and gate.quant is not None and not np.any(gate.quant.zero_point)


@pytest.mark.parametrize(
    ("core", "numerics"), [("cortex-m0plus", "fixed8"), ("cortex-m4", "fixed16"), ("cortex-a72", "float")]
)
def test_emulated(core: str, numerics: str) -> None:
    """The same bytes on cores; in fixed point every input costs the same instructions."""
    net, y, samples, _ = excited()
    limited = net.add(Clamp(), y, *net.vector(np.zeros(12), np.full(12, 0.5)))
    vector = net.add(Reduce("max", "map"), limited)
    y = net.add(Affine(2), limited, vector, *net.vector(*np.ones((2, 12)), np.zeros(12)))
    lowered = net.lowered(y, numerics, samples)
    check_core(core, lowered, np.concatenate([samples[:2], np.full((1, 7, 6, 3), 50.0)]))


# -- files ------------------------------------------------------------------------------------------------------------------


def clamp_file(**fields: Any) -> bytes:
    b = Bdn()
    x, y = (b.tensor((4, 4, 5), bdn.DType.I16, place) for place in (INPUT, OUTPUT))
    b.tensor((4, 4, 5), bdn.DType.I8)
    step = b.step("bd_clamp_i16", [x], [y], (4, 4, 5), weights=np.zeros(10, np.int16))
    for name, value in fields.items():
        step[name] = value
    return b.write()


@pytest.mark.parametrize(
    "change",
    [{"weights_size": 18}, {"weights_size": 22}, {"weights": bdn.ABSENT, "weights_size": 0}, {"in": (2, bdn.NONE)},
     {"out": (2, bdn.NONE)}, {"out_width": 3}, {"kind": bdn.Kind.ACCUMULATE}],
    ids=str,
)  # fmt: skip
def test_damaged_limits_are_refused(change: dict[str, Any]) -> None:
    HostModel(clamp_file())
    with pytest.raises(ModelFileError, match="STEP"):
        HostModel(clamp_file(**change))


@pytest.mark.parametrize("shape", [(1, 4, 5), (4, 1, 5), (1, 1, 4), (2, 4, 5), (4, 4, 6)])
def test_damaged_products_are_refused(shape: tuple[int, int, int]) -> None:
    for gate, dtype, fits in (
        ((1, 1, 5), bdn.DType.I16, True),
        (shape, bdn.DType.I16, False),
        ((1, 1, 5), bdn.DType.I8, False),
    ):
        b = Bdn()
        a, g = b.tensor((4, 4, 5), bdn.DType.I16, INPUT), b.tensor(gate, dtype, INPUT)
        b.step(
            "bd_mul_hh_i32", [a, g], [b.tensor((4, 4, 5), bdn.DType.I32, OUTPUT)], (4, 4, 5), acc_dtype=bdn.DType.I32
        )
        if fits:
            HostModel(b.write())
            continue
        with pytest.raises(ModelFileError, match="STEP"):
            HostModel(b.write())
    b = Bdn()
    a = b.tensor((4, 4, 5), bdn.DType.I16, INPUT)
    b.step("bd_mul_hh_i32", [a], [b.tensor((4, 4, 5), bdn.DType.I32, OUTPUT)], (4, 4, 5), acc_dtype=bdn.DType.I32)
    with pytest.raises(ModelFileError, match="STEP"):
        HostModel(b.write())


def test_changed_limits_are_noticed() -> None:
    """What ``verify`` compares: the limits in the file against the model's."""
    from bdnet_deploy.bdn_reader import BdnReader

    net = Net(3, 3, 2)
    y = net.add(Clamp(), net.x, *net.vector([-0.5, -0.25], [0.5, 0.75]))
    lowered = net.lowered(y, "float", np.zeros((1, 3, 3, 2)))
    data = write_bdn(lowered.plan)
    assert list(BdnReader(data).epilogues(lowered.plan)) == [("clamp", 4, [])]
    assert BdnReader(data).weights(lowered.plan) == {}
    changed = bdn.seal(data.replace(np.float32(0.75).tobytes(), np.float32(0.5).tobytes()))
    assert list(BdnReader(changed).epilogues(lowered.plan)) == [("clamp", 4, ["weights"])]
