"""What each ONNX operator does, as a function of PyTorch tensors, named with its domain.

A function takes the node and its inputs in their order (None where one is left out) and returns one tensor or a list. Floats
are float32, integers int64. ONNX operator specification: https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.importers.onnx.file import Node
from bdnet_deploy.importers.onnx.operators import (
    arithmetic,
    normalization,
    pooling,
    products,
    quantization,
    reductions,
    shapes,
)
from bdnet_deploy.importers.onnx.operators.refused import why_refused

Function = Callable[..., Any]

_MODULES = (arithmetic, normalization, pooling, products, quantization, reductions, shapes)

#: (domain, operator) -> its function.
OPERATORS: dict[tuple[str, str], Function] = {
    **{("", name): function for module in _MODULES for name, function in module.OPERATORS.items()},
    **{(domain, name): f for domain in quantization.QONNX_DOMAINS for name, f in quantization.QONNX.items()},
}


def find(node: Node) -> Function:
    """The function of a node.

    Raises:
        UnsupportedError: there is none.
    """
    function = OPERATORS.get((node.domain, node.op))
    if function is None and not (node.domain == "" and node.op == "If"):
        name = f"{node.domain}.{node.op}" if node.domain else node.op
        why, fix = why_refused(node.domain, node.op)
        raise UnsupportedError(f"the operator '{name}' is not supported", where=str(node.place), why=why, fix=fix)
    return function or (lambda *_: None)
