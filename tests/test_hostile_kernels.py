"""Files that are sound number by number and hostile as a whole: refused, or run without undefined behaviour."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from bdn_all_kernels import rest_of_kernels
from bdn_cases import Bdn, digits_like, every_move, every_product, pooled
from bdn_elementwise import elementwise

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.errors import ModelFileError
from bdnet_deploy.host import HostModel, inspect

INPUT, OUTPUT = bdn.Place.INPUT, bdn.Place.OUTPUT
SEEDS = {f.__name__: f for f in (digits_like, pooled, every_product, elementwise, every_move, rest_of_kernels)}


@pytest.mark.parametrize("name", SEEDS)
def test_seeds_of_the_fuzzers_run(name: str) -> None:
    """A seed that is refused at its first step would teach a fuzzer nothing."""
    model = HostModel(SEEDS[name]().write())
    model.run([np.ones((1, *port.shape), port.dtype) for port in model.inputs])


def test_seeds_hold_every_kernel(root: Path) -> None:
    text = (root / "runtime/kernels/kernels.def").read_text(encoding="utf-8")
    kernels = set(re.findall(r"^BD_KERNEL\((\w+)\)", text, re.MULTILINE))
    assert len(kernels) > 100
    assert kernels - {kernel for seed in SEEDS.values() for kernel in seed().kernels} == set()


def test_sums_that_are_overwritten_wrap() -> None:
    """A ring of one row lies where a sum over the map does: between two calls the sum becomes the largest number."""
    b = Bdn()
    big = b.tensor((2, 1, 1), bdn.DType.I32, INPUT)
    small = b.tensor((2, 1, 1), bdn.DType.I16, INPUT)
    total = b.tensor((1, 1, 1), bdn.DType.I32)
    ring = b.tensor((2, 1, 1), bdn.DType.I32)
    b.tensors[ring]["rows_held"], b.tensors[ring]["offset"] = 1, b.tensors[total]["offset"]
    out = b.tensor((1, 1, 1), bdn.DType.I32, OUTPUT)
    b.step("bd_repeat_i32", [big], [ring], (2, 1, 1), acc_dtype=bdn.DType.I32, segment=1)
    over = {"kind": bdn.Kind.ACCUMULATE, "acc_dtype": bdn.DType.I32}
    b.step("bd_gap_h_i32", [small], [total], (1, 1, 1), segment=1, **over)
    b.step("bd_repeat_i32", [total], [out], (1, 1, 1), acc_dtype=bdn.DType.I32)
    largest = np.full((1, 2, 1, 1), 2**31 - 1, np.int32)
    found = HostModel(b.write()).run([largest, np.ones((1, 2, 1, 1), np.int16)])[0]
    assert found.item() == -(2**31)


def unmade(second: bool) -> bytes:
    """A kernel without an epilogue that names a second output, which no kernel makes; the next step waits for it."""
    b = Bdn()
    x = b.tensor((1, 1, 1), bdn.DType.I8, INPUT)
    y = b.tensor((1, 1, 1), bdn.DType.I8)
    tall = b.tensor((5, 1, 1), bdn.DType.I8)
    out = b.tensor((5, 1, 1), bdn.DType.I8, OUTPUT)
    b.step("bd_repeat_i8", [x], [y, tall if second else None], (1, 1, 1), acc_dtype=bdn.DType.I8, segment=1)
    source = [1, 0] if second else [0, 0]
    b.step("bd_repeat_i8", [tall], [out], (5, 1, 1), acc_dtype=bdn.DType.I8, segment=1, source=source)
    return b.write()


def test_outputs_that_nothing_makes_are_refused() -> None:
    inspect(unmade(second=False))
    with pytest.raises(ModelFileError, match="refuses") as caught:
        inspect(unmade(second=True))
    assert "BD_ERROR_STEP" in str(caught.value.why)


def summed(segment: int) -> Bdn:
    """A sum over the map with an epilogue, beside a step that has scratch of its own."""
    b = Bdn()
    x = b.tensor((3, 1, 8), bdn.DType.I8, INPUT)
    sums = b.tensor((1, 1, 8), bdn.DType.I16, OUTPUT)
    soft = b.tensor((3, 1, 8), bdn.DType.I8, OUTPUT)
    ones = {"mul": np.full(8, 1 << 16, np.int32), "add": np.zeros(8, np.int32)}
    b.step(
        "bd_gap_q_i32", [x], [sums], (1, 1, 8), kind=bdn.Kind.ACCUMULATE, acc_dtype=bdn.DType.I32, segment=segment,
        epilogue="bd_epilogue_i16", epilogue_at=b.epilogue(bdn.DType.I16, **ones),
    )  # fmt: skip
    scale = np.array([0, 1 << 15, 1 << 15, 14], np.uint32).tobytes() + np.full(258, 32767, np.int16).tobytes()
    weights = np.frombuffer(scale, np.uint8)
    b.step("bd_softmax_q_i8", [x], [soft], (3, 1, 8), weights=weights, acc_dtype=bdn.DType.I8, segment=segment)
    return b


def test_sums_in_scratch_do_not_run_row_by_row() -> None:
    """Between their calls other steps of the segment use the scratch."""
    x = np.arange(24, dtype=np.int8).reshape(1, 3, 1, 8)
    found = HostModel(summed(0).write()).run([x])[0]
    assert np.array_equal(found.ravel(), x.reshape(3, 8).sum(axis=0, dtype=np.int16))
    with pytest.raises(ModelFileError, match="refuses") as caught:
        inspect(summed(1).write())
    assert "BD_ERROR_STEP" in str(caught.value.why)
