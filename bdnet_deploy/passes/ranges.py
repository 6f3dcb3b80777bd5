"""Ranges of the values of a real graph over calibration samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph import Array, Graph, evaluate


@dataclass(frozen=True, eq=False)
class Ranges:
    """Per channel, the smallest and largest value that was seen: value name -> (low (C,), high (C,)).

    ``timing_only``: the samples were random, so the ranges (and the accuracy of what is quantized with them) mean
    nothing; memory and instruction counts do not depend on them.
    """

    low: dict[str, Array]
    high: dict[str, Array]
    samples: int
    timing_only: bool = False


def random_inputs(graph: Graph, samples: int = 4, seed: int = 0) -> list[Array]:
    """Seeded standard normal inputs, one array (samples, ...) per graph input."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((samples, *v.type.shape[1:]), np.float32) for v in graph.inputs]


def calibrate(
    graph: Graph,
    inputs: list[Array] | None,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Ranges:
    """Run the samples through the real graph and keep every value's range per channel.

    Args:
        graph: a real graph.
        inputs: one array (N, ...) per graph input, as the network sees it; None for random ones.
        progress: called with (samples done, samples in all).
    """
    timing_only = inputs is None
    arrays = random_inputs(graph, seed=seed) if inputs is None else inputs
    count = arrays[0].shape[0]
    # Every intermediate value of a batch is held at once: bound that to about 256 MB of doubles.
    elements = sum(node.output.type.size for node in graph.nodes) + 1
    batch = int(np.clip((1 << 25) // elements, 1, 32))
    # Integers that the model quantizes itself count as what they stand for.
    quants = {node.name: node.output.type.quant for node in graph.nodes if node.output.type.quant is not None}
    low: dict[str, Array] = {}
    high: dict[str, Array] = {}
    for start in range(0, count, batch):
        values = evaluate(graph, [a[start : start + batch] for a in arrays], keep=True)
        for name, value in values.items():
            if name in quants:
                value = quants[name].dequantize(value)
            flat = value.reshape(-1, value.shape[-1])
            low[name] = np.minimum(low.get(name, np.inf), flat.min(0))
            high[name] = np.maximum(high.get(name, -np.inf), flat.max(0))
        if progress:
            progress(min(start + batch, count), count)
    return Ranges(low, high, count, timing_only)
