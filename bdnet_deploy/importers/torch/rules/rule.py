"""What a rule is, and what all rules use."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph import (
    Array,
    DType,
    Graph,
    Op,
    Value,
)
from bdnet_deploy.importers.torch.aten import shown
from bdnet_deploy.importers.torch.emitted import Emitted, moved
from bdnet_deploy.importers.torch.layout import Layout, from_graph, graph_shape, to_graph
from bdnet_deploy.importers.torch.trace import Step, Traced

Source = tuple[Traced, Layout | None]


@dataclass(frozen=True, eq=False)
class Rule:
    """``emit`` takes the emitted ``sources`` in their order; each in the layout asked for, or in any (None)."""

    sources: Sequence[Source]
    emit: Callable[..., Emitted]


def name_of(step: Step, suffix: str = "") -> str:
    return f"{step.path or shown(step.name)}{suffix}"


def with_parameters(graph: Graph, op: Op, x: Value, data: Mapping[str, Array], name: str, source: str) -> Value:
    channels = (x.type.channels,)
    constants = [graph.constant(f"{name}.{k}", np.broadcast_to(v, channels), DType.F64) for k, v in data.items()]
    return graph.add(op, [x, *constants], name, source=source)


def broadcast(
    graph: Graph, step: Step, x: Emitted, shape: tuple[int, ...], full: tuple[int, ...], layout: Layout, *, vector: bool
) -> Emitted:
    """An operand of ``shape`` beside one of shape ``full``: a vector where it can stay one, or repeated."""
    position = from_graph(np.arange(math.prod(shape)), shape, x.layout)
    aligned = position.reshape(*[1] * (len(full) - len(shape)), *shape)
    index = to_graph(aligned, layout)
    channels = graph_shape(full, layout)[-1]
    if not (vector and index.size == index.shape[-1] == channels):
        index = to_graph(np.broadcast_to(aligned, full), layout)
    name = name_of(step, ".broadcast")
    return moved(graph, x, index, layout, fill=0.0, where=step.where, name=name, source=step.path)
