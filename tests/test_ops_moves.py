"""Moves of elements, concatenation, permutations and quantization: references, kernels, rules, damaged files."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import numpy as np
import pytest
from bdn_cases import CODES, Bdn, draw

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.emulated import EmulatedModel
from bdnet_deploy.errors import ModelFileError, UnsupportedError
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.graph import (
    NUMERICS,
    Affine,
    Array,
    Concat,
    Conv2d,
    Dequantize,
    DType,
    Flip,
    Gather,
    Graph,
    GraphError,
    Move,
    Op,
    Pad,
    Permutation,
    PixelShuffle,
    PixelUnshuffle,
    Quant,
    Quantize,
    Repeat,
    Reshape,
    Shuffle,
    Sign,
    Slice,
    TensorType,
    Ternarize,
    Transpose,
    TwoSlope,
    Upsample,
    Value,
    evaluate,
)
from bdnet_deploy.host import HostModel
from bdnet_deploy.iodesc import InputDescription, IODescription
from bdnet_deploy.lowering import lower
from bdnet_deploy.passes import prune_channels
from bdnet_deploy.plan import make_plan
from bdnet_deploy.plan.tables import FILL, fill_word, gather_blob, permute_blob, row_window, runs

ELEMENTS = [DType.F32, DType.I32, DType.I16, DType.I8, DType.U8]
ALL = [*ELEMENTS, DType.BIT, DType.TRIT, DType.UBIT]
CHANNELS = [1, 2, 3, 5, 31, 32, 33, 40, 64, 65]


def same(actual: Array, expected: Array) -> None:
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    assert actual.tobytes() == np.ascontiguousarray(expected).tobytes()


def reference(op: Op, *xs: Array, types: list[TensorType] | None = None) -> Array:
    types = types or [TensorType((1, *x.shape[1:]), _dtype(x)) for x in xs]
    out = op.infer(types)
    y = op.reference(types, list(xs), out)
    assert y.shape[1:] == out.shape[1:]
    return y


def _dtype(x: Array) -> DType:
    return next(d for d in (DType.F64, *ELEMENTS) if d.numpy == x.dtype)


def random_shape(rng: np.random.Generator) -> tuple[int, int, int]:
    return int(rng.integers(1, 8)), int(rng.integers(1, 8)), int(rng.choice(CHANNELS))


def random_move(rng: np.random.Generator, shape: tuple[int, int, int], dtype: DType) -> Move:
    kind = rng.integers(6)
    if kind == 0:
        begin = [int(rng.integers(0, n)) for n in shape]
        end = [int(rng.integers(b + 1, n + 1)) for b, n in zip(begin, shape, strict=True)]
        return Slice(tuple(begin), tuple(end), tuple(int(s) for s in rng.integers(1, 4, 3)))  # type: ignore[arg-type]
    if kind == 1:
        mode = str(rng.choice(["constant", "replicate", "reflect"]))
        padding = [int(p) for n in shape for p in rng.integers(0, min(n, 4) if mode == "reflect" else 4, 2)]
        low, high = (
            (-9, 9) if not dtype.is_packed and dtype is not DType.U8 else (0, 9) if dtype is DType.U8 else (-1, 1)
        )
        low = max(low, dtype.range[0]) if dtype is not DType.F32 else low
        value = int(rng.choice([-1, 1])) if dtype is DType.BIT else int(rng.integers(low, high, endpoint=True))
        return Pad(tuple(padding), mode, value)  # type: ignore[arg-type]
    if kind == 2:
        return Shuffle(int(rng.choice([g for g in range(1, shape[2] + 1) if shape[2] % g == 0])))
    if kind == 3:
        return Gather(
            *(tuple(rng.integers(0, shape[a], rng.integers(a == 2, 70 if a == 2 else 9)).tolist()) for a in (2, 0, 1))
        )
    if kind == 4:
        return Upsample((int(rng.integers(1, 4)), int(rng.integers(1, 4))))
    return Flip(tuple(int(a) for a in range(3) if rng.random() < 0.5))


def random_permutation(rng: np.random.Generator, block: int) -> tuple[tuple[int, int, int], Permutation]:
    """A shape and an operator that takes it."""
    h, w, c = random_shape(rng)
    order = str(rng.choice(["crd", "dcr"]))
    kind = rng.integers(4)
    if kind == 0:
        return (h, w, c), Transpose(tuple(int(a) for a in rng.permutation(3)))  # type: ignore[arg-type]
    if kind == 1:
        return (h, w, c * block**2), PixelShuffle(block, order)
    if kind == 2:
        return (h * block, w * block, c), PixelUnshuffle(block, order)
    sizes = [(1, h * w * c), (1, w, c, h), (1, h * w, 1, c), (1, 1, h, w * c), (1, c, h, w), (1, h, w * c, 1)]
    return (h, w, c), Reshape(sizes[int(rng.integers(len(sizes)))])


# -- references ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
def test_reference_is_its_tables(seed: int) -> None:
    """The numpy reference of a move and its index tables, which only the kernels use, say the same."""
    rng = np.random.default_rng(seed)
    shape = random_shape(rng)
    op = random_move(rng, shape, DType.I16)
    x = draw(rng, (2, *shape), DType.I16)
    tables = op.tables(TensorType((1, *shape), DType.I16))
    expected = np.empty((2, *(len(t) for t in tables)), np.int16)
    for place in itertools.product(*(range(len(t)) for t in tables)):
        index = [int(t[i]) for t, i in zip(tables, place, strict=True)]
        expected[(slice(None), *place)] = op.fill if min(index) < 0 else x[(slice(None), *index)]
    same(reference(op, x), expected)


@pytest.mark.parametrize("seed", range(60))
def test_reference_is_its_digits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape, op = random_permutation(rng, 2 + seed % 2)
    x = draw(rng, (1, *shape), DType.I16)
    digits = op.digits(TensorType(x.shape, DType.I16))
    flat = []
    for values in itertools.product(*(range(d[0]) for d in digits)):
        place = [sum(v * d[axis] for v, d in zip(values, digits, strict=True)) for axis in (1, 2, 3)]
        flat.append(x[0, place[0], place[1], place[2]])
    y = reference(op, x)
    same(y, np.array(flat, np.int16).reshape(y.shape))


def test_against_torch() -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x = np.random.default_rng(0).standard_normal((2, 6, 4, 12)).astype(np.float32)
    nchw = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())

    def back(y: Any) -> Array:
        return np.ascontiguousarray(y.numpy().transpose(0, 2, 3, 1))

    same(reference(PixelShuffle(2), x), back(functional.pixel_shuffle(nchw, 2)))
    same(reference(PixelUnshuffle(2), x), back(functional.pixel_unshuffle(nchw, 2)))
    same(reference(Shuffle(3), x), back(torch.nn.ChannelShuffle(3)(nchw)))
    same(reference(Upsample((2, 3)), x), back(functional.interpolate(nchw, scale_factor=(2, 3), mode="nearest")))
    for mode, value in (("constant", 1.5), ("replicate", 0.0), ("reflect", 0.0)):
        pad = functional.pad(nchw, (1, 2, 3, 0), mode=mode, **({"value": value} if mode == "constant" else {}))
        same(reference(Pad((3, 0, 1, 2, 0, 0), mode, value), x), back(pad))
    shortcut = functional.pad(nchw[:, :, ::2, ::2], (0, 0, 0, 0, 3, 3))  # option A
    sliced = reference(Slice((0, 0, 0), (6, 4, 12), (2, 2, 1)), x)
    same(reference(Pad((0, 0, 0, 0, 3, 3)), sliced), back(shortcut))
    same(reference(Transpose((1, 2, 0)), x), np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    for scale, zero, dtype, kind in ((0.1, 3, DType.I8, torch.qint8), (0.017, 128, DType.U8, torch.quint8)):
        expected = torch.quantize_per_tensor(torch.from_numpy(x), scale, zero, kind)
        y = reference(Quantize(dtype, scale, zero), x)
        assert (y != expected.int_repr().numpy()).mean() < 0.001  # torch multiplies by the reciprocal
        assert np.abs(y.astype(int) - expected.int_repr().numpy()).max() <= 1


def test_pixel_shuffle_in_depth_column_row_order() -> None:
    """TensorFlow's example of depth_to_space: [[[[1, 2, 3, 4]]]] gives rows 1 2 and 3 4; and with two channels."""
    x = np.arange(1, 13, dtype=np.int16).reshape(1, 1, 1, 12)
    y = reference(PixelShuffle(2, "dcr"), x)
    assert y[0].tolist() == [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]]
    same(reference(PixelUnshuffle(2, "dcr"), y), x)


