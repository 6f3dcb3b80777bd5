"""What is said about a file: the form of each layer, and bytes by kind."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bdnet_deploy.export.foreign import LayerForm
from bdnet_deploy.export.tflite.schema import Model
from bdnet_deploy.graph import Node

BINARY, TERNARY, INT8, REAL = "binary weights", "ternary weights", "int8 weights", "float weights"
PARAMETERS, STRUCTURE = "parameters", "structure"


class Forms:
    """Collects the forms while a graph is lowered; constants are "parameters" unless said otherwise."""

    def __init__(self) -> None:
        self.layers: list[LayerForm] = []
        #: Tensor -> the kind of bytes that it holds.
        self.kinds: dict[int, str] = {}

    def add(
        self,
        node: Node,
        recipe: str,
        macs: Mapping[str, int] | None = None,
        *,
        weight_bytes: int = 0,
        extra_bytes: int = 0,
        note: str = "",
    ) -> None:
        layer = node.source or node.name
        self.layers.append(LayerForm(layer, node.op.name, recipe, macs or {}, weight_bytes, extra_bytes, note))

    def sizes(self, model: Model, total: int) -> dict[str, int]:
        """Bytes by kind, adding up to ``total``; a buffer that several constants share counts for the first."""
        sizes = dict.fromkeys((BINARY, TERNARY, INT8, REAL, PARAMETERS, STRUCTURE), 0)
        seen: set[bytes] = set()
        order = sorted(range(len(model.tensors)), key=lambda i: (i not in self.kinds, i))
        for i in order:
            data = model.tensors[i].data
            if data is None or data.tobytes() in seen:
                continue
            seen.add(data.tobytes())
            sizes[self.kinds.get(i, PARAMETERS)] += data.nbytes
        sizes[STRUCTURE] = total - sum(sizes.values())
        return sizes


def elements(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape))
