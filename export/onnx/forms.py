"""What a report says of each layer in an ``.onnx``, and where the bytes are."""

from __future__ import annotations

import numpy as np

from bdnet_deploy.export.foreign import LayerForm
from bdnet_deploy.export.onnx.packing import packed_bytes
from bdnet_deploy.graph import Conv2d, DType, Graph, Linear, Matmul, Node, TensorType

_KINDS = {
    DType.BIT: "binary weights",
    DType.UBIT: "binary weights",
    DType.TRIT: "ternary weights",
    DType.I8: "int8 weights",
    DType.U8: "int8 weights",
    DType.F32: "float weights",
}


def layer_forms(graph: Graph, profile: str) -> list[LayerForm]:
    """One for each convolution, linear layer and matrix product, in order."""
    return [_form(node, profile) for node in graph.nodes if isinstance(node.op, Conv2d | Linear | Matmul)]


def _form(node: Node, profile: str) -> LayerForm:
    x, w = (v.type for v in node.inputs[:2])
    # Runtimes have no kernel for bits: they multiply floats.
    if isinstance(node.op, Matmul):
        macs = node.output.type.size * x.channels
        return LayerForm(node.source or node.name, node.op.name, "MatMul", {"float": macs})
    operator = "Conv" if isinstance(node.op, Conv2d) else "Gemm"
    macs = node.output.type.size * int(np.prod(w.shape[1:]))
    weights, extra = stored_bytes(w, profile)
    return LayerForm(
        node.source or node.name,
        node.op.name,
        f"{operator}, {_weights_word(w, profile)}",
        {"float": macs},
        weight_bytes=weights,
        extra_bytes=extra,
    )


def _weights_word(w: TensorType, profile: str) -> str:
    if not w.dtype.is_packed:
        return "float weights" if w.dtype.is_float else "integer weights"
    if profile == "portable":
        return f"{w.dtype.planes} bit plane{'s' if w.dtype.planes > 1 else ''}"
    return "BipolarQuant weights" if w.dtype.value == "bit" else "Quant weights"


def stored_bytes(type_: TensorType, profile: str) -> tuple[int, int]:
    """(bytes of a constant in the file, bytes of what else is stored for it)."""
    if profile == "qonnx":
        return 4 * type_.size, 0
    return (packed_bytes(type_) if type_.dtype.is_packed else type_.size * type_.dtype.numpy.itemsize), 0


def sizes(graph: Graph, profile: str, total: int) -> dict[str, int]:
    """Bytes by kind; they add up to ``total``, the size of all files."""
    weights = {v for n in graph.nodes if isinstance(n.op, Conv2d | Linear) for v in n.inputs[1:2]}
    found: dict[str, int] = {}
    for value in graph.constants():
        kind = "parameters"
        if value in weights:
            kind = _KINDS.get(value.type.dtype, "integer weights")
        found[kind] = found.get(kind, 0) + stored_bytes(value.type, profile)[0]
    ordered = {kind: found[kind] for kind in (*_KINDS.values(), "integer weights", "parameters") if kind in found}
    return {**ordered, "structure": total - sum(found.values())}
