"""Larq and TensorFlow Lite files as graphs: our kernels against Larq Compute Engine's own, operator by operator."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from export_graphs import bdnet
from tflite_files import File, check, host, samples, theirs

import bdnet_deploy
from bdnet_deploy.export import tflite as export
from bdnet_deploy.export.tflite.builder import F32, I8, SAME, VALID
from bdnet_deploy.export.tflite.packing import pack
from bdnet_deploy.export.tflite.schema import Operator, TensorKind
from bdnet_deploy.graph import Conv2d, DType, Graph, Linear, Op, Ternarize
from bdnet_deploy.importers.index_maps import operators
from bdnet_deploy.importers.tflite import import_tflite
from bdnet_deploy.importers.tflite.reader import read

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits"


def products(graph: Graph) -> Counter[tuple[str, str]]:
    """How many layers there are of each pair of operands; real ones as f64."""
    found = [n for n in graph.nodes if isinstance(n.op, Conv2d | Linear)]
    return Counter((n.inputs[0].type.dtype.value, n.inputs[1].type.dtype.value) for n in found)


def kinds(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


# -- Larq's operators ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 33, 64])
@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        ((3, 3), {"padding": SAME, "pad_values": 1}),
        ((3, 3), {"padding": SAME, "pad_values": 1, "strides": (2, 2)}),
        ((5, 1), {"padding": SAME, "pad_values": 1, "strides": (2, 1), "dilation": (1, 2)}),
        ((2, 3), {"padding": VALID, "pad_values": 0, "dilation": (2, 2)}),
        ((1, 1), {"padding": VALID, "pad_values": 1}),
    ],
)
def test_binary_convolution(channels: int, kernel: tuple[int, int], options: dict[str, object]) -> None:
    file = File(1, 9, 10, channels, seed=channels)
    y = file.bconv(file.bits(file.x), channels, 7, kernel, **options)
    imported = check(file.done(y))
    assert products(imported.graph) == {("bit", "bit"): 1} and not imported.graph.reasons


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize("activation", [0, 1, 2, 3])
def test_zero_padding(strides: tuple[int, int], activation: int) -> None:
    """Larq's optimized kernels take it without activations only; its reference kernel takes all."""
    file = File(1, 8, 9, 32)
    y = file.bconv(
        file.bits(file.x), 32, 40, padding=SAME, pad_values=0, strides=strides, activation=activation
    )  # fmt: skip
    imported = check(file.done(y), mode="reference")
    (conv,) = [n.op for n in imported.graph.nodes if isinstance(n.op, Conv2d)]
    assert conv.pad_value == 0 and any(conv.padding)


@pytest.mark.parametrize("activation", [1, 2, 3])
def test_activation_before_the_multiplier(activation: int) -> None:
    file = File(1, 6, 6, 40)
    check(file.done(file.bconv(file.bits(file.x), 40, 33, (1, 1), activation=activation)))


@pytest.mark.parametrize("groups", [2, 4])
def test_groups(groups: int) -> None:
    file = File(1, 6, 7, 128)
    data = file.done(
        file.bconv(file.bits(file.x), 128, 24, groups=groups, padding=SAME, pad_values=1)
    )  # fmt: skip
    (conv,) = [n.op for n in check(data, mode="indirect").graph.nodes if isinstance(n.op, Conv2d)]
    assert conv.groups == groups


