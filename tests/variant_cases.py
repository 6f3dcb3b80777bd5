"""Random single steps for every kernel that has variants: geometry, borders, tails, and values at the ends of their ranges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from bdn_cases import CODES, LETTERS, Array, Bdn, conv_weights, draw
from lanes16_cases import lanes16_step
from tile16_cases import tile16_step

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.graph import DType

LETTERS_OUT = {"f32": DType.F32, "i32": DType.I32}
INPUT, OUTPUT = bdn.Place.INPUT, bdn.Place.OUTPUT


@dataclass(frozen=True)
class Case:
    """A file of one step, and values for its inputs."""

    what: str
    file: bytes
    inputs: list[Array]


def _how(rng: np.random.Generator) -> str:
    return str(rng.choice(["random", "random", "random", "low", "high"]))


def _window(
    rng: np.random.Generator, *, largest: int = 5, pads: tuple[int, ...] = (0, 0, 0, 1, -1, 2)
) -> dict[str, Any]:
    """Geometry of a window, without the output's size."""
    kernel = [int(k) for k in rng.choice([1, 1, 3, 3, 2, largest], 2)]
    if rng.random() < 0.4:
        kernel = [1, 1]
    return {
        "kernel_h": kernel[0],
        "kernel_w": kernel[1],
        "stride_h": int(rng.choice([1, 1, 2])),
        "stride_w": int(rng.choice([1, 1, 2, 3])),
        "dilation_h": int(rng.choice([1, 1, 1, 2])),
        "dilation_w": int(rng.choice([1, 1, 1, 2])),
        "pad_top": int(rng.integers(0, kernel[0])),
        "pad_left": int(rng.integers(0, kernel[1] + 1)),
        "pad_value": int(rng.choice(pads)),
    }


def _out_size(rng: np.random.Generator, size: int, k: int, stride: int, dilation: int, pad: int) -> int:
    """An output size: any is legal, since taps outside of the map are padding."""
    natural = (size + 2 * pad - dilation * (k - 1) - 1) // stride + 1
    return max(1, natural + int(rng.integers(-1, 2)))


