"""The graph that a file carries, decoded, against the model's: structure, weights, parameters. No runtime takes part."""

from __future__ import annotations

import dataclasses

import numpy as np

from bdnet_deploy.analysis.comparing import causes
from bdnet_deploy.analysis.comparing.alignment import Alignment, align, differing_wires
from bdnet_deploy.analysis.comparing.decoded import layer_of
from bdnet_deploy.analysis.comparing.verdicts import Verdicts
from bdnet_deploy.graph import Array, Conv2d, Graph, Linear, Node, Sign, Ternarize, Value

#: Parameters of a graph that came through another importer may differ by so many units in the last place.
ROUNDING_ULPS = 4


def compare_graphs(
    model: Graph, file: Graph, verdicts: Verdicts, *, exact: bool = True, module: object = None
) -> Alignment:
    """Compare layer by layer; what differs is named by the layer of the model.

    Args:
        model, file: of numerics "float".
        verdicts: where the comparisons go.
        exact: every bit of real constants counts; else differences of a few units in the last place are near ties
            (graphs of one network that two importers made).
        module: the torch module that the model came from, if any: its batch normalizations explain differences.
    """
    alignment = align(model, file)
    _compare_structure(alignment, verdicts)
    for node in model.nodes:
        twin = alignment.nodes.get(node)
        if twin is not None:
            _compare_constants(node, twin, verdicts, exact, module)
    return alignment


# -- structure ------------------------------------------------------------------------------------------------------------


def _compare_structure(alignment: Alignment, verdicts: Verdicts) -> None:
    model = alignment.model
    wrong: dict[Node, tuple[str, str]] = {}
    for node, why in differing_wires(alignment):
        wrong.setdefault(node, (why, ""))
    for node, twin in alignment.nodes.items():
        if node.op != twin.op:
            why, cause = differing_attributes(node, twin)
            wrong[node] = (why, cause)
        elif not node.output.type.same(twin.output.type) and node not in wrong:
            wrong[node] = (f"'{node.name}' is {twin.output.type}, in the model {node.output.type}", "")
    for node in alignment.missing:
        wrong[node] = (f"the file has no such {node.op.name}", "")
    first = next((node for node in model.nodes if node in wrong), None)
    ends = _compare_ends(alignment)
    extra = alignment.extra
    different = len(wrong) + len(extra) + len(ends)
    layer, why, cause = "", "", ""
    if first is not None:
        layer, (why, cause) = layer_of(first), wrong[first]
    elif ends:
        why = ends[0]
    elif extra:
        why = f"the file has a {extra[0].op.name}, '{extra[0].name}', that the model does not have"
    if alignment.missing and not cause:
        cause = causes.of_structure(len(model.nodes), len(alignment.missing), len(extra))
    compared = len(model.nodes) + len(extra) + len(model.inputs) + len(model.outputs)
    verdicts.add("structure", layer, compared=compared, different=different, why=why, cause=cause)


def _compare_ends(alignment: Alignment) -> list[str]:
    """What is wrong with inputs and outputs, in sentences."""
    model, file = alignment.model, alignment.file
    found: list[str] = []
    for kind, of_model, of_file in (
        ("inputs", model.inputs, file.inputs),
        ("outputs", model.outputs, file.outputs),
    ):
        if len(of_model) != len(of_file):
            found.append(f"the file has {len(of_file)} {kind}, the model {len(of_model)}")
    for a, b in zip(model.inputs, file.inputs):
        if not a.type.same(b.type):
            found.append(f"the input '{b.name}' is {b.type}, in the model {a.type}")
    for a, b in zip(model.outputs, file.outputs):
        if alignment.values.get(a, b) is not b:
            found.append(f"the file gives '{b.name}' where the model gives '{a.name}'")
    return found


