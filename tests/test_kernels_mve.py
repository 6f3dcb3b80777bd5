"""The kernels for Armv8.1-M vectors, on a Cortex-M55 in QEMU: the generic kernels' bytes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from emulated_variants import Comparison
from mve_cases import conv_step, depthwise_step, epilogue_step, levels_step
from variant_cases import FAMILIES, case, edge

from bdnet_deploy import targets
from bdnet_deploy.emulator import qemu
from bdnet_deploy.plan.variants import variants

for _package in ("ziglang", "elftools"):
    pytest.importorskip(_package)
if not qemu.available(targets.core("cortex-m55")):
    pytest.skip("qemu-system-arm is not installed", allow_module_level=True)

OWN = {
    "bd_conv_bb_i16": conv_step,
    "bd_conv_bb_i32": conv_step,
    "bd_dw_bb_i8": depthwise_step,
    "bd_dw_tb_i8": depthwise_step,
    "bd_epilogue_i32": levels_step,
    "bd_epilogue_i16": epilogue_step,
    "bd_epilogue_i8": epilogue_step,
}
KERNELS = sorted(k for k, sets in variants().items() if "mve" in sets)


@pytest.fixture(scope="module")
def m55(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    with Comparison("cortex-m55", tmp_path_factory.mktemp("m55")) as comparison:
        yield comparison


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("count", [1000, pytest.param(3000, marks=pytest.mark.slow)])
def test_bytes_of_the_generic_kernel(kernel: str, count: int, m55: Comparison) -> None:
    count = -(-count // len(KERNELS))
    for seed in range(count // 2):
        rng = np.random.default_rng([seed, count, *kernel.encode()])
        what, data, inputs = OWN[kernel](kernel, rng)
        assert m55.different(data, inputs) == 0, what
    for seed in range(count - count // 2):  # anything else that the kernel takes
        random = case(kernel, 7 * 10**6 + seed) if kernel in FAMILIES else None
        if random is not None and m55.holds(random.file):
            assert m55.different(random.file, random.inputs) == 0, random.what


@pytest.mark.parametrize("kernel", [k for k in KERNELS if k.startswith("bd_conv_bb")])
@pytest.mark.parametrize("channels", [512, 1024])
@pytest.mark.parametrize("sign", [-1, 1])
def test_all_signs_differ(kernel: str, channels: int, sign: int, m55: Comparison) -> None:
    random = edge(kernel, channels, sign)
    assert m55.different(random.file, random.inputs) == 0, random.what