def test_quantize_reference() -> None:
    x = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, np.nan, np.inf, -np.inf, 1e38, 126.6]], np.float32)
    assert reference(Quantize(DType.I8, 1.0, 0), x)[0].tolist() == [0, 2, 2, 0, -2, 0, 127, -128, 127, 127]
    assert reference(Quantize(DType.U8, 1.0, 5), x)[0].tolist() == [5, 7, 7, 5, 3, 5, 255, 0, 255, 132]


@pytest.mark.parametrize(
    ("op", "shape", "dtype", "message"),
    [
        (Slice((0, 0, 0), (4, 4, 9)), (1, 4, 4, 8), DType.I8, "channels 0:9 of 8"),
        (Slice((0, 0, 0), (4, 4, 8), (0, 1, 1)), (1, 4, 4, 8), DType.I8, "stride over rows"),
        (Pad((4, 0, 0, 0, 0, 0), "reflect"), (1, 4, 4, 8), DType.I8, "cannot reflect 4 of 4"),
        (Pad((1, 0, 0, 0, 0, 0), "wrap"), (1, 4, 4, 8), DType.I8, "no padding mode"),
        (Pad((1, 0, 0, 0, 0, 0)), (1, 4, 4, 8), DType.BIT, "no bit is 0"),
        (Pad((1, 0, 0, 0, 0, 0), value=0.5), (1, 4, 4, 8), DType.I16, "no i16 is 0.5"),
        (Pad((1, 0, 0, 0, 0, 0)), (1, 8), DType.I16, "vector has no height"),
        (Shuffle(3), (1, 4, 4, 8), DType.I8, "8 channels in 3 groups"),
        (Gather((0, 8)), (1, 4, 4, 8), DType.I8, "0 to 8 of 8 channels"),
        (Gather(rows=(4,)), (1, 4, 4, 8), DType.I8, "4 to 4 of 4 rows"),
        (Gather(), (1, 4, 4, 8), DType.I8, "no indices"),
        (Upsample((2, 0)), (1, 4, 4, 8), DType.I8, "must be positive"),
        (Flip((3,)), (1, 4, 4, 8), DType.I8, "axes"),
        (PixelShuffle(3), (1, 4, 4, 8), DType.I8, "blocks of 9"),
        (PixelUnshuffle(3), (1, 4, 4, 8), DType.I8, "blocks of 3"),
        (PixelShuffle(2, "cdr"), (1, 4, 4, 8), DType.I8, "no order"),
        (Transpose((0, 1, 1)), (1, 4, 4, 8), DType.I8, "no permutation"),
        (Reshape((1, 5)), (1, 4, 4, 8), DType.I8, "cannot reshape"),
        (Quantize(DType.I32), (1, 8), DType.F32, "no quantization to i32"),
        (Quantize(DType.I8, 0.0), (1, 8), DType.F32, "scale 0.0"),
        (Quantize(DType.U8, 1.0, -1), (1, 8), DType.F32, "zero point -1"),
        (Dequantize(), (1, 8), DType.BIT, "not bit"),
    ],
)
def test_wrong_operands(op: Op, shape: tuple[int, ...], dtype: DType, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        op.infer([TensorType(shape, dtype)])


def test_wrong_concat() -> None:
    a, b = TensorType((1, 4, 4, 8), DType.I8), TensorType((1, 4, 3, 8), DType.I8)
    for types, message in (
        ([a], "two inputs or more"),
        ([a, b], "height or width"),
        ([a, TensorType(a.shape, DType.I16)], "differ in dtype"),
        ([a, TensorType(a.shape, DType.BIT)], "differ in dtype"),
    ):
        with pytest.raises(GraphError, match=message):
            Concat().infer(types)


def test_scales_follow_the_channels() -> None:
    quant = Quant.of([1.0, 2.0, 3.0, 4.0], [0.0, 0.5, -1.0, 7.0])
    x = TensorType((1, 2, 2, 4), DType.I16, quant)
    for op, index in (
        (Slice((0, 0, 1), (2, 2, 4), (1, 1, 2)), [1, 3]),
        (Gather((3, 0, 3)), [3, 0, 3]),
        (Shuffle(2), [0, 2, 1, 3]),
        (Flip((2,)), [3, 2, 1, 0]),
        (Upsample(), [0, 1, 2, 3]),
        (Transpose((1, 0, 2)), [0, 1, 2, 3]),
    ):
        found = op.infer([x]).quant
        assert found is not None and found.same(Quant.of(quant.scale[index], quant.zero_point[index])), op
    joined = Concat().infer([x, TensorType((1, 2, 2, 1), DType.I16, Quant.of(9.0, 1.0))]).quant
    assert joined is not None and joined.same(Quant.of([1.0, 2.0, 3.0, 4.0, 9.0], [0.0, 0.5, -1.0, 7.0, 1.0]))
    for op in (Transpose((2, 0, 1)), Reshape((1, 16)), PixelShuffle(2), PixelUnshuffle(2)):
        with pytest.raises(GraphError, match="different scale"):
            op.infer([x])


# -- kernels ------------------------------------------------------------------------------------------------------


def one_step(kernel: str, xs: list[Array], dtypes: list[DType], y: Array, out: DType, **fields: Any) -> Bdn:
    """A file of one step from inputs to an output, its weights the first constant."""
    b = Bdn()
    places = [bdn.Place.INPUT, bdn.Place.OUTPUT]
    sources = [b.tensor(x.shape[1:], CODES[d], places[0]) for x, d in zip(xs, dtypes, strict=True)]
    shape = (1,) * (4 - y.ndim) + y.shape[1:]
    target = b.tensor(shape, CODES[out], places[1])
    fields = {"rows_per_call": 2, "acc_dtype": bdn.DType.I8, **fields}
    b.step(kernel, sources, [target], shape, **fields)
    return b


def check_step(kernel: str, xs: list[Array], dtypes: list[DType], y: Array, out: DType, **fields: Any) -> None:
    found = HostModel(one_step(kernel, xs, dtypes, y, out, **fields).write()).run(xs)[0]
    same(found.reshape(y.shape), y)


def window_fields(rows: Array) -> dict[str, Any]:
    window = row_window(rows)
    if window is None:
        return {"kind": bdn.Kind.WHOLE, "rows_per_call": len(rows)}
    return {"kernel_h": window.size, "stride_h": window.stride, "pad_top": window.pad}


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("seed", range(25))
def test_gather_kernels(dtype: DType, seed: int) -> None:
    rng = np.random.default_rng([seed, 1])
    shape = random_shape(rng)
    op = random_move(rng, shape, dtype)
    x = draw(rng, (2, *shape), dtype)
    type_ = TensorType((1, *shape), dtype)
    tables = op.tables(type_)
    y = reference(op, x, types=[type_])
    blob = gather_blob(*tables, fill_word(op.fill, dtype))
    check_step(f"bd_gather_{dtype.value}", [x], [dtype], y, dtype, weights=blob, **window_fields(tables[0]))


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("seed", range(20))
def test_permute_kernels(dtype: DType, seed: int) -> None:
    rng = np.random.default_rng([seed, 2])
    shape, op = random_permutation(rng, int(rng.integers(1, 4)))
    x = draw(rng, (2, *shape), dtype)
    type_ = TensorType((1, *shape), dtype)
    y = reference(op, x, types=[type_])
    rows = y.shape[1] if y.ndim == 4 else 1
    fields = {"weights": permute_blob(op.digits(type_)), "kind": bdn.Kind.WHOLE, "rows_per_call": rows}
    check_step(f"bd_permute_{dtype.value}", [x], [dtype], y, dtype, **fields)


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("seed", range(12))
def test_concat_kernels(dtype: DType, seed: int) -> None:
    rng = np.random.default_rng([seed, 3])
    h, w, _ = random_shape(rng)
    xs = [draw(rng, (2, h, w, int(rng.choice(CHANNELS))), dtype) for _ in range(2)]
    types = [TensorType((1, *x.shape[1:]), dtype) for x in xs]
    check_step(f"bd_concat_{dtype.value}", xs, [dtype, dtype], reference(Concat(), *xs, types=types), dtype)


@pytest.mark.parametrize(
    ("out", "parts"),
    [
        (DType.I32, (DType.I8, DType.I16)),
        (DType.I32, (DType.I16, DType.I32)),
        (DType.I16, (DType.I16, DType.I8)),
        (DType.TRIT, (DType.BIT, DType.TRIT)),
        (DType.TRIT, (DType.TRIT, DType.BIT)),
        (DType.TRIT, (DType.UBIT, DType.BIT)),
        (DType.TRIT, (DType.TRIT, DType.UBIT)),
    ],
    ids=str,
)
def test_concat_widens(out: DType, parts: tuple[DType, DType]) -> None:
    rng = np.random.default_rng(4)
    for channels in ((3, 5), (32, 33), (70, 1)):
        xs = [draw(rng, (2, 3, 5, c), d) for c, d in zip(channels, parts, strict=True)]
        y = np.concatenate(xs, axis=-1).astype(out.numpy)
        check_step(f"bd_concat_{out.value}", xs, list(parts), y, out)


@pytest.mark.parametrize("dtype", [DType.U8, DType.I8, DType.I16])
def test_quantize_kernels(dtype: DType) -> None:
    rng = np.random.default_rng(5)
    low, high = dtype.range
    odd = [0.0, -0.0, np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5]
    for scale, zero in ((1.0, 0), (0.1, high), (0.37, low), (1e-30, 1), (3e38, 2), (0.0078125, 17)):
        halves = (rng.integers(low - zero, high - zero, 200, endpoint=True) + 0.5) * np.float32(scale)
        noise = rng.standard_normal(200) * scale * 2 * high
        x = np.concatenate([odd, halves, noise, np.zeros(2)]).astype(np.float32).reshape(1, 4, 8, 13)
        y = reference(Quantize(dtype, scale, zero), x)
        blob = np.frombuffer(struct.pack("<fi", scale, zero), np.uint8)
        check_step(f"bd_quantize_f_{dtype.value}", [x], [DType.F32], y, dtype, weights=blob)


@pytest.mark.parametrize(
    ("letter", "dtype"), list(zip("uqhi", (DType.U8, DType.I8, DType.I16, DType.I32), strict=True))
)
def test_dequantize_kernels(letter: str, dtype: DType) -> None:
    rng = np.random.default_rng(6)
    for how in ("random", "low", "high"):
        x = draw(rng, (2, 3, 5, 7), dtype, how)
        scale, zero = rng.random(7) + 1e-3, rng.integers(*dtype.range, 7).astype(np.float64)
        type_ = TensorType((1, 3, 5, 7), dtype, Quant.of(scale, zero))
        y = reference(Dequantize(DType.F32), x, types=[type_])
        blob = np.stack([scale, zero]).astype("<f4")
        check_step(f"bd_dequantize_{letter}_f32", [x], [dtype], y, DType.F32, weights=blob)


# -- tables -------------------------------------------------------------------------------------------------------


def test_runs() -> None:
    assert runs(np.array([0, 1, 2, 7, 8, -1, -1, 3, 2, 2])).tolist() == [
        [0, 3], [7, 2], [FILL, 2], [3, 1], [2, 1], [2, 1],
    ]  # fmt: skip
    assert runs(np.arange(80)).tolist() == [[0, 80]]  # a head slice is one run


@pytest.mark.parametrize("seed", range(200))
def test_row_windows_hold_the_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 40)), 1, 1)
    rows = random_move(rng, shape, DType.I16).tables(TensorType((1, *shape), DType.I16))[0]
    window = row_window(rows)
    assert window is not None
    for y, row in enumerate(rows):
        first = y * window.stride - window.pad
        assert row < 0 or first <= row < first + window.size


