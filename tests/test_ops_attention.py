"""Products of two maps, tables, softmax and normalization: references against plain Python and PyTorch, the host library
against the references, cores, damaged files, and counts that do not depend on the data."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bdn_cases import CODES, LETTERS, Bdn, draw

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.emulated import EmulatedModel, Runner
from bdnet_deploy.emulator import Emulator
from bdnet_deploy.errors import BdnetError, ModelFileError, UnsupportedError
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.firmware import build_runner, target
from bdnet_deploy.graph import (
    Affine,
    Array,
    DType,
    Graph,
    GraphError,
    GroupNorm,
    LayerNorm,
    Lut,
    Matmul,
    Op,
    Quant,
    Sign,
    Softmax,
    TensorType,
    Unary,
    Value,
    evaluate,
)
from bdnet_deploy.graph.ops.softmax import ExpScale
from bdnet_deploy.host import HostModel
from bdnet_deploy.lowering import Lowered, lower
from bdnet_deploy.plan import make_plan
from bdnet_deploy.targets import Core

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

MATMULS = [f"{a}{b}_{out}" for a in "btz" for b in "btz" for out in ("i16", "i32")]
MATMULS += [f"{pair}_f32" for pair in ("ff", "fb", "ft", "fz", "bf", "tf", "zf")]
MATMULS += [
    f"{pair}_i32" for pair in ("qq", "hq", "qh", "qb", "qt", "hb", "ht", "bq", "tq", "bh", "th", "qz", "hz", "zq", "zh")
]
HOWS = ["random", "low", "high"]


def typed(x: Array, dtype: DType, scale: float = 1.0, zero_point: int = 0) -> TensorType:
    plain = dtype.is_float or dtype.is_packed
    return TensorType((1, *x.shape[1:]), dtype, None if plain else Quant.of(scale, zero_point))


def same(found: Array, expected: Array) -> None:
    """Equal values; of floats equal bytes, a NaN being a NaN."""
    found = found.reshape(expected.shape)
    if expected.dtype != np.float32:
        np.testing.assert_array_equal(found, expected)
        return
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), nan)
    np.testing.assert_array_equal(found[~nan].view(np.uint32), expected[~nan].view(np.uint32))


def graph_of(op: Op, dtypes: list[DType], arrays: list[Array], *, zero_point: int = 0, scale: float = 1.0) -> Graph:
    graph = Graph(numerics="float" if dtypes[0] is DType.F32 else "fixed16")
    inputs: list[Value] = []
    for i, (dtype, x) in enumerate(zip(dtypes, arrays, strict=True)):
        quant = typed(x, dtype, scale, zero_point if i == 0 else 0).quant if x.ndim > 1 else None
        if x.ndim == 1:
            inputs.append(graph.constant("table", x, dtype))
        else:
            inputs.append(graph.input("x", (1, *x.shape[1:]), dtype, quant))
    graph.outputs = [graph.add(op, inputs, "y")]
    return graph


def check_host(op: Op, dtypes: list[DType], arrays: list[Array], **options: Any) -> Array:
    """The host library gives the reference's bytes; they are returned."""
    graph = graph_of(op, dtypes, arrays, **options)
    maps = [a for a in arrays if a.ndim > 1]
    expected = evaluate(graph, maps)["y"]
    same(HostModel(write_bdn(make_plan(graph))).run(maps)[0], expected)
    return expected


# -- products -------------------------------------------------------------------------------------------------------------


def matmul_loops(x: Array, y: Array) -> Array:
    n, rows, m, k = x.shape
    out = np.zeros((n, rows, m, y.shape[2]), np.int64)
    for index in np.ndindex(*out.shape):
        i, b, row, column = index
        out[index] = sum(int(x[i, b, row, c]) * int(y[i, b, column, c]) for c in range(k))
    return out


