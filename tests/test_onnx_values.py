"""Every operator of float graphs in onnxruntime on what is special: NaN, infinities, zeros of both signs, ties, borders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from export_graphs import Net
from onnx_layers import assert_same

from bdnet_deploy.export.onnx import OPERATORS, write
from bdnet_deploy.graph import (
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
    GroupMean,
    GroupNorm,
    LayerNorm,
    Linear,
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
    evaluate,
)
from bdnet_deploy.graph.float_functions import REAL
from bdnet_deploy.peers import onnxruntime

SPECIAL = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 0.5, -0.5, 1.5, 2.5, 1e-40, 3e38, -30.0], np.float32)


@dataclass(frozen=True)
class Case:
    """An operator on a map (1, 6, 4, 12), or what ``start`` makes of it; ``exact``: to the last bit, also signs of zeros."""

    op: Op
    start: Callable[[Net], list[Value]] = lambda net: [net.x]
    parameters: tuple[object, ...] = ()
    dtype: DType = DType.F32
    exact: bool = True


def bits(net: Net) -> list[Value]:
    return [net.sign(net.x)]


def ubits(net: Net) -> list[Value]:
    return [net.add(Sign(DType.UBIT), net.x, net.constant(np.zeros(12)))]


def trits(net: Net) -> list[Value]:
    return [net.ternarize(net.x)]


def i8(net: Net) -> list[Value]:
    return [net.add(Quantize(DType.I8, 0.11, 3), net.x)]


def u8(net: Net) -> list[Value]:
    return [net.add(Quantize(DType.U8, 0.02, 128), net.x)]


def plain_i8(net: Net) -> list[Value]:
    return [net.add(Quantize(DType.I8, 0.11), net.x)]


def vector(net: Net) -> list[Value]:
    return [net.add(Reduce("max", "map"), net.x)]


def twice(start: Callable[[Net], list[Value]]) -> Callable[[Net], list[Value]]:
    def both(net: Net) -> list[Value]:
        first = start(net)
        other = net.affine(net.x)
        net.x, old = other, net.x
        second = start(net)
        net.x = old
        return [*first, *second]

    return both


def gate(net: Net) -> list[Value]:
    return [net.x, net.add(GlobalAvgPool(), net.x)]


def wide(net: Net) -> list[Value]:
    return [net.add(AddMap(), *i8(net), net.constant(np.arange(288).reshape(1, 6, 4, 12), DType.I16))]


C = np.ones(12)
VALUES = np.linspace(-1, 1, 12)
ANY = (lambda net: [net.x], bits, trits, u8, vector)
MOVES = [
    Slice((1, 0, 2), (6, 3, 12), (2, 1, 3)),
    Pad((1, 2, 0, 1, 2, 0), value=1.0),
    Pad((0, 2, 1, 0, 3, 1), "replicate"),
    Pad((2, 0, 1, 3, 0, 4), "reflect"),
    Shuffle(3),
    Gather((3, 3, 0), (5, 1), (2,)),
    Gather((11, 0)),
    Upsample((2, 3)),
    Flip((0, 2)),
    Flip((1,)),
    Repeat(3),
    Reshape((1, 288)),
    Reshape((1, 4, 6, 12)),
    Reshape((1, 1, 1, 288)),
    Transpose((2, 0, 1)),
    Transpose((1, 0, 2)),
    PixelShuffle(2),
    PixelShuffle(2, "dcr"),
    PixelUnshuffle(2),
    PixelUnshuffle(2, "dcr"),
]
VECTOR_MOVES = [
    Slice((0, 0, 2), (1, 1, 11), (1, 1, 2)),
    Pad((0, 0, 0, 0, 2, 1), value=1.0),
    Shuffle(4),
    Gather((4, 4, 1)),
    Flip((2,)),
    Flip((0,)),
    Upsample((1, 1)),
    Repeat(2),
    Reshape((1, 2, 3, 2)),
    Reshape((1, 1, 1, 12)),
]
CASES = [
    *(Case(op, start) for op in MOVES for start in (ANY[0], bits, trits, u8)),
    *(Case(op, vector) for op in VECTOR_MOVES),
    *(Case(Concat(), twice(start)) for start in (ANY[0], trits, bits, i8, vector)),
    Case(Concat(), lambda net: [*bits(net), *trits(net), *ubits(net)]),
    *(Case(BitLogic(kind), twice(start)) for kind in ("and", "or", "xor", "xnor") for start in (bits, ubits)),
    Case(Sign(), parameters=(SPECIAL,)),
    Case(Sign(DType.UBIT), parameters=(np.roll(SPECIAL, 1),)),
    Case(Sign(), u8, (np.arange(120, 132),), DType.I32),
    Case(Sign(), wide, (np.array([-(2**31), 2**31 - 1, 2**24 + 1, 5, 0, -3] * 2),), DType.I32),
    Case(Ternarize(), parameters=(np.minimum(VALUES, 0), np.maximum(VALUES, 0))),
    Case(Ternarize(), vector, (C * -0.5, C * 0.5)),
    Case(Clamp(), parameters=(C * 0.0, np.where(VALUES > 0, np.inf, 1.5))),
    Case(Clamp(), vector, (C * -0.0, C * 2.5)),
    Case(Clamp(), i8, (C * -20, C * 30), DType.I32),
    Case(Affine(1, DType.F32), parameters=(VALUES, C)),
    Case(Affine(1, DType.F32), bits, (VALUES, C)),
    Case(Affine(2, DType.F32), twice(ANY[0]), (VALUES, C, VALUES)),
    Case(Affine(2, DType.F32), gate, (VALUES, C, VALUES), exact=False),
    Case(TwoSlope(DType.F32), parameters=(C, VALUES, C * -0.0)),
    Case(TwoSlope(DType.F32), trits, (VALUES, C, VALUES)),
    Case(TwoSlope(DType.F32), vector, (VALUES, C, VALUES)),
    Case(Mul(), twice(ANY[0])),
    Case(Mul(), gate, exact=False),
    Case(Mul(), lambda net: [*plain_i8(net), *plain_i8(net)]),
    Case(AddMap(), parameters=(np.linspace(-2, 2, 288).reshape(1, 6, 4, 12),)),
    Case(AddMap(), i8, (np.arange(288).reshape(1, 6, 4, 12),), DType.I16),
    Case(MulMap(), parameters=(np.linspace(-2, 2, 288).reshape(1, 6, 4, 12),)),
    Case(MulMap(), plain_i8, (np.arange(288).reshape(1, 6, 4, 12),), DType.I16),
    *(
        Case(MaxPool(*geometry), start)
        for start in (ANY[0], bits, ubits, trits, i8)
        for geometry in (
            (),
            ((3, 3), (2, 1), (1, 1, 1, 1)),
            ((2, 3), (1, 2), (1, 0, 0, 2)),
            ((2, 2), (1, 1), (2, 1, 0, 2), (3, 2)),
            ((1, 1), (2, 3)),
            ((6, 4), (6, 4)),
        )
    ),
    *(Case(Reduce("max", over), start) for over in ("map", "channels") for start in (ANY[0], u8)),
    *(Case(Reduce("sum", over), u8) for over in ("map", "channels")),
    *(Case(Reduce("sum", over), exact=False) for over in ("map", "channels")),
    *(Case(op, i8) for op in (AvgPool((3, 2), (1, 2)), GlobalAvgPool(), GroupMean(4))),
    *(Case(op, exact=False) for op in (AvgPool((3, 2), (1, 2)), GlobalAvgPool(), GroupMean(4))),
    Case(GroupMean(3), vector, exact=False),
    *(Case(Quantize(*a)) for a in ((DType.I8, 0.5, 1), (DType.U8, 0.01, 7), (DType.I16, 1.0, -3))),
    Case(Dequantize(DType.F32), i8),
    Case(Dequantize(DType.F32), lambda net: [net.add(Concat(), *i8(net), *plain_i8(net))]),
    Case(Dequantize(DType.F32), wide),
    *(Case(Unary(name), exact=name in ("abs", "hard_sigmoid", "hard_swish", "square")) for name in sorted(REAL)),
    Case(Unary("tanh"), vector, exact=False),
    *(Case(op, exact=False) for op in (Softmax(), LayerNorm(), GroupNorm(1), GroupNorm(12), GroupNorm(4, 0.1))),
    Case(Softmax(), vector, exact=False),
    Case(LayerNorm(1e-3), vector, exact=False),
    Case(Matmul(), twice(ANY[0]), exact=False),
    *(Case(Matmul(), twice(start)) for start in (bits, trits)),
    Case(Matmul(), lambda net: [*i8(net), *bits(net)]),
    *(
        Case(BoxSum(*geometry), start)
        for start in (bits, trits, ubits)
        for geometry in (
            ((1, 1), (1, 1), (0, 0, 0, 0), 0, (1, 1), 12),
            ((3, 3), (2, 1), (1, 1, 2, 0), 0, (1, 1), 3),
            ((3, 2), (1, 1), (1, 0, 1, 1), 1, (2, 1), 1),
            ((3, 2), (1, 1), (1, 0, 1, 1), REPLICATE, (1, 1), 4),
        )
    ),
]  # fmt: skip


def weighted(op: Op, start: Callable[[Net], list[Value]], dtype: DType, shape: tuple[int, ...], exact: bool) -> Case:
    rng = np.random.default_rng(sum(shape))
    values = {DType.BIT: [-1, 1], DType.TRIT: [-1, 0, 1], DType.UBIT: [0, 1], DType.I8: range(-128, 128)}
    data = rng.normal(size=shape) if dtype is DType.F32 else rng.choice(list(values[dtype]), shape)
    return Case(op, start, (data,), dtype, exact)


GEOMETRIES = [
    (Conv2d(), (5, 1, 1, 12)),
    (Conv2d((2, 1), (1, 2, 0, 1), 1, (1, 2)), (7, 3, 2, 12)),
    (Conv2d((1, 1), (1, 1, 1, 1), REPLICATE, groups=12), (24, 3, 3, 1)),
    (Conv2d((1, 1), (0, 1, 1, 0), 0, groups=4), (8, 2, 2, 3)),
]
CASES += [
    weighted(op, start, dtype, shape, start is not ANY[0] and dtype is not DType.F32)
    for op, shape in GEOMETRIES
    for start, dtype in (
        (ANY[0], DType.F32),
        (ANY[0], DType.BIT),
        (bits, DType.BIT),
        (trits, DType.BIT),
        (bits, DType.TRIT),
        (ubits, DType.BIT),
        (trits, DType.UBIT),
        (i8, DType.BIT),
        (u8, DType.I8),
        (bits, DType.F32),
    )
]
FLAT: dict[str, Callable[[Net], list[Value]]] = {
    "bits": lambda net: [net.add(Reshape((1, 288)), *bits(net))],
    "i8": lambda net: [net.add(Reshape((1, 288)), *i8(net))],
}
CASES += [
    weighted(Linear(), vector, DType.F32, (3, 12), False),
    weighted(Linear(), FLAT["bits"], DType.BIT, (3, 288), True),
    weighted(Linear(), FLAT["bits"], DType.TRIT, (5, 288), True),
    weighted(Linear(), FLAT["i8"], DType.BIT, (3, 288), True),
]
#: Whose sums are of all elements: one NaN among them says nothing of the others.
FINITE = {
    "conv2d",
    "linear",
    "matmul",
    "softmax",
    "layer_norm",
    "group_norm",
    "global_avg_pool",
    "avg_pool",
    "group_mean",
}


def test_every_operator_is_tried() -> None:
    assert {case.op.name for case in CASES} == OPERATORS


def inputs(case: Case) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 6, 4, 12)).astype(np.float32)
    if case.exact or case.op.name not in FINITE:
        x[1] = rng.choice(SPECIAL, x.shape[1:])
        x[2] = rng.choice(np.array([-0.0, 0.0, -1.0], np.float32), x.shape[1:])
    return x


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.op.name)
def test_values(case: Case) -> None:
    net = Net(3, 6, 4, 12)
    start = case.start(net)
    constants = [net.constant(np.asarray(p), case.dtype) for p in case.parameters]
    result = net.add(case.op, *start, *constants)
    net.done(*start, result)
    if case.exact and result.type.dtype.is_float and len(start) > 1 and case.op.name == "affine":
        net.done(result)
    x = inputs(case)
    with np.errstate(all="ignore"):
        expected = evaluate(net.graph, [x], keep=True)[result.name]
    data = write(net.graph).data
    assert_same(net.graph, data)
    for optimize in (False, True):
        got = onnxruntime.run(data, x, optimize=optimize)[-1]
        assert got.shape == expected.shape
        if not case.exact:
            with np.errstate(all="ignore"):
                good = np.isfinite(expected)
                near = np.abs(got - expected)[good] <= 1e-5 * np.maximum(np.abs(expected[good]), _largest(expected[:1]))
            assert near.all() and np.array_equal(got[~good], expected[~good], equal_nan=True)
        elif expected.dtype == np.float32 and not (optimize and case.op.name == "affine"):
            assert np.array_equal(got, expected, equal_nan=True)
            # Optimized, onnxruntime drops x + 0; its Where makes +0.0 of a -0.0 that it selects by a true condition.
            number = ~np.isnan(expected) & (not optimize and case.op.name != "max_pool")
            assert np.array_equal(np.signbit(got)[number], np.signbit(expected)[number])
        else:
            assert np.array_equal(got, expected, equal_nan=expected.dtype == np.float32)


@pytest.mark.parametrize("start", [trits, plain_i8, lambda net: [net.x]])
@pytest.mark.parametrize(
    "then", [MaxPool((2, 2), (1, 1)), AvgPool((2, 2), (1, 1)), MaxPool((3, 3), (2, 2), (1, 1, 1, 1))]
)
def test_zeros_at_the_border_are_values(start: Callable[[Net], list[Value]], then: Op) -> None:
    """onnxruntime would make them the padding of the pool."""
    net = Net(3, 6, 4, 12)
    x = np.full((1, 6, 4, 12), -9, np.float32)
    padded = net.add(Pad((1, 1, 2, 1, 0, 0), value=0.0), *start(net))
    if isinstance(then, AvgPool) and start is trits:
        pytest.skip("there is no mean of trits")
    net.done(net.add(then, padded))
    expected = evaluate(net.graph, [x])[net.graph.outputs[0].name]
    for optimize in (False, True):
        (got,) = onnxruntime.run(write(net.graph).data, x, optimize=optimize)
        assert np.array_equal(got, expected)


def _largest(ordinary: np.ndarray) -> float:
    finite = ordinary[np.isfinite(ordinary)]
    return float(np.abs(finite).max(initial=0.0))
