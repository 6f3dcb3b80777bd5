"""Damaged model files never crash the runtime; the sanitizers agree with the tests."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bdn_all_kernels import rest_of_kernels
from bdn_cases import digits_like, every_move, every_product, pooled
from bdn_elementwise import elementwise
from random_networks import random_network
from sanitized import build, sanitized_environment

from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.graph import NUMERICS
from bdnet_deploy.lowering import lower
from bdnet_deploy.plan import make_plan

MUTATE = """
import sys
import numpy as np
sys.path.insert(0, {tests!r})
from bdn_all_kernels import rest_of_kernels
from bdn_cases import digits_like, every_move, pooled
from bdn_elementwise import elementwise
from bdnet_deploy import bdn_format
from bdnet_deploy.errors import ModelFileError
from bdnet_deploy.host import HostModel, inspect

rng = np.random.default_rng(0)
good = [digits_like().write(), pooled().write(), elementwise().write(), every_move().write()]
good += [rest_of_kernels().write()]
accepted = 0
for i in range(750):
    data = bytearray(good[i % len(good)])
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(8, len(data)))
        data[at] = int(rng.choice([0, 1, 127, 128, 255, rng.integers(0, 256), data[at] ^ 1]))
    data = bdn_format.seal(bytes(data))
    try:
        if inspect(data).arena_bytes > 1 << 24:
            continue
        model = HostModel(data)
        if any(np.prod(p.shape) > 1 << 22 for p in (*model.inputs, *model.outputs)):
            continue
        steps = model.file.steps
        if (steps["out_height"].astype(int) * steps["out_width"] * steps["out_channels"]).max() > 1 << 20:
            continue
        model.run([np.ones((1, *p.shape), p.dtype) for p in model.inputs])
        accepted += 1
    except ModelFileError:
        pass
print(accepted)
"""


def test_mutations_never_crash() -> None:
    """750 sealed mutations in a process of their own: refused, or run to the end."""
    script = MUTATE.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


def streamed() -> list[bytes]:
    """Small networks that run row by row, some with pushed inputs."""
    files = []
    for seed in range(12):
        network = random_network(seed)
        lowered = lower(network.graph, NUMERICS[seed % 3], io=network.io, samples=network.samples)
        for push_rows in (False, True):
            with contextlib.suppress(UnsupportedError):
                plan = make_plan(lowered.graph, cut=len(lowered.plan.steps), push_rows=push_rows)
                files.append(write_bdn(plan))
    return files


@pytest.mark.slow
def test_libfuzzer(root: Path, tmp_path: Path) -> None:
    """Two minutes of coverage-guided mutation from the seeds."""
    clang = shutil.which("clang")
    if clang is None:
        pytest.skip("needs clang with libFuzzer")
    target, corpus = tmp_path / "fuzz_load", tmp_path / "corpus"
    build(root, clang, ["-DBD_NO_CRC", "-fsanitize=fuzzer,address,undefined", "fuzz/fuzz_load.c", "-o", str(target)])
    corpus.mkdir()
    made = (digits_like(), pooled(), every_product(), elementwise(), every_move(), rest_of_kernels())
    seeds = [seed.write() for seed in made] + streamed()
    for i, seed in enumerate(seeds):
        (corpus / f"seed{i}.bdn").write_bytes(seed)
    done = subprocess.run(
        [str(target), str(corpus), "-max_total_time=120", "-max_len=65536", "-timeout=20", "-rss_limit_mb=2048"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="preloads the sanitizer into Python")
def test_sanitizers(root: Path, tmp_path: Path) -> None:
    """The runtime's tests once more, with AddressSanitizer and UndefinedBehaviorSanitizer in the library."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    host = "not emulated and not cores and not counts"  # the disassembler cannot be loaded beside the sanitizers
    names = ["test_runtime.py", "test_bdn_format.py", "test_hostile_kernels.py", "test_streaming.py"]
    tests = [str(root / "tests" / name) for name in names] + [
        str(p) for p in sorted((root / "tests").glob("test_ops_*.py"))
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", host, *tests],
        cwd=root,
        env=sanitized_environment(root, tmp_path),
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
