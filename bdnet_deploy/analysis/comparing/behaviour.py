"""Likely causes of values that differ: experiments whose outcome fits every element, or no answer.

A layer that ran alone is computed once more by the reference as a wrong runtime or exporter would; a whole model is run
once more on inputs as a user might have prepared them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from bdnet_deploy.graph import Array, Conv2d, Node, Sign, Ternarize
from bdnet_deploy.iodesc import IODescription

#: Real values agree with a hypothesis within this share of the largest one.
_FIT = 1e-4


def cause_of_layer(node: Node, found: Array, values: Mapping[str, Array]) -> str:
    """Why a layer that was fed the reference's inputs gives ``found`` (N, ...) instead of the reference's value."""
    expected = values[node.name]
    if isinstance(node.op, Sign | Ternarize):
        wrong = found != expected
        x = values[node.inputs[0].name]
        tied = np.zeros(wrong.shape, bool)
        for threshold in node.inputs[1:]:
            tied |= x == threshold.data
        if wrong.any() and tied[wrong].all():
            return f"tie rule: all {int(wrong.sum())} elements that differ lie exactly at a threshold"
    for text, make in _layer_hypotheses(node, found, expected, values):
        candidate = make()
        if candidate is not None and _fits(found, candidate) and not _fits(expected, candidate):
            return text
    return ""


Hypothesis = tuple[str, Callable[[], "Array | None"]]


def _layer_hypotheses(node: Node, found: Array, expected: Array, values: Mapping[str, Array]) -> Iterator[Hypothesis]:
    if isinstance(node.op, Conv2d):
        op, (top, bottom, left, right) = node.op, node.op.padding
        other_sides = [
            (top + dy, bottom - dy, left + dx, right - dx)
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if (dy or dx) and min(top + dy, bottom - dy, left + dx, right - dx) >= 0
        ]
        for padding in other_sides:
            yield (
                f"padding alignment: the values are those of padding {padding} (top, bottom, left, right), the model "
                f"has {op.padding}",
                lambda p=padding: _again(node, dataclasses.replace(op, padding=p), values),  # type: ignore[misc]
            )
        for value in (-1, 0, 1, 2):
            if value != op.pad_value and any(op.padding):
                called = "the nearest pixel" if value == 2 else str(value)
                yield (
                    f"padding with {called} instead of {op.pad_value}",
                    lambda v=value: _again(node, dataclasses.replace(op, pad_value=v), values),  # type: ignore[misc]
                )
    yield "all values are negated", lambda: -expected
    if expected.ndim == 4:
        n, h, w, c = expected.shape
        swapped = expected.transpose(0, 3, 1, 2)
        yield "an NCHW/NHWC swap: the values lie in the order of the other layout", lambda: swapped.reshape(n, h, w, c)
        if h == w:
            yield "rows and columns are swapped", lambda: expected.transpose(0, 2, 1, 3)
    if expected.shape[-1] > 1:
        yield "the channels are in the reverse order", lambda: expected[..., ::-1]
    if expected.dtype.kind == "f":
        with np.errstate(all="ignore"):
            there = np.abs(expected) > 1e-3 * np.abs(expected).max(initial=0.0)
            ratios = found[there] / expected[there]
        factor = float(np.median(ratios)) if ratios.size and np.isfinite(ratios).all() else 1.0
        yield f"wrong scaling: all values are the reference's times {factor:.6g}", lambda: expected * factor


def _again(node: Node, op: Conv2d, values: Mapping[str, Array]) -> Array | None:
    """The reference of a node with another operator, if that takes its inputs."""
    types = [v.type for v in node.inputs]
    arrays = [v.data if v.data is not None else values[v.name] for v in node.inputs]
    try:
        out = op.infer(types)
        return op.reference(types, arrays, out) if out.shape == node.output.type.shape else None
    except ValueError:  # a GraphError: padding that this operand cannot have
        return None


def _fits(found: Array, candidate: Array) -> bool:
    if found.shape != candidate.shape:
        return False
    if candidate.dtype.kind != "f":
        return bool(np.array_equal(found, candidate))
    distance = np.abs(found.astype(np.float64) - candidate)
    return bool((distance <= _FIT * max(float(np.abs(candidate).max(initial=0.0)), 1e-30)).all())


# -- whole models -----------------------------------------------------------------------------------------------------------


def cause_of_inputs(run: Callable[[Array], Array], x: Array, expected: Array, io: IODescription | None) -> str:
    """How the inputs must be prepared so that a model whose outputs differ gives the expected ones.

    Args:
        run: inputs (N, ...) -> outputs (N, ...) of the model in question.
        x: the inputs that gave other outputs.
        expected: (N, ...) outputs of the reference for ``x``.
        io: the model's I/O description.

    Returns:
        A sentence, or "" where no preparation explains the outputs.
    """
    for text, prepared in _preparations(x, io):
        if prepared.shape != x.shape or np.array_equal(prepared, x):
            continue
        if _fits(run(prepared.astype(np.float32)).reshape(expected.shape), expected):
            return f"wrong inputs: the outputs are the model's when {text}"
    return ""


def _preparations(x: Array, io: IODescription | None) -> Iterator[tuple[str, Array]]:
    if x.ndim == 4:
        yield "the inputs are taken for NCHW instead of NHWC", x.transpose(0, 3, 1, 2).reshape(x.shape)
        n, h, w, c = x.shape
        yield "the inputs are NCHW and taken for NHWC", x.reshape(n, c, h, w).transpose(0, 2, 3, 1)
        if h == w:
            yield "rows and columns are swapped", x.transpose(0, 2, 1, 3)
    if x.shape[-1] == 3:
        yield "the input channels are in the reverse order (RGB and BGR)", x[..., ::-1]
    if io is not None and io.inputs:
        zero, factor = io.inputs[0].affine()
        raw = x / factor + zero
        yield "raw samples go in, as they are before the model's scaling: the file has the scaling inside", raw
        yield "raw samples divided by 255 go in", raw / 255
        yield "raw samples scaled to -1 ... 1 go in (raw / 127.5 - 1)", raw / 127.5 - 1
        yield "the model's scaling is applied twice", (x - zero) * factor
    for times, text in ((255.0, "multiplied by 255"), (1 / 255, "divided by 255"), (-1.0, "negated")):
        yield f"the inputs are {text} (wrong input scaling)", x * times
