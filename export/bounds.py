"""How large the integers of a graph become, for files that carry them as float32.

Partial sums never exceed the sum of magnitudes that is bounded here.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bdnet_deploy.export.foreign import EXACT, refuse
from bdnet_deploy.graph import (
    AddMap,
    BoxSum,
    Conv2d,
    DType,
    GlobalAvgPool,
    Linear,
    Matmul,
    Mul,
    MulMap,
    Node,
    Pad,
    Reduce,
    Value,
)
from bdnet_deploy.graph.ops.maps import FRACTION


def largest(value: Value) -> int:
    """The largest absolute value of a constant, or that the value's dtype has."""
    if value.data is not None:
        return int(np.abs(value.data.astype(np.int64)).max(initial=0))
    low, high = value.type.dtype.range
    return max(-low, high)


def bound(node: Node, bounds: Mapping[Value, int], target: str, *, fix: str | None = None) -> int:
    """The largest absolute value that the output of a node of integers, bits or trits can have.

    Args:
        node: its output is not real.
        bounds: of the values that are computed before it and are not real.
        target: whom the file is for; ``fix`` is what else to do, for the error.

    Raises:
        UnsupportedError: it may reach 2**24, from where on float32 is not exact.
    """
    out, op, x = node.output, node.op, node.inputs[0]
    if out.type.dtype is not DType.I32:
        return largest(out)
    if isinstance(op, Conv2d | Linear):
        data = node.inputs[1].data
        assert data is not None
        filters = np.abs(data.astype(np.int64)).reshape(len(data), -1).sum(1)
        # A padded tap may be 1 where all of x is 0.
        found = max(_factor(x, bounds), 1) * int(filters.max(initial=0))
    elif isinstance(op, BoxSum):
        found = op.kernel[0] * op.kernel[1] * (x.type.channels // op.groups)
    elif isinstance(op, Matmul):
        found = _factor(x, bounds) * _factor(node.inputs[1], bounds) * x.type.channels
    elif isinstance(op, Mul | MulMap):
        found = _known(x, bounds) * _known(node.inputs[1], bounds)
    elif isinstance(op, AddMap):
        found = (_known(x, bounds) << FRACTION[x.type.dtype]) + largest(node.inputs[1])
    else:  # moved, the largest of some, or summed
        found = max(_known(v, bounds) for v in node.inputs if not v.type.dtype.is_float)
        if isinstance(op, GlobalAvgPool) or (isinstance(op, Reduce) and op.kind == "sum"):
            found *= max(1, x.type.size // out.type.size)
        elif isinstance(op, Pad) and op.mode == "constant":
            found = max(found, abs(int(op.value)))
    if found >= EXACT:
        raise refuse(node, f"its sums may reach {found}: float32 is exact up to {EXACT}", target=target, fix=fix)
    return found


def _known(value: Value, bounds: Mapping[Value, int]) -> int:
    return bounds[value] if value in bounds else largest(value)


def _factor(value: Value, bounds: Mapping[Value, int]) -> int:
    """The largest factor that enters a product: without the zero point."""
    quant = value.type.quant
    zero = 0 if quant is None else int(np.abs(np.ceil(quant.zero_point)).max())
    return _known(value, bounds) + zero
