"""A value of the graph with what is still to be done to it: levels' scale and offset, and padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.graph import Affine, Array, DType, Graph, Value


@dataclass(frozen=True, eq=False)
class Emitted:
    """The real tensor is ``value * mul + add`` per channel (C,), then padded on each side with ``pad_value``.

    A quantizer leaves its levels in ``value`` (bit or trit) and their scale here, so that a convolution can move the
    scale behind itself; everything else calls :func:`real` first.
    """

    value: Value
    mul: Array | None = None
    add: Array | None = None
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, bottom, left, right
    pad_value: float = 0.0
    tie: bool = False  # a ternary value only because sign(0) = 0

    @property
    def packed(self) -> bool:
        return self.value.type.dtype.is_packed

    @property
    def padded(self) -> bool:
        return any(self.padding)

    def scale(self) -> Array:
        return np.ones(self.value.type.channels) if self.mul is None else self.mul

    def offset(self) -> Array:
        return np.zeros(self.value.type.channels) if self.add is None else self.add


def unpadded(emitted: Emitted, reader: str) -> Emitted:
    """``emitted``, which must have no padding pending; ``reader`` is the place of the layer that needs it so."""
    if emitted.padded:
        raise UnsupportedError(
            "a padded map goes into something else than a convolution",
            where=reader,
            why="padding exists only as a part of a convolution",
            fix="pad in the convolution itself",
        )
    return emitted


def real(graph: Graph, emitted: Emitted, reader: str) -> Value:
    """The real-valued tensor itself, with an Affine where scale or offset are pending or the levels are packed."""
    unpadded(emitted, reader)
    value = emitted.value
    if not emitted.packed and emitted.mul is None and emitted.add is None:
        return value
    return affine(graph, [value], [emitted.scale()], emitted.offset(), f"{value.name}.levels", source_of(value))


def source_of(value: Value) -> str:
    return value.node.source if value.node is not None else ""


def affine(graph: Graph, xs: list[Value], muls: list[Array], add: Array, name: str, source: str) -> Value:
    """Append an Affine with double parameters."""
    values = [graph.constant(f"{name}.mul{i}" if i else f"{name}.mul", m, DType.F64) for i, m in enumerate(muls)]
    return graph.add(
        Affine(len(xs)), [*xs, *values, graph.constant(f"{name}.add", add, DType.F64)], name, source=source
    )