@pytest.mark.parametrize("channels", [3, 32, 40])
def test_bits_by_thresholds(channels: int) -> None:
    file = File(1, 8, 8, channels, seed=channels)
    taps = 9 * channels
    limits = file.rng.integers(taps // 3, taps * 2 // 3, 37)
    limits[:4] = [2**31 - 1, -(2**31), taps // 2, -1]
    bits = file.bconv(file.bits(file.x), channels, 37, padding=SAME, pad_values=1, threshold=limits)
    again = file.bconv(bits, 37, 33, strides=(2, 2), padding=SAME, pad_values=1, threshold=np.full(33, 166))
    imported = check(file.done(file.unpacked(bits, 37), file.unpacked(again, 33)), exact=True)
    assert products(imported.graph)["bit", "bit"] >= 2
    (constant,) = [v for v in imported.graph.constants() if v.name == "y.threshold"]
    assert constant.type.dtype is DType.I32
    y = host(imported, samples(imported))[0]
    assert (y[..., 0] == 1).all() and (y[..., 1] == -1).all() and (y[..., 3] == -1).any()


@pytest.mark.parametrize("padding", [SAME, VALID])
@pytest.mark.parametrize(("kernel", "strides"), [((2, 2), (2, 2)), ((3, 2), (1, 2))])
def test_max_pool_of_bits(padding: int, kernel: tuple[int, int], strides: tuple[int, int]) -> None:
    file = File(1, 7, 8, 33)
    y = file.bmax_pool(file.bits(file.x), kernel, strides, padding)
    imported = check(file.done(file.unpacked(y, 33)), exact=True)
    assert "max_pool" in kinds(imported.graph)


@pytest.mark.parametrize(("channels", "word", "value"), [(32, 0, 1), (64, -1, -1), (20, (1 << 20) - 1, -1), (33, 0, 1)])
def test_padded_words(channels: int, word: int, value: int) -> None:
    """PyTorch's symmetric padding, as it is written for Larq: packed words, then a convolution without padding."""
    file = File(1, 8, 8, channels)
    padded = file.b.pad(file.bits(file.x), (1, 1, 1, 1), word, "padded")
    data = file.done(file.bconv(padded, channels, 12, strides=(2, 2), padding=VALID, pad_values=1))
    imported = check(data)
    (conv,) = [n.op for n in imported.graph.nodes if isinstance(n.op, Conv2d)]
    assert conv.padding == (1, 1, 1, 1) and conv.pad_value == value
    assert "pad" not in kinds(imported.graph)


def test_binary_dense_of_packed_words() -> None:
    file = File(1, 3, 3, 64)
    flat = file.b.reshape(file.bits(file.x), (1, 1, 1, 18), "flat")
    check(file.done(file.bconv(flat, 576, 10, (1, 1))))


def test_signs_of_ties_and_of_shifted_values() -> None:
    """x + c < 0 in float32 is x < -c, also where x + c is tiny or 0. (Larq's runtime takes subnormal sums for 0.)"""
    file = File(1, 4, 4, 8)
    shift = np.array([0.1, -0.1, 1e-30, 0.7, 1.5, -3.0, 1e30, 0.3], np.float32)
    shifted = file.op("ADD", [file.x, file.b.constant("c", shift)], (1, 4, 4, 8))
    data = file.done(file.unpacked(file.bits(shifted), 8))
    imported = read(data)
    x = np.stack([np.nextafter(-shift, np.float32(to)) for to in (-np.inf, np.inf)] + [-shift, 0 * shift])
    x = np.broadcast_to(x[:, None, None], (4, 4, 4, 8))
    assert np.array_equal(host(imported, x)[0], theirs(data, x)[0])
    assert kinds(imported.graph)[0] == "sign"  # the addition is in the threshold


@pytest.mark.parametrize("scale", [0.5, 0.02])
def test_int8_output(scale: float) -> None:
    """Rounded and saturated as in the file; a tie may go the other way by one step."""
    file = File(1, 6, 6, 33)
    y = file.bconv(file.bits(file.x), 33, 20, padding=SAME, pad_values=1, out=(I8, scale))
    check(file.done(y), steps=1)
    limited = read(file.done(y))
    assert "quantize" not in kinds(limited.graph) and "clamp" in kinds(limited.graph)
    assert "1 maps" in limited.notes[0]


# -- products -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [SAME, VALID])
@pytest.mark.parametrize(
    ("kernel", "strides", "dilation", "activation"),
    [((3, 3), (2, 2), (1, 1), 1), ((2, 4), (1, 1), (2, 1), 3), ((1, 1), (3, 2), (1, 1), 2)],
)
def test_convolution(padding: int, kernel: tuple[int, int], strides: tuple[int, int], dilation: tuple[int, int],
                     activation: int) -> None:  # fmt: skip
    file = File(1, 9, 10, 6)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation)]
    size = [-(-n // s) if padding == SAME else (n - r) // s + 1 for n, s, r in zip((9, 10), strides, reach)]
    window = {"padding": padding, "stride_h": strides[0], "stride_w": strides[1]}
    window |= {"dilation_h": dilation[0], "dilation_w": dilation[1], "activation": activation}
    full = file.op("CONV_2D", [file.x, file.floats(5, *kernel, 6), file.floats(5)], (1, *size, 5), **window)
    depth = [file.x, file.floats(1, *kernel, 12), file.floats(12)]
    wise = file.op("DEPTHWISE_CONV_2D", depth, (1, *size, 12), depth_multiplier=2, **window)
    imported = check(file.done(full, wise))
    assert set(imported.graph.reasons.values()) == {"full precision in the file: input and weights"}


def test_convolution_in_groups() -> None:
    file = File(1, 5, 5, 8)
    y = file.op("CONV_2D", [file.x, file.floats(4, 3, 3, 2), file.floats(4)], (1, 5, 5, 4), padding=SAME,
                stride_h=1, stride_w=1)  # fmt: skip
    imported = read(file.done(y))
    (conv,) = [n.op for n in imported.graph.nodes if isinstance(n.op, Conv2d)]
    assert conv.groups == 4


@pytest.mark.parametrize("padded", [False, True])
def test_weights_of_levels_behind_bits(padded: bool) -> None:
    """What Larq's converter leaves to float operators: depth-wise, dense and ternary weights behind LceDequantize."""
    file = File(1, 6, 6, 32)
    x = file.unpacked(file.bits(file.x), 32)
    if padded:
        x = file.b.pad(x, (1, 1, 1, 1), 0, "padded")
    size = file.shape(x)[1] - 2
    scale = file.rng.uniform(0.5, 2, 40)[:, None, None, None]
    weights = scale * file.rng.choice([-1, 0, 1], (40, 3, 3, 32))
    window = {"padding": VALID, "stride_h": 1, "stride_w": 1}
    ternary = file.op("CONV_2D", [x, file.b.constant("w", weights.astype(np.float32)), file.floats(40)],
                      (1, size, size, 40), **window)  # fmt: skip
    wise = file.signs(1, 3, 3, 32).astype(np.float32) * np.float32(0.7)
    depth = file.op("DEPTHWISE_CONV_2D", [x, file.b.constant("w", wise), file.floats(32)], (1, size, size, 32),
                    depth_multiplier=1, **window)  # fmt: skip
    imported = check(file.done(ternary, depth))
    assert products(imported.graph) == {("bit", "trit"): 1, ("bit", "bit"): 1}
    assert not imported.graph.reasons


@pytest.mark.parametrize("shape", [(1, 24), (1, 1, 1, 24), (1, 2, 3, 4), (1, 5, 24)])
@pytest.mark.parametrize("keep", [False, True])
def test_fully_connected(shape: tuple[int, ...], keep: bool) -> None:
    file = File(*shape)
    rows = int(np.prod(shape)) // 24
    if keep and shape[-1] != 24:
        pytest.skip("the last axis must be the features")
    out = (*shape[:-1], 7) if keep else (rows, 7)
    y = file.op("FULLY_CONNECTED", [file.x, file.floats(7, 24), file.floats(7)], out, keep_num_dims=keep, activation=1)
    data = file.done(y)
    imported = read(data)
    x = samples(imported)
    ours, other = host_unbatched(imported, x), theirs_unbatched(data, x)
    assert np.abs(ours - other).max() <= 1e-5 * np.abs(other).max()


def host_unbatched(imported: object, x: np.ndarray) -> np.ndarray:
    """Outputs whose first axis is no batch, one behind the other."""
    return np.concatenate([r.reshape(-1) for r in host(imported, x)])  # type: ignore[arg-type]


def theirs_unbatched(data: bytes, x: np.ndarray) -> np.ndarray:
    return np.concatenate([r.reshape(-1) for r in theirs(data, x)])


def test_binary_dense() -> None:
    file = File(1, 200)
    x = file.unpacked(file.bits(file.x), 200)
    weights = file.b.constant("w", file.signs(9, 200).astype(np.float32))
    imported = check(file.done(file.op("FULLY_CONNECTED", [x, weights, -1], (1, 9))), exact=True)
    assert products(imported.graph) == {("bit", "bit"): 1}


def test_real_weights_and_real_inputs_have_reasons() -> None:
    file = File(1, 4, 4, 16)
    window = {"padding": SAME, "stride_h": 1, "stride_w": 1}
    bits = file.unpacked(file.bits(file.x), 16)
    a = file.op("CONV_2D", [bits, file.floats(8, 3, 3, 16), file.floats(8)], (1, 4, 4, 8), **window)
    signs = file.b.constant("w", file.signs(8, 3, 3, 16).astype(np.float32))
    b = file.op("CONV_2D", [file.x, signs, file.floats(8)], (1, 4, 4, 8), **window)
    imported = check(file.done(a, b))
    assert list(imported.graph.reasons.values()) == [
        "weights: full-precision weights in the file",
        "its input is real; its weights are binary or ternary",
    ]


# -- element by element -------------------------------------------------------------------------------------------------

MAP = (1, 5, 6, 8)
Make = Callable[[File], int]


def unary(kind: str, **options: object) -> Make:
    return lambda f: f.op(kind, [f.x], MAP, **options)


def with_constant(kind: str, *shape: int, first: bool = False, **options: object) -> Make:
    def make(f: File) -> int:
        c = f.floats(*shape)
        return f.op(kind, [c, f.x] if first else [f.x, c], MAP, **options)

    return make


def two_maps(kind: str, *shape: int, swap: bool = False, **options: object) -> Make:
    """The input with a part of it: a window, or its mean."""

    def make(f: File) -> int:
        if shape == (1, 1, 1, 8):
            other = f.op("MEAN", [f.x, f.ints(1, 2)], shape, keep_dims=True)
        elif shape == (1, 5, 6, 1):
            other = f.op("MEAN", [f.x, f.ints([3])], shape, keep_dims=True)
        else:
            other = f.op("LOGISTIC", [f.x], MAP)
        return f.op(kind, [other, f.x] if swap else [f.x, other], MAP, **options)

    return make


ELEMENTWISE: dict[str, Make] = {
    **{
        k: unary(k) for k in ("RELU", "RELU6", "RELU_N1_TO_1", "LOGISTIC", "TANH", "HARD_SWISH", "NEG", "ABS", "SQUARE")
    },
    "EXP": unary("EXP"),
    "RSQRT": lambda f: f.op("RSQRT", [f.op("EXP", [f.x], MAP)], MAP),
    "SQRT": lambda f: f.op("SQRT", [f.op("SQUARE", [f.x], MAP)], MAP),
    "LOG": lambda f: f.op("LOG", [f.op("EXP", [f.x], MAP)], MAP),
    "GELU": unary("GELU", approximate=False),
    "SOFTMAX": unary("SOFTMAX", beta=1.0),
    "SOFTMAX beta": unary("SOFTMAX", beta=0.5),
    "LEAKY_RELU": unary("LEAKY_RELU", alpha=0.125),
    "PRELU": lambda f: f.op("PRELU", [f.x, f.floats(1, 1, 8)], MAP),
    "PRELU one": lambda f: f.op("PRELU", [f.x, f.floats(1, 1, 1)], MAP),
    "ADD vector": with_constant("ADD", 8, activation=1),
    "ADD number": with_constant("ADD", 1),
    "ADD first": with_constant("ADD", 1, 1, 1, 8, first=True),
    "SUB": with_constant("SUB", 8, activation=3),
    "SUB first": with_constant("SUB", 8, first=True),
    "MUL": with_constant("MUL", 8, activation=2),
    "DIV": with_constant("DIV", 8),
    "MAXIMUM": with_constant("MAXIMUM", 8),
    "MINIMUM": with_constant("MINIMUM", 1),
    "MINIMUM zero": lambda f: f.op("MINIMUM", [f.x, f.b.constant("z", np.zeros(1, np.float32))], MAP),
    "ADD maps": two_maps("ADD", *MAP, activation=1),
    "SUB maps": two_maps("SUB", *MAP),
    "SUB maps swapped": two_maps("SUB", *MAP, swap=True),
    "MUL maps": two_maps("MUL", *MAP),
    "ADD gate": two_maps("ADD", 1, 1, 1, 8),
    "SUB gate": two_maps("SUB", 1, 1, 1, 8, swap=True),
    "MUL gate": two_maps("MUL", 1, 1, 1, 8),
    "MUL pixels": two_maps("MUL", 1, 5, 6, 1, swap=True),
    "ADD itself": lambda f: f.op("ADD", [f.x, f.x], MAP),
    "MUL itself": lambda f: f.op("MUL", [f.x, f.x], MAP),
    "swish": lambda f: f.op("MUL", [f.x, f.op("LOGISTIC", [f.x], MAP)], MAP),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name: str) -> None:
    file = File(*MAP, seed=len(name))
    check(file.done(ELEMENTWISE[name](file)))


def test_two_slopes_of_a_sum_are_one() -> None:
    file = File(*MAP)
    above = file.op("MUL", [file.op("RELU", [file.x], MAP), file.floats(8)], MAP)
    below = file.op("MINIMUM", [file.x, file.b.constant("z", np.zeros(1, np.float32))], MAP)
    below = file.op("MUL", [below, file.floats(8)], MAP)
    assert kinds(check(file.done(file.op("ADD", [above, below], MAP))).graph) == ["two_slope"]


# -- pools and means ----------------------------------------------------------------------------------------------------


def window(
    f: File, kind: str, kernel: tuple[int, int], strides: tuple[int, int], padding: int, **options: object
) -> int:
    _, h, w, c = f.shape(f.x)
    size = [-(-n // s) if padding == SAME else (n - k) // s + 1 for n, k, s in zip((h, w), kernel, strides)]
    given = {"filter_h": kernel[0], "filter_w": kernel[1], "stride_h": strides[0], "stride_w": strides[1]}
    return f.op(kind, [f.x], (1, *size, c), padding=padding, **given, **options)


def mean(f: File, kind: str, axes: tuple[int, ...], *shape: int) -> int:
    return f.op(kind, [f.x, f.ints(list(axes))], shape, keep_dims=len(shape) == 4)


POOLS: dict[str, Make] = {
    "max valid": lambda f: window(f, "MAX_POOL_2D", (2, 2), (2, 2), VALID),
    "max same": lambda f: window(f, "MAX_POOL_2D", (3, 3), (2, 2), SAME, activation=1),
    "average valid": lambda f: window(f, "AVERAGE_POOL_2D", (2, 3), (2, 1), VALID, activation=3),
    "average same": lambda f: window(f, "AVERAGE_POOL_2D", (1, 2), (1, 2), SAME),
    "average all": lambda f: window(f, "AVERAGE_POOL_2D", (5, 6), (1, 1), VALID),
    "MEAN map": lambda f: mean(f, "MEAN", (1, 2), 1, 8),
    "MEAN kept": lambda f: mean(f, "MEAN", (2, 1), 1, 1, 1, 8),
    "MEAN negative": lambda f: mean(f, "MEAN", (-3, -2), 1, 8),
    "MEAN rows": lambda f: mean(f, "MEAN", (1,), 1, 1, 6, 8),
    "MEAN columns": lambda f: mean(f, "MEAN", (2,), 1, 5, 8),
    "MEAN channels": lambda f: mean(f, "MEAN", (3,), 1, 5, 6, 1),
    "SUM map": lambda f: mean(f, "SUM", (1, 2), 1, 8),
    "SUM channels": lambda f: mean(f, "SUM", (3,), 1, 5, 6, 1),
    "REDUCE_MAX map": lambda f: mean(f, "REDUCE_MAX", (1, 2), 1, 8),
    "REDUCE_MAX columns": lambda f: mean(f, "REDUCE_MAX", (2,), 1, 5, 1, 8),
}


@pytest.mark.parametrize("name", POOLS)
def test_pools(name: str) -> None:
    file = File(*MAP, seed=len(name))
    check(file.done(POOLS[name](file)))


# -- moves --------------------------------------------------------------------------------------------------------------


def reshape(f: File, x: int, *shape: int) -> int:
    return f.op("RESHAPE", [x, f.ints(list(shape))], shape)


def transpose(f: File, x: int, *perm: int) -> int:
    return f.op("TRANSPOSE", [x, f.ints(list(perm))], tuple(f.shape(x)[p] for p in perm))


def shuffle(f: File) -> int:
    split = reshape(f, f.x, 1, 5, 6, 2, 4)
    return reshape(f, transpose(f, split, 0, 1, 2, 4, 3), 1, 5, 6, 8)


def strided_slice(f: File, begin: list[int], end: list[int], strides: list[int], *shape: int, **masks: int) -> int:
    return f.op("STRIDED_SLICE", [f.x, f.ints(begin), f.ints(end), f.ints(strides)], shape, **masks)


def pixel(f: File, *shape: int, **masks: int) -> int:
    return strided_slice(f, [0, 2, 3, 0], [1, 3, 4, 8], [1, 1, 1, 1], *shape, **masks)


def split(f: File, kind: str, axis: int, sizes: list[int], join: int = 3) -> int:
    """Parts, joined again in the opposite order."""
    shapes = [(*MAP[:axis], size, *MAP[axis + 1 :]) for size in sizes]
    outputs = tuple(f.b.tensor("part", s) for s in shapes)
    inputs = (f.ints(axis), f.x) if kind == "SPLIT" else (f.x, f.ints(sizes), f.ints(axis))
    f.model.operators.append(Operator(kind, inputs, outputs, {"num_splits": len(sizes)}))
    rectified = [f.op("RELU", [o], s) for o, s in zip(outputs, shapes)]
    return f.op("CONCATENATION", rectified[::-1], MAP, axis=join)


def concatenation(f: File, axis: int, constant: bool = False) -> int:
    other = f.op("RELU", [f.x], MAP)
    shape = list(MAP)
    shape[axis] *= 2
    inputs = [f.x, other]
    if constant:
        inputs = [f.b.constant("z", np.full(MAP, 1.5, np.float32)), f.x, f.b.constant("z", np.zeros(MAP, np.float32))]
        shape[axis] = 3 * MAP[axis]
    return f.op("CONCATENATION", inputs, shape, axis=axis, activation=0)


MOVES: dict[str, Make] = {
    "flatten": lambda f: reshape(f, f.x, 1, 240),
    "tokens": lambda f: f.op("RELU", [reshape(f, f.x, 1, 30, 8)], (1, 30, 8)),
    "channel shuffle": shuffle,
    "transpose": lambda f: transpose(f, f.x, 0, 2, 1, 3),
    "to channels first": lambda f: transpose(f, f.x, 0, 3, 1, 2),
    "SQUEEZE": lambda f: reshape(f, f.op("SQUEEZE", [pixel(f, 1, 1, 1, 8)], (8,)), 1, 8),
    "EXPAND_DIMS": lambda f: f.op("EXPAND_DIMS", [pixel(f, 1, 8, shrink_axis_mask=6), f.ints([1])], (1, 1, 8)),
    "STRIDED_SLICE": lambda f: strided_slice(f, [0, 1, 0, 2], [1, 5, 6, 7], [1, 2, 3, 2], 1, 2, 2, 3),
    "STRIDED_SLICE masks": lambda f: strided_slice(f, [0, 1, 9, 0], [0, -1, 0, 0], [1, 1, 1, 1], 1, 3, 6, 8,
                                                   begin_mask=5, end_mask=13),
    "STRIDED_SLICE backwards": lambda f: strided_slice(f, [0, 0, 0, 0], [1, 5, 0, 8], [1, 1, -1, 1], 1, 5, 6, 8,
                                                       begin_mask=15, end_mask=15),
    "STRIDED_SLICE pixel": lambda f: pixel(f, 1, 8, shrink_axis_mask=6),
    "SLICE": lambda f: f.op("SLICE", [f.x, f.ints(0, 1, 2, 3), f.ints(1, 4, 3, -1)], (1, 4, 3, 5)),
    "SPLIT channels": lambda f: split(f, "SPLIT", 3, [4, 4]),
    "SPLIT_V channels": lambda f: split(f, "SPLIT_V", 3, [1, 2, 5]),
    "SPLIT columns": lambda f: split(f, "SPLIT", 2, [2, 2, 2], join=2),
    "GATHER": lambda f: f.op("GATHER", [f.x, f.ints(3, 3, 0, 7)], (1, 5, 6, 4), axis=3),
    "REVERSE_V2": lambda f: f.op("REVERSE_V2", [f.x, f.ints([1])], MAP),
    "TILE channels": lambda f: f.op("TILE", [f.x, f.ints(1, 1, 1, 3)], (1, 5, 6, 24)),
    "SPACE_TO_DEPTH": lambda f: f.op("SPACE_TO_DEPTH", [strided_slice(f, [0, 0, 0, 0], [1, 4, 6, 8], [1] * 4, 1, 4, 6, 8)],
                                     (1, 2, 3, 32), block_size=2),
    "DEPTH_TO_SPACE": lambda f: f.op("DEPTH_TO_SPACE", [f.x], (1, 10, 12, 2), block_size=2),
    "RESIZE_NEAREST_NEIGHBOR": lambda f: f.op("RESIZE_NEAREST_NEIGHBOR", [f.x, f.ints(10, 18)], (1, 10, 18, 8)),
    "PAD": lambda f: f.op("PAD", [f.x, f.ints([[0, 0], [1, 2], [0, 3], [0, 0]])], (1, 8, 9, 8)),
    "PAD channels": lambda f: f.op("PAD", [f.x, f.ints([[0, 0], [0, 0], [1, 0], [4, 4]])], (1, 5, 7, 16)),
    "PADV2": lambda f: f.b.pad(f.x, (1, 0, 2, 0), 2, "padded"),
    "concat channels": lambda f: concatenation(f, 3),
    "concat rows": lambda f: concatenation(f, 1),
    "concat columns": lambda f: concatenation(f, 2),
    "concat constants": lambda f: concatenation(f, 3, constant=True),
    "concat itself": lambda f: f.op("CONCATENATION", [f.x] * 3, (1, 5, 6, 24), axis=3),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVES)
def test_moves(name: str) -> None:
    file = File(*MAP, seed=len(name))
    check(file.done(MOVES[name](file)), exact=True)


def test_moves_become_the_operators_that_they_are() -> None:
    names = {
        "channel shuffle": "shuffle",
        "TILE channels": "repeat",
        "concat itself": "repeat",
        "transpose": "transpose",
    }
    names |= {"DEPTH_TO_SPACE": "pixel_shuffle", "REVERSE_V2": "flip", "RESIZE_NEAREST_NEIGHBOR": "upsample"}
    for name, op in names.items():
        file = File(*MAP)
        assert kinds(import_tflite(file.done(MOVES[name](file)))) == [op], name


@pytest.mark.parametrize("seed", range(40))
def test_orders_are_what_the_operators_make(seed: int) -> None:
    """Whatever operators are found for an order, they make that order."""
    rng = np.random.default_rng(seed)
    shape = (1, *rng.choice([1, 2, 3, 4, 6], 3).tolist()) if seed % 4 else (1, 12)
    index = np.arange(int(np.prod(shape))).reshape(shape)
    for _ in range(int(rng.integers(1, 4))):
        moves = [lambda a: a[..., ::-1], lambda a: a[..., : max(a.shape[-1] // 2, 1)], lambda a: np.repeat(a, 2, -1)]
        if index.ndim == 4:
            moves += [lambda a: a.transpose(0, 2, 1, 3), lambda a: a[:, ::2], lambda a: np.repeat(a, 2, 1)]
            moves += [lambda a: a.transpose(0, 3, 1, 2), lambda a: a.reshape(1, 1, -1, a.shape[-1])]
        index = moves[rng.integers(len(moves))](index)
    found = operators(np.ascontiguousarray(index), shape)
    if found is not None:
        assert np.array_equal(applied(found, shape), index)


def applied(ops: list[Op], shape: tuple[int, ...]) -> np.ndarray:
    from bdnet_deploy.graph import TensorType

    x = np.arange(int(np.prod(shape))).reshape(shape)
    for op in ops:
        types = [TensorType(x.shape, DType.F64)]
        x = op.reference(types, [x], op.infer(types))
    return x


# -- integers -----------------------------------------------------------------------------------------------------------


def int8_network() -> File:
    """int8 in, convolution, residual, bits, int8 out."""
    file = File(1, 8, 8, 16, kind=I8, scale=0.0507)
    b = file.b
    weights = b.constant("w", file.rng.integers(-127, 128, (16, 3, 3, 16)).astype(np.int8),
                         file.rng.uniform(0.001, 0.004, 16).astype(np.float32), 0)  # fmt: skip
    scale = (b.model.tensors[weights].scale * np.float32(0.0507)).astype(np.float32)  # type: ignore[operator]
    bias = b.constant("b", file.rng.integers(-4000, 4000, 16).astype(np.int32), scale, 0)
    y = b.op("CONV_2D", [file.x, weights, bias], b.tensor("conv", (1, 8, 8, 16), I8, 0.0411), padding=SAME, stride_h=1,
             stride_w=1, activation=1)  # fmt: skip
    z = b.op("ADD", [y, file.x], b.tensor("sum", (1, 8, 8, 16), I8, 0.0623))
    file.model.outputs = [z, b.op("DEQUANTIZE", [z], b.tensor("real", (1, 8, 8, 16)))]
    return file


def test_int8_files() -> None:
    file = int8_network()
    data = file.done(file.model.outputs[0])
    imported = check(data, steps=1)
    x = samples(imported)
    same = host(imported, x)[0] == theirs(data, x)[0]
    assert same.mean() > 0.99  # the others are ties of a fixed-point multiplier
    file = int8_network()
    limits = read(file.done(*file.model.outputs))
    real = host(limits, x)
    expected = theirs(file.done(*file.model.outputs), x)
    assert (
        np.abs(real[1] - expected[1]).max() <= 0.0411 / 2 + 0.0623 / 2 + 1e-5
    )  # not rounded, but within the same limits


def of_engine(file: File, y: int, *, n: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, what our kernels make of them and what the engine does, as int64."""
    data = file.done(y)
    imported = read(data, rounding=True)
    x = samples(imported, n)
    return x, *(a[0].astype(np.int64) for a in (host(imported, x), theirs(data, x)))


def test_where_the_engine_rounds_halves_away_from_zero() -> None:
    """Sums and binary layers: equal but at halves, where ours are even. These are frequent where scales are round."""
    file = File(1, 8, 8, 16, kind=I8, scale=2.0**-5)
    x, got, expected = of_engine(
        file, file.b.op("ADD", [file.x, file.x], file.b.tensor("y", (1, 8, 8, 16), I8, 2.0**-3))
    )
    assert np.array_equal(got, np.rint(x / 2)) and np.array_equal(expected, np.trunc(x / 2 + np.sign(x) / 2))
    assert 0.2 < (got != expected).mean() < 0.3
    file = File(1, 6, 6, 33)
    b = file.b
    halves = {
        "multiplier": b.constant("m", np.full(20, 0.25, np.float32)),
        "bias": b.constant("a", np.full(20, 0.125, np.float32)),
    }
    y = b.lce_bconv2d(file.bits(file.x), b.constant("w", pack(file.signs(20, 3, 3, 33))), b.tensor("y", (1, 6, 6, 20), I8, 0.25), 33,
                      padding=SAME, pad_values=1, **halves)  # fmt: skip
    _, got, expected = of_engine(file, y)
    apart = expected - got
    assert set(np.unique(np.abs(apart))) == {0, 1} and (apart * np.sign(expected) >= 0).all()
    assert (got[apart != 0] % 2 == 0).all()  # ours is even, the engine's one farther from 0


def twice_rounded(sums: np.ndarray, scale: float) -> np.ndarray:
    """The engine's product of an int32 and a real number of at most 1/2: to multiples of 2**-right, then to whole ones, halves up.

    31 bits of the factor, as "gemmlowp" has it: https://github.com/google/gemmlowp, fixedpoint.h.
    """
    mantissa, exponent = np.frexp(scale)
    factor, right = round(float(mantissa) * 2**31), -int(exponent)
    nudged = sums * factor + (1 << 30)
    once = nudged >> 31
    return np.asarray((once + ((1 << right) >> 1)) >> right)


def test_where_the_engine_rounds_twice() -> None:
    """Convolutions: a few in a thousand differ by a step, because rounding first to multiples of 2**-8 makes halves of what is none."""
    file = File(1, 8, 8, 16, kind=I8, scale=0.0507)
    b = file.b
    weights = b.constant(
        "w", file.rng.integers(-127, 128, (16, 3, 3, 16)).astype(np.int8), np.full(16, 0.003, np.float32), 0
    )
    scale = (b.model.tensors[weights].scale * np.float32(0.0507)).astype(np.float32)  # type: ignore[operator]
    bias = b.constant("b", file.rng.integers(-4000, 4000, 16).astype(np.int32), scale, 0)
    y = b.op("CONV_2D", [file.x, weights, bias], b.tensor("conv", (1, 8, 8, 16), I8, 0.0411), padding=SAME, stride_h=1, stride_w=1,
             activation=0)  # fmt: skip
    x, got, expected = of_engine(file, y)
    taps = [b.model.tensors[i].data for i in (weights, bias)]
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(x.astype(np.int64), ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 2)
    )
    sums = np.einsum("nhwcij,oijc->nhwo", windows, taps[0].astype(np.int64)) + taps[1]  # type: ignore[union-attr]
    factor = float(np.float32(0.0507)) * float(np.float32(0.003)) / float(np.float32(0.0411))
    assert np.array_equal(expected, np.clip(twice_rounded(sums, factor), -128, 127))
    assert np.array_equal(got, np.clip(np.rint(sums * factor), -128, 127))
    assert 0 < (got != expected).mean() < 0.01 and np.abs(got - expected).max() == 1


def test_quantize_and_dequantize() -> None:
    file = File(*MAP)
    q = file.b.op("QUANTIZE", [file.x], file.b.tensor("q", MAP, I8, 0.01))
    check(file.done(file.b.op("DEQUANTIZE", [q], file.b.tensor("y", MAP))))
    limits = import_tflite(file.done(file.model.operators[-1].outputs[0]))
    assert kinds(limits) == ["clamp"]
    constant = next(v for v in limits.constants() if v.name.endswith(".high"))
    assert constant.data is not None and constant.data[0] == pytest.approx(1.27)


def test_zero_points() -> None:
    file = File(*MAP)
    q = file.b.tensor("q", MAP, TensorKind.INT8, 0.02)
    file.model.tensors[q].zero_point = np.array([-100])
    file.b.op("QUANTIZE", [file.x], q)
    bits = file.bits(q)
    check(file.done(file.b.op("DEQUANTIZE", [q], file.b.tensor("y", MAP)), file.unpacked(bits, 8)))


def test_half_precision_weights() -> None:
    file = File(1, 30)
    halves = file.rng.normal(size=(5, 30)).astype(np.float16)
    file.model.tensors.append(type(file.model.tensors[0])("h", (5, 30), TensorKind.FLOAT16, halves))
    weights = file.b.op("DEQUANTIZE", [len(file.model.tensors) - 1], file.b.tensor("w", (5, 30), F32))
    check(file.done(file.op("FULLY_CONNECTED", [file.x, weights, -1], (1, 5))))


# -- our own files ------------------------------------------------------------------------------------------------------


@functools.cache
def digits() -> bdnet_deploy.Model:
    return bdnet_deploy.load(DIGITS / "model.pt")


def test_digits_come_back(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = digits().export("tflite", tmp_path / "digits.tflite").paths[0]
    model = bdnet_deploy.load(path)
    assert products(model.graph) == products(digits().graph)
    assert model.io == digits().io and set(model.graph.reasons) == {"stem", "classifier"}
    data = digits().samples(DIGITS / "test.npz", limit=100)
    ours, torch = model.run(data), digits().run(data)
    other = theirs(path.read_bytes(), data.x)[0]
    assert np.abs(ours - other).max() <= 1e-5 * np.abs(other).max()
    assert np.array_equal(ours.argmax(-1), torch.argmax(-1))


@pytest.mark.parametrize("seed", range(8))
def test_random_networks_come_back(seed: int) -> None:
    """Trits in planes, zero padding by constant maps, thresholds in integers: all of it is what it was."""
    net = bdnet(seed)
    data = export.write(net.graph).data
    imported = read(data)
    exported = Counter(
        {(a.replace("f32", "f64"), b.replace("f32", "f64")): n for (a, b), n in products(net.graph).items()}
    )
    linear = [n for n in net.graph.nodes if isinstance(n.op, Linear)]
    assert products(imported.graph) == exported and len(linear) == 1
    trits = [n for n in net.graph.nodes if isinstance(n.op, Ternarize)]
    assert len([n for n in imported.graph.nodes if isinstance(n.op, Ternarize)]) >= bool(trits)
    x = net.samples(4)
    ours, other = host(imported, x)[0], theirs(data, x)[0]
    near = np.abs(ours - other).max(-1) <= 1e-5 * np.abs(other).max()
    assert near.mean() >= 0.75  # sums in another order may turn a sign that lies at its threshold
