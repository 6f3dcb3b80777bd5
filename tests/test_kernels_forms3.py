"""Depth-wise kernels of the packing ``forms3``: plain C against the reference, Cortex-M against plain C, all bytes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from bdn_cases import CODES, LETTERS, Bdn, draw
from emulated_variants import Comparison
from forms3_cases import forms3_step

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.graph import Conv2d, DType, Sign, TensorType
from bdnet_deploy.host import HostModel
from bdnet_deploy.plan.packings.forms3 import pack_forms3, unpack_forms3
from bdnet_deploy.plan.variants import variants

ALL = sorted(k for k in variants() if "__forms3" in k)
CORES = {"cortex-m3": "v7m", "cortex-m4": "v7m", "cortex-m0plus": "v6m"}


@pytest.fixture(scope="module", params=CORES)
def comparison(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    for package in ("ziglang", "unicorn", "capstone", "elftools"):
        pytest.importorskip(package)
    with Comparison(request.param, tmp_path_factory.mktemp(request.param)) as found:
        found.kernels = [k for k in ALL if CORES[request.param] in variants()[k]]  # type: ignore[attr-defined]
        yield found


@pytest.mark.parametrize("count", [56, pytest.param(560, marks=pytest.mark.slow)])
def test_bytes_of_the_generic_kernel(count: int, comparison: Comparison) -> None:
    kernels = comparison.kernels  # type: ignore[attr-defined]
    assert len(kernels) == 6
    for kernel in kernels:
        for seed in range(count):
            rng = np.random.default_rng([seed, count, *kernel.encode()])
            what, data, inputs = forms3_step(kernel, rng, ends=seed % 7 == 0)
            assert comparison.different(data, inputs) == 0, what


def _planes(values: np.ndarray, channels: int) -> np.ndarray:
    """Channel c of every 32 into byte 4 (c % 8) + c / 8."""
    c = np.arange(channels)
    moved = np.empty_like(values)
    moved[..., c // 32 * 32 + c % 8 * 4 + c % 32 // 8] = values
    return moved


@pytest.mark.parametrize("kernel", ALL)
@pytest.mark.parametrize("channels", [7, 16, 32, 96])
def test_plain_kernel_against_the_reference(kernel: str, channels: int) -> None:
    """Every border, strides, paddings of all values, thresholds at and beyond the ends."""
    out_type, planes = kernel.split("_")[3], kernel.endswith("__forms3") and "_bit_" not in kernel
    if planes and channels % 32:
        pytest.skip("whole words only")
    x_type = LETTERS[kernel.split("_")[2][0]]
    rng = np.random.default_rng([channels, *kernel.encode()])
    for how, pad_value, stride in (
        ("random", 0, 1),
        ("random", 0, 2),
        ("random", -1, 1),
        ("high", 1, 2),
        ("low", 0, 1),
    ):
        x = draw(rng, (1, 5, 6, channels), x_type, how)
        w = draw(rng, (channels, 3, 3, 1), DType.BIT, str(rng.choice([how, "random"])))
        op = Conv2d(padding=(1, 1, 1, 1), strides=(stride, stride), groups=channels, pad_value=pad_value)
        types = [TensorType(x.shape, x_type), TensorType(w.shape, DType.BIT)]
        out = op.infer(types)
        expected = op.reference(types, [x, w], out)
        low = rng.integers(-12, 13, channels).astype(np.int32) if out_type == "bit" else None
        if low is not None:
            types = [TensorType(expected.shape, DType.I32), TensorType(low.shape, DType.I32)]
            expected = Sign().reference(types, [expected, low], Sign().infer(types))
        elif out_type == "u8":
            expected = 9 - expected
        if planes:
            expected = _planes(expected, channels)
        b = Bdn()
        source = b.tensor(x.shape[1:], CODES[x_type], bdn.Place.INPUT)
        code = {"bit": bdn.DType.BIT, "i8": bdn.DType.I8, "u8": bdn.DType.U8}[out_type]
        target = b.tensor(expected.shape[1:], code, bdn.Place.OUTPUT)
        b.tensors[target]["order"] = int(planes)
        blob = pack_forms3(w, low, trits=x_type is DType.TRIT, pad_value=pad_value)
        b.step(
            kernel, [source], [target], expected.shape[1:], weights=blob, kernel_h=3, kernel_w=3, pad_top=1, pad_left=1,
            stride_h=stride, stride_w=stride, pad_value=pad_value, weight_planes=1, groups=channels,
            acc_dtype=bdn.DType.U8 if out_type == "u8" else bdn.DType.I8,
        )  # fmt: skip
        np.testing.assert_array_equal(HostModel(b.write()).run(x)[0], expected)
        np.testing.assert_array_equal(unpack_forms3(blob.tobytes(), w.shape), w)
