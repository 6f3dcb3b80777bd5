"""Several threads give the bytes of one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from shutil import which

import numpy as np
import pytest
from bdn_cases import Bdn
from random_networks import random_network

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.errors import UsageError
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.graph import NUMERICS
from bdnet_deploy.host import HostModel
from bdnet_deploy.lowering import lower
from bdnet_deploy.plan import make_plan

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX threads"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bdnet_threads.h"

static unsigned char model[1 << 20], input[1 << 16], wanted[1 << 16], found[1 << 16];
static bd_threads threads;

static size_t file(const char *path, unsigned char *to) {
    FILE *f = fopen(path, "rb");
    const size_t size = fread(to, 1, 1 << 16, f);
    fclose(f);
    return size;
}

/* Arguments: model, input, expected output. */
int main(int argc, char **argv) {
    bd_model_info info;
    bd_context *context;
    const uint32_t size = (uint32_t)file(argv[argc - 3], model);
    const void *inputs[] = {input};
    void *outputs[] = {found};
    file(argv[argc - 2], input);
    const size_t bytes = file(argv[argc - 1], wanted);
    if (bd_inspect(model, size, &bd_kernels_all, &info) != BD_OK || bd_threads_start(&threads, 4) != BD_OK) {
        return 2;
    }
    const uint32_t arena_bytes = BD_THREADS_ARENA_BYTES(info, 4u);
    void *arena = aligned_alloc(16, (arena_bytes + 15u) / 16u * 16u);
    bd_load(arena, arena_bytes - 1u, model, size, &bd_kernels_all, &context);
    if (info.scratch_bytes != 0 && bd_threads_run(&threads, context, inputs, 1, outputs, 1) != BD_ERROR_ARENA) {
        return 3;
    }
    bd_load(arena, arena_bytes, model, size, &bd_kernels_all, &context);
    if (bd_threads_run(&threads, context, inputs, 2, outputs, 1) != BD_ERROR_ARGUMENT ||
        bd_threads_run(&threads, context, NULL, 1, outputs, 1) != BD_ERROR_ARGUMENT) {
        return 4;
    }
    for (int i = 0; i < 50; i++) {
        memset(found, 0xaa, bytes);
        if (bd_threads_run(&threads, context, inputs, 1, outputs, 1) != BD_OK || memcmp(found, wanted, bytes) != 0) {
            return 5;
        }
    }
    bd_threads_stop(&threads);
    if (bd_threads_start(&threads, 0) != BD_ERROR_ARGUMENT || bd_threads_start(&threads, 65) != BD_ERROR_ARGUMENT) {
        return 6;
    }
    free(arena);
    return 0;
}
"""


@pytest.mark.parametrize("seed", range(45))
def test_bytes_do_not_depend_on_threads(seed: int) -> None:
    network = random_network(seed)
    lowered = lower(network.graph, NUMERICS[seed % 3], io=network.io, samples=network.samples)
    x = network.inputs(lowered)
    cut = None if seed % 2 else len(lowered.plan.steps) // 2
    data = write_bdn(make_plan(lowered.graph, cut=cut))
    expected = HostModel(data).run(x)
    for threads in (2, 5):
        for found, wanted in zip(HostModel(data, threads=threads).run(x), expected, strict=True):
            assert np.array_equal(found, wanted, equal_nan=found.dtype.kind == "f")


@pytest.mark.parametrize("rows_per_call", [1, 2, 3, 5, 24, 60])
def test_threads_make_each_row_once(rows_per_call: int) -> None:
    """A trunk in its residual's place is made once, also where calls make several rows and threads share them."""
    b = Bdn()
    x = b.tensor((24, 2, 3), bdn.DType.I8, bdn.Place.INPUT)
    trunk = b.tensor((24, 2, 3), bdn.DType.I16)
    y = b.tensor((24, 2, 3), bdn.DType.I16, bdn.Place.OUTPUT)
    one = {"mul": np.full(3, 1 << 16, np.int32), "add": np.zeros(3, np.int32)}
    both = {**one, "residual_mul": one["mul"], "residual_channels": 3}
    acc = {"epilogue": "bd_epilogue_i16", "acc_dtype": bdn.DType.I8, "rows_per_call": rows_per_call}
    b.step(None, [x], [trunk], (24, 2, 3), epilogue_at=b.epilogue(bdn.DType.I16, **one), **acc)
    b.step("bd_repeat_i8", [x, trunk], [trunk], (24, 2, 3), epilogue_at=b.epilogue(bdn.DType.I16, **both), **acc)
    b.step("bd_repeat_i16", [trunk], [y], (24, 2, 3), acc_dtype=bdn.DType.I16)
    data = b.write()
    values = np.random.default_rng(0).integers(-128, 128, (1, 24, 2, 3), dtype=np.int8)
    for threads in (1, 2, 3, 5):
        found = HostModel(data, threads=threads).run([values])[0]
        assert np.array_equal(found.reshape(values.shape), 2 * values.astype(np.int16)), threads


def test_numbers_of_threads() -> None:
    network = random_network(1)
    data = write_bdn(lower(network.graph, "float").plan)
    for threads in (0, -1, 65):
        with pytest.raises(UsageError, match="threads"):
            HostModel(data, threads=threads)
    HostModel(data, threads=64)


@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_sanitizers(sanitizer: str, root: Path, tmp_path: Path) -> None:
    """No data race, and nothing outside the arena: with a program that runs a model fifty times on four threads."""
    gcc = which("gcc")
    if gcc is None:
        pytest.skip("needs gcc")
    network = random_network(4)
    lowered = lower(network.graph, "fixed16", io=network.io, samples=network.samples)
    x = network.inputs(lowered)[:1]
    data = write_bdn(lowered.plan)
    (tmp_path / "model.bdn").write_bytes(data)
    (tmp_path / "input").write_bytes(x.tobytes())
    (tmp_path / "output").write_bytes(HostModel(data).run(x)[0].tobytes())
    (tmp_path / "main.c").write_text(PROGRAM, encoding="utf-8")
    runtime = root / "runtime"
    sources = [
        *(runtime / "src").glob("*.c"),
        *(runtime / "kernels/generic").glob("*.c"),
        *(runtime / "threads").glob("*.c"),
    ]
    program = tmp_path / "program"
    command = [gcc, "-std=c11", "-g", "-O1", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    command += [f"-I{runtime / folder}" for folder in ("include", "src", "kernels", "threads")]
    command += [str(tmp_path / "main.c"), *map(str, sources), "-o", str(program), "-pthread"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-2000:]
    done = subprocess.run(
        [str(program), "model.bdn", "input", "output"], cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
