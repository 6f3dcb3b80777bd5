"""Point-wise convolutions by tables over 7 pixels: the plain kernels against the reference, the cores' against the plain ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from bdn_cases import LETTERS, Bdn, draw
from emulated_variants import Comparison
from lut7_cases import CHANNELS, LARGE, lut7_step

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.errors import BdnetError
from bdnet_deploy.graph import Conv2d, DType, Sign, TensorType
from bdnet_deploy.host import HostModel
from bdnet_deploy.plan.packings.lut7 import limits_of, pack_lut7, rows_of, unpack_lut7
from bdnet_deploy.plan.variants import variants

for _package in ("ziglang", "unicorn", "capstone", "elftools"):
    pytest.importorskip(_package)

KERNELS = sorted(k for k, sets in variants().items() if k.endswith("__lut7") and {"v7m", "v6m"} & set(sets))
COUNTS, BITS = "bd_conv_bb_i16__lut7", "bd_conv_bb_bit__lut7"


@pytest.fixture(scope="module", params=["cortex-m3", "cortex-m4", "cortex-m0plus"])
def core(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    with Comparison(request.param, tmp_path_factory.mktemp(request.param)) as comparison:
        yield comparison


@pytest.mark.parametrize("count", [120, pytest.param(600, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_bytes_of_the_generic_kernel(kernel: str, count: int, core: Comparison) -> None:
    for seed in range(count):
        what, data, inputs = lut7_step(kernel, np.random.default_rng([seed, count, *kernel.encode()]))
        assert core.different(data, inputs) == 0, what


@pytest.mark.parametrize("kernel", KERNELS)
def test_all_signs_differ(kernel: str, core: Comparison) -> None:
    """Sums at their ends: 255 is the largest in a byte."""
    for channels in (8, 16, 32, 64, 192, 256, 320, 512, 1024):
        for seed in range(4):
            what, data, inputs = lut7_step(kernel, np.random.default_rng(seed), channels=channels, ends=True)
            assert core.different(data, inputs) == 0, what


def _file(
    x: np.ndarray,
    w: np.ndarray,
    limits: np.ndarray | None,
    size: tuple[int, int],
    blob: bytes | None = None,
    **fields: int,
) -> bytes:
    b = Bdn()
    shape = (*size, w.shape[0])
    source = b.tensor(x.shape[1:], bdn.DType.BIT, bdn.Place.INPUT)
    target = b.tensor(shape, bdn.DType.I16 if limits is None else bdn.DType.BIT, bdn.Place.OUTPUT)
    b.step(
        COUNTS if limits is None else BITS, [source], [target], shape, weight_planes=1, kernel_h=w.shape[1], kernel_w=w.shape[2],
        weights=pack_lut7(w, limits) if blob is None else np.frombuffer(blob, np.uint8),
        acc_dtype=bdn.DType.I16 if limits is None else bdn.DType.I8, **fields,
    )  # fmt: skip
    return b.write()


@pytest.mark.parametrize(
    "window,channels", [*((1, c) for c in (*CHANNELS, *LARGE)), *((3, c) for c in (6, 8, 12, 16, 24, 32, 40, 64, 128))]
)
@pytest.mark.parametrize("packed", [False, True])
def test_plain_kernel_against_the_reference(window: int, channels: int, packed: bool) -> None:
    """Every division into slabs; of windows every border, and sums at their ends."""
    rng = np.random.default_rng([window, channels])
    for how, pad_value in (("random", 0), ("random", -1), ("random", 1), ("high", 0), ("low", 0)):
        x = draw(rng, (1, 3, 5, channels), LETTERS["b"], how)
        w = draw(rng, (32, window, window, channels), LETTERS["b"], str(rng.choice([how, "random"])))
        pad = window // 2
        op = Conv2d(strides=(1, 2), padding=(pad, pad, pad, pad), pad_value=pad_value)
        types = [TensorType(x.shape, DType.BIT), TensorType(w.shape, DType.BIT)]
        out = op.infer(types)
        values = op.reference(types, [x, w], out)
        products = window**2 * channels
        assert not ((products - values) % 2).any()
        expected = (products - values) // 2
        limits = None
        if packed:
            low = rng.integers(-products - 2, products + 2, 32, endpoint=True).astype(np.int32)
            types = [TensorType(values.shape, DType.I32), TensorType(low.shape, DType.I32)]
            expected, limits = Sign().reference(types, [values, low], Sign().infer(types)), limits_of(low, products)
        file = _file(x, w, limits, (3, 3), stride_w=2, pad_top=pad, pad_left=pad, pad_value=pad_value)
        np.testing.assert_array_equal(HostModel(file).run(x)[0], expected)
        np.testing.assert_array_equal(unpack_lut7(pack_lut7(w, limits).tobytes(), w.shape), w)


@pytest.mark.parametrize("channels", [8, 16, 32, 64, 110])
def test_indices_outside_of_their_tables_are_refused(channels: int) -> None:
    rng = np.random.default_rng(1)
    x, w = draw(rng, (1, 2, 5, channels), DType.BIT), draw(rng, (32, 1, 1, channels), DType.BIT)
    blob = bytearray(pack_lut7(w).tobytes())
    HostModel(_file(x, w, None, (2, 3), bytes(blob)))
    refused = 0
    for at in rng.choice(len(blob), 40):
        bad = bytearray(blob)
        bad[at] = (bad[at] + 128) % 256
        if channels > 16 and at % 5 in (0, 3) and at % 10 != 9:
            continue  # 128 words on lies another group's table
        with pytest.raises(BdnetError):
            HostModel(_file(x, w, None, (2, 3), bytes(bad)))
        refused += 1
    assert refused > 5


def test_rows_of_a_call() -> None:
    assert rows_of(28, 28, 256) == 1
    assert rows_of(3, 3, 512) == 3  # seven pixels
    assert rows_of(12, 12, 128) == 4  # 48 of 49
    assert rows_of(12, 12, 4096) == 1  # no room
    assert rows_of(1, 1, 2) == 1
