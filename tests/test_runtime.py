"""The C kernels and the way they are run, against the numpy references: every byte equal."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bdn_cases import CODES, LETTERS, Bdn, conv_weights, digits_like, draw

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.errors import BdnetError
from bdnet_deploy.graph import (
    REPLICATE,
    Affine,
    AvgPool,
    Conv2d,
    DType,
    GlobalAvgPool,
    GroupMean,
    Quant,
    Sign,
    TensorType,
    Ternarize,
    TwoSlope,
)
from bdnet_deploy.host import HostModel

Array = np.ndarray[Any, np.dtype[Any]]
INPUT, OUTPUT = bdn.Place.INPUT, bdn.Place.OUTPUT
OUT_DTYPES = {"f32": DType.F32, "i8": DType.I8, "i16": DType.I16, "i32": DType.I32}

CONVS = [f"bd_conv_{pair}_{out}" for pair in ("bb", "tb", "zb", "bt", "tt", "zt") for out in ("i16", "i32")]
CONVS += [f"bd_conv_{pair}_f32" for pair in ("ff", "bf", "tf", "zf")]
CONVS += [f"bd_conv_{pair}_i32" for pair in ("uq", "qq", "hq", "bq", "tq", "zq")]
DEPTHWISE = [f"bd_dw_{pair}_i8" for pair in ("bb", "tb", "bt", "tt")]


def same(actual: Array, expected: Array) -> None:
    """Equal bytes; integers of different width by value."""
    assert actual.shape == expected.shape
    if actual.dtype == np.float32:
        np.testing.assert_array_equal(actual.view(np.uint32), expected.view(np.uint32))
    else:
        np.testing.assert_array_equal(actual, expected)


def types_of(kernel: str, zero_point: int, x: Array, w: Array) -> tuple[TensorType, TensorType]:
    pair = kernel.split("_")[2]
    x_type, w_type = LETTERS[pair[0]], LETTERS[pair[1]]
    quant = Quant.of(1.0, zero_point) if pair[0] in "uqh" else None
    return TensorType(x.shape, x_type, quant), TensorType(w.shape, w_type, Quant.of(1.0) if pair[1] == "q" else None)


def run_conv(kernel: str, op: Conv2d, x: Array, w: Array, *, zero_point: int = 0, rows_per_call: int = 1) -> None:
    """One convolution in a file of its own against the reference."""
    x_type, w_type = types_of(kernel, zero_point, x[:1], w)
    expected_type = op.infer([x_type, w_type])
    expected = op.reference([x_type, w_type], [x, w], expected_type)
    out = OUT_DTYPES[kernel.rsplit("_", 1)[1]]
    b = Bdn()
    source = b.tensor(x.shape[1:], CODES[x_type.dtype], INPUT)
    target = b.tensor(expected.shape[1:], CODES[out], OUTPUT)
    b.step(
        kernel, [source], [target], expected.shape[1:], weights=conv_weights(kernel, w), groups=op.groups,
        kernel_h=w.shape[1], kernel_w=w.shape[2], stride_h=op.strides[0], stride_w=op.strides[1],
        dilation_h=op.dilation[0], dilation_w=op.dilation[1], pad_top=op.padding[0], pad_left=op.padding[2],
        pad_value=op.pad_value, zero_point=zero_point, acc_dtype=CODES[out], rows_per_call=rows_per_call,
        weight_planes={"b": 1, "t": 2}.get(kernel.split("_")[2][1], 0),
    )  # fmt: skip
    same(HostModel(b.write()).run(x)[0], expected)


def random_conv(kernel: str, rng: np.random.Generator, *, how: str = "random", depthwise: bool = False) -> None:
    pair = kernel.split("_")[2]
    groups = int(rng.choice([1, 1, 1, 2, 3]))
    per_in, per_out = int(rng.integers(1, 80)), int(rng.integers(1, 10))
    if depthwise:
        groups, per_in, per_out = int(rng.integers(1, 100)), 1, 1
    kh, kw = (int(k) for k in rng.integers(1, 6, 2))
    dilation = tuple(int(d) for d in rng.integers(1, 3, 2))
    padding = tuple(int(p) for p in rng.integers(0, 4, 4))
    height = int(rng.integers(1, 9)) + max(0, (kh - 1) * dilation[0] - padding[0] - padding[1])
    width = int(rng.integers(1, 9)) + max(0, (kw - 1) * dilation[1] - padding[2] - padding[3])
    op = Conv2d(
        strides=(int(rng.integers(1, 4)), int(rng.integers(1, 4))), padding=padding,  # type: ignore[arg-type]
        pad_value=int(rng.choice([0, 0, 1, REPLICATE, 1 if pair[0] == "z" else -1])), dilation=dilation, groups=groups,  # type: ignore[arg-type]
    )  # fmt: skip
    x = draw(rng, (2, height, width, groups * per_in), LETTERS[pair[0]], how)
    w = draw(rng, (groups * per_out, kh, kw, per_in), LETTERS[pair[1]], how)
    low, high = (0, 0) if pair[0] not in "uqh" else LETTERS[pair[0]].range
    zero_point = int(rng.integers(low, high, endpoint=True))
    run_conv(kernel, op, x, w, zero_point=zero_point, rows_per_call=int(rng.integers(1, 6)))


@pytest.mark.parametrize("kernel", CONVS)
@pytest.mark.parametrize("seed", range(12))
def test_conv(kernel: str, seed: int) -> None:
    random_conv(kernel, np.random.default_rng([seed, len(kernel)]))


@pytest.mark.parametrize("kernel", DEPTHWISE)
@pytest.mark.parametrize("seed", range(12))
def test_depthwise(kernel: str, seed: int) -> None:
    random_conv(kernel, np.random.default_rng(seed), depthwise=True)


@pytest.mark.parametrize("kernel", [*CONVS, *DEPTHWISE])
@pytest.mark.parametrize("how", ["low", "high"])
def test_extremes(kernel: str, how: str) -> None:
    random_conv(kernel, np.random.default_rng(3), how=how, depthwise=kernel in DEPTHWISE)


@pytest.mark.parametrize("kernel", ["bd_conv_bb_i16", "bd_conv_tb_i16", "bd_conv_bt_i32", "bd_conv_tt_i32"])
@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, -1)])
def test_all_bits_differ(kernel: str, signs: tuple[int, int]) -> None:
    """Counters at their limits: wide dot products whose words all agree or all differ."""
    x = np.full((1, 1, 1, 4000), signs[0], np.int8)
    run_conv(kernel, Conv2d(), x, np.full((5, 1, 1, 4000), signs[1], np.int8))


@pytest.mark.parametrize("kernel", DEPTHWISE)
@pytest.mark.parametrize("signs", [(1, 1), (1, -1)])
def test_widest_depthwise(kernel: str, signs: tuple[int, int]) -> None:
    """127 taps: the accumulator's and the bit-sliced counter's limits."""
    x, w = np.full((1, 1, 127, 33), signs[0], np.int8), np.full((33, 1, 127, 1), signs[1], np.int8)
    run_conv(kernel, Conv2d(groups=33), x, w)


def test_window_outside_the_map() -> None:
    """Every tap of the first positions is padding."""
    rng = np.random.default_rng(0)
    for kernel in ("bd_conv_tb_i16", "bd_conv_bb_i32", "bd_conv_qq_i32", "bd_conv_ff_f32"):
        pair = kernel.split("_")[2]
        x, w = draw(rng, (1, 3, 3, 5), LETTERS[pair[0]]), draw(rng, (4, 2, 2, 5), LETTERS[pair[1]])
        run_conv(kernel, Conv2d(padding=(4, 4, 4, 4), pad_value=0), x, w)


def one_in_one_out(kernel: str, x: Array, dtype: DType, expected: Array, out: DType, **fields: Any) -> None:
    b = Bdn()
    shape = (1,) * (4 - expected.ndim) + expected.shape[1:]
    source, target = b.tensor(x.shape[1:], CODES[dtype], INPUT), b.tensor(shape, CODES[out], OUTPUT)
    b.step(kernel, [source], [target], shape, acc_dtype=CODES[out], **fields)
    same(HostModel(b.write()).run(x)[0], expected.reshape(len(x), *shape))


@pytest.mark.parametrize("how", ["random", "low", "high"])
@pytest.mark.parametrize("dtype", [DType.F32, DType.I16, DType.I8])
def test_avgpool(dtype: DType, how: str) -> None:
    rng = np.random.default_rng(5)
    for window, strides in (
        ((2, 2), (2, 2)),
        ((3, 2), (1, 2)),
        ((1, 1), (1, 1)),
        ((5, 7), (2, 3)),
        ((2, 3), (3, 3)),
    ):
        x = draw(rng, (2, 9, 11, 7), dtype, how)
        op = AvgPool(window, strides)
        types = [TensorType(x.shape, dtype)]
        expected = op.reference(types, [x], op.infer([TensorType((1, *x.shape[1:]), dtype)]))
        one_in_one_out(
            f"bd_avgpool_{dtype.value}", x, dtype, expected, dtype, kernel_h=window[0], kernel_w=window[1],
            stride_h=strides[0], stride_w=strides[1], rows_per_call=2,
        )  # fmt: skip


@pytest.mark.parametrize("how", ["random", "low", "high"])
@pytest.mark.parametrize("letter", "fhqu")
def test_global_avgpool(letter: str, how: str) -> None:
    rng, dtype = np.random.default_rng(6), LETTERS[letter]
    for shape, rows in (((7, 7, 33), 3), ((1, 1, 5), 1), ((4, 9, 8), 4), ((5, 3, 1), 9)):
        x = draw(rng, (2, *shape), dtype, how)
        op = GlobalAvgPool()
        out = op.infer([TensorType((1, *shape), dtype)])
        expected = op.reference([TensorType(x.shape, dtype)], [x], out)
        one_in_one_out(
            f"bd_gap_{letter}_{out.dtype.value}", x, dtype, expected, out.dtype, kind=bdn.Kind.ACCUMULATE, rows_per_call=rows
        )  # fmt: skip


@pytest.mark.parametrize("how", ["random", "low", "high"])
@pytest.mark.parametrize("dtype", [DType.F32, DType.I16, DType.I8])
def test_group_mean(dtype: DType, how: str) -> None:
    rng = np.random.default_rng(7)
    for size in (1, 2, 3, 6, 7, 24):
        x = draw(rng, (2, 3, 5, 5 * size), dtype, how)
        op = GroupMean(size)
        out = op.infer([TensorType((1, *x.shape[1:]), dtype)])
        expected = op.reference([TensorType(x.shape, dtype)], [x], out)
        one_in_one_out(f"bd_group_mean_{dtype.value}", x, dtype, expected, dtype, rows_per_call=2)


@pytest.mark.parametrize("dtype", [DType.F32, DType.I32, DType.I16, DType.I8])
def test_repeat(dtype: DType) -> None:
    rng = np.random.default_rng(8)
    x = draw(rng, (2, 3, 5, 7), dtype)
    for times in (1, 2, 5):
        expected = np.concatenate([x] * times, -1)
        one_in_one_out(f"bd_repeat_{dtype.value}", x, dtype, expected, dtype, rows_per_call=2)


# -- epilogues --------------------------------------------------------------------------------------------------


def run_epilogue(
    y_type: DType, acc: Array, acc_type: DType, *, affine: bool, residual: Array | None, slopes: bool, packed: DType | None,
    trunk: bool, parameters: dict[str, Array], shift: int = 0, residual_shift: int = 0, repeats: int = 0,
) -> None:  # fmt: skip
    """An epilogue without a kernel, any of its stages absent, against the references of the operators."""
    held, acc = acc.shape[1:], np.concatenate([acc] * (repeats + 1), -1)
    channels, fields, shape = acc.shape[-1], {}, acc.shape[1:]
    v, v_type = acc, acc_type
    parameter_type = DType.F32 if y_type is DType.F32 else DType.I32
    p_type = TensorType((channels,), parameter_type)
    if affine:
        xs, names = [acc], ["mul"]
        if residual is not None:
            xs.append(np.concatenate([residual] * -(-channels // residual.shape[-1]), -1)[..., :channels])
            names.append("residual_mul")
            fields["residual_channels"] = residual.shape[-1]
        arrays = [parameters[n] for n in (*names, "add")]
        shifts = () if y_type.is_float else (shift, residual_shift)[: len(xs)]
        op = Affine(len(xs), y_type, shifts)
        v = op.reference(
            [TensorType(v.shape, v_type)] * len(xs) + [p_type] * len(arrays),
            [*xs, *arrays],
            TensorType(v.shape, y_type),
        )
        v_type = y_type
        fields.update({n: parameters[n] for n in (*names, "add")}, shift=shift, residual_shift=residual_shift)
    if slopes:
        names = ["positive", "negative"] + (["bias"] if y_type.is_float else [])
        v = TwoSlope(y_type).reference([], [v, *(parameters[n] for n in names)], TensorType(v.shape, y_type))
        v_type = y_type
        fields.update({n: parameters[n] for n in names})
    produced = y_type if y_type.is_float else v_type
    b = Bdn()
    inputs = [b.tensor(held, CODES[acc_type], INPUT)]
    if residual is not None:
        inputs.append(b.tensor(residual.shape[1:], CODES[y_type], INPUT))
    expected, outputs = [], [None, None]
    if trunk:
        outputs[0] = b.tensor(shape, CODES[produced], OUTPUT)
        expected.append(v)
    if packed is not None:
        outputs[1] = b.tensor(shape, CODES[packed], OUTPUT)
        fields["low"] = parameters["low"]
        if packed is not DType.TRIT:
            expected.append(Sign(packed).reference([], [v, parameters["low"]], TensorType(shape, packed)))
        else:
            fields["high"] = parameters["high"]
            limits = [parameters["low"], parameters["high"]]
            expected.append(Ternarize().reference([], [v, *limits], TensorType(shape, DType.TRIT)))
    name = f"bd_epilogue_{y_type.value if y_type.is_float or affine or slopes else 'i32'}"
    b.step(
        None, inputs, outputs, held, epilogue=name, acc_dtype=CODES[acc_type], rows_per_call=2,
        epilogue_at=b.epilogue(CODES[produced], repeats=repeats, **fields),
    )  # fmt: skip
    first = np.ascontiguousarray(acc[..., : held[-1]])
    results = HostModel(b.write()).run([first] if residual is None else [first, residual])
    for actual, wanted in zip(results, expected, strict=True):
        same(actual, wanted)


STAGES = [(a, r, s, p, t) for a in (0, 1) for r in (0, 1, 2) for s in (0, 1) for p in (0, 1, 2, 3) for t in (0, 1)]
STAGES = [(a, r, s, p, t) for a, r, s, p, t in STAGES if (p or t) and (a or not r) and (a or s or p)]


@pytest.mark.parametrize("acc_type", [DType.F32, DType.I8, DType.I16, DType.I32])
def test_epilogue_f32(acc_type: DType) -> None:
    rng = np.random.default_rng(9)
    for a, r, s, p, t in STAGES:
        repeats = int(rng.choice([0, 0, 1, 3]))
        channels = int(rng.integers(1, 100)) * (repeats + 1)
        acc = draw(rng, (2, 3, 2, channels // (repeats + 1)), acc_type)
        parameters = {
            n: rng.standard_normal(channels).astype(np.float32) for n in ("mul", "add", "residual_mul", "positive", "negative", "bias")
        }  # fmt: skip
        low = rng.standard_normal(channels).astype(np.float32)
        parameters.update(low=low, high=low + np.float32(0.5))
        if not a and not s and acc_type is not DType.F32:
            continue  # integers are compared with integers: bd_epilogue_i32
        width = channels if r == 1 else max(1, channels // 2)
        residual = draw(rng, (2, 3, 2, width), DType.F32) if r else None
        run_epilogue(
            DType.F32, acc, acc_type, affine=bool(a), residual=residual, slopes=bool(s),
            packed=(None, DType.BIT, DType.TRIT, DType.UBIT)[p], trunk=bool(t), parameters=parameters, repeats=repeats,
        )  # fmt: skip


def test_epilogue_f32_special_values() -> None:
    """NaN is not below any threshold and takes the negative slope; zeros keep their signs."""
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3.4e38], np.float32)
    acc = np.tile(special, 9)[None, None, None]
    n = acc.shape[-1]
    rng = np.random.default_rng(1)
    parameters = {
        k: np.repeat(special[[3, 4, 7, 6, 1]], 15)[:n].astype(np.float32) for k in ("low", "high", "mul", "add")
    }
    parameters.update(
        {k: rng.choice(np.array([0.25, -0.0, 1.0], np.float32), n) for k in ("positive", "negative", "bias")}
    )
    for slopes, affine in ((True, False), (False, True), (False, False)):
        with np.errstate(all="ignore"):
            run_epilogue(
                DType.F32, acc, DType.F32, affine=affine, residual=None, slopes=slopes, packed=DType.TRIT, trunk=False,
                parameters=parameters,
            )  # fmt: skip


def factors(rng: np.random.Generator, n: int, spread: int) -> Array:
    """Factors with 16 fractional bits: k of -spread .. spread, m of 16 bits."""
    return (rng.integers(-spread, spread, n, endpoint=True) * 65536 + rng.integers(-16384, 16384, n)).astype(np.int32)


@pytest.mark.parametrize("y_type", [DType.I16, DType.I8])
@pytest.mark.parametrize("acc_type", [DType.U8, DType.I8, DType.I16, DType.I32])
def test_epilogue_fixed(acc_type: DType, y_type: DType) -> None:
    rng = np.random.default_rng(10)
    for case, (a, r, s, p, t) in enumerate(STAGES):
        repeats = int(rng.choice([0, 0, 1, 3]))
        channels = int(rng.integers(1, 100)) * (repeats + 1)
        shape = (2, 3, 2, channels // (repeats + 1))
        # Terms are 16 bits wide after their shift.
        shift = {DType.U8: 7, DType.I8: 8, DType.I16: 0, DType.I32: -(case % 17)}[acc_type]
        acc = rng.integers(*acc_type.range, shape, endpoint=True).astype(acc_type.numpy)
        acc.reshape(-1)[:2] = acc_type.range
        if not a and s and acc_type is DType.I32:
            continue  # slopes take 16 bits
        low = rng.integers(-300, 300, channels).astype(np.int32)
        parameters = {
            "mul": factors(rng, channels, case % 4), "residual_mul": factors(rng, channels, case % 3),
            "positive": factors(rng, channels, case % 3), "negative": factors(rng, channels, case % 2),
            "add": rng.integers(-(2**28), 2**28, channels).astype(np.int32), "low": low, "high": low + 100,
        }  # fmt: skip
        width = channels if r == 1 else max(1, channels // 2)
        residual = draw(rng, (2, 3, 2, width), y_type) if r else None
        run_epilogue(
            y_type, acc, acc_type, affine=bool(a), residual=residual, slopes=bool(s),
            packed=(None, DType.BIT, DType.TRIT, DType.UBIT)[p], trunk=bool(t), parameters=parameters, shift=shift,
            residual_shift=0 if y_type is DType.I16 else 7, repeats=repeats,
        )  # fmt: skip


@pytest.mark.parametrize("acc_type", [DType.I8, DType.I16, DType.I32])
def test_integer_thresholds(acc_type: DType) -> None:
    """Comparisons never overflow: accumulators and thresholds at the ends of their ranges."""
    low, high = acc_type.range
    values = np.array([low, low + 1, -1, 0, 1, high - 1, high], acc_type.numpy)
    limits = np.array([-(2**31), low, low + 1, 0, high, 2**31 - 1], np.int32)
    acc = np.repeat(values, len(limits))[None, None, None]
    thresholds = np.tile(limits, len(values))
    b = Bdn()
    source, target = (
        b.tensor(acc.shape[1:], CODES[acc_type], INPUT),
        b.tensor(acc.shape[1:], bdn.DType.BIT, OUTPUT),
    )
    b.step(
        None, [source], [None, target], acc.shape[1:], epilogue="bd_epilogue_i32", acc_dtype=CODES[acc_type],
        epilogue_at=b.epilogue(bdn.DType.I32, low=thresholds),
    )  # fmt: skip
    same(HostModel(b.write()).run(acc)[0], np.where(acc.astype(np.int64) < thresholds, -1, 1).astype(np.int8))


# -- whole models -----------------------------------------------------------------------------------------------


def test_steps_isolated_and_together_agree() -> None:
    model = HostModel(digits_like().write())
    rng = np.random.default_rng(2)
    x = draw(rng, (3, 6, 6, 8), DType.BIT)
    together = model.run(x)[0]
    for i in range(3):
        seen = model.run_steps(x[i])
        same(seen[model.outputs[0].tensor][None], together[i : i + 1])
        for index, step in enumerate(model.file.steps):
            reads = [int(t) for t in step["in"] if t != bdn.NONE]
            for tensor, content in model.run_step_isolated(index, {t: seen[t] for t in reads}).items():
                same(content, seen[tensor])


def test_fused_step_is_the_operators_in_turn() -> None:
    """Convolution, affine, ternarize in one step, tiles of rows that do not divide the height."""
    rng = np.random.default_rng(4)
    x, w = draw(rng, (1, 7, 5, 21), DType.TRIT), draw(rng, (37, 3, 3, 21), DType.BIT)
    op = Conv2d(padding=(1, 1, 1, 1), pad_value=-1)
    types = [TensorType(x.shape, DType.TRIT), TensorType(w.shape, DType.BIT)]
    acc = op.reference(types, [x, w], op.infer(types))
    mul, add = (
        rng.integers(-32768, 32768, 37, dtype=np.int32),
        rng.integers(-(2**20), 2**20, 37, dtype=np.int32),
    )
    low, high = np.full(37, -50, np.int32), np.full(37, 60, np.int32)
    y = Affine(1, DType.I16, (5,)).reference([], [acc, mul, add], TensorType(acc.shape, DType.I16))
    t = Ternarize().reference([], [y, low, high], TensorType(acc.shape, DType.TRIT))
    for rows in (1, 2, 3, 7, 100):
        b = Bdn()
        source = b.tensor(x.shape[1:], bdn.DType.TRIT, INPUT)
        targets = [b.tensor(acc.shape[1:], code, OUTPUT) for code in (bdn.DType.I16, bdn.DType.TRIT)]
        b.step(
            "bd_conv_tb_i16", [source], [*targets], acc.shape[1:], epilogue="bd_epilogue_i16", weights=conv_weights("bd_conv_tb_", w),
            kernel_h=3, kernel_w=3, pad_top=1, pad_left=1, pad_value=-1, acc_dtype=bdn.DType.I16, weight_planes=1,
            rows_per_call=rows, epilogue_at=b.epilogue(bdn.DType.I16, mul=mul, add=add, low=low, high=high, shift=5),
        )  # fmt: skip
        trunk, packed = HostModel(b.write()).run(x)
        same(trunk, y)
        same(packed, t)


@pytest.mark.parametrize("kind", [0, 1])
def test_self_test(kind: int) -> None:
    """A test vector passes, and one changed weight makes it fail."""
    b = Bdn()
    shape, rng = (4, 4, 6), np.random.default_rng(3)
    source, target = b.tensor(shape, bdn.DType.I8, INPUT), b.tensor((4, 4, 5), bdn.DType.I32, OUTPUT)
    w = draw(rng, (5, 1, 1, 6), DType.I8)
    b.step("bd_conv_qq_i32", [source], [target], (4, 4, 5), weights=w, acc_dtype=bdn.DType.I32)
    x = bdn.test_input(77, shape, bdn.DType.I8)
    y = (x.astype(np.int64) @ w[:, 0, 0].T.astype(np.int64)).astype("<i4")
    b.records[bdn.RECORD_TEST] = bdn.test_record(77 if kind else x, x.nbytes, y.tobytes())
    assert HostModel(b.write()).self_test()
    b.constants[0] ^= 1
    assert not HostModel(b.write()).self_test()


def test_float_generator_and_self_test() -> None:
    b = Bdn()
    source, target = (b.tensor((3, 3, 2), bdn.DType.F32, p) for p in (INPUT, OUTPUT))
    b.step("bd_repeat_f32", [source], [target], (3, 3, 2), acc_dtype=bdn.DType.F32)
    x = bdn.test_input(5, (3, 3, 2), bdn.DType.F32)
    b.records[bdn.RECORD_TEST] = bdn.test_record(5, x.nbytes, x.tobytes())
    assert HostModel(b.write()).self_test()


def test_wrong_inputs_are_refused() -> None:
    model = HostModel(digits_like().write())
    good = np.ones((1, 6, 6, 8), np.int8)
    for bad in (
        good[..., :7],
        good.astype(np.int16),
        np.int8(1),
        [good, good],
        np.ones((0, 6, 6, 8), np.int8),
    ):
        with pytest.raises(BdnetError):
            model.run(bad)
    with pytest.raises(BdnetError):
        model.run_step_isolated(0, {0: good})
    with pytest.raises(BdnetError):
        model.run_step_isolated(99, {})


# -- sources ----------------------------------------------------------------------------------------------------

WARNINGS = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic", "-Werror"]
ZIG = [sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi", "-mcpu=cortex_m0plus"]


@pytest.mark.parametrize("compiler", ["gcc", "clang", pytest.param("zig", marks=pytest.mark.slow)])
def test_compiles_without_warnings(root: Path, tmp_path: Path, compiler: str) -> None:
    if find_spec("ziglang") is None if compiler == "zig" else shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    runtime = root / "runtime"
    files = [str(f) for folder in ("src", "kernels/generic") for f in sorted((runtime / folder).glob("*.c"))]
    command = [*(ZIG if compiler == "zig" else [compiler]), *WARNINGS, "-c"]
    command += [f"-I{runtime / folder}" for folder in ("include", "src", "kernels")]
    done = subprocess.run([*command, *files], capture_output=True, encoding="utf-8", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_public_header_is_cpp(root: Path, tmp_path: Path) -> None:
    """bdnet.h alone, as C++ and as C; BD_ARENA_BYTES sizes an array."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    source = tmp_path / "use.cpp"
    source.write_text(
        '#include "bdnet.h"\nstatic unsigned char arena[BD_ARENA_BYTES(3, 5, 4096, 512)];\n'
        "int main() { return sizeof arena == 16 * sizeof(void *) + 32 + (3 * sizeof(void *) + 5 * 2 + 15) / 16 * 16 + 4608"
        " && arena[0] == 0 ? 0 : 1; }\n",
        encoding="utf-8",
    )
    program = tmp_path / "use"
    include = f"-I{root / 'runtime/include'}"
    subprocess.run([compiler, "-Wall", "-Wextra", "-Werror", include, str(source), "-o", str(program)], check=True)
    assert subprocess.run([str(program)]).returncode == 0