@pytest.mark.parametrize("name", MATMULS)
@pytest.mark.parametrize("how", HOWS)
def test_matmul(name: str, how: str) -> None:
    rng = np.random.default_rng(len(how))
    pair, out = name.split("_")
    dtypes = [LETTERS[pair[0]], LETTERS[pair[1]]]
    for k in (1, 31, 32, 33, int(rng.integers(60, 100))):
        rows, m, n = (int(v) for v in rng.integers(1, 6, 3))
        x, y = draw(rng, (2, rows, m, k), dtypes[0], how), draw(rng, (2, rows, n, k), dtypes[1], how)
        zero_point = int(rng.integers(-20, 20)) if pair[0] in "qh" else 0
        type_ = Matmul().infer([typed(x, dtypes[0], 1.0, zero_point), typed(y, dtypes[1])])
        expected = Matmul().reference([typed(x, dtypes[0], 1.0, zero_point), typed(y, dtypes[1])], [x, y], type_)
        if expected.dtype == np.int32:
            np.testing.assert_array_equal(expected, matmul_loops(x.astype(np.int64) - zero_point, y))
        else:
            loops = np.zeros(expected.shape, np.float32)
            for c in range(k):
                loops += x[:, :, :, None, c].astype(np.float32) * y[:, :, None, :, c].astype(np.float32)
            same(expected, loops)
        b = Bdn()
        operands = [b.tensor(a.shape[1:], CODES[d], bdn.Place.INPUT) for a, d in zip((x, y), dtypes, strict=True)]
        acc = bdn.DType[out.upper()]
        target = b.tensor((rows, m, n), acc, bdn.Place.OUTPUT)
        b.step(f"bd_matmul_{name}", operands, [target], (rows, m, n), acc_dtype=acc, zero_point=zero_point)
        same(HostModel(b.write()).run([x, y])[0], expected)


def test_matmul_of_real_numbers_is_torchs() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((3, 2, 5, 7)), rng.standard_normal((3, 2, 4, 7))
    types = [TensorType((1, *a.shape[1:]), DType.F64) for a in (x, y)]
    found = Matmul().reference(types, [x, y], Matmul().infer(types))
    np.testing.assert_allclose(found, (torch.tensor(x) @ torch.tensor(y).mT).numpy(), rtol=1e-12)


def test_floats_that_are_not_finite() -> None:
    x = np.array([np.inf, -np.inf, np.nan, 0.0, 1.0, 3e38], np.float32).reshape(1, 2, 3, 1)
    y = np.array([0.0, 1.0, np.inf, -1.0], np.float32).reshape(1, 2, 2, 1)
    check_host(Matmul(), [DType.F32, DType.F32], [x, y])
    for op in (Softmax(), LayerNorm(), GroupNorm(1)):
        check_host(op, [DType.F32], [np.concatenate([x, np.ones_like(x)], -1)])
        check_host(op, [DType.F32], [np.full((1, 2, 3, 5), -np.inf, np.float32)])


@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        (((1, 2, 3, 4), DType.BIT, None), ((1, 2, 3, 5), DType.BIT, None), "4 channels times 5"),
        (((1, 2, 3, 4), DType.BIT, None), ((1, 3, 3, 4), DType.BIT, None), "2 rows times 3"),
        (((1, 4), DType.BIT, None), ((1, 4), DType.BIT, None), "needs maps"),
        (((1, 2, 3, 4), DType.I8, Quant.of(1.0)), ((1, 2, 3, 4), DType.I8, Quant.of(1.0, 3)), "zero point 0"),
        (((1, 2, 3, 4), DType.I8, Quant.of(1.0)), ((1, 2, 3, 4), DType.I8, Quant.of(np.ones(4))), "one scale"),
    ],
)
def test_matmul_refuses(x: Any, y: Any, match: str) -> None:
    with pytest.raises(GraphError, match=match):
        Matmul().infer([TensorType(*x), TensorType(*y)])


# -- tables ---------------------------------------------------------------------------------------------------------------


