"""The f32 functions: how far from the real ones, and the same bytes on the host and on emulated cores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bdn_cases import Bdn

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.emulated import Runner
from bdnet_deploy.emulator import Emulator
from bdnet_deploy.firmware import build_runner, target
from bdnet_deploy.graph import Array
from bdnet_deploy.graph.float_functions import FLOAT, REAL, apply
from bdnet_deploy.host import HostModel
from bdnet_deploy.targets import Core

#: Units in the last place (of a normal number at least) by which a function may be off: docs/numerics.md has this table.
ULPS = {
    "abs": 0.0,
    "erf": 1.5,
    "exp": 1.0,
    "gelu": 11.0,
    "gelu_tanh": 330.0,
    "hard_sigmoid": 1.5,
    "hard_swish": 2.5,
    "log": 2.5,
    "mish": 5.0,
    "rsqrt": 1.5,
    "sigmoid": 3.0,
    "silu": 4.0,
    "softplus": 3.5,
    "sqrt": 0.5,
    "square": 0.5,
    "tanh": 1.5,
}
SPECIAL = np.array(
    [
        *(0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1e-40, -1e-40, 2.0**-126, -(2.0**-126)),
        *(3.4e38, -3.4e38, 88.72, 88.73, 89.0, -87.4, -103.9, -104.0, -104.1, 0.625, -0.625),
        *(20.0, 10.0, 15.0, -15.0, 1.41421356, 0.70710678),
    ],
    np.float32,
)


def samples(count: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    parts = [rng.uniform(-b, b, count) for b in (0.01, 1.0, 3.0, 10.0, 30.0, 87.0)]
    parts.append(rng.standard_normal(count) * 10.0 ** rng.uniform(-40, 38, count))
    return np.concatenate([*parts, SPECIAL]).astype(np.float32)


@pytest.mark.parametrize("name", FLOAT)
def test_errors_are_those_stated(name: str) -> None:
    """Against the same function in double, where that is a finite float and not subnormal."""
    x = samples(20_000)
    x = np.abs(x) if name in ("log", "sqrt", "rsqrt") else x
    y, real = apply(name, x).astype(np.float64), apply(name, x.astype(np.float64))
    usual = (
        np.isfinite(real) & (np.abs(real) < 3.4028e38) & ((np.abs(real) >= 2.0**-126) | (real == 0)) & (np.abs(x) < 87)
    )
    assert np.isfinite(y[usual]).all()
    unit = np.spacing(np.maximum(np.abs(real[usual]), 2.0**-126).astype(np.float32)).astype(np.float64)
    assert (np.abs(y[usual] - real[usual]) / unit).max() <= ULPS[name]
    # Elsewhere: never further off than the smallest normal number, nor finite where the other is not.
    tiny = np.isfinite(real) & (np.abs(real) < 2.0**-126)
    assert (np.abs(y[tiny] - real[tiny]) <= 2.0**-126).all()
    assert np.isnan(y[np.isnan(x)]).all()


def test_every_function_has_both_forms() -> None:
    assert FLOAT.keys() == REAL.keys() == ULPS.keys()


def test_functions_at_the_ends() -> None:
    ends = np.array([-np.inf, np.inf, -0.0, 0.0], np.float32)
    expected = {
        "exp": [0, np.inf, 1, 1],
        "sigmoid": [0, 1, 0.5, 0.5],
        "tanh": [-1, 1, 0, 0],
        "erf": [-1, 1, 0, 0],
        "hard_sigmoid": [0, 1, 0.5, 0.5],
        "sqrt": [np.nan, np.inf, 0, 0],
        "log": [np.nan, np.inf, -np.inf, -np.inf],
        "abs": [np.inf, np.inf, 0, 0],
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(apply(name, ends), np.array(values, np.float32), err_msg=name)


def file_of(names: list[str], count: int) -> bytes:
    """One input, and every function of it as an output of its own."""
    b = Bdn()
    x = b.tensor((3, count // 3, 1), bdn.DType.F32, bdn.Place.INPUT)
    for name in names:
        y = b.tensor((3, count // 3, 1), bdn.DType.F32, bdn.Place.OUTPUT)
        b.step(f"bd_{name}_f32", [x], [y], (3, count // 3, 1), acc_dtype=bdn.DType.F32)
    return b.write()


def same(found: Array, expected: Array) -> None:
    """Equal bytes; a NaN is a NaN."""
    found, expected = found.reshape(-1), expected.reshape(-1)
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), nan)
    np.testing.assert_array_equal(found[~nan].view(np.uint32), expected[~nan].view(np.uint32))


def test_host_gives_the_reference() -> None:
    x = samples(20_001, seed=1)
    x = x[len(x) % 3 :].reshape(1, 3, -1, 1)
    outputs = HostModel(file_of(list(FLOAT), x.size)).run(x)
    for name, found in zip(FLOAT, outputs, strict=True):
        same(found, apply(name, x))


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m4", "cortex-a72"])
def test_emulated_cores_give_the_reference(core: str, tmp_path: Path) -> None:
    pytest.importorskip("unicorn")
    pytest.importorskip("ziglang")
    chosen = target(core)
    assert isinstance(chosen, Core)
    x = samples(40, seed=2)
    x = x[len(x) % 3 :].reshape(1, 3, -1, 1)
    with Emulator(build_runner(chosen, tmp_path), chosen) as emulator:
        emulator.run()
        runner = Runner(emulator)
        for name in FLOAT:
            assert runner.load(file_of([name], x.size)) == 0
            same(np.frombuffer(runner.infer(x.tobytes(), x.nbytes).output, np.float32), apply(name, x))
