"""What the file stores, decoded, against what the model has: no runtime takes part."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bdnet_deploy.analysis.comparing import causes
from bdnet_deploy.analysis.comparing.verdicts import Verdicts
from bdnet_deploy.graph import Array, Conv2d, Graph, Linear, Node
from bdnet_deploy.iodesc import IODescription


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
        why = cause = ""
        if len(wrong):
            cause = causes.of_constant(node, 1, found.astype(expected.dtype), expected, found != expected, None)
            place = tuple(int(i) for i in wrong[0])
            why = (
                f"weight {place} (output, row, column, input) is {found[place]:g}, the model has {expected[place]:g}; "
                f"{len(wrong)} of {expected.size} differ"
            )
        verdicts.add("weights", layer_of(node), compared=expected.size, different=len(wrong), why=why, cause=cause)
    return complete
