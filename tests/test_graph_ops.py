"""The operators' numpy references, the judges of every back end, against plain loops and PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bdnet_deploy.graph import (
    OPS,
    Affine,
    Array,
    AvgPool,
    Conv2d,
    DType,
    GlobalAvgPool,
    Graph,
    GraphError,
    GroupMean,
    Linear,
    Op,
    Quant,
    Repeat,
    Reshape,
    Sign,
    TensorType,
    Ternarize,
    TwoSlope,
    evaluate,
)

F = np.float32
INTEGERS = (DType.BIT, DType.TRIT, DType.U8, DType.I8, DType.I16)
GEOMETRIES = [
    Conv2d(),
    Conv2d(padding=(1, 1, 1, 1)),
    Conv2d((2, 2), (0, 1, 2, 0)),
    Conv2d((1, 2), (2, 2, 1, 1), dilation=(2, 2)),
    Conv2d((2, 1), (1, 1, 1, 1), groups=2),
    Conv2d(padding=(1, 1, 1, 1), groups=4),
    Conv2d(padding=(1, 0, 0, 1), pad_value=1),
    Conv2d(padding=(0, 2, 1, 1), pad_value=-1, groups=2),
]


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: DType) -> Array:
    if dtype.is_float:
        return rng.normal(size=shape).astype(dtype.numpy)
    if dtype is DType.BIT:
        return rng.choice(np.array([-1, 1], np.int8), shape)
    low, high = dtype.range
    return rng.integers(low, high, shape, endpoint=True).astype(dtype.numpy)


def apply(op: Op, arrays: Sequence[Array], dtypes: Sequence[DType], quants: Sequence[Quant | None] = ()) -> Array:
    """The operator's reference; the first arrays may hold a batch."""
    quants = [*quants, *[None] * (len(arrays) - len(quants))]
    batched = op.terms if isinstance(op, Affine) else 1
    types = [
        TensorType((1, *a.shape[1:]) if i < batched else a.shape, d, q)
        for i, (a, d, q) in enumerate(zip(arrays, dtypes, quants, strict=True))
    ]
    out = op.infer(types)
    result = op.reference(types, arrays, out)
    assert result.dtype == out.dtype.numpy
    assert result.shape[1:] == out.shape[1:]
    return result


def taps(op: Conv2d, x: Array, w: Array, n: int, oy: int, ox: int, o: int, zero: int = 0) -> Iterator[tuple[Any, Any]]:
    """(input, weight) of an output element in the order of the definition; padding of 0 is left out."""
    per_in, per_out = w.shape[3], w.shape[0] // op.groups
    first = o // per_out * per_in
    for ky, kx, ci in product(range(w.shape[1]), range(w.shape[2]), range(per_in)):
        y = oy * op.strides[0] + ky * op.dilation[0] - op.padding[0]
        z = ox * op.strides[1] + kx * op.dilation[1] - op.padding[2]
        inside = 0 <= y < x.shape[1] and 0 <= z < x.shape[2]
        if inside:
            value = x[n, y, z, first + ci]
            yield (value - zero if zero else value), w[o, ky, kx, ci]
        elif op.pad_value:
            yield x.dtype.type(op.pad_value), w[o, ky, kx, ci]