def differing_attributes(node: Node, twin: Node) -> tuple[str, str]:
    """What differs between two operators of one kind, and the likely cause."""
    texts, names = [], []
    for field in dataclasses.fields(node.op):
        a, b = getattr(node.op, field.name), getattr(twin.op, field.name)
        if a != b:
            names.append(field.name)
            texts.append(f"{field.name} is {b}, in the model {a}")
    return "; ".join(texts), causes.of_attributes(node, twin, names)


# -- constants --------------------------------------------------------------------------------------------------------------


def _compare_constants(node: Node, twin: Node, verdicts: Verdicts, exact: bool, module: object) -> None:
    """Weights in one row, all other constants of the node in another."""
    weighted = isinstance(node.op, Conv2d | Linear)
    pairs = [
        (i, a, b) for i, (a, b) in enumerate(zip(node.inputs, twin.inputs)) if a.data is not None and b.data is not None
    ]
    for chosen in ([p for p in pairs if weighted and p[0] == 1], [p for p in pairs if not weighted or p[0] != 1]):
        if chosen:
            _compare_row(node, chosen, verdicts, exact, module)


def _compare_row(
    node: Node, pairs: list[tuple[int, Value, Value]], verdicts: Verdicts, exact: bool, module: object
) -> None:
    compared = different = near = 0
    why = cause = ""
    for i, a, b in pairs:
        expected, found = a.data, b.data
        assert expected is not None and found is not None
        compared += expected.size
        if found.shape != expected.shape or a.type.dtype is not b.type.dtype:
            different += expected.size
            shape = "x".join(map(str, found.shape))
            why = why or f"'{a.name}' is {b.type.dtype.value} {shape} in the file, in the model {a.type}"
            continue
        wrong = ~equal_elements(found, expected)
        close = wrong & (within_ulps(found, expected, ROUNDING_ULPS) if not exact else False)
        near += int(close.sum())
        wrong &= ~close
        different += int(wrong.sum())
        if wrong.any() and not why:
            why = _first(node, i, a, found, expected, wrong)
            cause = causes.of_constant(node, i, found, expected, wrong, module)
    verdicts.add(
        _check_of(node, pairs),
        layer_of(node),
        compared=compared,
        different=different,
        near_ties=near,
        why=why,
        cause=cause,
    )


def _check_of(node: Node, pairs: list[tuple[int, Value, Value]]) -> str:
    if isinstance(node.op, Conv2d | Linear) and pairs[0][0] == 1:
        return "weights"
    folded = isinstance(node.op, Sign | Ternarize) and not node.inputs[0].type.dtype.is_float
    return "thresholds" if folded else "parameters"


def _first(node: Node, i: int, value: Value, found: Array, expected: Array, wrong: Array) -> str:
    place = tuple(int(n) for n in np.argwhere(wrong)[0])
    if isinstance(node.op, Conv2d) and i == 1:
        return (
            f"weight {place} (output, row, column, input) is {found[place]:g}, the model has {expected[place]:g}; "
            f"{int(wrong.sum())} of {wrong.size} differ"
        )
    at = ", ".join(map(str, place))
    return f"{value.name}[{at}] is {found[place]:.9g}, the model has {expected[place]:.9g}; {int(wrong.sum())} of {wrong.size} differ"


def equal_elements(a: Array, b: Array) -> Array:
    """Where elements are equal to the last bit: -0.0 and 0.0 are not, equal NaN are."""
    if a.dtype.kind != "f":
        return np.asarray(a == b)
    bits = np.dtype(f"u{b.dtype.itemsize}")
    return np.asarray(np.ascontiguousarray(a, b.dtype).view(bits) == np.ascontiguousarray(b).view(bits))


def within_ulps(a: Array, b: Array, ulps: int) -> Array:
    """Where real numbers are at most so many units in the last place of the larger one apart."""
    if b.dtype.kind != "f":
        return np.zeros(b.shape, bool)
    with np.errstate(invalid="ignore"):
        largest = np.maximum(np.abs(a), np.abs(b)).astype(np.float32)
        return np.asarray(np.abs(a.astype(np.float64) - b) <= ulps * np.spacing(largest).astype(np.float64))