def _channels(rng: np.random.Generator, most: int) -> int:
    return int(rng.choice([rng.integers(1, most), 32 * rng.integers(1, max(2, most // 32)), 8, 16]))


def _conv(rng: np.random.Generator, kernel: str, acc: DType, most: int, *, depthwise: bool = False) -> Case:
    pair = kernel.split("_")[2]
    x_type, w_type = LETTERS[pair[0]], LETTERS[pair[1]]
    fields = _window(rng)
    if x_type is DType.UBIT and fields["pad_value"] < 0:
        fields["pad_value"] = 1
    channels, outputs = _channels(rng, most), _channels(rng, 70)
    if rng.random() < 0.04:
        outputs = int(rng.choice([128, 256, 1000]))
    groups = 1
    if depthwise:
        groups = outputs = channels
    elif rng.random() < 0.3:
        groups = int(rng.choice([2, 3, 4]))
        channels, outputs = groups * max(1, channels // groups), groups * max(1, outputs // groups)
        if rng.random() < 0.5:
            channels = groups * 32 * int(rng.integers(1, 3))
    taps = fields["kernel_h"] * fields["kernel_w"]
    if pair[1] in "bt" and acc is DType.I16 and taps * channels // groups > 32767:
        channels = groups * 32
    height, width = int(rng.integers(1, 9)), int(rng.integers(1, 20))
    if rng.random() < 0.05:
        width = int(rng.integers(60, 140))
    shape = (
        _out_size(rng, height, fields["kernel_h"], fields["stride_h"], fields["dilation_h"], fields["pad_top"]),
        _out_size(rng, width, fields["kernel_w"], fields["stride_w"], fields["dilation_w"], fields["pad_left"]),
        outputs,
    )
    b = Bdn()
    x = b.tensor((height, width, channels), CODES[x_type], INPUT)
    out = b.tensor(shape, CODES[acc], OUTPUT)
    weights = draw(rng, (outputs, fields["kernel_h"], fields["kernel_w"], channels // groups), w_type, _how(rng))
    if pair[1] in "bt":
        fields["weight_planes"] = 2 if pair[1] == "t" else 1
    if x_type in (DType.U8, DType.I8, DType.I16):
        fields["zero_point"] = int(rng.integers(*x_type.range)) if rng.random() < 0.7 else 0
    blob = conv_weights(kernel, weights)
    if kernel.endswith("__border"):
        fields["pad_value"] = 0
        blob = _border(rng, shape, weights)
    b.step(
        kernel, [x], [out], shape, weights=blob, groups=groups, acc_dtype=CODES[acc],
        rows_per_call=int(rng.integers(1, 4)), **fields,
    )  # fmt: skip
    return Case(
        f"{kernel} {(height, width, channels)} -> {shape} groups {groups} {fields}",
        b.write(),
        [draw(rng, (1, height, width, channels), x_type, _how(rng))],
    )


def packed_conv(kernel: str, rng: np.random.Generator) -> Case:
    """``bd_conv_<bits or trits>_i16`` and ``_i32``."""
    most = 1100 if rng.random() < 0.15 else 200
    return _conv(rng, kernel, DType.I16 if kernel.endswith("i16") else DType.I32, most)


def depthwise(kernel: str, rng: np.random.Generator) -> Case:
    """``bd_dw_*_i8``."""
    x_type = LETTERS[kernel.split("_")[2][0]]
    w_type = LETTERS[kernel.split("_")[2][1]]
    fields = _window(rng, pads=(0, 0, 1, -1, 2))
    if rng.random() < 0.5:
        fields.update(kernel_h=3, kernel_w=3, pad_top=1, pad_left=1, dilation_h=1, dilation_w=1)
    channels, height, width = _channels(rng, 1100 if rng.random() < 0.2 else 200), *rng.integers(1, 20, 2)
    shape = (
        _out_size(rng, height, fields["kernel_h"], fields["stride_h"], fields["dilation_h"], fields["pad_top"]),
        _out_size(rng, width, fields["kernel_w"], fields["stride_w"], fields["dilation_w"], fields["pad_left"]),
        channels,
    )
    b = Bdn()
    x = b.tensor((int(height), int(width), channels), CODES[x_type], INPUT)
    out = b.tensor(shape, bdn.DType.I8, OUTPUT)
    weights = draw(rng, (channels, fields["kernel_h"], fields["kernel_w"], 1), w_type, _how(rng))
    b.step(
        kernel, [x], [out], shape, weights=conv_weights(kernel, weights), groups=channels, acc_dtype=bdn.DType.I8,
        weight_planes=2 if w_type is DType.TRIT else 1, rows_per_call=int(rng.integers(1, 4)), **fields,
    )  # fmt: skip
    what = f"{kernel} {(height, width, channels)} -> {shape} {fields}"
    return Case(what, b.write(), [draw(rng, (1, int(height), int(width), channels), x_type, _how(rng))])


def _parameters(rng: np.random.Generator, count: int, name: str) -> Array:
    """Factors, addends, slopes or thresholds of an epilogue; of integers now and then any that fit 32 bits."""
    if name == "f32":
        values = rng.standard_normal(count).astype(np.float32)
        values[rng.random(count) < 0.05] = rng.choice(np.array([np.inf, -np.inf, 0.0, -0.0], np.float32))
        return values
    largest = int(rng.choice([300, 2**17, 2**31 - 1]))
    return rng.integers(-largest, largest, count, dtype=np.int64).astype(np.int32)


def epilogue(kernel: str, rng: np.random.Generator) -> Case:
    """``bd_epilogue_*`` by itself: every mix of stages, types and repeated channels."""
    name = kernel.removeprefix("bd_epilogue_")
    types = [DType.I8, DType.I16, DType.I16, DType.I32, DType.BIT, DType.TRIT, DType.F32 if name == "f32" else DType.U8]
    acc, residual = (types[rng.integers(len(types))] for _ in range(2))
    channels, repeats = _channels(rng, 200), int(rng.choice([0, 0, 0, 1, 2]))
    outputs = channels * (repeats + 1)
    affine, slopes = rng.random(2) < 0.7
    if name == "i32":
        affine = slopes = False
    if name in ("i16", "i8"):
        affine |= not slopes or acc is DType.I32
    if affine or slopes or name == "f32":
        produced = {"f32": DType.F32, "i16": DType.I16, "i8": DType.I8}[name]
    else:
        produced = acc if not acc.is_packed and rng.random() < 0.5 else DType.I32
    stages = ["mul", "add"] if affine else []
    if affine and rng.random() < 0.6:
        stages.append("residual_mul")
    if slopes:
        stages += ["positive", "negative", "bias"][: 3 if name == "f32" and rng.random() < 0.7 else 2]
    packed = [None, DType.BIT, DType.TRIT, DType.UBIT][rng.integers(4)]
    stages += ["low", "high"][: 0 if packed is None else 2 if packed is DType.TRIT else 1]
    height, width = (int(n) for n in rng.integers(1, 8, 2))
    b = Bdn()
    shape = (height, width, outputs)
    inputs = [((height, width, channels), acc)]
    fields: dict[str, Any] = {"repeats": repeats, "shift": int(rng.choice([0, 0, 3, 8, 15, -1, -4, -31]))}
    if "residual_mul" in stages:
        own = int(rng.choice([outputs, outputs, channels, rng.integers(1, outputs + 1)]))
        size = (1, 1) if rng.random() < 0.2 else (height, width)
        inputs.append(((*size, own), residual))
        fields.update(residual_channels=own, residual_shift=int(rng.choice([0, 0, 2, -3])))
    xs = [b.tensor(s, CODES[d], INPUT) for s, d in inputs]
    trunk = b.tensor(shape, CODES[produced], OUTPUT) if packed is None or rng.random() < 0.7 else None
    bits = None if packed is None else b.tensor(shape, CODES[packed], OUTPUT)
    at = b.epilogue(CODES[produced], **fields, **{stage: _parameters(rng, outputs, name) for stage in stages})
    b.step(
        None, xs, [trunk, bits], (height, width, channels), epilogue=kernel, epilogue_at=at, acc_dtype=CODES[produced],
        rows_per_call=int(rng.integers(1, 4)),
    )  # fmt: skip
    what = f"{kernel} {inputs} -> {shape} {produced} {packed} {stages} {fields}"
    return Case(what, b.write(), [draw(rng, (1, *s), d, _how(rng)) for s, d in inputs])


def element_conv(kernel: str, rng: np.random.Generator) -> Case:
    """``bd_conv_*`` with real or 8-bit weights."""
    if rng.random() < 0.3:
        return _conv(rng, kernel, LETTERS_OUT[kernel.split("_")[3]], 200, depthwise=True)
    most = 2000 if rng.random() < 0.1 else 100
    return _conv(rng, kernel, LETTERS_OUT[kernel.split("_")[3]], most)


def pool(kernel: str, rng: np.random.Generator) -> Case:
    """``bd_avgpool_*``."""
    dtype = {"f32": DType.F32, "i16": DType.I16, "i8": DType.I8}[kernel.removeprefix("bd_avgpool_")]
    kernel_h, kernel_w, stride_h, stride_w, out_height, out_width = (int(n) for n in rng.integers(1, 5, 6))
    channels = _channels(rng, 130)
    height = (out_height - 1) * stride_h + kernel_h + int(rng.integers(0, 2))
    width = (out_width - 1) * stride_w + kernel_w + int(rng.integers(0, 2))
    b = Bdn()
    x = b.tensor((height, width, channels), CODES[dtype], INPUT)
    out = b.tensor((out_height, out_width, channels), CODES[dtype], OUTPUT)
    b.step(
        kernel, [x], [out], (out_height, out_width, channels), kernel_h=kernel_h, kernel_w=kernel_w, stride_h=stride_h,
        stride_w=stride_w, acc_dtype=CODES[dtype], rows_per_call=int(rng.integers(1, 4)),
    )  # fmt: skip
    what = f"{kernel} {(height, width, channels)} {kernel_h}x{kernel_w} / {stride_h}x{stride_w}"
    return Case(what, b.write(), [draw(rng, (1, height, width, channels), dtype, _how(rng))])


def max_pool(kernel: str, rng: np.random.Generator) -> Case:
    """``bd_max_pool_*`` of elements."""
    name = kernel.removeprefix("bd_max_pool_")
    dtype = {"f32": DType.F32, "i32": DType.I32, "i16": DType.I16, "i8": DType.I8, "u8": DType.U8}[name]
    fields = _window(rng, pads=(0,))
    channels, height, width = _channels(rng, 130), int(rng.integers(1, 9)), int(rng.integers(1, 12))
    shape = (
        _out_size(rng, height, fields["kernel_h"], fields["stride_h"], fields["dilation_h"], fields["pad_top"]),
        _out_size(rng, width, fields["kernel_w"], fields["stride_w"], fields["dilation_w"], fields["pad_left"]),
        channels,
    )
    b = Bdn()
    x, out = b.tensor((height, width, channels), CODES[dtype], INPUT), b.tensor(shape, CODES[dtype], OUTPUT)
    b.step(kernel, [x], [out], shape, acc_dtype=CODES[dtype], rows_per_call=int(rng.integers(1, 4)), **fields)
    values = draw(rng, (1, height, width, channels), dtype, _how(rng))
    if dtype is DType.F32:
        values[rng.random(values.shape) < 0.05] = rng.choice(np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], np.float32))
    return Case(f"{kernel} {(height, width, channels)} -> {shape} {fields}", b.write(), [values])


def _border(rng: np.random.Generator, shape: tuple[int, int, int], weights: Array) -> Array:
    """The blob of ``bd_conv_uq_i32__border``."""
    height, width, outputs = shape
    classes = rng.integers(1, 4, 2)
    values = rng.integers(-(2**31), 2**31, int(classes[0] * classes[1]) * outputs, dtype=np.int64).astype(np.int32)
    rows, columns = rng.integers(0, classes[0], height), rng.integers(0, classes[1], width)
    parts = [classes.astype(np.uint16), values, rows.astype(np.uint8), columns.astype(np.uint8), weights]
    return np.frombuffer(b"".join(part.tobytes() for part in parts), np.uint8)


def edge(kernel: str, channels: int, sign: int) -> Case:
    """A point-wise or 3x3 convolution of which all signs differ, or none."""
    rng = np.random.default_rng(0)
    size = 3 if channels == 512 else 1
    acc = DType.I16 if kernel.endswith("i16") else DType.I32
    x_type = LETTERS[kernel.split("_")[2][0]]
    b = Bdn()
    shape = (3, 9, 33)
    x, out = b.tensor((3, 9, channels), CODES[x_type], INPUT), b.tensor(shape, CODES[acc], OUTPUT)
    weights = np.full((33, size, size, channels), sign, np.int8)
    b.step(
        kernel, [x], [out], shape, weights=conv_weights(kernel, weights), acc_dtype=CODES[acc], kernel_h=size,
        kernel_w=size, pad_top=size // 2, pad_left=size // 2,
        weight_planes=2 if kernel.split("_")[2][1] == "t" else 1,
    )  # fmt: skip
    return Case(f"{kernel} {channels} {sign}", b.write(), [draw(rng, (1, 3, 9, channels), x_type, "high")])


FAMILIES: dict[str, Callable[[str, np.random.Generator], Case]] = {}
for _pair in ("bb", "tb", "zb", "bt", "tt", "zt"):
    for _acc in ("i16", "i32"):
        FAMILIES[f"bd_conv_{_pair}_{_acc}"] = packed_conv
for _pair in ("bb", "tb", "bt", "tt"):
    FAMILIES[f"bd_dw_{_pair}_i8"] = depthwise
for _pair in ("ff", "bf", "tf", "zf"):
    FAMILIES[f"bd_conv_{_pair}_f32"] = element_conv
for _pair in ("uq", "qq", "hq", "bq", "tq", "zq"):
    FAMILIES[f"bd_conv_{_pair}_i32"] = element_conv
FAMILIES["bd_conv_uq_i32__border"] = element_conv
for _type in ("f32", "i16", "i8"):
    FAMILIES[f"bd_avgpool_{_type}"] = pool
for _type in ("f32", "i32", "i16", "i8", "u8"):
    FAMILIES[f"bd_max_pool_{_type}"] = max_pool
for _type in ("f32", "i32", "i16", "i8"):
    FAMILIES[f"bd_epilogue_{_type}"] = epilogue


def _tile16(kernel: str, rng: np.random.Generator) -> Case:
    return Case(*tile16_step(kernel, rng))


for _acc in ("i16", "bit"):
    FAMILIES[f"bd_conv_bb_{_acc}__tile16"] = _tile16


def _lanes16(kernel: str, rng: np.random.Generator) -> Case:
    return Case(*lanes16_step(kernel, rng))


FAMILIES["bd_epilogue_i16__lanes16"] = _lanes16


def case(kernel: str, seed: int) -> Case:
    """The random case of that number."""
    return FAMILIES[kernel](kernel, np.random.default_rng([seed, *kernel.encode()]))
