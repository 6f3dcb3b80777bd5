"""What all packings share: counts instead of values, and the choice for a core."""

from __future__ import annotations

import numpy as np
import pytest

from bdnet_deploy.graph import DType
from bdnet_deploy.loading import load
from bdnet_deploy.plan.packings.base import fold_counts
from bdnet_deploy.plan.plan import Epilogue


def _affine(e: Epilogue, acc: np.ndarray) -> np.ndarray:
    """As the kernels compute it, in 32 bits."""
    assert e.mul is not None and e.add is not None
    total = (acc.astype(np.int64) << e.shift) * e.mul + e.add
    return ((total + 2**31) % 2**32 - 2**31) >> 16


@pytest.mark.parametrize("scale", [1, 2])
def test_counts_give_the_numbers_of_values(scale: int) -> None:
    rng = np.random.default_rng(7)
    for _ in range(200):
        taps, shift = int(rng.integers(1, 1025)), int(rng.integers(0, 9))
        most = min(0x7FFF, 2**30 // (taps << shift))
        mul = rng.integers(-most, most, 32, endpoint=True)
        add = rng.integers(-(2**30), 2**30, 32)
        plain = Epilogue(DType.I16, mul=mul, add=add, shift=shift)
        counted = Epilogue(DType.I16, mul=mul, add=add, shift=shift)
        fold_counts(counted, taps, scale)
        counts = np.concatenate([np.zeros(32, np.int64), rng.integers(0, 2 * taps // scale, 32, endpoint=True)])
        counts = counts.reshape(2, 32)
        np.testing.assert_array_equal(_affine(counted, counts), _affine(plain, taps - scale * counts))


def test_inspect_says_which_kernel_and_why() -> None:
    model = load(arch="bdnet_kws")
    rows = next(t for t in model.inspect(core="cortex-a72", numerics="fixed16").tables if t.key == "kernels").rows
    tiled = [r for r in rows if str(r["kernel"]).endswith("__tile16")]
    assert len(tiled) == 4
    assert all(r["code"] == "neon64" and "16 outputs" in str(r["why"]) for r in tiled)
    report = model.inspect(core="cortex-m0plus")
    assert report.facts["numerics"] == "fixed16"