def interpolated(knots: Array, x: int) -> int:
    """The knots as points of a polygon, by exact fractions."""
    size = 65536 // (len(knots) - 1)
    i, f = divmod(x + 32768, size)
    a, b = int(knots[i]), int(knots[i + 1])
    return a + math.floor(((b - a) * f + size // 2) / size)


@pytest.mark.parametrize("out", [DType.I8, DType.I16])
def test_lut_of_bytes(out: DType) -> None:
    rng = np.random.default_rng(0)
    table = draw(rng, (256,), out)
    x = np.arange(-128, 128).astype(np.int8).reshape(1, 4, 16, 4)
    found = check_host(Lut(), [DType.I8, out], [x, table])
    assert [int(table[int(v) + 128]) for v in x.reshape(-1)] == found.reshape(-1).tolist()


@pytest.mark.parametrize("count", [257, 513])
@pytest.mark.parametrize("how", ["random", "saw"])
def test_lut_of_knots(count: int, how: str) -> None:
    rng = np.random.default_rng(count)
    knots = draw(rng, (count,), DType.I16)
    if how == "saw":  # the steepest there are
        knots = np.where(np.arange(count) % 2, -32768, 32767).astype(np.int16)
    x = np.arange(-32768, 32768, 5).astype(np.int16)[:13107].reshape(1, 17, 257, 3)
    found = check_host(Lut(), [DType.I16, DType.I16], [x, knots])
    assert found.reshape(-1).tolist() == [interpolated(knots, int(v)) for v in x.reshape(-1)]


# -- softmax --------------------------------------------------------------------------------------------------------------


def test_softmax_of_floats() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for channels in (1, 2, 33, 200):
        x = (rng.standard_normal((2, 3, 4, channels)) * 8).astype(np.float32)
        found = check_host(Softmax(), [DType.F32], [x])
        real = torch.softmax(torch.tensor(x, dtype=torch.float64), -1).numpy()
        np.testing.assert_allclose(found, real, rtol=3e-6)
        exact = Softmax().reference([], [x.astype(np.float64)], TensorType(x.shape, DType.F64))
        np.testing.assert_allclose(exact, real, rtol=1e-13)


@pytest.mark.parametrize("source", [DType.I8, DType.I16, DType.I32])
@pytest.mark.parametrize("out", [DType.I16, DType.I8])
@pytest.mark.parametrize("scale", [1e-9, 3e-5, 0.004, 0.1, 2.7, 5000.0])
def test_softmax_of_integers(source: DType, out: DType, scale: float) -> None:
    """Within two units of i16, one of i8, of the real function; all integers equal to those of the host library."""
    rng = np.random.default_rng(int(scale * 1e9) % 1000)
    for channels in (1, 2, 33, 300):
        x = draw(rng, (2, 3, 2, channels), source)
        x[0, 0, 0], x[0, 0, 1] = source.range
        if channels > 1:
            x[0, 1, 0, ::2], x[0, 1, 0, 1::2] = source.range
        if scale * 2.0 ** (8 * x.dtype.itemsize) > 50:  # scores that are not all far from the largest
            x[1] = (x[1] / (scale * 2.0 ** (8 * x.dtype.itemsize) / 8)).astype(x.dtype)
        found = check_host(Softmax(out, ExpScale.of(scale)), [source], [x], scale=scale)
        scores = (x.astype(np.float64) - x.max(-1, keepdims=True)) * scale
        real = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        unit, zero, most = (2.0**-15, 0, 32767) if out is DType.I16 else (2.0**-8, -128, 127)
        ideal = np.minimum(real / unit + zero, most)
        assert np.abs(found - ideal).max() <= (2.0 if out is DType.I16 else 1.0)


def test_exp_scales() -> None:
    for scale in (2.0**-40, 1e-6, 0.02, 1.0, 40.0, 2.0**40):
        exp = ExpScale.of(scale)
        assert 1 << 15 <= exp.mul < 1 << 32 and exp.limit < 1 << 32
        octaves = (exp.limit * exp.mul >> exp.shift) / 65536
        assert 16.99 <= octaves < 65536  # what is further below rounds to 0
    with pytest.raises(ValueError, match="beyond"):
        ExpScale.of(2.0**50)


# -- normalization --------------------------------------------------------------------------------------------------------


def torch_norm(x: Array, groups: int | None, epsilon: float) -> Array:
    torch = pytest.importorskip("torch")
    t = torch.tensor(x, dtype=torch.float64)
    if groups is None:
        return np.asarray(torch.nn.functional.layer_norm(t, t.shape[-1:], eps=epsilon))
    return np.asarray(torch.nn.functional.group_norm(t.permute(0, 3, 1, 2), groups, eps=epsilon).permute(0, 2, 3, 1))


@pytest.mark.parametrize("groups", [None, 1, 3, 12])
def test_normalization_of_floats(groups: int | None) -> None:
    rng = np.random.default_rng(0)
    for shape in ((2, 3, 5, 12), (2, 1, 1, 36), (2, 7, 1, 24)):
        x = (rng.standard_normal(shape) * 4 + 1).astype(np.float32)
        op: Op = LayerNorm(1e-5) if groups is None else GroupNorm(groups, 1e-5)
        real = torch_norm(x, groups, 1e-5)
        np.testing.assert_allclose(check_host(op, [DType.F32], [x]), real, rtol=1e-4, atol=1e-5)
        type_ = TensorType((1, *shape[1:]), DType.F64)
        np.testing.assert_allclose(op.reference([type_], [x.astype(np.float64)], type_), real, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("source", [DType.I8, DType.I16])
@pytest.mark.parametrize("groups", [None, 1, 3, 12])
def test_normalization_of_integers(source: DType, groups: int | None) -> None:
    """Within one unit of the real function, whatever the spread; all integers equal to those of the host library."""
    rng = np.random.default_rng(5)
    for shape in ((2, 3, 5, 12), (2, 1, 1, 36), (2, 7, 1, 24), (2, 2, 2, 768)):
        x = draw(rng, shape, source)
        x[1] = rng.integers(-2, 3, shape[1:])  # a small spread
        count = shape[3] if groups is None else math.prod(shape[1:]) // groups
        scale, epsilon = 0.01, 1e-5
        fraction = max(0, min(15, math.floor(math.log2(32767 / math.sqrt(count)))))
        fixed = {"epsilon": epsilon, "fraction": fraction, "bias": max(1, round(epsilon * count**2 / scale**2))}
        op: Op = LayerNorm(**fixed) if groups is None else GroupNorm(groups, **fixed)  # type: ignore[arg-type]
        found = check_host(op, [source], [x], scale=scale)
        rounded = fixed["bias"] * scale**2 / count**2  # the epsilon that the bias stands for
        real = torch_norm(x * scale, groups, rounded) * 2.0**fraction
        assert np.abs(found - real).max() <= 1.0


@pytest.mark.parametrize("source", [DType.I8, DType.I16])
def test_normalization_of_extremes(source: DType) -> None:
    """All equal, half and half, one apart; the widest row that sums allow."""
    low, high = source.range
    for count in (1, 2, 255, 65535):
        x = np.full((1, 1, 4, count), low, source.numpy)
        x[0, 0, 1] = high
        x[0, 0, 2, ::2] = high
        x[0, 0, 3, 0] = high
        for fraction, bias in ((0, 1), (15, 1), (7, 1 << 62), (15, 12345)):
            found = check_host(LayerNorm(1e-5, fraction, bias), [source], [x], scale=1.0)
            assert not found[0, 0, :2].any()
            assert np.array_equal(np.sign(found[0, 0, 2, ::2].astype(int)) >= 0, np.ones((count + 1) // 2, bool))
        check_host(GroupNorm(1, 1e-5, 9, 77), [source], [x[:, :, :1, :]], scale=1.0)


def test_too_many_elements_are_refused() -> None:
    with pytest.raises(GraphError, match="65535 are possible"):
        GroupNorm(1, 1e-5, 3, 1).infer([TensorType((1, 300, 300, 1), DType.I16, Quant.of(1.0))])
    with pytest.raises(GraphError, match="3 groups"):
        GroupNorm(3).infer([TensorType((1, 2, 2, 4), DType.F32)])


# -- damaged files --------------------------------------------------------------------------------------------------------


def step_files() -> dict[str, Callable[..., bytes]]:
    """A file of one step of each family, with fields to override."""

    def matmul(**fields: Any) -> bytes:
        b = Bdn()
        shapes = fields.pop("shapes", ((2, 3, 40), (2, 5, 40), (2, 3, 5)))
        dtypes = fields.pop("dtypes", (bdn.DType.I8, bdn.DType.I8, bdn.DType.I32))
        kernel = fields.pop("kernel", "bd_matmul_qq_i32")
        places = (bdn.Place.INPUT, bdn.Place.INPUT, bdn.Place.OUTPUT)
        x, y, out = (b.tensor(s, d, p) for s, d, p in zip(shapes, dtypes, places, strict=True))
        step = b.step(kernel, [x, y], [out], shapes[2], acc_dtype=dtypes[2])
        for name, value in fields.items():
            step[name] = value
        return b.write()

    def one(kernel: str, source: int, out: int, weights: Array) -> Callable[..., bytes]:
        def make(**fields: Any) -> bytes:
            b = Bdn()
            shape = fields.pop("shape", (2, 3, 8))
            x = b.tensor((2, 3, 8), fields.pop("source", source), bdn.Place.INPUT)
            y = b.tensor(shape, out, bdn.Place.OUTPUT)
            blob = fields.pop("weights", weights)
            step = b.step(fields.pop("kernel", kernel), [x], [y], shape, weights=blob, acc_dtype=out)
            for name, value in fields.items():
                step[name] = value
            return b.write()

        return make

    scale = np.array([0, 100, 100, 3], np.uint32).view(np.uint8)
    parameters = np.array([12, 1, 0], np.uint32)
    return {
        "matmul": matmul,
        "lut": one("bd_lut_h_i16", bdn.DType.I16, bdn.DType.I16, np.zeros(513, np.int16)),
        "softmax": one(
            "bd_softmax_h_i16", bdn.DType.I16, bdn.DType.I16, np.concatenate([scale, np.zeros(516, np.uint8)])
        ),
        "layer_norm": one("bd_layer_norm_h_i16", bdn.DType.I16, bdn.DType.I16, parameters),
        "exp": one("bd_exp_f32", bdn.DType.F32, bdn.DType.F32, np.zeros(0, np.float32)),
    }


def softmax_blob(drop: int, limit: int, mul: int, shift: int, size: int = 516) -> Array:
    scale = np.array([drop, limit, mul, shift], np.uint32).view(np.uint8)
    return np.concatenate([scale, np.zeros(size, np.uint8)])


I8, I16, I32, F32, BIT = bdn.DType.I8, bdn.DType.I16, bdn.DType.I32, bdn.DType.F32, bdn.DType.BIT
DAMAGE: list[tuple[str, dict[str, Any]]] = [
    ("matmul", {"shapes": ((2, 3, 40), (2, 5, 41), (2, 3, 5))}),
    ("matmul", {"shapes": ((2, 3, 40), (3, 5, 40), (2, 3, 5))}),
    ("matmul", {"shapes": ((2, 3, 40), (1, 5, 40), (2, 3, 5))}),
    ("matmul", {"shapes": ((2, 3, 40), (2, 5, 40), (2, 3, 6))}),
    ("matmul", {"shapes": ((2, 3, 40), (2, 5, 40), (2, 4, 5))}),
    ("matmul", {"dtypes": (I16, I8, I32)}),
    ("matmul", {"dtypes": (I8, BIT, I32)}),
    ("matmul", {"dtypes": (I8, I8, I16)}),
    ("matmul", {"kernel": "bd_matmul_hq_i32", "dtypes": (I16, I8, I32), "shapes": ((1, 1, 512), (1, 1, 512), (1, 1, 1))}),
    ("matmul", {"zero_point": -32768, "shapes": ((1, 1, 600), (1, 1, 600), (1, 1, 1))}),
    ("matmul", {"kernel": "bd_matmul_ff_f32", "dtypes": (F32, F32, F32), "zero_point": 1}),
    ("matmul", {"scratch": 159}),
    ("matmul", {"kind": 1}),
    ("matmul", {"kernel": "bd_matmul_bb_i16", "dtypes": (BIT, BIT, I16), "shapes": ((1, 1, 32768), (1, 1, 32768), (1, 1, 1))}),
    ("lut", {"weights": np.zeros(512, np.int16)}),
    ("lut", {"weights": np.zeros(514, np.int16)}),
    ("lut", {"weights": None}),
    ("lut", {"source": I8}),
    ("lut", {"shape": (2, 3, 9)}),
    ("softmax", {"weights": softmax_blob(0, 100, 100, 32)}),
    ("softmax", {"weights": softmax_blob(32, 100, 100, 3)}),
    ("softmax", {"weights": softmax_blob(0, 1 << 31, 1 << 31, 3)}),
    ("softmax", {"weights": softmax_blob(0, 100, 100, 3, 514)}),
    ("softmax", {"weights": None}),
    ("softmax", {"scratch": 15}),
    ("softmax", {"shape": (2, 4, 8)}),
    ("softmax", {"kernel": "bd_softmax_q_i16"}),
    ("layer_norm", {"weights": np.array([16, 1, 0], np.uint32)}),
    ("layer_norm", {"weights": np.array([12, 0, 0], np.uint32)}),
    ("layer_norm", {"weights": np.array([12, 1, 0x40000000], np.uint32)}),
    ("layer_norm", {"weights": np.array([12, 1], np.uint32)}),
    ("layer_norm", {"weights": None}),
    ("layer_norm", {"kind": 2, "rows_per_call": 2}),
    ("layer_norm", {"kernel": "bd_group_norm_h_i16"}),
    ("layer_norm", {"kernel": "bd_group_norm_h_i16", "kind": 2, "rows_per_call": 2, "groups": 3}),
    ("layer_norm", {"kernel": "bd_group_norm_h_i16", "kind": 2, "rows_per_call": 2, "groups": 0}),
    ("exp", {"shape": (2, 2, 8)}),
    ("exp", {"source": I32}),
    ("exp", {"kind": 1}),
]  # fmt: skip


@pytest.mark.parametrize("family", ["matmul", "lut", "softmax", "layer_norm", "exp"])
def test_the_undamaged_file_is_taken(family: str) -> None:
    HostModel(step_files()[family]())


@pytest.mark.parametrize(("family", "fields"), DAMAGE, ids=[f"{f}-{i}" for i, (f, _) in enumerate(DAMAGE)])
def test_damaged_steps_are_refused(family: str, fields: dict[str, Any]) -> None:
    data = step_files()[family](**fields)
    with pytest.raises(ModelFileError, match="BD_ERROR_STEP"):
        HostModel(data)


# -- whole attention ------------------------------------------------------------------------------------------------------


def attention_graph(direct: bool = False) -> Graph:
    """Binary queries, keys and values of a map; ``direct``: thresholds instead of softmax. Then layer normalization."""
    rng = np.random.default_rng(0)
    graph = Graph("attention")
    x = graph.input("x", (1, 3, 6, 33), DType.F64)

    def bits(v: Value, name: str, out: DType = DType.BIT) -> Value:
        return graph.add(Sign(out), [v, graph.parameter("t", rng.normal(0, 0.3, v.type.channels))], name)

    def affine(v: Value, mul: float, name: str) -> Value:
        factors = graph.parameter("mul", np.full(v.type.channels, mul))
        return graph.add(Affine(), [v, factors, graph.parameter("add", rng.normal(0, 0.1, v.type.channels))], name)

    q, k = bits(x, "q"), bits(x, "k")
    scores = affine(graph.add(Matmul(), [q, k], "scores"), 1 / math.sqrt(33), "scaled")
    weights = bits(scores, "weights", DType.UBIT) if direct else graph.add(Softmax(), [scores], "weights")
    v = bits(affine(graph.add(Matmul(), [k, k], "kk"), 0.1, "scaled_kk"), "v")  # (1, 3, 6, 6): the positions last
    mixed = affine(graph.add(Matmul(), [weights, v], "mixed"), 0.7, "mix")
    active = graph.add(Unary("gelu"), [mixed], "gelu")
    graph.outputs = [affine(graph.add(LayerNorm(1e-5), [active], "norm"), 1.3, "out")]
    return graph


def lowered(graph: Graph, numerics: str) -> Lowered:
    samples = np.random.default_rng(1).standard_normal((8, *graph.inputs[0].type.shape[1:]))
    return lower(graph, numerics, samples=samples)


def extremes(made: Lowered, count: int) -> Array:
    """Inputs of all kinds as the graph takes them."""
    value = made.graph.inputs[0].type
    rng = np.random.default_rng(2)
    x = draw(rng, (count, *value.shape[1:]), value.dtype)
    if not value.dtype.is_float:
        x[0], x[1], x[2] = *value.dtype.range, 0
        x[3, ..., ::2], x[3, ..., 1::2] = value.dtype.range
    return x


CASES = [(numerics, direct) for numerics in ("float", "fixed16", "fixed8") for direct in (False, True)]


@pytest.mark.parametrize(("numerics", "direct"), CASES)
def test_attention_at_every_cut(numerics: str, direct: bool) -> None:
    made = lowered(attention_graph(direct), numerics)
    x = extremes(made, 5)
    expected = evaluate(made.graph, [x])[made.graph.outputs[0].name]
    for cut in range(len(made.plan.steps) + 1):
        same(HostModel(write_bdn(make_plan(made.graph, cut=cut))).run(x)[0], expected)


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m4"])
def test_attention_on_cores(core: str, tmp_path: Path) -> None:
    pytest.importorskip("unicorn")
    pytest.importorskip("ziglang")
    chosen = target(core)
    assert isinstance(chosen, Core)
    with Emulator(build_runner(chosen, tmp_path), chosen) as emulator:
        emulator.run()
        runner = Runner(emulator)
        for numerics, direct in CASES:
            made = lowered(attention_graph(direct), numerics)
            assert runner.load(write_bdn(made.plan)) == 0
            x = extremes(made, 5)
            for sample, want in zip(x, evaluate(made.graph, [x])[made.graph.outputs[0].name], strict=True):
                same(np.frombuffer(runner.infer(sample.tobytes(), want.nbytes).output, want.dtype), want)


@pytest.mark.parametrize("numerics", ["fixed16", "fixed8"])
def test_fixed_point_is_near_the_real_graph(numerics: str) -> None:
    graph = attention_graph()
    made = lowered(graph, numerics)
    x = np.random.default_rng(3).standard_normal((6, 3, 6, 33))
    real = evaluate(graph, [made.graph.inputs[0].type.quant.dequantize(made.encode(x))])["out"]  # type: ignore[union-attr]
    found = made.decode(evaluate(made.graph, [made.encode(x)])[made.graph.outputs[0].name])
    error = np.abs(found - real)
    assert np.median(error) < {"fixed16": 0.002, "fixed8": 0.08}[numerics]


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m4"])
@pytest.mark.parametrize("numerics", ["fixed16", "fixed8"])
def test_counts_do_not_depend_on_the_data(core: str, numerics: str) -> None:
    """Every fixed kernel of this family, one after the other: each step costs the same for every input."""
    pytest.importorskip("unicorn")
    graph = Graph("counted")
    x = graph.input("x", (1, 3, 4, 6), DType.F64)
    y: Value = x
    for op in (Unary("silu"), GroupNorm(2), Unary("tanh"), LayerNorm(1e-3), Softmax()):
        y = graph.add(op, [y], op.name)
    scores = graph.add(Matmul(), [y, x], "scores")  # i8 or i16 by i8
    bits = graph.add(Sign(), [x, graph.parameter("t", np.zeros(6))], "bits")
    more = graph.add(Matmul(), [y, bits], "more")
    both = graph.add(Matmul(), [bits, bits], "both")
    ones = [graph.parameter("m", np.full(4, f)) for f in (1.0, 0.5)]
    zero = graph.parameter("z", np.zeros(4))
    total = graph.add(Affine(2), [scores, more, *ones, zero], "total")
    weights = graph.add(Softmax(), [graph.add(Affine(), [both, ones[0], zero], "scaled")], "weights")
    graph.outputs = [graph.add(Affine(2), [total, weights, *ones, zero], "y")]
    made = lowered(graph, numerics)
    kernels = {k.rsplit("_", 2)[0] for k in made.plan.kernels}
    assert {"bd_lut", "bd_group_norm", "bd_softmax", "bd_matmul", "bd_layer_norm"} <= kernels
    samples = extremes(made, 8)
    expected = evaluate(made.graph, [samples])[made.graph.outputs[0].name]
    counts = set()
    with EmulatedModel(made, core) as emulated:
        for sample, want in zip(samples, expected, strict=True):
            output, result = emulated.count(sample)
            same(output, want)
            counts.add(tuple(count.instructions for _, count in sorted(result.by_region.items())))
    assert len(counts) == 1


# -- what other formats and fixed point cannot have -----------------------------------------------------------------------


def test_a_function_that_is_not_finite_is_refused() -> None:
    graph = Graph("log")
    x = graph.input("x", (1, 2, 2, 3), DType.F64)
    graph.outputs = [graph.add(Unary("log"), [x], "y", source="the.log")]
    with pytest.raises(UnsupportedError, match="not finite") as error:
        lowered(graph, "fixed16")
    assert error.value.where == "the.log" and error.value.fix
    with pytest.raises(GraphError, match="unknown function"):
        graph.add(Unary("sigmiod"), [x], "z")


def test_an_epsilon_beyond_the_values_is_refused() -> None:
    graph = Graph("norm")
    x = graph.input("x", (1, 2, 2, 3), DType.F64)
    graph.outputs = [graph.add(LayerNorm(1e30), [x], "y", source="the.norm")]
    with pytest.raises(BdnetError, match="epsilon"):
        lowered(graph, "fixed16")


def test_scores_keep_their_precision() -> None:
    """A scale between product and softmax is part of the softmax: the scores are the exact sums."""
    graph = Graph("scores")
    x = graph.input("x", (1, 2, 5, 40), DType.F64)
    bits = graph.add(Sign(), [x, graph.parameter("t", np.zeros(40))], "bits")
    product = graph.add(Matmul(), [bits, bits], "product")
    five = [graph.parameter("p", np.full(5, f)) for f in (0.17, 0.3)]
    graph.outputs = [graph.add(Softmax(), [graph.add(Affine(), [product, *five], "scaled")], "y")]
    made = lowered(graph, "fixed16")
    assert [s.kernel for s in made.plan.steps[-2:]] == ["bd_matmul_bb_i16", "bd_softmax_h_i16"]
    values = evaluate(made.graph, [extremes(made, 4)], keep=True)
    scores = values["product"] * 0.17
    e = np.exp(scores - scores.max(-1, keepdims=True))
    assert np.abs(values["y"] / 32768 - e / e.sum(-1, keepdims=True)).max() < 2.0**-14
