"""Every operator of the graph in standard operators of ONNX: ``EMIT[name](body, call)`` gives the output's tensor."""

from __future__ import annotations

from collections.abc import Callable

from bdnet_deploy.export.onnx.body import Body, Call
from bdnet_deploy.export.onnx.emit import functions, levels, moving, pointwise, pooling, products, statistics

Emit = Callable[[Body, Call], str]
EMIT: dict[str, Emit] = {
    **functions.EMIT,
    **levels.EMIT,
    **moving.EMIT,
    **pointwise.EMIT,
    **pooling.EMIT,
    **products.EMIT,
    **statistics.EMIT,
}

__all__ = ["EMIT", "Emit"]
