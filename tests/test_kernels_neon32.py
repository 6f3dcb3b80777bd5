"""The kernels for 32-bit Arm with NEON, on an emulated Cortex-A7: the generic kernels' bytes; and who gets them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bdn_cases import CODES, LETTERS, Array, Bdn, conv_weights, draw
from emulated_variants import Comparison
from tile16_cases import depthwise_rows, tile16_step, usual_epilogue
from variant_cases import FAMILIES, case

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.plan.variants import variant_sources, variants

for _package in ("ziglang", "unicorn", "capstone", "elftools"):
    pytest.importorskip(_package)

TILED = ["bd_conv_bb_i16__tile16", "bd_conv_bb_bit__tile16"]
OWN = {
    **dict.fromkeys(TILED, tile16_step),
    "bd_dw_bb_i8": depthwise_rows,
    "bd_dw_tb_i8": depthwise_rows,
    "bd_epilogue_i16": usual_epilogue,
}
KERNELS = sorted(k for k, sets in variants().items() if "neon32" in sets)


def narrow_rows(kernel: str, rng: np.random.Generator) -> tuple[str, bytes, list[Array]]:
    """A 3x3 depth-wise convolution of a multiple of 32 channels, padded by at most one pixel, with strides."""
    x_type, w_type = (LETTERS[letter] for letter in kernel.split("_")[2])
    channels, height, width = (32 * int(rng.integers(1, 9)), *(int(n) for n in rng.integers(2, 9, 2)))
    pads, strides = rng.integers(0, 2, 2).tolist(), rng.choice([1, 2, 3], 2).tolist()
    most = [(side + pad - 2) // stride + 1 for side, pad, stride in zip((height, width), pads, strides, strict=True)]
    shape = (int(rng.integers(1, most[0] + 1)), int(rng.integers(1, most[1] + 1)), channels)
    x = draw(rng, (1, height, width, channels), x_type, str(rng.choice(["random", "random", "low", "high"])))
    weights = draw(rng, (channels, 3, 3, 1), w_type, str(rng.choice(["random", "low", "high"])))
    b = Bdn()
    source = b.tensor(x.shape[1:], CODES[x_type], bdn.Place.INPUT)
    target = b.tensor(shape, bdn.DType.I8, bdn.Place.OUTPUT)
    b.step(
        kernel, [source], [target], shape, weights=conv_weights(kernel, weights), groups=channels, kernel_h=3, kernel_w=3,
        stride_h=strides[0], stride_w=strides[1], pad_top=pads[0], pad_left=pads[1], acc_dtype=bdn.DType.I8,
        weight_planes=w_type.planes, rows_per_call=int(rng.integers(1, 9)),
    )  # fmt: skip
    return f"{kernel} {x.shape} -> {shape} strides {strides} pads {pads}", b.write(), [x]


@pytest.fixture(scope="module")
def a7(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    with Comparison("cortex-a7", tmp_path_factory.mktemp("a7")) as comparison:
        yield comparison


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("count", [60, pytest.param(300, marks=pytest.mark.slow)])
def test_bytes_of_the_generic_kernel(kernel: str, count: int, a7: Comparison) -> None:
    for seed in range(count):
        rng = np.random.default_rng([seed, count, *kernel.encode()])
        what, data, inputs = OWN[kernel](kernel, rng)
        assert a7.different(data, inputs) == 0, what
        if "_dw_" in kernel and seed % 3 == 0:
            what, data, inputs = narrow_rows(kernel, rng)
            assert a7.different(data, inputs) == 0, what
    if kernel in FAMILIES:  # anything else that the kernel takes
        for seed in range(count // 2):
            random = case(kernel, 7 * 10**6 + seed)
            assert not a7.holds(random.file) or a7.different(random.file, random.inputs) == 0, random.what


@pytest.mark.parametrize("kernel", TILED)
def test_all_signs_differ(kernel: str, a7: Comparison) -> None:
    for seed in range(40):
        what, data, inputs = tile16_step(kernel, np.random.default_rng(seed), ends=True)
        assert a7.different(data, inputs) == 0, what


_MAIN = """
#include "bdnet_host.h"
#include <stdio.h>

int main(void) {
    const struct bd_kernel_table *best = bd_host_level_kernels(bd_host_levels() - 1u);
    printf("%s %d\\n", bd_host_level_name(bd_host_levels() - 1u), best != bd_host_level_kernels(0));
    return 0;
}
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("qemu-arm"), reason="no qemu-arm")
@pytest.mark.parametrize("cpu,expected", [("cortex-a7", "neon32 1"), ("arm1176", "generic 0")])
def test_the_processor_is_asked(cpu: str, expected: str, root: Path, tmp_path: Path) -> None:
    """The host library's choice, in a program for any 32-bit Raspberry Pi: the first one has no NEON."""
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", "arm-linux-musleabihf", "-std=c99", "-O1"]
    folders = ("include", "host", "src", "kernels")
    includes = [f"-I{root / 'runtime' / folder}" for folder in folders]
    (tmp_path / "main.c").write_text(_MAIN, encoding="utf-8")
    own = [tmp_path / "main.c", root / "runtime/host/bdnet_host.c"]
    plain = [*own, *(root / "runtime/src").glob("*.c"), *(root / "runtime/kernels/generic").glob("*.c")]
    for sources, flags in (
        (plain, ["-mcpu=arm1176jzf_s", "-DBD_WITH_NEON32"]),
        (variant_sources(["neon32"]), ["-mcpu=cortex_a7"]),
    ):
        for source in sources:
            built = tmp_path / f"{source.parent.name}-{source.stem}.o"
            subprocess.run(
                [*compiler, *flags, *includes, "-c", str(source), "-o", str(built)], check=True, capture_output=True
            )
    program = tmp_path / "which"
    objects = [str(path) for path in tmp_path.glob("*.o")]
    link = [*compiler, "-mcpu=arm1176jzf_s", "-static", *objects, "-o", str(program)]
    subprocess.run(link, check=True, capture_output=True)
    done = subprocess.run(["qemu-arm", "-cpu", cpu, str(program)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
