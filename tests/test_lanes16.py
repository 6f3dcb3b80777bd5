"""The packing ``lanes16`` of epilogues: its plain kernel against the general epilogue, and what a plan takes it for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from lanes16_cases import lanes16_case

from bdnet_deploy.graph import DType
from bdnet_deploy.host import HostModel
from bdnet_deploy.plan.packings.lanes16 import Residual, Slopes, lanes16
from bdnet_deploy.plan.plan import Epilogue


@pytest.mark.parametrize("count", [300, pytest.param(10000, marks=pytest.mark.slow)])
def test_plain_kernel_is_the_general_epilogue(count: int) -> None:
    forms: Counter[tuple[Residual, Slopes]] = Counter()
    for seed in range(count):
        case = lanes16_case(np.random.default_rng([seed, count]))
        forms[case.form.residual, case.form.slopes] += 1
        general = HostModel(case.file(False)).run(case.inputs)
        packed = HostModel(case.file(True)).run(case.inputs)
        for expected, found in zip(general, packed, strict=True):
            np.testing.assert_array_equal(found, expected, case.what)
    assert len(forms) == len(Residual) * len(Slopes)


def _epilogue(**changes: object) -> Epilogue:
    e = Epilogue(DType.I16, mul=np.full(16, 30000), add=np.full(16, 2**28), residual_mul=np.full(16, 65536))
    e.positive, e.negative = np.full(16, 65536), np.full(16, 20000)
    for name, value in changes.items():
        setattr(e, name, value)
    return e


def test_forms_that_are_taken() -> None:
    def form(**changes: object) -> tuple[Residual, Slopes] | None:
        found = lanes16(_epilogue(**changes), 16384, 16)
        return None if found is None else (found.residual, found.slopes)

    odd = np.full(16, 20001)
    assert form() == (Residual.ONE, Slopes.EVEN)
    assert form(negative=odd) == (Residual.ONE, Slopes.HALF)
    assert form(negative=odd + 30000) == (Residual.ONE, Slopes.ODD)
    assert form(positive=np.full(16, 4 * 65536)) == (Residual.ONE, Slopes.ANY)
    assert form(residual_mul=np.full(16, 65534)) == (Residual.TWICE, Slopes.EVEN)
    assert form(residual_mul=odd, negative=None, positive=None) == (Residual.BOTH, Slopes.FLAT)
    assert form(residual_mul=None) == (Residual.NONE, Slopes.EVEN)
    # Not exact: a slope above the positive one, one that is no shift, a factor or threshold beyond 16 bits, sums beyond 32.
    assert form(negative=odd + 65536) is None
    assert form(positive=odd + 30000) is None
    assert form(mul=np.full(16, 32768)) is None
    assert form(residual_mul=np.full(16, 100000)) is None
    assert form(low=np.full(16, 32768)) is None
    assert form(add=np.full(16, 2**31 - 1)) is None