def test_row_windows_are_small() -> None:
    assert row_window(np.arange(0, 64, 2)) is not None
    strided, padded, far = (
        row_window(t) for t in (np.arange(0, 64, 2), np.array([-1, -1, 0, 1, 2, -1]), np.arange(9, 20))
    )
    assert strided is not None and (strided.stride, strided.size, strided.pad) == (2, 1, 0)
    assert padded is not None and (padded.stride, padded.size, padded.pad) == (1, 1, 2)
    assert far is not None and (far.stride, far.size, far.pad) == (1, 10, 0)
    assert row_window(np.repeat(np.arange(300), 2)) is None  # 300 rows behind: the whole map


# -- damaged files ------------------------------------------------------------------------------------------------


def refused(b: Bdn) -> None:
    with pytest.raises(ModelFileError, match="STEP"):
        HostModel(b.write())


@pytest.mark.parametrize("dtype", [DType.I8, DType.F32, DType.TRIT])
def test_damaged_gather(dtype: DType) -> None:
    rng = np.random.default_rng(7)
    x = draw(rng, (1, 5, 6, 33), dtype)
    op = Pad((1, 0, 2, 1, 3, 1), value=1)
    type_ = TensorType(x.shape, dtype)
    rows, columns, channels = op.tables(type_)
    y = reference(op, x, types=[type_])
    kernel = f"bd_gather_{dtype.value}"

    def build(blob: Array, **fields: Any) -> Bdn:
        window = {"kernel_h": 1, "stride_h": 1, "pad_top": 1, **fields}
        return one_step(kernel, [x], [dtype], y, dtype, weights=blob, **window)

    good = gather_blob(rows, columns, channels, fill_word(1, dtype)).view("<u2").copy()
    HostModel(build(good).write())
    refused(build(good[:-1]))
    refused(build(np.append(good, np.uint16(0))))
    refused(build(good[:3]))
    for index in range(2, len(good)):  # every number but the fill value, too large
        for value in (0x8000, 0xFFFE):
            bad = good.copy()
            bad[index] = value
            refused(build(bad))
    row = good.copy()
    row[4 + 3] = 3  # in the map, but not in the window of output row 3
    refused(build(row))
    HostModel(build(row, kind=bdn.Kind.WHOLE, rows_per_call=6).write())
    refused(build(good, kind=bdn.Kind.ACCUMULATE))
    refused(build(good, stride_h=0))
    refused(build(good, pad_top=0))
    other = DType.I16 if dtype is not DType.I16 else DType.I8
    refused(one_step(f"bd_gather_{other.value}", [x], [dtype], y, dtype, weights=good, pad_top=1))
    b = build(good)
    b.steps[0]["weights"], b.steps[0]["weights_size"] = bdn.ABSENT, 0
    refused(b)


