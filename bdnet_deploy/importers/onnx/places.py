"""Which module of the user's model a node belongs to, from what PyTorch's exporters leave in the file.

The exporter over ``torch.export`` writes ``pkg.torch.onnx.name_scopes`` (a Python list of module paths, the operator's own
name last) and ``pkg.torch.onnx.stack_trace``; the older one makes node names such as ``/features/features.0/conv/Conv``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping
from typing import Any

from bdnet_deploy.importers.program import source_line, text
from bdnet_deploy.importers.torch.interpreter import Place

_SCOPES = "pkg.torch.onnx.name_scopes"
_TRACE = "pkg.torch.onnx.stack_trace"
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def place_of(node: Any, initializers: Collection[str], call: str = "") -> Place:
    """``call``: the name of the function call that the node was inlined from."""
    name = text(node.name) or (text(node.output[0]) if node.output else "") or node.op_type
    line = f"{text(node.op_type)} '{'/'.join(filter(None, (call, name)))}'"
    properties = {text(p.key): p.value for p in node.metadata_props}
    source = source_line(text(properties.get(_TRACE, ""), 100_000))
    weight = key(node.input[1]) if node.op_type in _WEIGHTED and len(node.input) > 1 else ""
    # Normalization that the exporter folded into a layer leaves its own scope on it: the weight's name is better.
    path = text(weight.removesuffix(".weight")) if weight.endswith(".weight") and weight in initializers else ""
    path = path or _from_scopes(properties) or _from_name(name)
    return Place(path or call or name, f"{line}, {source}" if source else line)


def key(name: Any) -> str:
    """A tensor's name as it is, for looking up; never with the character that marks nested scopes."""
    return (name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)).replace("\0", "?")


def _from_scopes(properties: Mapping[str, Any]) -> str:
    scopes = text(properties.get(_SCOPES, ""), 10_000)
    if not re.fullmatch(r"\[('[^'\\]*'(, )?)*\]", scopes):
        return ""
    found = ast.literal_eval(scopes)
    return text(found[-2]) if len(found) > 1 else ""


def _from_name(name: str) -> str:
    if not name.startswith("/"):
        return ""
    parts: list[str] = []
    for part in name.split("/")[1:-1]:
        if parts and part.startswith(f"{parts[-1]}."):  # a container's child bears the container's name again
            parts[-1] = part
        else:
            parts.append(part)
    return ".".join(parts)
