"""Max pooling and reductions: reference against PyTorch, the runtime against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bdn_cases import CODES, Bdn, draw

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.errors import ModelFileError
from bdnet_deploy.graph import (
    Affine,
    AvgPool,
    Conv2d,
    DType,
    GlobalAvgPool,
    Graph,
    GraphError,
    MaxPool,
    Op,
    Quant,
    Reduce,
    Sign,
    TensorType,
    Value,
    evaluate,
)
from bdnet_deploy.host import HostModel
from bdnet_deploy.lowering import lower

Array = np.ndarray[Any, np.dtype[Any]]
INPUT, OUTPUT = bdn.Place.INPUT, bdn.Place.OUTPUT
LETTER = {DType.F32: "f", DType.I16: "h", DType.I8: "q", DType.U8: "u"}


def same(actual: Array, expected: Array) -> None:
    """Equal bytes; NaN is NaN, whatever its payload."""
    assert actual.dtype == expected.dtype and actual.size == expected.size
    actual = actual.reshape(expected.shape)
    if actual.dtype == np.float32:
        nan = np.isnan(expected)
        np.testing.assert_array_equal(np.isnan(actual), nan)
        np.testing.assert_array_equal(actual.view(np.uint32)[~nan], expected.view(np.uint32)[~nan])
    else:
        np.testing.assert_array_equal(actual, expected)


def special(rng: np.random.Generator, x: Array) -> Array:
    """A third of the floats become NaN, infinite or a zero of either sign."""
    values = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45], np.float32)
    return np.where(rng.random(x.shape) < 0.3, rng.choice(values, x.shape), x).astype(np.float32)


def run_op(kernel: str, op: Op, x: Array, dtype: DType, **fields: Any) -> None:
    """One operator of one operand, in a file of its own, against its reference."""
    out = op.infer([TensorType((1, *x.shape[1:]), dtype)])
    expected = op.reference([TensorType(x.shape, dtype)], [x], out)
    shape = out.shape[1:] if len(out.shape) == 4 else (1, 1, out.channels)
    b = Bdn()
    source, target = b.tensor(x.shape[1:], CODES[dtype], INPUT), b.tensor(shape, CODES[out.dtype], OUTPUT)
    acc = bdn.DType.I8 if out.dtype.is_packed else CODES[out.dtype]
    b.step(kernel, [source], [target], shape, acc_dtype=acc, **fields)
    same(HostModel(b.write()).run(x)[0], expected)


# -- max_pool ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_max_pool_is_that_of_torch(seed: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    kernel, strides = rng.integers(1, 4, 2).tolist(), rng.integers(1, 4, 2).tolist()
    dilation, ceil = rng.integers(1, 3, 2).tolist(), bool(rng.integers(2))
    pad = [int(rng.integers(0, k // 2 + 1)) for k in kernel]
    x = special(rng, draw(rng, (2, 9, 8, 5), DType.F32))
    expected = torch.nn.functional.max_pool2d(
        torch.tensor(x).permute(0, 3, 1, 2), kernel, strides, pad, dilation, ceil
    ).permute(0, 2, 3, 1)
    padding = []
    for i in (0, 1):  # ceil mode is more padding behind the map
        reach = (kernel[i] - 1) * dilation[i] + 1
        need = (expected.shape[1 + i] - 1) * strides[i] + reach - x.shape[1 + i] - pad[i]
        padding += [pad[i], max(pad[i], need)]
    op = MaxPool(tuple(kernel), tuple(strides), tuple(padding), tuple(dilation))  # type: ignore[arg-type]
    out = op.infer([TensorType((1, *x.shape[1:]), DType.F32)])
    np.testing.assert_array_equal(op.reference([TensorType(x.shape, DType.F32)], [x], out), expected.numpy())


@pytest.mark.parametrize(
    "dtype", [DType.F32, DType.I32, DType.I16, DType.I8, DType.U8, DType.BIT, DType.TRIT, DType.UBIT]
)
@pytest.mark.parametrize("seed", range(12))
def test_max_pool_kernels(dtype: DType, seed: int) -> None:
    rng = np.random.default_rng([seed, 1])
    kernel, strides, dilation = ([int(v) for v in rng.integers(1, top, 2)] for top in (5, 4, 3))
    padding = [int(rng.integers(0, k)) * d for k, d in zip(np.repeat(kernel, 2), np.repeat(dilation, 2), strict=True)]
    height, width = (
        int(rng.integers(1, 9)) + max(0, (kernel[i] - 1) * dilation[i] - padding[2 * i] - padding[2 * i + 1])
        for i in (0, 1)
    )
    channels = int(rng.choice([1, 7, 31, 32, 33, 64, 70]))
    x = draw(rng, (2, height, width, channels), dtype, ("random", "random", "low", "high")[seed % 4])
    if dtype is DType.F32:
        x = special(rng, x)
    op = MaxPool(tuple(kernel), tuple(strides), tuple(padding), tuple(dilation))  # type: ignore[arg-type]
    try:
        op.infer([TensorType((1, *x.shape[1:]), dtype)])
    except GraphError:  # padding that hides a whole window
        op = MaxPool((1, 1), tuple(strides))  # type: ignore[arg-type]
    run_op(
        f"bd_max_pool_{dtype.value}", op, x, dtype, kernel_h=op.kernel[0], kernel_w=op.kernel[1],
        stride_h=op.strides[0], stride_w=op.strides[1], dilation_h=op.dilation[0], dilation_w=op.dilation[1],
        pad_top=op.padding[0], pad_left=op.padding[2], rows_per_call=int(rng.integers(1, 4)),
    )  # fmt: skip


def test_the_largest_bit_and_trit() -> None:
    for dtype, values in ((DType.BIT, [-1, 1]), (DType.TRIT, [-1, 0, 1]), (DType.UBIT, [0, 1])):
        pairs = np.array([[a, b] for a in values for b in values], np.int8).T.reshape(1, 2, 1, -1)
        op = MaxPool((2, 1), (1, 1))
        out = op.infer([TensorType(pairs.shape, dtype)])
        assert op.reference([out], [pairs], out).ravel().tolist() == [max(a, b) for a in values for b in values]
        run_op(f"bd_max_pool_{dtype.value}", op, pairs, dtype, kernel_h=2)


@pytest.mark.parametrize(
    ("op", "shape", "message"),
    [
        (MaxPool((3, 3)), (1, 2, 9, 4), "larger than the padded map"),
        (MaxPool((2, 2), (2, 2), (2, 0, 0, 0)), (1, 4, 4, 1), "in the padding altogether"),
        (MaxPool((2, 2), (1, 1), (1, 1, 0, 0), (2, 1)), (1, 1, 4, 1), "in the padding altogether"),
        (MaxPool((2, 2), (0, 1)), (1, 4, 4, 1), "stride"),
        (MaxPool(padding=(-1, 0, 0, 0)), (1, 4, 4, 1), "negative"),
        (MaxPool(), (1, 4), "NHWC"),
        (Reduce("mean"), (1, 4, 4, 2), "no mean"),
        (Reduce(), (1, 4), "NHWC"),
    ],
)
def test_what_the_graph_refuses(op: Op, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        op.infer([TensorType(shape, DType.F32)])


def test_channels_of_other_scales_are_not_reduced() -> None:
    x = TensorType((1, 2, 2, 2), DType.I8, Quant.of([1.0, 2.0]))
    with pytest.raises(GraphError, match="quantization"):
        Reduce("max", "channels").infer([x])
    assert Reduce("max", "map").infer([x]).quant is x.quant
    grown = Reduce("sum", "map").infer([TensorType((1, 2, 3, 2), DType.I8, Quant.of(0.5, [1.0, -2.0]))]).quant
    assert grown is not None and grown.zero_point.tolist() == [6.0, -12.0]


@pytest.mark.parametrize("numerics", ["float", "fixed16", "fixed8"])
def test_accumulators_are_pooled_as_they_are(numerics: str) -> None:
    """XNOR-Net's order: convolution, max pool, batch normalization, sign."""
    rng = np.random.default_rng(0)
    graph = Graph()
    x = graph.input("input", (1, 8, 8, 4), DType.F64)
    bits = graph.add(Sign(), [x, graph.parameter("t", np.zeros(4))], "sign")
    weight = graph.constant("w", rng.choice([-1, 1], (40, 3, 3, 4)), DType.BIT)
    acc = graph.add(Conv2d(), [bits, weight], "conv")
    pooled = graph.add(MaxPool((3, 3), (2, 2), (0, 1, 0, 1)), [acc], "pool")
    normal = [graph.parameter("p", v) for v in (rng.normal(0.1, 0.02, 40), rng.normal(0, 0.2, 40))]
    graph.outputs = [graph.add(Affine(), [pooled, *normal], "bn")]
    lowered = lower(graph, numerics, samples=rng.normal(size=(4, 8, 8, 4)))
    assert [s.kernel for s in lowered.plan.steps][1:3] == ["bd_conv_bb_i16", "bd_max_pool_i16"]
    from bdnet_deploy.export.bdn import write_bdn

    q = lowered.encode(rng.normal(size=(3, 8, 8, 4)))
    same(HostModel(write_bdn(lowered.plan)).run(q)[0], evaluate(lowered.graph, [q])[lowered.graph.outputs[0].name])


