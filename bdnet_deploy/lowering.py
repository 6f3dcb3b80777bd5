"""From an imported graph to one with numerics, and its plan: the passes in their order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np

from bdnet_deploy.errors import DoesNotFitError, unknown_name
from bdnet_deploy.graph import NUMERICS, Array, DType, Graph, Quant, difference
from bdnet_deploy.iodesc import IODescription
from bdnet_deploy.passes import (
    Batches,
    QuantizeReport,
    Ranges,
    calibrate,
    collapse_repeats,
    fold_thresholds,
    merge_affine,
    prune_channels,
    quantize,
    recompute,
    split_concat,
    to_float,
)
from bdnet_deploy.plan import Plan, make_plan


@dataclass(frozen=True, eq=False)
class Lowered:
    """A graph whose references define every byte, and its plan.

    ``ranges`` is what the quantize pass decided, ``seen`` what calibration saw; both are None in float.
    """

    graph: Graph
    plan: Plan
    ranges: QuantizeReport | None = None
    notes: list[str] = field(default_factory=list)
    seen: Ranges | None = None

    @property
    def timing_only(self) -> bool:
        """Whether the ranges came from random inputs, so that only memory and time mean anything."""
        return self.ranges is not None and self.ranges.timing_only

    def replanned(
        self,
        *,
        ram: int | None = None,
        cache: int | None = None,
        push_rows: bool = False,
        sets: Collection[str] = (),
    ) -> Lowered:
        """The same graph with its memory laid out for a limit, or for an input that comes row by row, and weights packed for
        a core with these ``sets`` of instructions.

        Arguments and errors as :func:`bdnet_deploy.plan.make_plan`. Values do not change. Where nothing else fits
        into ``ram``, kernels with packings, which need more scratch, are given up, then maps that would wait for a sum over
        themselves are computed twice.
        """

        def plan_of(graph: Graph) -> Plan:
            return make_plan(graph, ram=ram, cache=cache, push_rows=push_rows, sets=sets)

        try:
            return dataclasses.replace(self, plan=plan_of(self.graph))
        except DoesNotFitError:
            if sets:
                return self.replanned(ram=ram, cache=cache, push_rows=push_rows)
            twice = recompute(self.graph)
            if twice is None:
                raise
            return dataclasses.replace(self, graph=twice, plan=plan_of(twice))

    def encode(self, x: Array) -> Array:
        """Float samples (N, ...) as the graph's first input takes them."""
        value = self.graph.inputs[0].type
        return x.astype(np.float32) if value.quant is None else value.quant.quantize(x, value.dtype)

    def decode(self, y: Array) -> Array:
        """The first output's values (N, ...) as the real numbers that they stand for, float64."""
        value = self.graph.outputs[0].type
        return y.astype(np.float64) if value.quant is None else value.quant.dequantize(y)


def lower(
    graph: Graph,
    numerics: str,
    *,
    io: IODescription | None = None,
    samples: Array | Batches | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Lowered:
    """Choose numerics for a real graph.

    Args:
        graph: as an importer returns it.
        numerics: ``"float"``, ``"fixed16"`` or ``"fixed8"``.
        io: lets fixed-point models take raw pixels where the normalisation is one scale and a whole zero point.
        samples: float calibration samples, (N, ...) or in batches; None: ranges from random inputs, "timing only".
        progress: of the calibration: (samples done, samples in all).

    Raises:
        UsageError: unknown numerics; no calibration samples, or NaN or infinity in one.
        UnsupportedError: a layer that no kernel runs, or parameters that fixed point cannot carry.
    """
    if numerics not in NUMERICS:
        raise unknown_name("numerics", numerics, NUMERICS)
    if numerics == "float":
        lowered, notes = float_graph(graph)
        return Lowered(lowered, make_plan(lowered), notes=notes)
    real = merge_affine(collapse_repeats(graph))
    seen = calibrate(real, [samples] if isinstance(samples, np.ndarray) else samples, progress=progress)
    quantized, report = quantize(real, numerics, seen, inputs=_raw_inputs(real, io))
    lowered, notes = _folded(quantized)
    return Lowered(lowered, make_plan(lowered), report, notes, seen)


def float_graph(graph: Graph) -> tuple[Graph, list[str]]:
    """A real graph in float numerics, ready for every runtime, and notes on what could not be folded.

    No kernel of our own runtime is asked for: other runtimes take this graph, too.
    """
    return _folded(to_float(_merged(graph)))


def _merged(graph: Graph) -> Graph:
    """Affine maps merged, also those that a slice moved out of their way: until nothing changes."""
    graph = merge_affine(collapse_repeats(graph))
    while True:
        further = merge_affine(prune_channels(graph))
        if difference(graph, further) is None:
            return graph
        graph = further


def _folded(graph: Graph) -> tuple[Graph, list[str]]:
    notes: list[str] = []
    graph = prune_channels(split_concat(graph), report=notes.append)
    return fold_thresholds(graph, report=notes.append), notes


def _raw_inputs(graph: Graph, io: IODescription | None) -> list[tuple[DType, Quant]] | None:
    """u8 inputs where the I/O description says what raw pixels mean: their scale and mean, per channel or for all."""
    if io is None or len(io.inputs) != len(graph.inputs):
        return None
    types = []
    for description in io.inputs:
        zero, factor = description.affine()
        if description.dtype != "u8" or not (factor > 0).all():
            return None
        one = np.ptp(zero) == 0.0 and np.ptp(factor) == 0.0 and zero[0] == np.rint(zero[0]) and 0 <= zero[0] <= 255
        types.append((DType.U8, Quant.of(factor[0], zero[0]) if one else Quant.of(factor, zero)))
    return types
