"""Every variant of a kernel that this processor runs gives the generic kernel's bytes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sanitized import sanitized_environment
from variant_cases import FAMILIES, Case, case, edge

from bdnet_deploy.errors import UsageError
from bdnet_deploy.host import HostModel, kernels
from bdnet_deploy.hostlib import KERNELS
from bdnet_deploy.plan.kernels import kernel_names
from bdnet_deploy.plan.variants import SETS, best_symbol, variant_sources, variants

LEVELS = kernels()
RUNNABLE = sorted(k for k, sets in variants().items() if set(sets) & set(LEVELS))
QUICK, SLOW = 1000, 10000


def run(what: Case, level: str, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    monkeypatch.setenv(KERNELS, level)
    model = HostModel(what.file)
    assert model.kernels == level
    return [np.ascontiguousarray(y).tobytes() for y in model.run(what.inputs)]


def compare(what: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = run(what, "generic", monkeypatch)
    for level in LEVELS[1:]:
        assert run(what, level, monkeypatch) == wanted, f"{level}: {what.what}"


@pytest.mark.parametrize("kernel", RUNNABLE)
def test_random_steps(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(-(-QUICK // len(RUNNABLE))):
        compare(case(kernel, seed), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", RUNNABLE)
def test_many_random_steps(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(-(-SLOW // len(RUNNABLE))):
        compare(case(kernel, 10**6 + seed), monkeypatch)


@pytest.mark.parametrize("kernel", [k for k in RUNNABLE if re.match(r"bd_conv_[btz][bt]_", k)])
@pytest.mark.parametrize("channels", [512, 1024])
@pytest.mark.parametrize("sign", [-1, 1])
def test_all_signs_differ(kernel: str, channels: int, sign: int, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(edge(kernel, channels, sign), monkeypatch)


def test_variants_with_sanitizers(root: Path, tmp_path: Path) -> None:
    """The same cases, fewer of them, in a process whose library stops at the first access outside of an operand."""
    if not RUNNABLE:
        pytest.skip("no variants for this processor")
    environment = sanitized_environment(root, tmp_path)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("variant_worker.py")), "6"],
        env=environment,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[0] == str(6 * len(RUNNABLE))


def test_every_variant_is_tried_and_named_well(root: Path) -> None:
    text = (root / "runtime/kernels/variants.def").read_text(encoding="utf-8")
    lines = re.findall(r"^BD_VARIANT\((\w+), (\w+)\)", text, re.MULTILINE)
    assert len(set(lines)) == len(lines)
    assert {kernel for kernel, _ in lines} <= kernel_names()
    assert {name for _, name in lines} <= set(SETS)
    order = [SETS.index(name) for _, name in lines]
    assert order == sorted(order)  # blocks, better sets first
    assert set(RUNNABLE) <= set(FAMILIES)


def test_host_build_has_what_it_can() -> None:
    """A build that forgot the variants would pass every other test here."""
    import platform

    if platform.machine() in ("x86_64", "AMD64") and Path("/proc/cpuinfo").is_file():
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
        assert ("avx2" in LEVELS) == ("avx2" in flags)
        wanted = {"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_vpopcntdq"}
        assert ("avx512" in LEVELS) == (wanted <= flags)
    assert LEVELS[0] == "generic"


def test_unknown_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KERNELS, "avx1024")
    with pytest.raises(UsageError, match="avx1024"):
        HostModel(case(RUNNABLE[0], 0).file if RUNNABLE else b"")


def test_tables_of_generated_sources() -> None:
    for kernel, sets in variants().items():
        text = best_symbol(kernel)
        assert [f"&{kernel}_on_{name}," in text for name in sets] == [True] * len(sets)
        assert text.endswith(f"&{kernel},\n#endif")
    assert best_symbol("bd_permute_bit") == "&bd_permute_bit,"
    for name in {name for sets in variants().values() for name in sets}:
        assert variant_sources([name])
