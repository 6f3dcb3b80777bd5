"""Values of single layers and of whole runs against the reference's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.analysis.comparing.behaviour import cause_of_layer
from bdnet_deploy.analysis.comparing.decoded import layer_of
from bdnet_deploy.analysis.comparing.rounding import allowance
from bdnet_deploy.analysis.comparing.verdicts import Verdicts
from bdnet_deploy.errors import UsageError
from bdnet_deploy.graph import AddMap, Affine, Array, Node, Quantize, Sign, Ternarize, Value

if TYPE_CHECKING:
    from bdnet_deploy.model import Model

#: Real outputs of a foreign runtime may differ by this share of the layer's largest value, and by what :func:`allowance` says.
TOLERANCE = 1e-5
#: A sign may differ where the compared value is within this many units in the last place of the largest addend.
NEAR_TIE_ULPS = 4
#: Share of top-1 predictions that must agree with the reference end to end.
MIN_AGREEMENT = 0.99


def compare_layer(runtime: str, node: Node, found: Array, values: Mapping[str, Array], verdicts: Verdicts) -> None:
    """One layer in a foreign runtime that was fed the reference's own inputs."""
    expected = values[node.name]
    layer = f"{layer_of(node)}: {node.op.name}"
    if node.output.type.dtype.is_float:
        scale = float(np.abs(expected).max(initial=0.0))
        distance = np.abs(found.astype(np.float64) - expected)
        wrong = ~(distance <= TOLERANCE * max(scale, 1e-30))  # NaN is wrong, too
        if wrong.any():
            wrong &= ~(distance <= allowance(node, values))
        verdicts.add(
            f"{runtime} layer",
            layer,
            compared=expected.size,
            different=int(wrong.sum()),
            distance=float(distance.max(initial=0.0)),
            why=_where(found, expected, wrong),
            cause=cause_of_layer(node, found, values) if wrong.any() else "",
        )
        return
    wrong = found != expected
    near = wrong & near_ties(node, values) if isinstance(node.op, Sign | Ternarize | Quantize) else np.zeros_like(wrong)
    verdicts.add(
        f"{runtime} layer",
        layer,
        compared=expected.size,
        different=int((wrong & ~near).sum()),
        near_ties=int(near.sum()),
        why=_where(found, expected, wrong & ~near),
        cause=cause_of_layer(node, found, values) if (wrong & ~near).any() else "",
    )


def _where(found: Array, expected: Array, wrong: Array) -> str:
    """The first element that differs, and how many do."""
    if not wrong.any():
        return ""
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    axes = "sample, row, column, channel" if found.ndim == 4 else "sample, channel" if found.ndim == 2 else "index"
    return (
        f"at {place} ({axes}) it is {found[place]:.9g}, the reference has {expected[place]:.9g}; "
        f"{int(wrong.sum())} of {wrong.size} differ"
    )


def near_ties(node: Node, values: Mapping[str, Array]) -> Array:
    """Where a real value lies so close to a threshold that another order of summation may flip the comparison.

    Of a ``Quantize`` the thresholds are the halves between its levels.
    """
    source: Value = node.inputs[0]
    if not source.type.dtype.is_float:
        return np.zeros(values[node.name].shape, bool)
    x = values[source.name]
    largest = np.abs(x)
    producer = source.node
    if producer is not None and isinstance(producer.op, Affine):
        terms = producer.op.terms
        for term, factor in zip(producer.inputs[:terms], producer.inputs[terms:], strict=False):
            assert factor.data is not None
            if term.name in values:
                largest = np.maximum(largest, np.abs(values[term.name] * factor.data))
            else:  # of one term: what is left of x without the offset
                offset = producer.inputs[-1].data
                assert offset is not None
                largest = np.maximum(largest, np.abs(x) + np.abs(offset))
    if producer is not None and isinstance(producer.op, AddMap):
        constant = producer.inputs[1].data
        assert constant is not None
        largest = np.maximum(largest, np.maximum(np.abs(x - constant), np.abs(constant)))
    close = np.zeros(x.shape, bool)
    thresholds = [v.data for v in node.inputs[1:] if v.data is not None]
    if isinstance(node.op, Quantize):
        thresholds = [(np.floor(x / node.op.scale) + 0.5) * node.op.scale]
    for threshold in thresholds:
        addend = np.maximum(largest, np.abs(threshold)).astype(np.float32)
        close |= np.abs(x - threshold) <= NEAR_TIE_ULPS * np.spacing(addend)
    return close


def compare_top1(
    name: str,
    found: Array,
    expected: Array,
    verdicts: Verdicts,
    *,
    least: float = MIN_AGREEMENT,
    judged: bool = True,
    cause: Callable[[], str] | None = None,
) -> None:
    """Top-1 of whole runs. Near ties inside may flip and cascade: judged only when too many predictions change.

    ``cause`` looks for the cause where they do.
    """
    found, expected = found.reshape(len(found), -1), expected.reshape(len(expected), -1)
    flips = int((found.argmax(-1) != expected.argmax(-1)).sum())
    wrong = judged and flips > int(np.ceil(len(expected) * (1 - least)))
    verdicts.add(
        "end to end",
        name,
        compared=len(expected),
        different=flips if wrong else 0,
        near_ties=0 if wrong else flips,
        distance=float(np.abs(found.astype(np.float64) - expected).max(initial=0.0)),
        why=f"{flips} of {len(expected)} predictions differ; at least {100 * least:g} % must agree",
        cause=cause() if wrong and cause is not None else "",
        judged=judged,
    )


def compare_with_torch(model: Model, x: Array, logits: Array, verdicts: Verdicts) -> None:
    """The reference against the module that the model was imported from, where there is one."""
    from bdnet_deploy.backends import TorchBackend

    try:
        expected = TorchBackend(model).predict(x)
    except UsageError:  # not from PyTorch
        return
    compare_top1("reference against PyTorch", logits, expected, verdicts)