@pytest.mark.parametrize("dtype", [DType.I8, DType.F32, DType.BIT])
def test_damaged_permute(dtype: DType) -> None:
    rng = np.random.default_rng(8)
    x = draw(rng, (1, 4, 6, 5), dtype)
    op = PixelUnshuffle(2)
    type_ = TensorType(x.shape, dtype)
    y = reference(op, x, types=[type_])
    good = permute_blob(op.digits(type_)).view("<u2").copy()

    def build(blob: Array, **fields: Any) -> Bdn:
        whole = {"kind": bdn.Kind.WHOLE, "rows_per_call": 2, **fields}
        return one_step(f"bd_permute_{dtype.value}", [x], [dtype], y, dtype, weights=blob, **whole)

    HostModel(build(good).write())
    refused(build(good, kind=bdn.Kind.WINDOW))
    refused(build(good[:-1]))
    refused(build(np.array([0], "<u2")))
    refused(build(np.array([7, *[1, 0, 0, 0] * 7], "<u2")))
    for index in range(len(good)):
        for value in {0, int(good[index]) + 7, 0xFFFF} - ({0} if index and (index - 1) % 4 else set()):
            bad = good.copy()
            bad[index] = value
            if index and (index - 1) % 4 and good[index - (index - 1) % 4] == 1:
                continue  # the step of a digit of size 1 is never taken
            refused(build(bad))