@pytest.mark.parametrize("numerics", ["float", "fixed16", "fixed8"])
@pytest.mark.parametrize("pools", [(GlobalAvgPool(),), (AvgPool(),), (MaxPool(), AvgPool(), GlobalAvgPool())])
def test_means_of_real_convolutions(pools: tuple[Op, ...], numerics: str) -> None:
    """A convolution without bias and normalization: its 32-bit sums become values of the trunk before a mean."""
    rng = np.random.default_rng(len(pools))
    graph = Graph()
    y = graph.input("input", (1, 8, 8, 3), DType.F64)
    y = graph.add(Conv2d(padding=(1, 1, 1, 1)), [y, graph.parameter("w", rng.normal(size=(6, 3, 3, 3)))], "conv")
    for op in pools:
        y = graph.add(op, [y], op.name)
    graph.outputs = [y]
    x = rng.normal(size=(4, 8, 8, 3))
    lowered = lower(graph, numerics, samples=x)
    from bdnet_deploy.export.bdn import write_bdn

    q = lowered.encode(x)
    expected = evaluate(lowered.graph, [q])[lowered.graph.outputs[0].name]
    same(HostModel(write_bdn(lowered.plan)).run(q)[0].reshape(expected.shape), expected)
    real = evaluate(graph, [x])[y.name]
    assert np.abs(lowered.decode(expected) - real).max() <= 0.05 * np.abs(real).max()


