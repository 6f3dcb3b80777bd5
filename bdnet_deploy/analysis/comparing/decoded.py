"""What the file stores, decoded, against what the model has: no runtime takes part."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bdnet_deploy.analysis.comparing.verdicts import Verdicts
from bdnet_deploy.graph import Array, Conv2d, Graph, Linear, Node
from bdnet_deploy.iodesc import IODescription

#: Decoding an affine factor divides by a constant of the exporter: one rounding.
ROUNDING = 2.0**-23
#: Integer thresholds beyond this are stored as it: no accumulator gets there.
CLIPPED = 2**24


def layer_of(node: Node) -> str:
    """What messages call a node: the layer of the user's model."""
    return node.source or node.name


def compare_io(found: IODescription | None, expected: IODescription | None, verdicts: Verdicts) -> None:
    """What inputs and outputs mean, where the model says it: a wrong scaling ruins every prediction."""
    if expected is not None:
        why = "the file describes its inputs or outputs otherwise: preprocessing or labels"
        verdicts.add("I/O description", "", compared=1, different=int(found != expected), why=why)


def compare_weights(graph: Graph, decoded: Mapping[str, Array], verdicts: Verdicts) -> bool:
    """Weights of every convolution and linear layer, element by element.

    Returns:
        Whether the file has all of them, in the model's sizes.
    """
    complete = True
    for node in graph.nodes:
        if not isinstance(node.op, Conv2d | Linear):
            continue
        expected = node.inputs[1].data
        assert expected is not None
        found = decoded.get(node.name)
        if found is None or found.size != expected.size:
            complete = False
            why = "the file has no such layer" if found is None else f"{found.size} weights instead of {expected.size}"
            why += "; it is an export of another network"
            verdicts.add("weights", layer_of(node), compared=expected.size, different=expected.size, why=why)
            continue
        found = found.reshape(expected.shape)
        wrong = np.argwhere(found.astype(expected.dtype) != expected)
        why = ""
        if len(wrong):
            place = tuple(int(i) for i in wrong[0])
            why = (
                f"weight {place} (output, row, column, input) is {found[place]:g}, the model has {expected[place]:g}; "
                "a damaged or edited file, or an export of other weights"
            )
        verdicts.add("weights", layer_of(node), compared=expected.size, different=len(wrong), why=why)
    return complete


def compare_parameters(graph: Graph, decoded: Mapping[str, Array], verdicts: Verdicts) -> None:
    """Affine factors, slopes and thresholds that the file stores as the graph has them."""
    for node in graph.nodes:
        if isinstance(node.op, Conv2d | Linear):
            continue
        compared = different = 0
        first = ""
        for value in node.inputs:
            if value.data is None:
                continue
            expected, found = value.data, decoded.get(value.name)
            compared += expected.size
            if found is None or found.shape != expected.shape:
                different += expected.size
                first = first or f"'{value.name}' is missing or of another shape; it is an export of another network"
                continue
            with np.errstate(invalid="ignore"):
                close = np.isclose(found.astype(np.float64), expected.astype(np.float64), rtol=ROUNDING, atol=0.0)
                clipped = (np.abs(expected) > CLIPPED) & (np.abs(found) >= CLIPPED)
                wrong = ~close & ~(clipped & (np.sign(found) == np.sign(expected)))
            different += int(wrong.sum())
            if wrong.any() and not first:
                place = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
                channel = ", ".join(map(str, place))
                first = f"{value.name}[{channel}] is {found[place]:.9g}, the model has {expected[place]:.9g}"
        if compared:
            verdicts.add("parameters", layer_of(node), compared=compared, different=different, why=first)
