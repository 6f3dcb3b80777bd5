"""``convolution -> affine -> sign`` as one integer comparison."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bdnet_deploy.export.tflite.schema import Array
from bdnet_deploy.graph import Affine, Conv2d, DType, Graph, Linear, Node, Sign, TwoSlope, Value

_ELEMENTS_AT_ONCE = 1 << 22


@dataclass(frozen=True, eq=False)
class FoldedSign:
    """``nodes`` (convolution first, sign last) compute ``+1 if acc' >= threshold[o] else -1``.

    acc' is the integer accumulator, negated where ``flipped[o]``: there the weights change sign.
    """

    nodes: tuple[Node, ...]
    flipped: Array
    threshold: Array

    @property
    def output(self) -> Value:
        return self.nodes[-1].output


def fold_signs(graph: Graph) -> dict[Node, FoldedSign]:
    """Every convolution with binary weights whose only reader, through per-channel operators, is one Sign.

    The comparison is found by evaluating the references of the operators at every value that the accumulator can have,
    so it agrees with them on each, ties included. Chains that change sign more than once are left alone.
    """
    users = graph.users()
    folds = {}
    for node in graph.nodes:
        if isinstance(node.op, (Conv2d, Linear)) and _is_binary(node):
            chain = _chain(graph, users, node)
            fold = _fold(node, chain) if chain else None
            if fold is not None:
                folds[node] = fold
    return folds


def _is_binary(node: Node) -> bool:
    x, w = node.inputs
    return x.type.dtype.is_packed and w.type.dtype is DType.BIT and w.data is not None


def _chain(graph: Graph, users: dict[Value, list[Node]], node: Node) -> list[Node]:
    """The nodes after ``node`` up to a Sign, or none."""
    chain: list[Node] = []
    while True:
        readers = users.get(node.output, [])
        if len(readers) != 1 or node.output in graph.outputs:
            return []
        node = readers[0]
        if any(v.data is None for v in node.inputs[1:]):
            return []
        chain.append(node)
        if isinstance(node.op, Sign):
            return chain
        if not (isinstance(node.op, TwoSlope) or (isinstance(node.op, Affine) and node.op.terms == 1)):
            return []


def _fold(node: Node, chain: list[Node]) -> FoldedSign | None:
    x, w = node.inputs
    taps = int(np.prod(w.type.shape[1:]))
    channels = w.type.shape[0]
    # A sum of K terms of -1 or +1 has the parity of K; zeros lift that.
    zeros = x.type.dtype is DType.TRIT or (
        isinstance(node.op, Conv2d) and node.op.pad_value == 0 and any(node.op.padding)
    )
    candidates = np.arange(-taps, taps + 1, 1 if zeros else 2, dtype=np.int32)
    flipped, threshold = np.zeros(channels, np.bool_), np.zeros(channels, np.int64)
    step = max(1, _ELEMENTS_AT_ONCE // candidates.size)
    for start in range(0, channels, step):
        part = slice(start, min(start + step, channels))
        signs = _evaluate(chain, candidates, part)
        if ((signs[1:] != signs[:-1]).sum(0) > 1).any():
            return None
        positive = (signs > 0).sum(0)
        falling = (signs[0] > 0) & (signs[-1] < 0)
        # Rising, or +1 throughout: the first candidate that is positive. -1 throughout: beyond the last.
        ends = np.append(candidates, np.int32(taps + 2))
        rising_threshold = ends[candidates.size - positive]
        falling_threshold = -candidates[np.maximum(positive - 1, 0)]
        flipped[part] = falling
        threshold[part] = np.where(falling, falling_threshold, rising_threshold)
    return FoldedSign((node, *chain), flipped, threshold)


def _evaluate(chain: list[Node], candidates: Array, channels: slice) -> Array:
    """Signs (n, c) for n values of the accumulator."""
    x = np.broadcast_to(candidates[:, None], (candidates.size, channels.stop - channels.start))
    for node in chain:
        parameters = [v.data[channels] for v in node.inputs[1:] if v.data is not None]
        x = node.op.reference([v.type for v in node.inputs], [x, *parameters], node.output.type)
    return x
