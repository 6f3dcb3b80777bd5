"""The runtime's operators for TensorFlow Lite against numpy, in an interpreter made of ctypes."""

from __future__ import annotations

import numpy as np
import pytest
from tflite_kernels import In, Out, run

from bdnet_deploy.export.tflite import extended
from bdnet_deploy.export.tflite.packing import pack, words

ACTIVATIONS = ((-(2**31), 2**31 - 1), (0, 2**31 - 1), (-1, 1), (0, 6))


def signs(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.choice(np.array([-1, 1], np.int8), shape)


def trits(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.choice(np.array([-1, 0, 1], np.int8), shape)


def round_away(y: np.ndarray) -> np.ndarray:
    rounded = np.copysign(np.floor(np.abs(y.astype(np.float64)) + 0.5), y)
    return np.clip(rounded, -128, 127).astype(np.int8)


# -- LceBconv2d -------------------------------------------------------------------------------------------------------


def padding(size: int, kernel: int, stride: int, dilation: int, same: bool) -> tuple[int, int]:
    """In front and behind, as TensorFlow pads."""
    reach = (kernel - 1) * dilation + 1
    total = max(0, (-(-size // stride) - 1) * stride + reach - size) if same else 0
    return total // 2, total - total // 2


def conv(x: np.ndarray, w: np.ndarray, groups: int, o: dict[str, int]) -> np.ndarray:
    """Sums of products, int32."""
    same = o["padding"] == 0
    strides = (o["stride_height"], o["stride_width"])
    dilation = (o["dilation_height_factor"], o["dilation_width_factor"])
    pads = [padding(x.shape[1 + i], w.shape[1 + i], strides[i], dilation[i], same) for i in (0, 1)]
    x = np.pad(x.astype(np.int32), ((0, 0), *pads, (0, 0)), constant_values=o["pad_values"])
    size = [(x.shape[1 + i] - (w.shape[1 + i] - 1) * dilation[i] - 1) // strides[i] + 1 for i in (0, 1)]
    total = np.zeros((x.shape[0], *size, w.shape[0]), np.int32)
    inner, outer = w.shape[3], w.shape[0] // groups
    for i in range(w.shape[1]):
        for j in range(w.shape[2]):
            window = x[:, i * dilation[0] :, j * dilation[1] :][:, :: strides[0], :: strides[1]]
            window = window[:, : size[0], : size[1]]
            for g in range(groups):
                filters = w[g * outer : (g + 1) * outer, i, j].astype(np.int32)
                part = window[..., g * inner : (g + 1) * inner] @ filters.T
                total[..., g * outer : (g + 1) * outer] += part
    return total


def bconv_case(seed: int) -> tuple[list[np.ndarray | None], Out, dict[str, int], np.ndarray]:
    """Inputs, output and options of a random LceBconv2d, and its sums."""
    rng = np.random.default_rng(seed)
    groups = int(rng.choice([1, 1, 1, 2, 3]))
    channels = int(rng.choice([1, 3, 16, 31, 32, 33, 64, 70, 96, 160])) if groups == 1 else 32 * groups
    outputs = groups * int(rng.integers(1, 40))
    kernel = rng.integers(1, 6, 2)
    o = {
        "channels_in": channels,
        "padding": int(rng.integers(2)),
        "pad_values": int(rng.integers(2)),
        "fused_activation_function": int(rng.integers(4)),
        "stride_height": int(rng.integers(1, 4)),
        "stride_width": int(rng.integers(1, 4)),
        "dilation_height_factor": int(rng.integers(1, 3)),
        "dilation_width_factor": int(rng.integers(1, 3)),
    }
    low = [1, 1]
    if o["padding"] == 1:
        factors = (o["dilation_height_factor"], o["dilation_width_factor"])
        low = [(int(k) - 1) * d + 1 for k, d in zip(kernel, factors)]
    size = [int(rng.integers(s, s + 7)) for s in low]
    x = signs(rng, int(rng.integers(1, 3)), *size, channels)
    w = signs(rng, outputs, *map(int, kernel), channels // groups)
    acc = conv(x, w, groups, o)
    kind = rng.choice(["f4", "i1", "i4"])
    scale, zero = float(np.float32(rng.uniform(0.05, 3))), int(rng.integers(-20, 20))
    out = Out(kind, scale, zero) if kind == "i1" else Out(kind)
    m, b = (rng.normal(size=outputs).astype(np.float32) for _ in range(2))
    if kind == "i4":
        count = int(np.prod(w.shape[1:]))
        thresholds = rng.integers(-1, count + 2, outputs).astype(np.int32)
        thresholds[rng.random(outputs) < 0.1] = rng.choice([2**31 - 1, -(2**31)])
        return [pack(x), pack(w), None, None, thresholds], out, o, acc
    return [pack(x), pack(w), m, b, None], out, o, acc


def bconv_expected(inputs: list[np.ndarray | None], out: Out, o: dict[str, int], acc: np.ndarray) -> np.ndarray:
    """Larq's formulas, from the sums: K - acc is 2 * negative."""
    _, w, m, b, thresholds = inputs
    assert w is not None
    count = w.shape[1] * w.shape[2] * (o["channels_in"] if w.shape[3] == words(o["channels_in"]) else 32 * w.shape[3])
    doubled = count - acc
    if thresholds is not None:
        return pack(np.where(doubled > 2 * thresholds.astype(np.int64), -1, 1))
    assert m is not None and b is not None
    low, high = ACTIVATIONS[o["fused_activation_function"]]
    doubled = count - np.clip(acc, low, high)
    scale = float(np.float32(out.scale)) if out.dtype == "i1" else 1.0
    factor = (-1 * m.astype(np.float64) / scale).astype(np.float32)
    addend = ((b.astype(np.float64) + count * m.astype(np.float64)) / scale + out.zero_point).astype(np.float32)
    y = doubled.astype(np.float32) * factor + addend
    return round_away(y) if out.dtype == "i1" else y


@pytest.mark.parametrize("start", range(0, 400, 100))
def test_bconv2d(start: int) -> None:
    for seed in range(start, start + 100):
        inputs, out, o, acc = bconv_case(seed)
        (got,) = run("LceBconv2d", inputs, [out], o)
        np.testing.assert_array_equal(got, bconv_expected(inputs, out, o, acc), err_msg=f"{seed} {o} {out}")


# -- BdDepthwiseConv2d ------------------------------------------------------------------------------------------------


def depthwise_case(seed: int) -> tuple[list[np.ndarray | None], extended.Options, list[Out]]:
    rng = np.random.default_rng(seed)
    channels = int(rng.choice([1, 2, 5, 31, 32, 33, 64, 100, 256, 300]))
    outputs = channels * int(rng.choice([1, 1, 1, 2, 3]))
    kernel = [int(k) for k in rng.choice([[3, 3], [3, 3], [1, 1], [5, 5], [2, 4], [7, 7], [11, 11]])]
    o = extended.Options(
        channels,
        outputs,
        *(int(v) for v in rng.integers(1, 3, 4)),
        *(int(v) for v in rng.integers(0, 4, 4)),
        pad_value=int(rng.integers(-1, 2)),
    )
    reach = [(kernel[0] - 1) * o.dilation_height + 1, (kernel[1] - 1) * o.dilation_width + 1]
    low = [max(1, reach[0] - o.pad_top - o.pad_bottom), max(1, reach[1] - o.pad_left - o.pad_right)]
    size = [int(rng.integers(s, s + 9)) for s in low]
    x = (signs, trits)[int(rng.integers(2))](rng, int(rng.integers(1, 3)), *size, channels)
    w = (signs, trits)[int(rng.integers(2))](rng, *kernel, outputs)
    first = [*extended.planes(x), None][:2]
    weights = [*extended.planes(w), None][:2]
    inputs: list[np.ndarray | None] = [*first, *weights]
    kind = str(rng.choice(["f4", "i1", "acc", "bits", "trits"]))
    if kind in ("f4", "i1"):
        inputs += [rng.normal(size=outputs).astype(np.float32) if rng.random() < 0.7 else None for _ in range(2)]
        plain = rng.random() < 0.3
        scale, zero = (1.0, 0) if plain else (float(rng.uniform(0.05, 3)), int(rng.integers(-20, 20)))
        return inputs, o, [Out(kind, scale, zero) if kind == "i1" else Out(kind)]
    if kind == "acc":
        return inputs, o, [Out("i4")]
    limits = np.sort(rng.integers(-12, 14, (2, outputs)), axis=0).astype(np.int32)
    limits[0, rng.random(outputs) < 0.1] = -(2**31)
    limits[1, rng.random(outputs) < 0.1] = 2**31 - 1
    inputs += [None, None, *limits[: 1 + (kind == "trits")]]
    return inputs, o, [Out("i4")] * (1 + (kind == "trits"))


@pytest.mark.parametrize("start", range(0, 600, 100))
def test_depthwise(start: int) -> None:
    for seed in range(start, start + 100):
        inputs, o, outs = depthwise_case(seed)
        given = [i.copy() if i is not None else None for i in inputs]
        got = run("BdDepthwiseConv2d", given, outs, o.to_bytes(), constants=range(2, 8))
        expected = extended.evaluate(inputs, o, outs[0].dtype, outs[0].scale, outs[0].zero_point)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=f"{seed} {o} {outs}")


# -- the others -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["f4", "i1", "b1"])
def test_quantize_and_dequantize(kind: str) -> None:
    rng = np.random.default_rng(7)
    for channels in (1, 5, 31, 32, 33, 64, 100):
        shape = (2, 3, channels) if channels % 2 else (1, 2, 3, channels)
        if kind == "f4":
            x = rng.normal(size=shape).astype(np.float32)
            x[rng.random(shape) < 0.2] = rng.choice(np.array([0.0, -0.0, -1e-45, np.inf, -np.inf], np.float32))
            negative, given = x < 0, In(x)
        elif kind == "i1":
            x, zero = rng.integers(-128, 128, shape).astype(np.int8), int(rng.integers(-128, 128))
            negative, given = x < zero, In(x, 0.5, zero)
        else:
            x = rng.random(shape) < 0.5
            negative, given = ~x, In(x)
        expected = pack(np.where(negative, -1, 1))
        (words_,) = run("LceQuantize", [given], [Out("i4")])
        np.testing.assert_array_equal(words_, expected)
        scale, zero = float(rng.choice([1.0, 0.5, 0.25, 0.004, 7.0])), int(rng.integers(-128, 128))
        (back,) = run("LceDequantize", [expected], [Out(kind, scale, zero, shape)])
        # Larq's own: 1 / scale, rounded, from the zero point, saturated.
        step = round(1 / scale)
        levels = np.clip(zero + np.where(negative, -step, step), -128, 127)
        plain = np.where(negative, np.float32(-1), np.float32(1)) if kind == "f4" else ~negative
        np.testing.assert_array_equal(back, levels.astype(np.int8) if kind == "i1" else plain)


def pool_case(seed: int) -> tuple[np.ndarray, dict[str, int], np.ndarray]:
    """Values, options and the packed result of a random LceBMaxPool2d."""
    rng = np.random.default_rng(seed)
    kernel, stride = rng.integers(1, 5, 2), rng.integers(1, 4, 2)
    same = bool(rng.integers(2))
    size = [int(rng.integers(1 if same else k, k + 7)) for k in kernel]
    x = signs(rng, int(rng.integers(1, 3)), *size, int(rng.choice([1, 31, 33, 64])))
    pads = [padding(size[i], int(kernel[i]), int(stride[i]), 1, same) for i in (0, 1)]
    padded = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-1)
    out = [(padded.shape[1 + i] - kernel[i]) // stride[i] + 1 for i in (0, 1)]
    best = np.full((len(x), *out, x.shape[3]), -1, np.int8)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            best = np.maximum(best, padded[:, i :: stride[0], j :: stride[1]][:, : out[0], : out[1]])
    keys = ("filter_height", "filter_width", "stride_height", "stride_width", "padding")
    return x, dict(zip(keys, map(int, (*kernel, *stride, not same)), strict=True)), pack(best)


def test_max_pool() -> None:
    for seed in range(200):
        x, options, expected = pool_case(seed)
        (got,) = run("LceBMaxPool2d", [pack(x)], [Out("i4")], options)
        np.testing.assert_array_equal(got, expected, err_msg=f"{seed} {options}")
