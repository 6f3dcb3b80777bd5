"""Random steps of the shapes that the kernels for Armv8.1-M vectors are written for."""

from __future__ import annotations

import numpy as np
from bdn_cases import CODES, LETTERS, Array, Bdn, conv_weights, draw
from tile16_cases import usual_epilogue

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.graph import DType

INPUT, OUTPUT = bdn.Place.INPUT, bdn.Place.OUTPUT


def conv_step(kernel: str, rng: np.random.Generator) -> tuple[str, bytes, list[Array]]:
    """A point-wise layer of any width, or a window whose rows are a few vectors and a rest."""
    size = int(rng.choice([1, 1, 2, 3, 5]))
    channels = int(rng.choice([32, 64, 128, 256, 512] if size == 1 else [32, 64, 96, 128, 256, 512]))
    height, width, outputs = (int(n) for n in rng.integers((1, 1, 1), (4, 8, 20)))
    stride, dilation = int(rng.choice([1, 1, 2])), int(rng.choice([1, 1, 1, 2]))
    pad = int(rng.integers(0, size))
    reach = (size - 1) * dilation
    shape = (
        max(1, (height + 2 * pad - reach - 1) // stride + 1),
        max(1, (width + 2 * pad - reach - 1) // stride + 1),
        outputs,
    )
    how, sign = (str(rng.choice(["random", "random", "low", "high"])) for _ in range(2))
    acc = bdn.DType.I16 if kernel.endswith("i16") else bdn.DType.I32
    x = draw(rng, (1, height, width, channels), LETTERS["b"], how)
    weights = draw(rng, (outputs, size, size, channels), LETTERS["b"], sign)
    b = Bdn()
    source, target = b.tensor(x.shape[1:], bdn.DType.BIT, INPUT), b.tensor(shape, acc, OUTPUT)
    fields = {
        "kernel_h": size, "kernel_w": size, "stride_h": stride, "stride_w": stride, "dilation_h": dilation,
        "dilation_w": dilation, "pad_top": pad, "pad_left": pad, "pad_value": int(rng.choice([0, 0, 1, -1, 2])),
    }  # fmt: skip
    b.step(
        kernel, [source], [target], shape, weights=conv_weights(kernel, weights), acc_dtype=acc, weight_planes=1,
        rows_per_call=int(rng.integers(1, 4)), **fields,
    )  # fmt: skip
    return f"{kernel} {x.shape} -> {shape} {fields} {how} {sign}", b.write(), [x]


def depthwise_step(kernel: str, rng: np.random.Generator) -> tuple[str, bytes, list[Array]]:
    """A 3x3 depth-wise layer: every number of bytes of channels, with borders on all sides or on none."""
    x_type = LETTERS[kernel.split("_")[2][0]]
    channels = int(rng.choice([8, 16, 24, 32, 32, 40, 64, 64, 96, 120, 128, 136, 256, 320]))
    height, width = (int(n) for n in rng.integers((1, 1), (7, 19)))
    stride, pad_top, pad_left = int(rng.choice([1, 1, 2])), int(rng.integers(0, 3)), int(rng.integers(0, 3))
    shape = (
        max(1, (height + pad_top + int(rng.integers(0, 3)) - 3) // stride + 1),
        max(1, (width + pad_left + int(rng.integers(0, 3)) - 3) // stride + 1),
        channels,
    )
    how = str(rng.choice(["random", "random", "low", "high"]))
    x = draw(rng, (1, height, width, channels), x_type, how)
    weights = draw(rng, (channels, 3, 3, 1), LETTERS["b"], str(rng.choice(["random", "low", "high"])))
    b = Bdn()
    source, target = b.tensor(x.shape[1:], CODES[x_type], INPUT), b.tensor(shape, bdn.DType.I8, OUTPUT)
    b.step(
        kernel, [source], [target], shape, weights=conv_weights(kernel, weights), groups=channels, kernel_h=3, kernel_w=3,
        stride_h=stride, stride_w=stride, pad_top=pad_top, pad_left=pad_left, acc_dtype=bdn.DType.I8, weight_planes=1,
        rows_per_call=int(rng.integers(1, 4)),
    )  # fmt: skip
    return f"{kernel} {x.shape} -> {shape} stride {stride} pad {pad_top} {pad_left}", b.write(), [x]


def levels_step(kernel: str, rng: np.random.Generator) -> tuple[str, bytes, list[Array]]:
    """An epilogue that only compares accumulators with thresholds."""
    acc = DType.I8 if rng.random() < 0.6 else DType.I16
    shape = (int(rng.integers(1, 4)), int(rng.integers(1, 6)), int(rng.choice([8, 24, 32, 64, 96, 100])))
    packed = [DType.BIT, DType.TRIT, DType.UBIT][rng.integers(3)]
    most = int(rng.choice([10, 127, 128, 32767, 40000]))
    names = ["low", "high"] if packed is DType.TRIT else ["low"]
    stages = {n: rng.integers(-most - 1, most, shape[2], endpoint=True).astype(np.int32) for n in names}
    b = Bdn()
    x, out = b.tensor(shape, CODES[acc], INPUT), b.tensor(shape, CODES[packed], OUTPUT)
    at = b.epilogue(CODES[DType.I32], **stages)
    b.step(None, [x], [None, out], shape, epilogue=kernel, epilogue_at=at, acc_dtype=CODES[DType.I32])
    values = draw(rng, (1, *shape), acc, str(rng.choice(["random", "random", "low", "high"])))
    return f"{kernel} {shape} {acc} -> {packed} {most}", b.write(), [values]


def expanding_epilogue(kernel: str, rng: np.random.Generator) -> tuple[str, bytes, list[Array]]:
    """An epilogue with any accumulators, any slopes, and a residual whose channels repeat."""
    produced = DType.I16 if kernel.endswith("i16") else DType.I8
    acc = [DType.I8, DType.I16, DType.I32][rng.integers(3)]
    own = 32 * int(rng.integers(1, 3))
    shape = (int(rng.integers(1, 4)), int(rng.integers(1, 6)), own * int(rng.integers(1, 4)))
    channels = shape[2]

    def numbers(low: int, high: int) -> Array:
        return rng.integers(low, high, channels, dtype=np.int64, endpoint=True).astype(np.int32)

    steep = int(rng.choice([30000, 262144, 2**31 - 1]))
    stages = {
        "mul": numbers(-32768, 32767), "residual_mul": numbers(-32768, 98303), "add": numbers(-(2**31), 2**31 - 1),
        "positive": numbers(-steep, steep), "negative": numbers(-steep, steep), "low": numbers(-32768, 32767),
    }  # fmt: skip
    residual = DType.I16 if rng.random() < 0.7 else DType.I8
    b = Bdn()
    xs = [b.tensor(shape, CODES[acc], INPUT), b.tensor((*shape[:2], own), CODES[residual], INPUT)]
    outs = [b.tensor(shape, CODES[produced], OUTPUT), b.tensor(shape, bdn.DType.BIT, OUTPUT)]
    shift = -int(rng.integers(0, 20)) if acc is DType.I32 else int(rng.integers(0, 12))
    at = b.epilogue(CODES[produced], shift=shift, residual_channels=own, **stages)
    b.step(None, xs, outs, shape, epilogue=kernel, epilogue_at=at, acc_dtype=CODES[produced])
    how = str(rng.choice(["random", "random", "low", "high"]))
    values = [draw(rng, (1, *shape), acc, how), draw(rng, (1, *shape[:2], own), residual, how)]
    return f"{kernel} {shape} {acc} residual {own} {residual} shift {shift} slopes {steep}", b.write(), values


def epilogue_step(kernel: str, rng: np.random.Generator) -> tuple[str, bytes, list[Array]]:
    """Either of the above, or what quantization makes."""
    return (usual_epilogue if rng.random() < 0.5 else expanding_epilogue)(kernel, rng)