def test_damaged_concat_and_quantize() -> None:
    rng = np.random.default_rng(9)
    a, b = draw(rng, (1, 3, 4, 5), DType.I8), draw(rng, (1, 3, 4, 7), DType.I8)
    y = np.concatenate([a, b], -1)
    pair = [DType.I8, DType.I8]
    HostModel(one_step("bd_concat_i8", [a, b], pair, y, DType.I8).write())
    refused(one_step("bd_concat_i8", [a, b], pair, y[..., :-1], DType.I8))
    refused(one_step("bd_concat_i8", [a, b[:, :2]], pair, y, DType.I8))
    refused(one_step("bd_concat_i8", [a, b[:, :, :3]], pair, y, DType.I8))
    refused(one_step("bd_concat_i8", [a], [DType.I8], y, DType.I8))
    refused(one_step("bd_concat_i8", [a, b], [DType.I8, DType.U8], y, DType.I8))
    refused(one_step("bd_concat_i8", [a, b.astype(np.int16)], [DType.I8, DType.I16], y, DType.I8))
    refused(one_step("bd_concat_i8", [a, b], pair, y, DType.I8, kind=bdn.Kind.ACCUMULATE))
    refused(one_step("bd_concat_i8", [a, b], pair, y, DType.I8, pad_top=1))
    x = draw(rng, (1, 3, 4, 5), DType.F32)
    q = x.astype(np.uint8)
    for blob in (struct.pack("<fi", 1.0, 256), struct.pack("<fi", 1.0, -1), struct.pack("<f", 1.0), b"\0" * 12):
        weights = np.frombuffer(blob, np.uint8)
        refused(one_step("bd_quantize_f_u8", [x], [DType.F32], q, DType.U8, weights=weights))
    for size in (9, 11):
        weights = np.ones(size, "<f4")
        refused(one_step("bd_dequantize_u_f32", [q], [DType.U8], x, DType.F32, weights=weights))


