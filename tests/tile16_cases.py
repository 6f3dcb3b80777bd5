"""Random steps of shapes that kernels for AArch64 have bodies for, which purely random geometry seldom meets."""

from __future__ import annotations

from typing import Any

import numpy as np
from bdn_cases import CODES, LETTERS, Array, Bdn, conv_weights, draw

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.graph import DType
from bdnet_deploy.plan.packings.planes import pack_planes
from bdnet_deploy.plan.packings.tile16 import pack_tile16, tile16

INPUT, OUTPUT = bdn.Place.INPUT, bdn.Place.OUTPUT
POINTWISE = (8, 16, 32, 64, 128, 192, 256, 320, 384, 512, 640, 768, 1024, 2048)
NINE = (64, 128, 256, 384, 512)


def tile16_step(kernel: str, rng: np.random.Generator, *, ends: bool = False) -> tuple[str, bytes, list[Array]]:
    """A ``__tile16`` convolution; with ``ends`` all signs differ, or none."""
    size = int(rng.choice([1, 3]))
    channels = int(rng.choice(POINTWISE if size == 1 else NINE))
    assert tile16(size * size, channels) is not None
    outputs = 32 * int(rng.integers(1, 4)) - (0 if "_bit_" in kernel else int(rng.choice([0, 16])))
    pad_top, pad_left = (int(p) for p in rng.integers(0, 2 if size == 3 else 1, 2))
    stride_h, stride_w = (int(s) for s in rng.choice([1, 1, 2, 3], 2))
    height, width = int(rng.integers(2, 7)), int(rng.integers(1 if size == 1 else 2, 12))
    sides = []
    for side, stride, pad in ((height, stride_h, pad_top), (width, stride_w, pad_left)):
        most = (side - 1) // stride + 1 if size == 1 else (side + pad + 1 - 3) // stride + 1
        sides.append(int(rng.integers(max(1, most - 2), most + 1)))
    shape = (sides[0], sides[1], outputs)
    draws = ["low", "high"] if ends else ["random"]
    x = draw(rng, (1, height, width, channels), DType.BIT, str(rng.choice(draws)))
    weights = draw(rng, (outputs, size, size, channels), DType.BIT, str(rng.choice(draws)))
    spread = int(rng.choice([30, size * size * channels + 2, 40000]))
    low = rng.integers(-spread, spread, outputs, endpoint=True) if "_bit_" in kernel else None
    b = Bdn()
    source = b.tensor(x.shape[1:], bdn.DType.BIT, INPUT)
    target = b.tensor(shape, bdn.DType.BIT if low is not None else bdn.DType.I16, OUTPUT)
    fields: dict[str, Any] = {
        "kernel_h": size, "kernel_w": size, "stride_h": stride_h, "stride_w": stride_w, "pad_top": pad_top,
        "pad_left": pad_left, "pad_value": int(rng.choice([0, 0, 1, -1])), "weight_planes": 1,
        "rows_per_call": int(rng.integers(1, 5)), "acc_dtype": bdn.DType.I16 if low is None else bdn.DType.I8,
    }  # fmt: skip
    b.step(kernel, [source], [target], shape, weights=pack_tile16(weights, low), **fields)
    return f"{kernel} {x.shape} -> {shape} {fields}", b.write(), [x]


