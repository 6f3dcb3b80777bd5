"""Convolutions with 8-bit weights and pools on emulated Cortex-M and AArch64 cores: the generic kernels' bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from bdn_cases import CODES, LETTERS, Bdn, conv_weights, draw
from emulated_variants import Comparison
from variant_cases import FAMILIES, Case, case

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy import targets
from bdnet_deploy.graph import DType
from bdnet_deploy.plan.variants import variants

for _package in ("ziglang", "unicorn", "capstone", "elftools"):
    pytest.importorskip(_package)

CORES = ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-a72", "cortex-a76")
FAMILY = ("bd_conv_uq", "bd_conv_qq", "bd_conv_hq", "bd_avgpool", "bd_gap", "bd_max_pool")
INPUT, OUTPUT = bdn.Place.INPUT, bdn.Place.OUTPUT


def of_core(name: str) -> list[str]:
    """The kernels of these families that the core has variants of."""
    sets = set(targets.core(name).sets)
    return sorted(k for k, own in variants().items() if k.startswith(FAMILY) and sets & set(own))


def stem(kernel: str, rng: np.random.Generator) -> Case:
    """Windows as first layers and classifiers of networks have them, with weights and inputs at their ends now and then."""
    dtype = LETTERS[kernel.split("_")[2][0]]
    kernel_h, kernel_w, channels, stride = (
        (3, 3, 3, 2), (3, 3, 3, 1), (3, 3, 1, 2), (10, 4, 1, 2), (5, 5, 3, 2), (7, 7, 3, 2), (1, 1, 64, 1), (1, 1, 67, 1),
        (1, 1, 256, 1), (3, 3, 16, 1), (2, 3, 5, 1), (4, 4, 3, 4),
    )[rng.integers(12)]  # fmt: skip
    outputs = int(rng.choice([1, 2, 7, 8, 16, 32, 64, 12]))
    height, width = (1, 1) if kernel_h == 1 and rng.random() < 0.5 else (int(n) for n in rng.integers(1, 30, 2))
    top, left = (int(rng.integers(0, k)) for k in (kernel_h, kernel_w))
    shape = (max(1, height // stride), max(1, width // stride), outputs)
    low, high = dtype.range
    zero = int(rng.choice([0, 0, -1 if low else 128, low, high, rng.integers(low, high)]))
    weights = draw(rng, (outputs, kernel_h, kernel_w, channels), DType.I8, str(rng.choice(["random", "high", "low"])))
    fields = {"kernel_h": kernel_h, "kernel_w": kernel_w, "stride_h": stride, "stride_w": stride, "pad_top": top,
              "pad_left": left, "pad_value": int(rng.choice([0, 0, 0, 2])), "zero_point": zero}  # fmt: skip
    b = Bdn()
    x, out = b.tensor((height, width, channels), CODES[dtype], INPUT), b.tensor(shape, bdn.DType.I32, OUTPUT)
    b.step(
        kernel, [x], [out], shape, weights=conv_weights(kernel, weights), acc_dtype=bdn.DType.I32,
        rows_per_call=int(rng.integers(1, 4)), **fields,
    )  # fmt: skip
    sample = draw(rng, (1, height, width, channels), dtype, str(rng.choice(["random", "random", "high", "low"])))
    return Case(f"{kernel} {(height, width, channels)} -> {shape} {fields}", b.write(), [sample])


def shortcut(kernel: str, rng: np.random.Generator) -> Case:
    """2x2 windows over even and odd channels."""
    dtype = DType.I16 if kernel.endswith("i16") else DType.I8
    channels = int(rng.choice([1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 64, 100]))
    out_height, out_width, stride_h, stride_w = (int(n) for n in rng.integers(1, 5, 4))
    height, width = (out_height - 1) * stride_h + 2, (out_width - 1) * stride_w + 2 + int(rng.integers(0, 2))
    b = Bdn()
    x = b.tensor((height, width, channels), CODES[dtype], INPUT)
    out = b.tensor((out_height, out_width, channels), CODES[dtype], OUTPUT)
    b.step(
        kernel, [x], [out], (out_height, out_width, channels), kernel_h=2, kernel_w=2, stride_h=stride_h,
        stride_w=stride_w, acc_dtype=CODES[dtype], rows_per_call=int(rng.integers(1, 4)),
    )  # fmt: skip
    sample = draw(rng, (1, height, width, channels), dtype, str(rng.choice(["random", "high", "low"])))
    return Case(f"{kernel} {(height, width, channels)} / {stride_h}x{stride_w}", b.write(), [sample])


def whole(kernel: str, rng: np.random.Generator) -> Case:
    """Sums over whole maps, in several calls."""
    dtype = {"h": DType.I16, "q": DType.I8, "u": DType.U8}[kernel.split("_")[2]]
    height, width, channels = (
        int(rng.integers(1, 9)),
        int(rng.integers(1, 9)),
        int(rng.choice([1, 3, 7, 8, 15, 16, 33, 64, 100])),
    )
    b = Bdn()
    x = b.tensor((height, width, channels), CODES[dtype], INPUT)
    out = b.tensor((1, 1, channels), bdn.DType.I32, OUTPUT)
    b.step(
        kernel, [x], [out], (1, 1, channels), kind=bdn.Kind.ACCUMULATE, acc_dtype=bdn.DType.I32,
        rows_per_call=int(rng.integers(1, 4)),
    )  # fmt: skip
    sample = draw(rng, (1, height, width, channels), dtype, str(rng.choice(["random", "high", "low"])))
    return Case(f"{kernel} {(height, width, channels)}", b.write(), [sample])


def usual(kernel: str) -> Callable[[str, np.random.Generator], Case] | None:
    if kernel.startswith("bd_conv") and not kernel.endswith("border"):
        return stem
    return {"bd_avgpool": shortcut, "bd_gap": whole}.get(kernel.rsplit("_", 2 if "gap" in kernel else 1)[0])


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Comparison]]:
    with ExitStack() as stack:
        built: dict[str, Comparison] = {}

        def get(core: str) -> Comparison:
            if core not in built:
                built[core] = stack.enter_context(Comparison(core, tmp_path_factory.mktemp(core)))
            return built[core]

        yield get


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("core,kernel", [(c, k) for c in CORES for k in of_core(c)])
def test_bytes_of_the_generic_kernel(
    core: str, kernel: str, count: int, comparisons: Callable[[str], Comparison]
) -> None:
    own = usual(kernel)
    for seed in range(count):
        rng = np.random.default_rng([seed, count, *kernel.encode()])
        random = (
            own(kernel, rng) if own is not None and (seed % 2 or kernel not in FAMILIES) else case(kernel, 10**7 + seed)
        )
        if not comparisons(core).holds(random.file):
            continue
        assert comparisons(core).different(random.file, random.inputs) == 0, random.what


def first_layer(rng: np.random.Generator) -> Case:
    """The first layers that have loops of their own: by pairs of bytes unless a weight is -128, and rows of 9 taps."""
    kernel_h, kernel_w, channels, stride = ((10, 4, 1, 2), (3, 4, 1, 2), (2, 2, 2, 1), (3, 3, 3, 2), (3, 3, 3, 1))[
        rng.integers(5)
    ]
    outputs, height, width = int(rng.choice([8, 16, 24, 64])), int(rng.integers(1, 24)), int(rng.integers(2, 46))
    shape = (max(1, height // stride), max(1, width // stride), outputs)
    weights = rng.integers(-127, 128, (outputs, kernel_h, kernel_w, channels)).astype(np.int8)
    ends = rng.random()
    if ends < 0.3:
        weights[rng.random(weights.shape) < 0.9] = -127
    elif ends < 0.5:
        weights[rng.integers(outputs), rng.integers(kernel_h), 0, 0] = -128
    b = Bdn()
    x, out = b.tensor((height, width, channels), bdn.DType.I8, INPUT), b.tensor(shape, bdn.DType.I32, OUTPUT)
    b.step(
        "bd_conv_qq_i32", [x], [out], shape, weights=conv_weights("bd_conv_qq_i32", weights), acc_dtype=bdn.DType.I32,
        rows_per_call=int(rng.integers(1, 5)), kernel_h=kernel_h, kernel_w=kernel_w, stride_h=stride, stride_w=stride,
        pad_top=int(rng.integers(0, kernel_h)), pad_left=int(rng.integers(0, kernel_w)),
        pad_value=int(rng.choice([0, 0, 2])),
    )  # fmt: skip
    sample = draw(rng, (1, height, width, channels), DType.I8, str(rng.choice(["random", "low"])))
    return Case(f"{(height, width, channels)} -> {shape} {kernel_h}x{kernel_w}", b.write(), [sample])


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("core", ("cortex-a72", "cortex-a76"))
def test_bytes_of_first_layers(core: str, count: int, comparisons: Callable[[str], Comparison]) -> None:
    for seed in range(count):
        layer = first_layer(np.random.default_rng([seed, count]))
        assert comparisons(core).different(layer.file, layer.inputs) == 0, layer.what


@pytest.mark.parametrize("core", CORES)
def test_every_core_has_its_own(core: str) -> None:
    own = of_core(core)
    assert {"bd_conv_qq_i32", "bd_conv_hq_i32", "bd_conv_uq_i32", "bd_avgpool_i16"} <= set(own)