# -- whole networks -----------------------------------------------------------------------------------------------


class Net:
    """A real graph under construction."""

    def __init__(self, shape: tuple[int, int, int], seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = Graph()
        self.x = self.graph.input("x", (1, *shape), DType.F64)

    def add(self, op: Op, *inputs: Value) -> Value:
        return self.graph.add(op, inputs, op.name, source=f"layer{len(self.graph.nodes)}.{op.name}")

    def affine(self, *xs: Value) -> Value:
        c = xs[0].type.channels
        parameters = [self.rng.normal(0.5, 0.2, c) for _ in xs] + [self.rng.normal(0.0, 0.3, c)]
        return self.add(Affine(len(xs)), *xs, *(self.graph.parameter("p", p) for p in parameters))

    def conv(self, x: Value, outputs: int, size: int = 3, strides: tuple[int, int] = (1, 1), groups: int = 1) -> Value:
        shape = (outputs, size, size, x.type.channels // groups)
        w = self.graph.constant("w", self.rng.choice([-1, 1], shape), DType.BIT)
        padding = (size // 2,) * 4
        return self.add(Conv2d(strides, padding, groups=groups), x, w)

    def sign(self, x: Value) -> Value:
        return self.add(Sign(), x, self.graph.parameter("t", self.rng.normal(0, 0.3, x.type.channels)))

    def ternarize(self, x: Value) -> Value:
        low, high = np.sort(self.rng.normal(0, 0.5, (2, x.type.channels)), 0)
        return self.add(Ternarize(), x, self.graph.parameter("l", low), self.graph.parameter("h", high))

    def finish(self, *outputs: Value) -> Graph:
        self.graph.outputs = list(outputs)
        return self.graph


def option_a() -> Graph:
    """A block with a subsampled and zero-padded shortcut, a split, a shuffle and a joined head."""
    net = Net((9, 8, 3))
    y = net.affine(net.conv(net.affine(net.x), 20))
    acc = net.conv(net.sign(y), 33, strides=(2, 2))
    shortcut = net.add(Slice((0, 0, 0), (9, 8, 20), (2, 2, 1)), y)
    shortcut = net.add(Pad((0, 0, 0, 0, 6, 7)), shortcut)
    y = net.affine(acc, shortcut)
    left, right = (net.add(Slice.channels(y.type, a, b), y) for a, b in ((0, 16), (16, 33)))
    bits = net.add(Concat(), net.sign(left), net.ternarize(right), net.sign(left))
    bits = net.add(Pad((1, 1, 0, 1, 0, 0), "replicate"), bits)
    acc = net.conv(bits, 24, size=1)
    up = net.add(Upsample((2, 1)), net.add(Shuffle(4), net.affine(acc)))
    up = net.add(PixelShuffle(2), net.add(Flip((0, 2)), up))
    bits = net.add(PixelUnshuffle(2, "dcr"), net.sign(up))
    y = net.affine(net.conv(net.add(Transpose((1, 0, 2)), bits), 7))
    flat = net.add(Reshape((1, y.type.size)), y)
    return net.finish(net.add(Gather(tuple(range(0, 200, 7))), flat))


def quantized() -> Graph:
    """A model that quantizes for itself, with moves among the integers."""
    net = Net((5, 6, 4), seed=3)
    y = net.affine(net.x)
    q = net.add(Quantize(DType.U8, 0.05, 128), y)
    r = net.add(Quantize(DType.U8, 0.02, 10), y)
    padded = net.add(Pad((1, 0, 2, 0, 1, 1), value=125), q)
    joined = net.add(Concat(), padded, net.add(Pad((1, 0, 2, 0, 0, 0), value=10), r), padded)
    return net.finish(net.affine(net.add(Dequantize(), joined)))


GRAPHS = {"option_a": option_a, "quantized": quantized, "real_moves": lambda: real_moves()}


def check_graph(graph: Graph, numerics: str) -> None:
    samples = np.random.default_rng(1).standard_normal((6, *graph.inputs[0].type.shape[1:]))
    lowered = lower(graph, numerics, samples=samples)
    x = lowered.encode(np.concatenate([samples[:2], 5 * samples[2:4]]))
    values = evaluate(lowered.graph, [x], keep=True)
    model = HostModel(write_bdn(lowered.plan))
    for i, sample in enumerate(x):
        contents = model.run_steps(sample)
        for index, tensor in enumerate(lowered.plan.tensors):
            for value in tensor.values:
                expected = values[value.name][i].astype(contents[index].dtype)
                assert contents[index].tobytes() == expected.tobytes(), value.name
    name = lowered.graph.outputs[0].name
    same(model.run(x)[0].reshape(values[name].shape), values[name])


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("name", GRAPHS)
def test_networks(name: str, numerics: str) -> None:
    check_graph(GRAPHS[name](), numerics)


def real_moves() -> Graph:
    """Moves of real numbers with scales of their own, mixed with accumulators; no sign that a rounding could flip."""
    net = Net((6, 4, 5), seed=4)
    y = net.affine(net.x)
    y = net.add(Gather((4, 1, 1, 0)), net.add(Pad((0, 1, 2, 0, 0, 0), "reflect"), y))
    y = net.add(Concat(), y, net.affine(net.add(Flip((1,)), y)), net.add(Shuffle(2), y))
    y = net.add(PixelUnshuffle(2), net.add(Upsample((2, 2)), net.add(Slice((1, 0, 2), (7, 6, 12), (3, 2, 1)), y)))
    y = net.affine(net.add(Transpose((2, 1, 0)), net.add(Pad((0, 0, 0, 0, 1, 0)), y)))
    return net.finish(net.affine(net.add(Reshape((1, y.type.size)), y)))


@pytest.mark.parametrize("graph", [quantized(), real_moves()], ids=["quantized", "real_moves"])
def test_fixed_point_is_near_the_real_numbers(graph: Graph) -> None:
    """The rules carry scales and zero points along: the decoded output is the real one, but for rounding."""
    samples = np.random.default_rng(1).standard_normal((6, *graph.inputs[0].type.shape[1:]))
    real = evaluate(graph, [samples])[graph.outputs[0].name]
    lowered = lower(graph, "fixed16", samples=samples)
    found = lowered.decode(evaluate(lowered.graph, [lowered.encode(samples)])[lowered.graph.outputs[0].name])
    # The input and the model's own integers have 8 bits.
    assert np.abs(found - real).max() < 0.03 * np.abs(real).max()


@pytest.mark.parametrize(
    ("core", "numerics"), [("cortex-m0plus", "fixed8"), ("cortex-m4", "fixed16"), ("cortex-a72", "float")]
)
@pytest.mark.parametrize("name", GRAPHS)
def test_emulated_cores(name: str, core: str, numerics: str) -> None:
    pytest.importorskip("unicorn")
    pytest.importorskip("ziglang")
    graph = GRAPHS[name]()
    samples = np.random.default_rng(1).standard_normal((2, *graph.inputs[0].type.shape[1:]))
    lowered = lower(graph, numerics, samples=samples)
    x = lowered.encode(samples)
    expected = evaluate(lowered.graph, [x])[lowered.graph.outputs[0].name]
    with EmulatedModel(lowered, core) as emulated:
        for sample, y in zip(x, expected, strict=True):
            same(emulated.run(sample), y)


def test_option_a_is_fused() -> None:
    """The residual is made ahead of its turn: one step for convolution, affine and shortcut."""
    lowered = lower(option_a(), "fixed16", samples=np.random.default_rng(1).standard_normal((4, 9, 8, 3)))
    kernels = [step.kernel for step in lowered.plan.steps]
    pad = next(i for i, step in enumerate(lowered.plan.steps) if isinstance(step.nodes[0].op, Pad))
    assert kernels[pad - 1 : pad + 1] == ["bd_gather_i16", "bd_gather_i16"]
    block = lowered.plan.steps[pad + 1]
    assert block.kernel == "bd_conv_bb_i16" and block.epilogue is not None and block.epilogue.residual_mul is not None
    assert block.inputs[1] is lowered.plan.steps[pad].trunk


def test_padding_a_fractional_zero_point() -> None:
    """Zero is no integer there, so the map gets one scale first; padded elements decode to 0."""

    net = Net((4, 4, 3))
    y = net.affine(net.x)
    slopes = [net.graph.parameter("s", v) for v in (np.ones(3), np.full(3, 0.3), np.array([0.11, -0.7, 0.23]))]
    padded = net.add(Pad((1, 1, 1, 1, 0, 2)), net.add(TwoSlope(), y, *slopes))
    graph = net.finish(padded)
    samples = np.random.default_rng(2).standard_normal((5, 4, 4, 3))
    for numerics in ("fixed16", "fixed8"):
        lowered = lower(graph, numerics, samples=samples)
        y = lowered.decode(evaluate(lowered.graph, [lowered.encode(samples)])[lowered.graph.outputs[0].name])
        edge = np.ones(y.shape, bool)
        edge[:, 1:-1, 1:-1, :3] = False
        assert not y[edge].any() and y[~edge].any()
    check_graph(graph, "fixed8")


def test_reshape_that_moves_nothing_is_free() -> None:
    net = Net((1, 1, 12))
    graph = net.finish(net.affine(net.add(Reshape((1, 12)), net.affine(net.x))))
    lowered = lower(graph, "float")
    assert all(step.kernel is None for step in lowered.plan.steps)
    net = Net((2, 3, 4))
    graph = net.finish(net.affine(net.add(Reshape((1, 6, 1, 4)), net.affine(net.x))))
    lowered = lower(graph, "float")
    assert [step.kernel for step in lowered.plan.steps] == [None, "bd_permute_f32", None]
    check_graph(graph, "fixed16")


# -- dead channels ------------------------------------------------------------------------------------------------


def head(times: int, begin: int, end: int, *, depthwise: bool = False) -> Graph:
    """A wide head of which only some channels are read."""
    net = Net((5, 4, 6), seed=times)
    y = net.affine(net.x)
    acc = net.conv(net.sign(y), 6, groups=6) if depthwise else net.conv(net.sign(y), 6)

    wide = net.add(Repeat(times), acc)
    wide = net.affine(wide, net.add(Repeat(times), y))
    c = wide.type.channels
    wide = net.add(TwoSlope(), wide, *(net.graph.parameter("s", net.rng.normal(0.5, 0.5, c)) for _ in range(3)))
    return net.finish(net.affine(net.add(Slice.channels(wide.type, begin, end), wide)))


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize(
    ("times", "begin", "end", "depthwise"),
    [(3, 0, 12, False), (3, 6, 12, True), (3, 7, 11, False), (2, 2, 5, True), (3, 4, 14, False), (1, 0, 4, True)],
)
def test_pruned_channels_are_the_same(times: int, begin: int, end: int, depthwise: bool, numerics: str) -> None:
    graph = head(times, begin, end, depthwise=depthwise)
    samples = np.random.default_rng(1).standard_normal((4, 5, 4, 6))
    from bdnet_deploy.passes import calibrate, merge_affine, quantize, to_float

    real = merge_affine(graph)
    chosen = to_float(real) if numerics == "float" else quantize(real, numerics, calibrate(real, [samples]))[0]
    reasons: list[str] = []
    pruned = prune_channels(chosen, report=reasons.append)
    x = lower(graph, numerics, samples=samples).encode(samples)
    before, after = (evaluate(g, [x])[g.outputs[0].name] for g in (chosen, pruned))
    same(after, before)

    def computed(g: Graph) -> int:
        return sum(n.output.type.size for n in g.nodes if not isinstance(n.op, Slice))

    assert computed(pruned) < computed(chosen)
    crosses = begin // 6 != (end - 1) // 6 and (begin % 6 or end % 6)
    assert any("within one of the repetitions" in r for r in reasons) == bool(crosses)
    check_graph(graph, numerics)


def test_why_channels_are_not_pruned() -> None:
    net = Net((4, 4, 6))
    y = net.affine(net.conv(net.sign(net.affine(net.x)), 12, groups=2))
    part = net.affine(net.add(Slice.channels(y.type, 0, 6), y))
    graph = net.finish(part)
    samples = np.random.default_rng(1).standard_normal((4, 4, 4, 6))
    assert any("grouped convolution" in note for note in lower(graph, "float", samples=samples).notes)
    other = net.affine(net.add(Slice.channels(y.type, 6, 12), y))
    graph = net.finish(net.affine(part, other))
    notes = lower(graph, "float", samples=samples).notes
    assert sum("has another reader" in note for note in notes) == 2
    check_graph(graph, "float")


def test_concat_of_many_is_a_chain() -> None:
    net = Net((3, 3, 5))
    y = net.affine(net.x)
    parts = [net.conv(net.sign(y), c) for c in (3, 32, 7)]
    graph = net.finish(net.affine(net.add(Concat(), *parts, net.conv(net.ternarize(y), 5, groups=5))))
    for numerics in NUMERICS:
        check_graph(graph, numerics)
    lowered = lower(graph, "fixed16")
    assert [s.kernel for s in lowered.plan.steps].count("bd_concat_i16") == 3  # accumulators as they lie in memory
    with pytest.raises(UnsupportedError, match="split_concat"):
        from bdnet_deploy.passes import to_float

        make_plan(to_float(graph))


@pytest.mark.parametrize("out", [DType.BIT, DType.UBIT, None])
def test_repeated_bits(out: DType | None) -> None:
    """Packed maps have no repeat of their own: the channels are gathered."""
    net = Net((3, 4, 5))
    y = net.affine(net.x)
    if out is None:
        bits = net.ternarize(y)
    else:
        bits = net.add(Sign(out), y, net.graph.parameter("t", np.zeros(5)))
    graph = net.finish(net.affine(net.conv(net.add(Repeat(9), bits), 4)))
    check_graph(graph, "fixed8")
    assert f"bd_gather_{(out or DType.TRIT).value}" in lower(graph, "fixed8").plan.kernels


@pytest.mark.parametrize("groups", [1, 3])
def test_pruned_filters_of_raw_pixels(groups: int) -> None:
    """The corrections of the border are those of the filters that are left."""
    net = Net((5, 6, 3), seed=groups)
    w = net.graph.constant("w", net.rng.standard_normal((3, 3, 3, 3 // groups)), DType.F64)
    y = net.add(Conv2d(padding=(1, 1, 1, 1), groups=groups), net.x, w)
    y = net.affine(net.add(Slice.channels(y.type, 1, 3), net.affine(y)))
    graph = net.finish(y)
    io = IODescription((InputDescription(shape=(5, 6, 3), dtype="u8", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25)),))
    raw = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    lowered = lower(graph, "fixed16", io=io, samples=io.preprocess(raw))
    conv = next(n for n in lowered.graph.nodes if isinstance(n.op, Conv2d))
    assert conv.output.type.channels == 2 and len(conv.inputs) == 3
    real = evaluate(graph, [io.preprocess(raw).astype(np.float64)])[graph.outputs[0].name]
    found = evaluate(lowered.graph, [raw])[lowered.graph.outputs[0].name]
    assert np.abs(lowered.decode(found) - real).max() < 0.02 * np.abs(real).max()
    same(HostModel(write_bdn(lowered.plan)).run(raw)[0].reshape(found.shape), found)
