"""Steps of kind "whole": one call that needs all rows of its operands and makes all rows of its outputs."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np
import pytest
from random_networks import random_network

from bdnet_deploy import host
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.graph import NUMERICS, Affine, AvgPool, DType, Graph, evaluate
from bdnet_deploy.host import HostModel
from bdnet_deploy.lowering import lower
from bdnet_deploy.plan import Plan, make_plan
from bdnet_deploy.plan.memory import choose_layout


def _random_segments(rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
    borders = sorted({0, count, *rng.integers(0, count + 1, 3).tolist()})
    return [pair for pair in itertools.pairwise(borders) if rng.random() < 0.8]


@pytest.mark.parametrize("seed", range(40))
def test_any_window_step_may_be_whole(seed: int) -> None:
    """The kernels of windows make any rows, so all of them at once, too."""
    network = random_network(seed)
    rng = np.random.default_rng(seed)
    lowered = lower(network.graph, NUMERICS[seed % 3], io=network.io, samples=network.samples)
    x = network.inputs(lowered)
    expected = evaluate(lowered.graph, [x])[lowered.graph.outputs[0].name]
    plan = make_plan(lowered.graph)
    candidates = [s for s in plan.steps if s.kind == "window"]
    for step in rng.choice(np.array(candidates, object), max(1, len(candidates) // 3), replace=False):
        step.kind, step.rows_per_call = "whole", step.out_shape[0]
    for segments in ([], [(0, len(plan.steps))], _random_segments(rng, len(plan.steps))):
        choose_layout(plan, segments=segments)
        model = HostModel(write_bdn(plan))
        found = model.run(x)[0].reshape(expected.shape)
        assert np.array_equal(found, expected, equal_nan=expected.dtype.kind == "f"), plan.execution
        sliced = model.run_rows(x[0])[0][0].reshape(expected.shape[1:])
        assert np.array_equal(sliced, expected[0], equal_nan=expected.dtype.kind == "f"), plan.execution


# -- a kernel of two operands of different heights, written here ---------------------------------------------------------


class _View(ctypes.Structure):
    """``bd_view``."""

    _fields_ = [
        ("base", ctypes.c_void_p),
        ("row_stride", ctypes.c_uint32),
        *((name, ctypes.c_uint16) for name in ("rows_held", "height", "width", "channels")),
        ("dtype", ctypes.c_uint8),
        ("order", ctypes.c_uint8),
    ]

    def rows(self) -> np.ndarray:
        """The map; all its rows are there."""
        assert self.rows_held == self.height
        memory = (ctypes.c_uint8 * (self.row_stride * self.height)).from_address(self.base)
        rows = np.frombuffer(memory, np.float32).reshape(self.height, -1)
        return rows[:, : self.width * self.channels]


_VIEWS, _U32 = ctypes.POINTER(_View), ctypes.c_uint32
_Run = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, _VIEWS, _VIEWS, _U32, _U32, ctypes.c_void_p
)  # fmt: skip
_Check = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, _U32, _VIEWS, _VIEWS, ctypes.POINTER(_U32)
)  # fmt: skip


class _Kernel(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("run", _Run), ("check", _Check)]


class _Table(ctypes.Structure):
    _fields_ = [("kernels", ctypes.POINTER(ctypes.POINTER(_Kernel))), ("count", _U32)]


def _upside_down(calls: list[tuple[int, int]]) -> _Kernel:
    """out = in[0] from its last row to its first, and the sum of in[1]."""

    def run(step: Any, constants: Any, operands: Any, out: Any, y: int, rows: int, scratch: Any) -> int:
        calls.append((y, rows))
        out[0].rows()[:] = operands[0].rows()[::-1] + operands[1].rows().sum(dtype=np.float32)
        return 0

    def check(step: Any, constants: Any, size: int, operands: Any, out: Any, scratch: Any) -> int:
        return 0

    return _Kernel(b"bd_test_upside_down", _Run(run), _Check(check))


def _plan() -> Plan:
    """x -> a; the means of a, a quarter of its size; a turned over, and the sum of the means added."""
    graph = Graph("g", "float")
    x = graph.input("x", (1, 8, 6, 4), DType.F32)
    ones, zeros = (graph.constant(name, np.full(4, v, np.float32), DType.F32) for name, v in (("one", 1), ("zero", 0)))
    a = graph.add(Affine(1, DType.F32), [x, ones, zeros], "a")
    means = graph.add(AvgPool((2, 2), (2, 2)), [a], "means")
    turned = graph.add(AvgPool((1, 1), (1, 1)), [a], "turned")
    graph.outputs = [graph.add(Affine(1, DType.F32), [v, ones, zeros], f"y{i}") for i, v in enumerate((turned, means))]
    plan = make_plan(graph)
    step = next(s for s in plan.steps if s.nodes[0].name == "turned")
    step.kernel, step.kind, step.rows_per_call = "bd_test_upside_down", "whole", step.out_shape[0]
    step.inputs.append(next(s for s in plan.steps if s.nodes[0].name == "means").outputs[0])
    return plan


@pytest.mark.parametrize("segments", [[], [(0, 5)], [(0, 3)], [(1, 3)], [(0, 2), (2, 5)], [(2, 5)]], ids=str)
def test_all_rows_of_both_operands(segments: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    own = _upside_down(calls)
    library = host._library(host.host_library())
    known = _Table.in_dll(library, "bd_kernels_all")
    pointers = (ctypes.POINTER(_Kernel) * (known.count + 1))(
        *(known.kernels[i] for i in range(known.count)), ctypes.pointer(own)
    )
    table = _Table(ctypes.cast(pointers, ctypes.POINTER(ctypes.POINTER(_Kernel))), known.count + 1)
    monkeypatch.setattr(host, "_kernels", lambda lib: ctypes.c_void_p(ctypes.addressof(table)))
    plan = _plan()
    choose_layout(plan, segments=segments)
    model = HostModel(write_bdn(plan))
    x = np.random.default_rng(0).integers(-8, 8, (8, 6, 4)).astype(np.float32)
    means = x.reshape(4, 2, 3, 2, 4).mean((1, 3))
    expected = [x[::-1] + means.sum(), means]
    for outputs in ([y[0] for y in model.run(x[None])], model.run_rows(x)[0]):
        for found, wanted in zip(outputs, expected, strict=True):
            assert np.array_equal(found, wanted)
    assert calls == [(0, 8), (0, 8)]  # one call an inference
