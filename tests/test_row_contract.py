"""The kernels of ``runtime/bench``, called through the row contract on emulated cores, against the graph's references."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("ziglang")
pytest.importorskip("unicorn")
pytest.importorskip("elftools")


from row_build import SOURCES, Program
from row_cases import FORMS, Case, Rows, check_all, depthwise, epilogue, pointwise, run_all
from row_contract import EPILOGUES, measure

PLACES = [
    Rows(),
    Rows(height=9, y0=4, ring=True),
    Rows(height=9, y0=7, rows=2, ring=True),  # the last rows
    Rows(height=4, y0=0, rows=2),
    Rows(height=1, y0=0),
]


@pytest.fixture(scope="module", params=list(SOURCES))
def program(request: pytest.FixtureRequest) -> Program:
    return Program(request.param)


def variants(program: Program) -> list[str]:
    return [v for v in FORMS if v.startswith(EPILOGUES[program.core.name])]


def assert_exact(program: Program, cases: list[Case]) -> None:
    for case, outcome in zip(cases, run_all(program, cases), strict=True):
        assert outcome.compared > 0
        assert outcome.bad == 0, case.kernel


def test_pointwise_rows_and_rings(program: Program) -> None:
    rng = np.random.default_rng(2)
    cases = [pointwise(rng, rows=rows, order=order) for rows in PLACES for order in (0, 1)]
    assert_exact(program, cases)


def test_pointwise_shapes_and_extremes(program: Program) -> None:
    rng = np.random.default_rng(3)
    cases = [
        pointwise(rng, channels=c, outputs=m, width=w)
        for c, m, w in ((128, 64, 14), (192, 2, 7), (256, 48, 7), (64, 6, 21))
    ]
    cases += [pointwise(rng, channels=c, width=7, extreme=e) for c in (64, 512) for e in ("equal", "different")]
    assert_exact(program, cases)


def test_depthwise_rows_and_rings(program: Program) -> None:
    rng = np.random.default_rng(4)
    cases = [
        depthwise(rng, rows=rows, order=order, raw=raw) for rows in PLACES for order, raw in ((0, True), (1, False))
    ]
    assert_exact(program, cases)


def test_depthwise_shapes_and_extremes(program: Program) -> None:
    rng = np.random.default_rng(5)
    cases = [depthwise(rng, channels=c, width=w) for c, w in ((32, 1), (64, 2), (96, 13))]
    cases += [
        depthwise(rng, width=7, extreme=e, raw=raw) for e in ("equal", "different", "zero") for raw in (False, True)
    ]
    assert_exact(program, cases)


def test_epilogue_rows_and_rings(program: Program) -> None:
    rng = np.random.default_rng(6)
    cases = [epilogue(rng, v, rows=rows, width=7) for v in variants(program) for rows in PLACES]
    cases += [epilogue(rng, v, width=5, in_place=True) for v in variants(program)]
    assert_exact(program, cases)


def test_epilogue_extremes(program: Program) -> None:
    rng = np.random.default_rng(7)
    cases = [
        epilogue(rng, v, channels=32, width=4, extreme=e)
        for v in variants(program)
        for e in ("high", "low")
        for _ in range(4)
    ]
    assert_exact(program, cases)


def test_every_input_costs_the_same(program: Program) -> None:
    rng = np.random.default_rng(8)
    groups = [
        [pointwise(rng, width=7, extreme=e) for e in ("", "", "equal", "different")],
        [depthwise(rng, width=7, extreme=e) for e in ("", "", "equal", "different", "zero")],
    ]
    groups += [[epilogue(rng, v, width=3, extreme=e) for e in ("", "", "high", "low")] for v in variants(program)]
    for cases in groups:
        assert len({outcome.instructions for outcome in run_all(program, cases)}) == 1, cases[0].kernel


def test_checks_accept_these_steps_and_refuse_short_constants(program: Program) -> None:
    rng = np.random.default_rng(9)
    cases = [pointwise(rng), depthwise(rng), depthwise(rng, raw=True), *(epilogue(rng, v) for v in variants(program))]
    assert check_all(program, cases) == [0] * len(cases)
    for size in (0, 41, 140):
        assert check_all(program, cases, constants_size=size) == [7] * len(cases)  # BD_ERROR_STEP


@pytest.mark.slow
def test_goals(program: Program) -> None:
    for line in measure(program.core.name, program):
        assert line.bad == 0
        assert line.within or not line.bound, f"{line.kernel}: {line.measured} per {line.unit}, goal {line.goal}"