def depthwise_rows(kernel: str, rng: np.random.Generator) -> tuple[str, bytes, list[Array]]:
    """A 3x3 depth-wise convolution of 8, 16, 32, 64 channels, or multiples of 128, padded by one pixel at the sides.

    A ``__planes`` kernel has a few more shapes, and thresholds.
    """
    packed = kernel.endswith("__planes")
    x_type = LETTERS[kernel.split("_")[2][0]]
    channels, height = int(rng.choice([8, 16, 32, 64, 128, 256, 384])), int(rng.integers(2, 9))
    pixels = max(128 // channels, 1)  # of a vector; fewer are the plain kernel's
    width = int(rng.choice([pixels, rng.integers(2, 12), rng.integers(pixels + 1, 4 * pixels + 3)]))
    pad_top, stride, stride_w = int(rng.integers(0, 2)), int(rng.choice([1, 1, 2])), int(rng.choice([1, 1, 2]))
    if stride_w == 2 and channels < 128 and rng.random() < 0.9:
        width *= 2
    width = max(2, width)
    if packed and rng.random() < 0.2:
        channels = int(rng.integers(2, 200))
    rows = (height + pad_top + int(rng.integers(0, 2)) - 3) // stride + 1
    shape = (max(1, rows), (width - 1) // stride_w + 1, channels)
    how = str(rng.choice(["random", "random", "low", "high"]))
    x = draw(rng, (1, height, width, channels), x_type, how)
    weights = draw(
        rng, (channels, 3, 3, 1), LETTERS[kernel.split("_")[2][1]], str(rng.choice(["random", "low", "high"]))
    )
    b = Bdn()
    source = b.tensor(x.shape[1:], CODES[x_type], INPUT)
    target = b.tensor(shape, bdn.DType.BIT if packed else bdn.DType.I8, OUTPUT)
    blob = conv_weights(kernel, weights)
    if packed:
        spread = int(rng.choice([3, 11, 300, 2**31 - 1]))
        low = rng.integers(-spread, spread, channels, endpoint=True)
        blob = pack_planes(weights, low, trits=x_type is DType.TRIT)
    b.step(
        kernel, [source], [target], shape, weights=blob, groups=channels, kernel_h=3, kernel_w=3,
        stride_h=stride, stride_w=stride_w, pad_top=pad_top, pad_left=1, acc_dtype=bdn.DType.I8,
        weight_planes=LETTERS[kernel.split("_")[2][1]].planes, rows_per_call=int(rng.integers(1, 9)),
    )  # fmt: skip
    return f"{kernel} {x.shape} -> {shape} strides {stride} {stride_w} pad {pad_top}", b.write(), [x]


def usual_epilogue(kernel: str, rng: np.random.Generator) -> tuple[str, bytes, list[Array]]:
    """Affine of accumulators with a residual, PReLU, trunk and packed output, with the factors that quantization makes."""
    produced = DType.I16 if kernel.endswith("i16") else DType.I8
    acc = DType.I8 if rng.random() < 0.5 else DType.I16
    shape = (int(rng.integers(1, 4)), int(rng.integers(1, 6)), 32 * int(rng.integers(1, 5)))
    channels = shape[2]

    def numbers(low: int, high: int) -> Array:
        return rng.integers(low, high, channels, dtype=np.int64, endpoint=True).astype(np.int32)

    steep = int(rng.choice([32767, 32767, 98303, 400000, 2**31 - 1]))
    factors = [
        np.full(channels, 65536, np.int32),
        numbers(-32768, 98303),
        numbers(32768, 98303),
        numbers(-(2**31), 2**31 - 1),
    ]
    stages = {"mul": numbers(-32768, 32767), "add": numbers(-(2**31), 2**31 - 1)}
    if rng.random() < 0.1:
        stages["mul"] = numbers(-100000, 100000)
    inputs = [(shape, acc)]
    if rng.random() < 0.7:
        stages["residual_mul"] = factors[rng.integers(4)]
        inputs.append((shape, DType.I16))
    if rng.random() < 0.8:
        above = [
            np.full(channels, int(rng.choice([65536, 65536, 65535, 262144])), np.int32),
            numbers(-steep - 1, steep),
        ]
        stages["positive"] = above[int(rng.random() < 0.2)]
        stages["negative"] = numbers(-steep - 1, steep)
    packed = [None, DType.BIT, DType.TRIT, DType.UBIT][rng.integers(4)]
    if packed is not None:
        stages["low"] = numbers(-32768, 32768 if rng.random() < 0.2 else 32767)
    if packed is DType.TRIT:
        stages["high"] = numbers(-32768, 32767)
    b = Bdn()
    xs = [b.tensor(s, CODES[d], INPUT) for s, d in inputs]
    trunk = b.tensor(shape, CODES[produced], OUTPUT) if packed is None or rng.random() < 0.8 else None
    bits = None if packed is None else b.tensor(shape, CODES[packed], OUTPUT)
    fields = {"shift": int(rng.choice([0, 4, 8, 11, 15])), "residual_channels": channels if len(inputs) > 1 else 0}
    at = b.epilogue(CODES[produced], **fields, **stages)
    b.step(None, xs, [trunk, bits], shape, epilogue=kernel, epilogue_at=at, acc_dtype=CODES[produced])
    how = str(rng.choice(["random", "random", "low", "high"]))
    values = [draw(rng, (1, *s), d, how) for s, d in inputs]
    return f"{kernel} {inputs} {packed} {sorted(stages)} {fields} {trunk is not None}", b.write(), values