# -- reduce -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["random", "low", "high"])
@pytest.mark.parametrize("dtype", LETTER)
@pytest.mark.parametrize("kind", ["max", "sum"])
@pytest.mark.parametrize("over", ["map", "channels"])
def test_reductions(over: str, kind: str, dtype: DType, how: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    for shape in ((5, 6, 7), (1, 1, 33), (7, 1, 1), (1, 9, 64)):
        x = draw(rng, (2, *shape), dtype, how)
        op, axes = Reduce(kind, over), ((1, 2) if over == "map" else (3,))
        out = op.infer([TensorType((1, *shape), dtype)])
        y = op.reference([TensorType(x.shape, dtype)], [x], out)
        wide = torch.tensor(x.astype(np.float64 if dtype is DType.F32 else np.int64))
        expected = (wide.amax(axes) if kind == "max" else wide.sum(axes)).numpy()
        np.testing.assert_allclose(y.reshape(expected.shape), expected, rtol=1e-5, atol=1e-5)
        assert dtype is DType.F32 or np.array_equal(y.reshape(expected.shape), expected)
        name = f"{'map' if over == 'map' else 'channel'}_{kind}"
        if kind == "max":
            kernel = f"bd_{name}_{dtype.value}"
        else:
            kernel = f"bd_{name}_{LETTER[dtype]}_{out.dtype.value}"
            kernel = kernel if dtype is DType.F32 or over == "channels" else kernel.replace("map_sum", "gap")
        if dtype is DType.F32 and how == "random":
            x = special(rng, x)
        run_op(kernel, op, x, dtype, kind=bdn.Kind.ACCUMULATE if over == "map" else bdn.Kind.WINDOW, rows_per_call=2)


def pooled_value(op: Op, numerics: str) -> tuple[Value, Array, Array]:
    """An operator on a map with raw pixels as its input: its value, and what host library and reference make of it."""
    from bdnet_deploy.export.bdn import write_bdn
    from bdnet_deploy.iodesc import InputDescription, IODescription

    graph = Graph()
    x = graph.input("input", (1, 6, 5, 3), DType.F64)
    graph.outputs = [graph.add(op, [x], "y")]
    io = IODescription((InputDescription(shape=(6, 5, 3), dtype="u8", scale=0.5, zero_point=7),))
    rng = np.random.default_rng(1)
    raw = rng.integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    lowered = lower(graph, numerics, io=io, samples=(raw - 7.0) * 0.5)
    value = lowered.graph.outputs[0]
    q = lowered.encode((raw - 7.0) * 0.5)
    return value, HostModel(write_bdn(lowered.plan)).run(q)[0], evaluate(lowered.graph, [q])[value.name]


@pytest.mark.parametrize("numerics", ["float", "fixed16"])
@pytest.mark.parametrize(
    "op", [MaxPool((3, 2), (1, 2), (1, 1, 0, 1)), *(Reduce(k, o) for k in ("max", "sum") for o in ("map", "channels"))],
    ids=str,
)  # fmt: skip
def test_raw_pixels(op: Op, numerics: str) -> None:
    """The image itself is pooled: u8 with a zero point, exactly the real numbers."""
    value, found, expected = pooled_value(op, numerics)
    same(found, expected)
    raw = np.random.default_rng(1).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    real = (raw - 7.0) * 0.5
    wide = TensorType((1, *raw.shape[1:]), DType.F64)
    exact = op.reference([wide], [real], op.infer([wide]))
    quant = value.type.quant
    np.testing.assert_array_equal(expected if quant is None else quant.dequantize(expected), exact)


# -- damaged files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"pad_value": 1}, {"kernel_h": 0}, {"stride_w": 0}, {"dilation_h": 0}, {"kind": bdn.Kind.ACCUMULATE},
        {"out_channels": 6}, {"out_height": 5}, {"in": (2, bdn.NONE)}, {"out": (bdn.NONE, 1)},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("dtype", [DType.F32, DType.I16, DType.U8, DType.BIT, DType.TRIT])
def test_damaged_pools_are_refused(dtype: DType, change: dict[str, Any]) -> None:
    def file(**fields: Any) -> bytes:
        b = Bdn()
        x, y = b.tensor((4, 4, 5), CODES[dtype], INPUT), b.tensor((2, 2, 5), CODES[dtype], OUTPUT)
        b.tensor((4, 4, 5), bdn.DType.I32)
        step = b.step(f"bd_max_pool_{dtype.value}", [x], [y], (2, 2, 5), kernel_h=2, kernel_w=2, stride_h=2, stride_w=2)
        step["acc_dtype"] = bdn.DType.I8
        for name, value in fields.items():
            step[name] = value
        return b.write()

    HostModel(file())
    with pytest.raises(ModelFileError, match="STEP"):
        HostModel(file(**change))


@pytest.mark.parametrize(
    ("kernel", "shape", "kind"), [("map_max_i16", (1, 1, 5), 1), ("channel_max_i16", (4, 3, 1), 0)]
)
def test_damaged_reductions_are_refused(kernel: str, shape: tuple[int, int, int], kind: int) -> None:
    def file(out: tuple[int, int, int], dtype: int = bdn.DType.I16, **fields: Any) -> bytes:
        b = Bdn()
        x, y = b.tensor((4, 3, 5), bdn.DType.I16, INPUT), b.tensor(out, dtype, OUTPUT)
        b.step(f"bd_{kernel}", [x], [y], out, **{"kind": kind, "acc_dtype": bdn.DType.I16, **fields})
        return b.write()

    HostModel(file(shape))
    other = (1, 1, 6) if kind else (4, 3, 2)
    for data in (file(shape, kind=1 - kind), file(other), file(shape, bdn.DType.I8), file((4, 3, 5))):
        with pytest.raises(ModelFileError, match="STEP"):
            HostModel(data)
