"""Ranges of the values of a real graph over calibration samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bdnet_deploy.errors import UsageError
from bdnet_deploy.graph import Array, Graph, evaluate


class Batches(Protocol):
    """Samples of a graph with one input that need not be held all at once."""

    def __len__(self) -> int:
        """How many samples."""
        ...

    def batches(self, size: int) -> Iterator[Array]:
        """The samples as float arrays (n, ...), n at most ``size``, in order."""
        ...


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


def batch_size(*graphs: Graph, elements: int = 1 << 25) -> int:
    """How many samples to evaluate at once, at most 32, so that all values of all graphs have about so many elements.

    The default bounds the doubles of one graph to about 256 MB.
    """
    each = sum(node.output.type.size for graph in graphs for node in graph.nodes) + 1
    return int(np.clip(elements // each, 1, 32))


def calibrate(
    graph: Graph,
    inputs: list[Array] | Batches | None,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Ranges:
    """Run the samples through the real graph and keep every value's range per channel.

    Args:
        graph: a real graph.
        inputs: samples as the network sees them: one array (N, ...) per graph input, or batches of the only input,
            which are asked for one after another; None for random ones.
        progress: called with (samples done, samples in all).

    Raises:
        UsageError: there are no samples, or one holds NaN or infinity.
    """
    timing_only = inputs is None
    arrays = random_inputs(graph, seed=seed) if inputs is None else inputs
    count = len(arrays[0]) if isinstance(arrays, list) else len(arrays)
    if count == 0:
        raise UsageError("there are no calibration samples")
    # Integers that the model quantizes itself count as what they stand for.
    quants = {node.name: node.output.type.quant for node in graph.nodes if node.output.type.quant is not None}
    low: dict[str, Array] = {}
    high: dict[str, Array] = {}
    done = 0
    for batch in _batches(arrays, batch_size(graph)):
        if not all(np.isfinite(a).all() for a in batch):
            raise UsageError("a calibration sample holds NaN or infinity")
        for name, value in evaluate(graph, batch, keep=True).items():
            if name in quants:
                value = quants[name].dequantize(value)
            flat = value.reshape(-1, value.shape[-1])
            low[name] = np.minimum(low.get(name, np.inf), flat.min(0))
            high[name] = np.maximum(high.get(name, -np.inf), flat.max(0))
        done += len(batch[0])
        if progress:
            progress(done, count)
    return Ranges(low, high, count, timing_only)


def _batches(inputs: list[Array] | Batches, size: int) -> Iterator[list[Array]]:
    """One array (n, ...) per graph input, n at most ``size``."""
    if isinstance(inputs, list):
        for start in range(0, len(inputs[0]), size):
            yield [array[start : start + size] for array in inputs]
    else:
        for part in inputs.batches(size):
            yield [part]
