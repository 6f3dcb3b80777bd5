"""Epilogues of Cortex-M as records: the bytes of the plain epilogue on the host, and those of the loops on emulated cores."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from emulated_variants import Comparison
from epilogue_records_cases import case

from bdnet_deploy.host import HostModel
from bdnet_deploy.plan.variants import variants

for _package in ("ziglang", "unicorn", "capstone", "elftools"):
    pytest.importorskip(_package)

KERNELS = ["bd_epilogue_i16__quad", "bd_epilogue_i8__quad", "bd_epilogue_i16__word", "bd_epilogue_i8__word"]
CORES = {"cortex-m4": "dsp", "cortex-m3": "v7m", "cortex-m0plus": "v6m"}
RUNS = [(core, k) for core, name in CORES.items() for k in KERNELS if name in variants().get(k, ())]


def _random(kernel: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, *kernel.encode()])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("count", [250, pytest.param(2500, marks=pytest.mark.slow)])
def test_records_give_the_bytes_of_arrays(kernel: str, count: int) -> None:
    for seed in range(count):
        what = case(kernel, _random(kernel, seed))
        plain = [np.asarray(y).tobytes() for y in HostModel(what.plain).run(what.plain_inputs)]
        packed = [np.asarray(y).tobytes() for y in HostModel(what.packed).run(what.packed_inputs)]
        assert packed == plain, f"seed {seed}: {what.what}"


@pytest.fixture(scope="module", params=sorted({core for core, _ in RUNS}))
def core(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Comparison]]:
    with Comparison(request.param, tmp_path_factory.mktemp(request.param)) as comparison:
        yield request.param, comparison


@pytest.mark.parametrize("count", [150, pytest.param(800, marks=pytest.mark.slow)])
def test_loops_give_the_bytes_of_plain_c(core: tuple[str, Comparison], count: int) -> None:
    name, comparison = core
    for kernel in (k for c, k in RUNS if c == name):
        for seed in range(count):
            what = case(kernel, _random(kernel, 10**6 + seed))
            assert comparison.different(what.packed, what.packed_inputs) == 0, f"seed {seed}: {what.what}"