# -- convolutions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x_dtype", INTEGERS)
@pytest.mark.parametrize("w_dtype", [DType.BIT, DType.TRIT, DType.I8])
@pytest.mark.parametrize("op", GEOMETRIES, ids=range(len(GEOMETRIES)))
def test_integer_convolution_is_torch_in_double(x_dtype: DType, w_dtype: DType, op: Conv2d) -> None:
    import torch
    from torch.nn import functional

    rng = np.random.default_rng(0)
    x, w = draw(rng, (2, 6, 5, 4), x_dtype), draw(rng, (8, 3, 2, 4 // op.groups), w_dtype)
    zero = 0 if x_dtype.is_packed else 3
    quants = [None if x_dtype.is_packed else Quant.of(0.5, zero), Quant.of(0.25) if w_dtype is DType.I8 else None]
    top, bottom, left, right = op.padding
    tensor = torch.from_numpy(x.astype(np.float64) - zero).permute(0, 3, 1, 2)
    tensor = functional.pad(tensor, (left, right, top, bottom), value=float(op.pad_value))
    weight = torch.from_numpy(w.astype(np.float64)).permute(0, 3, 1, 2)
    expected = functional.conv2d(tensor, weight, stride=op.strides, dilation=op.dilation, groups=op.groups)
    result = apply(op, [x, w], [x_dtype, w_dtype], quants)
    assert result.dtype == np.int32
    np.testing.assert_array_equal(result, expected.permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize("op", GEOMETRIES, ids=range(len(GEOMETRIES)))
@pytest.mark.parametrize("dtypes", [(DType.F32, DType.F32), (DType.BIT, DType.F32), (DType.TRIT, DType.F32)])
def test_float_convolution_is_a_scalar_loop_bit_for_bit(op: Conv2d, dtypes: tuple[DType, DType]) -> None:
    rng = np.random.default_rng(1)
    x, w = draw(rng, (2, 4, 5, 4), dtypes[0]), draw(rng, (4, 3, 2, 4 // op.groups), dtypes[1])
    result = apply(op, [x, w], dtypes)
    expected = np.empty_like(result)
    for n, oy, ox, o in product(*map(range, result.shape)):
        total = F(0)
        for a, b in taps(op, x, w, n, oy, ox, o):
            total = F(total + F(F(a) * F(b)))
        expected[n, oy, ox, o] = total
    assert result.tobytes() == expected.tobytes()


def test_a_sum_of_nothing_is_plus_zero() -> None:
    x, w = np.full((1, 1, 1, 1), -1.0, F), np.full((1, 2, 2, 1), 0.0, F)
    result = apply(Conv2d(padding=(3, 3, 3, 3)), [x, w], [DType.F32, DType.F32])
    assert not np.signbit(result).any()


def test_real_convolution_in_double() -> None:
    rng = np.random.default_rng(2)
    x, w = draw(rng, (1, 3, 3, 5), DType.F64), draw(rng, (2, 3, 3, 5), DType.F64)
    result = apply(Conv2d(), [x, w], [DType.F64, DType.F64])
    np.testing.assert_allclose(result[0, 0, 0], (x * w).sum((1, 2, 3)), rtol=1e-13)


@pytest.mark.parametrize("x_dtype", [DType.BIT, DType.TRIT, DType.I16, DType.I8])
def test_integer_linear_layer(x_dtype: DType) -> None:
    rng = np.random.default_rng(3)
    x, w = draw(rng, (3, 70), x_dtype), draw(rng, (5, 70), DType.I8)
    zero = 0 if x_dtype.is_packed else -7
    quants = [None if x_dtype.is_packed else Quant.of(1.0, zero), Quant.of(1.0)]
    expected = [[sum((int(a) - zero) * int(b) for a, b in zip(r, o, strict=True)) for o in w] for r in x]
    np.testing.assert_array_equal(apply(Linear(), [x, w], [x_dtype, DType.I8], quants), expected)


def test_float_linear_layer_bit_for_bit() -> None:
    rng = np.random.default_rng(4)
    x, w = draw(rng, (3, 70), DType.F32), draw(rng, (5, 70), DType.F32)
    expected = np.zeros((3, 5), F)
    for n, o in product(range(3), range(5)):
        for i in range(70):
            expected[n, o] = F(expected[n, o] + F(x[n, i] * w[o, i]))
    assert apply(Linear(), [x, w], [DType.F32, DType.F32]).tobytes() == expected.tobytes()


# -- per-channel operators ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [1, 2])
@pytest.mark.parametrize("x_dtype", [DType.F32, DType.I32, DType.I16])
def test_float_affine_bit_for_bit(terms: int, x_dtype: DType) -> None:
    rng = np.random.default_rng(5)
    xs = [draw(rng, (2, 3, 3, 7), d) for d in (x_dtype, DType.F32)[:terms]]
    parameters = [draw(rng, (7,), DType.F32) for _ in range(terms + 1)]
    result = apply(Affine(terms, DType.F32), [*xs, *parameters], [x_dtype, *[DType.F32] * (2 * terms)])
    expected = np.empty_like(result)
    for i in np.ndindex(result.shape):
        c = i[-1]
        y = F(F(xs[0][i]) * parameters[0][c])
        if terms == 2:
            y = F(y + F(xs[1][i] * parameters[1][c]))
        expected[i] = F(y + parameters[-1][c])
    assert result.tobytes() == expected.tobytes()


@pytest.mark.parametrize("out", [DType.I16, DType.I8])
@pytest.mark.parametrize("shifts", [(0,), (5,), (-4,), (-3, 0), (2, 0), (0, 1)])
def test_fixed_affine_is_integer_arithmetic(out: DType, shifts: tuple[int, ...]) -> None:
    rng = np.random.default_rng(6)
    terms = len(shifts)
    xs = [rng.integers(-2000, 2000, (3, 4, 7)).astype(np.int32) for _ in shifts]
    xs[0][0, 0], xs[0][0, 1] = 2**31 - 1, -(2**31)
    xs = [x[None] for x in xs]
    parameters = [rng.integers(-(2**17), 2**17, 7).astype(np.int32) for _ in range(terms + 1)]
    result = apply(Affine(terms, out, shifts), [*xs, *parameters], [DType.I32] * (2 * terms + 1))
    low, high = out.range
    for i in np.ndindex(result.shape):
        total = int(parameters[-1][i[-1]])
        for x, mul, shift in zip(xs, parameters, shifts, strict=False):
            value = int(x[i]) << shift if shift >= 0 else int(x[i]) >> -shift
            total += max(-(2**15), min(2**15 - 1, value)) * int(mul[i[-1]])
        assert result[i] == max(low, min(high, total >> 16))


def test_float_two_slope_bit_for_bit() -> None:
    rng = np.random.default_rng(7)
    x = draw(rng, (2, 2, 2, 6), DType.F32)
    x[0, 0, 0] = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45]
    positive, negative, bias = (draw(rng, (6,), DType.F32) for _ in range(3))
    result = apply(TwoSlope(DType.F32), [x, positive, negative, bias], [DType.F32] * 4)
    for i in np.ndindex(result.shape):
        c = i[-1]
        expected = F(F(x[i] * (positive[c] if x[i] >= 0 else negative[c])) + bias[c])
        assert (np.isnan(expected) and np.isnan(result[i])) or expected.tobytes() == result[i].tobytes()


@pytest.mark.parametrize("out", [DType.I16, DType.I8])
def test_fixed_two_slope(out: DType) -> None:
    rng = np.random.default_rng(8)
    x = draw(rng, (1, 5, 5, 6), DType.I16)
    slopes = [rng.integers(-(2**17), 2**17, 6).astype(np.int32) for _ in range(2)]
    result = apply(TwoSlope(out), [x, *slopes], [DType.I16, DType.I32, DType.I32])
    low, high = out.range
    for i in np.ndindex(result.shape):
        slope = int(slopes[0][i[-1]] if x[i] >= 0 else slopes[1][i[-1]])
        assert result[i] == max(low, min(high, (int(x[i]) * slope) >> 16))


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64, DType.I32, DType.I16, DType.I8])
def test_thresholds(dtype: DType) -> None:
    rng = np.random.default_rng(9)
    if dtype.is_float:
        x = rng.integers(-3, 4, (2, 3, 3, 4)).astype(dtype.numpy) / 2
        limits = [np.array([-1.0, 0.0, 0.5, -0.0], dtype.numpy), np.array([-1.0, 0.5, 1.5, 0.0], dtype.numpy)]
    else:
        x = rng.integers(-3, 4, (2, 3, 3, 4)).astype(dtype.numpy)
        limits = [np.array([-1, 0, 2**31 - 1, -2], np.int32), np.array([-1, 2, 2**31 - 1, 3], np.int32)]
    kind = dtype if dtype.is_float else DType.I32
    sign = apply(Sign(), [x, limits[0]], [dtype, kind])
    trits = apply(Ternarize(), [x, *limits], [dtype, kind, kind])
    for i in np.ndindex(x.shape):
        low, high = limits[0][i[-1]], limits[1][i[-1]]
        assert sign[i] == (1 if x[i] >= low else -1)
        assert trits[i] == (-1 if x[i] < low else 1 if x[i] >= high else 0)


def test_not_a_number_is_not_below_a_threshold() -> None:
    x, limit = np.full((1, 1, 1, 1), np.nan, F), np.zeros(1, F)
    assert apply(Sign(), [x, limit], [DType.F32] * 2) == 1
    assert apply(Ternarize(), [x, limit, limit], [DType.F32] * 3) == 1


# -- pooling and moving channels --------------------------------------------------------------------------------------------


def rounded_mean(values: Sequence[int], count: int, dtype: DType) -> int:
    """(sum * round(65536 / count) + 1/2) >> 16, as the definition has it."""
    factor = (65536 * 2 + count) // (2 * count)
    low, high = dtype.range
    return max(low, min(high, (sum(values) * factor + 32768) >> 16))


@pytest.mark.parametrize("dtype", [DType.F32, DType.I16, DType.I8])
@pytest.mark.parametrize(
    ("kernel", "strides"), [((2, 2), (2, 2)), ((3, 2), (1, 2)), ((3, 3), (2, 2)), ((1, 1), (2, 1))]
)
def test_average_pooling(dtype: DType, kernel: tuple[int, int], strides: tuple[int, int]) -> None:
    rng = np.random.default_rng(10)
    x = draw(rng, (2, 7, 6, 3), dtype)
    result = apply(AvgPool(kernel, strides), [x], [dtype])
    assert result.shape[1:3] == tuple((s - k) // t + 1 for s, k, t in zip((7, 6), kernel, strides, strict=True))
    for n, oy, ox, c in np.ndindex(result.shape):
        y, z = oy * strides[0], ox * strides[1]
        window = [x[n, y + ky, z + kx, c] for ky in range(kernel[0]) for kx in range(kernel[1])]
        if dtype is DType.F32:
            total = F(0)
            for value in window:
                total = F(total + value)
            assert result[n, oy, ox, c].tobytes() == F(total * F(1.0 / len(window))).tobytes()
        else:
            assert result[n, oy, ox, c] == rounded_mean([int(v) for v in window], len(window), dtype)


@pytest.mark.parametrize("dtype", [DType.F32, DType.I16, DType.I8, DType.U8])
def test_global_average_pooling(dtype: DType) -> None:
    x = draw(np.random.default_rng(11), (2, 5, 3, 4), dtype)
    quant = None if dtype is DType.F32 else Quant.of(0.3, 2)
    result = apply(GlobalAvgPool(), [x], [dtype], [quant])
    for n, c in np.ndindex(result.shape):
        values = x[n, :, :, c].reshape(-1)
        if dtype is DType.F32:
            total = F(0)
            for value in values:
                total = F(total + value)
            assert result[n, c].tobytes() == F(total * F(1 / 15)).tobytes()
        else:
            assert result[n, c] == sum(int(v) for v in values)
    if quant is not None:  # the sum stands for the mean
        out = GlobalAvgPool().infer([TensorType((1, 5, 3, 4), dtype, quant)])
        assert out.quant is not None
        mean = quant.dequantize(x).mean((1, 2))
        np.testing.assert_allclose(out.quant.dequantize(result), mean, rtol=1e-12)


@pytest.mark.parametrize("dtype", [DType.F32, DType.I16, DType.I8])
@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_group_means(dtype: DType, size: int) -> None:
    x = draw(np.random.default_rng(12), (2, 2, 3, 6), dtype)
    result = apply(GroupMean(size), [x], [dtype])
    for i in np.ndindex(result.shape):
        group = x[i[:-1]][i[-1] * size : (i[-1] + 1) * size]
        if dtype is DType.F32:
            total = F(0)
            for value in group:
                total = F(total + value)
            assert result[i].tobytes() == F(total * F(1 / size)).tobytes()
        else:
            assert result[i] == rounded_mean([int(v) for v in group], size, dtype)


def test_repeat_and_reshape_move_values_only() -> None:
    x = draw(np.random.default_rng(13), (2, 3, 2, 5), DType.I16)
    repeated = apply(Repeat(3), [x], [DType.I16])
    for r in range(3):
        np.testing.assert_array_equal(repeated[..., r * 5 : (r + 1) * 5], x)
    np.testing.assert_array_equal(apply(Reshape((1, 30)), [x], [DType.I16]), x.reshape(2, 30))


def test_quantization_follows_the_channels() -> None:
    quant = Quant.of([1.0, 2.0, 3.0, 3.0], [0.0, 1.0, 5.0, 5.0])
    x = TensorType((1, 2, 2, 4), DType.I16, quant)
    repeated = Repeat(2).infer([x]).quant
    assert repeated is not None
    np.testing.assert_array_equal(repeated.scale, np.tile(quant.scale, 2))
    np.testing.assert_array_equal(repeated.zero_point, np.tile(quant.zero_point, 2))
    with pytest.raises(GraphError, match="differ in quantization"):
        GroupMean(2).infer([x])
    pooled = AvgPool().infer([x]).quant
    assert pooled is not None and pooled.same(quant)
    product_type = Linear().infer(
        [TensorType((1, 3), DType.I16, Quant.of(0.5)), TensorType((2, 3), DType.I8, Quant.of([1.0, 4.0]))]
    )
    assert product_type.quant is not None
    np.testing.assert_array_equal(product_type.quant.scale, [0.5, 2.0])


def test_quantized_values_round_to_even_and_saturate() -> None:
    quant = Quant.of(2.0, 1.0)
    reals = np.array([[0.0, 1.0, 3.0, -1.0, 1e9, -1e9]])
    np.testing.assert_array_equal(quant.quantize(reals, DType.I8), [[1, 2, 2, 0, 127, -128]])
    np.testing.assert_array_equal(quant.dequantize(np.array([[1, -1]], np.int8)), [[0.0, -4.0]])


# -- types -------------------------------------------------------------------------------------------------------------


def t(shape: tuple[int, ...], dtype: DType = DType.F32, quant: Quant | None = None) -> TensorType:
    return TensorType(shape, dtype, quant)


MAP, VECTOR = (1, 4, 4, 6), (6,)
ERRORS: list[tuple[Op, list[TensorType], str]] = [
    (Conv2d(), [t((1, 6)), t((2, 1, 1, 6))], "needs x NHWC and w OHWI"),
    (Conv2d(), [t(MAP), t((2, 1, 1, 5))], "6 input channels, but the filter takes 5 x 1 groups"),
    (Conv2d(groups=4), [t(MAP), t((6, 1, 1, 1))], "6 outputs in 4 groups"),
    (Conv2d(), [t(MAP), t((2, 5, 5, 6))], "filter 5x5 is larger than the padded map"),
    (Conv2d(pad_value=3), [t(MAP), t((2, 1, 1, 6))], "padding value 3"),
    (Conv2d(padding=(-1, 0, 0, 0)), [t(MAP), t((2, 1, 1, 6))], "negative geometry"),
    (Conv2d((0, 1)), [t(MAP), t((2, 1, 1, 6))], "negative geometry"),
    (
        Conv2d(),
        [t(MAP, DType.I8, Quant.of(np.ones(6))), t((2, 1, 1, 6), DType.I8, Quant.of(1.0))],
        "one scale per tensor",
    ),
    (Linear(), [t(MAP), t((2, 6))], "needs x"),
    (Linear(), [t((1, 5)), t((2, 6))], "5 features, but the weights take 6"),
    (Affine(3, DType.F32), [t(MAP)] * 3 + [t(VECTOR)] * 4, "one or two terms"),
    (Affine(1, DType.F32), [t(MAP), t(VECTOR)], "one or two terms"),
    (Affine(2, DType.F32), [t(MAP), t((1, 2, 2, 6)), *[t(VECTOR)] * 3], "neither the shape"),
    (Affine(1, DType.F32), [t(MAP), t((5,)), t(VECTOR)], r"shape \(5,\), expected \(6,\)"),
    (Affine(1, DType.F32), [t(MAP), t(VECTOR, DType.F64), t(VECTOR)], "f64 parameter for an f32 output"),
    (Affine(1, DType.F32, (1,)), [t(MAP), t(VECTOR), t(VECTOR)], "shifts belong to fixed point"),
    (Affine(1, DType.I32, (0,)), [t(MAP, DType.I32), *[t(VECTOR, DType.I32)] * 2], "no fixed-point affine to i32"),
    (Affine(1, DType.I8, (0,)), [t(MAP), *[t(VECTOR, DType.I32)] * 2], "needs integer terms"),
    (Affine(1, DType.I8), [t(MAP, DType.I8), *[t(VECTOR, DType.I32)] * 2], "one shift per term"),
    (TwoSlope(DType.F32), [t(MAP), *[t(VECTOR)] * 2], "wrong number of parameters"),
    (TwoSlope(DType.I8), [t(MAP, DType.I8), *[t(VECTOR)] * 2], "f32 parameter for an i8 output"),
    (Sign(), [t(MAP), t((3,))], "thresholds of shape"),
    (Sign(), [t(MAP, DType.I32), t(VECTOR)], "f32 thresholds for i32"),
    (Ternarize(), [t(MAP), t(VECTOR), t(VECTOR, DType.F64)], "f64 thresholds for f32"),
    (AvgPool(), [t((1, 6))], "needs NHWC"),
    (AvgPool(), [t(MAP, DType.BIT)], "no average pooling of bit"),
    (AvgPool((5, 5)), [t(MAP)], "larger than the map"),
    (GlobalAvgPool(), [t((1, 6))], "needs NHWC"),
    (GlobalAvgPool(), [t(MAP, DType.TRIT)], "no global average pooling of trit"),
    (GroupMean(4), [t(MAP)], "6 channels in groups of 4"),
    (GroupMean(0), [t(MAP)], "in groups of 0"),
    (GroupMean(2), [t(MAP, DType.BIT)], "no group mean of bit"),
    (Repeat(0), [t(MAP)], "times must be positive"),
    (Reshape((1, 95)), [t(MAP)], "cannot reshape"),
    (Reshape((1, 96)), [t(MAP, DType.I8, Quant.of(np.ones(6)))], "different scale"),
]


@pytest.mark.parametrize(("op", "types", "message"), ERRORS, ids=range(len(ERRORS)))
def test_shape_rules(op: Op, types: list[TensorType], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        op.infer(types)


def test_every_operator_is_tested_and_documented() -> None:
    """Here, or with the kernels of its family."""
    families = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_ops_*.py"))
    rest = {name: cls for name, cls in OPS.items() if name not in {op.name for op, _, _ in ERRORS}}
    assert not [name for name, cls in rest.items() if f"{cls.__name__}(" not in families]
    assert all(cls.__doc__ and "(self" not in cls.__doc__ for cls in OPS.values())


def test_the_graph_names_the_layer_of_a_misfit() -> None:
    graph = Graph()
    x = graph.input("x", MAP, DType.F64)
    with pytest.raises(GraphError, match=r"^my\.pool: avg_pool: window .* is larger than the map"):
        graph.add(AvgPool((9, 9)), [x], "pool", source="my.pool")
    with pytest.raises(GraphError, match="input x has shape"):
        evaluate(graph, [np.zeros((1, 2, 2, 6))])


def test_names_are_unique_and_copies_are_independent() -> None:
    graph = Graph()
    x = graph.input("x", MAP, DType.F64)
    first, second = (graph.add(Repeat(2), [x], "y") for _ in range(2))
    assert (first.name, second.name) == ("y", "y.1")
    graph.outputs = [second]
    twin = graph.copy()
    twin.prune()
    assert [n.name for n in twin.nodes] == ["y.1"] and len(graph.nodes) == 2
    assert twin.inputs[0] is not x


def test_evaluate_keeps_what_it_is_asked_for_and_takes_batches() -> None:
    graph = Graph()
    x = graph.input("x", MAP, DType.F64)
    y = graph.add(Repeat(2), [x], "y")
    graph.outputs = [graph.add(GlobalAvgPool(), [y], "z"), y]
    samples = np.random.default_rng(0).normal(size=(3, *MAP[1:]))
    assert set(evaluate(graph, [samples])) == {"y", "z"}
    kept = evaluate(graph, [samples], keep=True)
    assert set(kept) == {"x", "y", "z"}
    for i in range(3):
        np.testing.assert_array_equal(evaluate(graph, [samples[i : i + 1]])["z"][0], kept["z"][i])
