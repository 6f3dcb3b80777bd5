"""The kernels for AArch64, on an emulated Cortex-A72: the generic kernels' bytes; the plain ``tile16`` against the reference."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from bdn_cases import LETTERS, Bdn, draw
from emulated_variants import Comparison
from lanes16_cases import lanes16_step
from test_kernels_quantized import FAMILY as QUANTIZED
from tile16_cases import NINE, POINTWISE, depthwise_rows, tile16_step, usual_epilogue
from variant_cases import FAMILIES, case

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.graph import Conv2d, DType, Sign, TensorType
from bdnet_deploy.host import HostModel
from bdnet_deploy.plan.packings.tile16 import pack_tile16, unpack_tile16
from bdnet_deploy.plan.variants import variants

for _package in ("ziglang", "unicorn", "capstone", "elftools"):
    pytest.importorskip(_package)

TILED = ["bd_conv_bb_i16__tile16", "bd_conv_bb_bit__tile16"]
OWN = {
    **dict.fromkeys(TILED, tile16_step),
    "bd_dw_bb_i8": depthwise_rows,
    "bd_dw_tb_i8": depthwise_rows,
    "bd_dw_bb_bit__planes": depthwise_rows,
    "bd_dw_tb_bit__planes": depthwise_rows,
    "bd_epilogue_i16": usual_epilogue,
    "bd_epilogue_i16__lanes16": lanes16_step,
}
KERNELS = sorted(OWN)


@pytest.fixture(scope="module")
def a72(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    with Comparison("cortex-a72", tmp_path_factory.mktemp("a72")) as comparison:
        yield comparison


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("count", [60, pytest.param(300, marks=pytest.mark.slow)])
def test_bytes_of_the_generic_kernel(kernel: str, count: int, a72: Comparison) -> None:
    for seed in range(count):
        rng = np.random.default_rng([seed, count, *kernel.encode()])
        what, data, inputs = OWN[kernel](kernel, rng)
        assert a72.different(data, inputs) == 0, what
    if kernel in FAMILIES:  # anything else that the kernel takes
        for seed in range(count // 2):
            random = case(kernel, 5 * 10**6 + seed)
            assert not a72.holds(random.file) or a72.different(random.file, random.inputs) == 0, random.what


def test_all_kernels_are_here_or_with_the_quantized() -> None:
    rest = {k for k, sets in variants().items() if "neon64" in sets} - set(OWN)
    assert all(name.startswith(QUANTIZED) for name in rest)


@pytest.mark.parametrize("kernel", TILED)
def test_all_signs_differ(kernel: str, a72: Comparison) -> None:
    for seed in range(40):
        what, data, inputs = tile16_step(kernel, np.random.default_rng(seed), ends=True)
        assert a72.different(data, inputs) == 0, what


@pytest.mark.parametrize("size,channels", [*((1, c) for c in POINTWISE), *((3, c) for c in NINE)])
@pytest.mark.parametrize("packed", [False, True])
def test_plain_kernel_against_the_reference(size: int, channels: int, packed: bool) -> None:
    """Every division of a window, with every border, and sums at their ends."""
    rng = np.random.default_rng([size, channels])
    for how, pad_value in (("random", 0), ("random", -1), ("random", 1), ("high", 0), ("low", 0)):
        x = draw(rng, (1, 4, 5, channels), LETTERS["b"], how)
        w = draw(rng, (32, size, size, channels), LETTERS["b"], str(rng.choice([how, "random"])))
        pad = size // 2
        op = Conv2d(padding=(pad, pad, pad, pad), pad_value=pad_value)
        types = [TensorType(x.shape, DType.BIT), TensorType(w.shape, DType.BIT)]
        out = op.infer(types)
        expected = op.reference(types, [x, w], out)
        low = rng.integers(-40, 40, 32).astype(np.int32) if packed else None
        if low is not None:
            types = [TensorType(expected.shape, DType.I32), TensorType(low.shape, DType.I32)]
            expected = Sign().reference(types, [expected, low], Sign().infer(types))
        b = Bdn()
        source = b.tensor(x.shape[1:], bdn.DType.BIT, bdn.Place.INPUT)
        target = b.tensor(expected.shape[1:], bdn.DType.BIT if packed else bdn.DType.I16, bdn.Place.OUTPUT)
        b.step(
            TILED[packed], [source], [target], expected.shape[1:], weights=pack_tile16(w, low), kernel_h=size, kernel_w=size,
            pad_top=pad, pad_left=pad, pad_value=pad_value, weight_planes=1,
            acc_dtype=bdn.DType.I8 if packed else bdn.DType.I16,
        )  # fmt: skip
        np.testing.assert_array_equal(HostModel(b.write()).run(x)[0], expected)
        np.testing.assert_array_equal(unpack_tile16(pack_tile16(w, low).tobytes(), w.shape), w)
