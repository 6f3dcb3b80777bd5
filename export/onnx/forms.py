"""What a report says of each layer in an ``.onnx``, and where the bytes are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bdnet_deploy.export.foreign import LayerForm
from bdnet_deploy.graph import Conv2d, DType, Graph, Linear, Matmul, Node, TensorType, Value

_KINDS = {
    DType.BIT: "binary weights",
    DType.UBIT: "binary weights",
    DType.TRIT: "ternary weights",
    DType.I8: "int8 weights",
    DType.U8: "int8 weights",
    DType.F32: "float weights",
}


def layer_forms(graph: Graph, profile: str, stored: Mapping[Value, int]) -> list[LayerForm]:
    """One for each convolution, linear layer and matrix product, in order; ``stored``: constant -> its bytes in the file."""
    return [_form(node, profile, stored) for node in graph.nodes if isinstance(node.op, Conv2d | Linear | Matmul)]


def _form(node: Node, profile: str, stored: Mapping[Value, int]) -> LayerForm:
    x, w = (v.type for v in node.inputs[:2])
    layer, name = node.source or node.name, node.op.name
    # Runtimes have no kernel for bits: they multiply floats.
    if isinstance(node.op, Matmul):
        return LayerForm(layer, name, "MatMul", {"float": node.output.type.size * x.channels})
    operator = "Conv" if isinstance(node.op, Conv2d) else "Gemm"
    macs = node.output.type.size * int(np.prod(w.shape[1:]))
    recipe = f"{operator}, {_weights_word(w, profile)}"
    return LayerForm(layer, name, recipe, {"float": macs}, weight_bytes=stored[node.inputs[1]])


def _weights_word(w: TensorType, profile: str) -> str:
    if not w.dtype.is_packed:
        return "float weights" if w.dtype.is_float else "integer weights"
    if profile == "portable":
        return f"{w.dtype.planes} bit plane{'s' if w.dtype.planes > 1 else ''}"
    return "BipolarQuant weights" if w.dtype.value == "bit" else "Quant weights"


def sizes(graph: Graph, stored: Mapping[Value, int], total: int) -> dict[str, int]:
    """Bytes by kind; they add up to ``total``, the size of all files."""
    weights = {v for n in graph.nodes if isinstance(n.op, Conv2d | Linear) for v in n.inputs[1:2]}
    found: dict[str, int] = {}
    for value, size in stored.items():
        kind = _KINDS.get(value.type.dtype, "integer weights") if value in weights else "parameters"
        found[kind] = found.get(kind, 0) + size
    ordered = {kind: found[kind] for kind in (*_KINDS.values(), "integer weights", "parameters") if kind in found}
    return {**ordered, "structure": total - sum(found.values())}
