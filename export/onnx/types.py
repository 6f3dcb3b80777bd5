"""Types of the graph as text, and attributes of its operators as attributes of ONNX nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from bdnet_deploy.graph import Attribute, DType, TensorType

#: Attributes of a call that are no attributes of the operator: the user's layer, the types of the inputs and of the output.
LAYER, OPERANDS, RESULT = "layer", "operands", "result"
_TYPE = re.compile(r"([a-z0-9]{2,4})\[([0-9]{1,10}(?:,[0-9]{1,10}){0,3})\]")


def type_text(type_: TensorType) -> str:
    """``"bit[16,3,3,32]"``; quantization is not part of it."""
    return str(type_)


def parse_type(text: str) -> TensorType:
    """The type that :func:`type_text` wrote.

    Raises:
        ValueError: another text.
    """
    found = _TYPE.fullmatch(text)
    if found is None:
        raise ValueError(f"'{text[:80]}' is no type")
    shape = tuple(int(n) for n in found[2].split(","))
    if not all(shape):
        raise ValueError(f"'{text[:80]}' has no elements")
    return TensorType(shape, DType(found[1]))


def to_onnx(onnx: Any, given: Mapping[str, Attribute | list[str]]) -> list[Any]:
    """Attributes of a node, sorted by name; a float becomes a tensor of one double, because ONNX's floats have 24 bits."""
    kind = onnx.AttributeProto
    protos = []
    for name, value in sorted(given.items()):
        proto = kind(name=name)
        if isinstance(value, str):
            proto.type, proto.s = kind.STRING, value.encode("utf-8")
        elif isinstance(value, float):
            proto.type = kind.TENSOR
            proto.t.CopyFrom(onnx.numpy_helper.from_array(np.float64(value)))
        elif isinstance(value, int):
            proto.type, proto.i = kind.INT, int(value)
        elif value and isinstance(value[0], str):
            proto.type = kind.STRINGS
            proto.strings.extend(v.encode("utf-8") for v in value if isinstance(v, str))
        else:
            proto.type = kind.INTS
            proto.ints.extend(int(v) for v in value)
        protos.append(proto)
    return protos


def from_onnx(onnx: Any, proto: Any) -> Attribute | list[str]:
    """The value of an attribute that :func:`to_onnx` wrote.

    Raises:
        ValueError: an attribute of another kind.
    """
    kind = onnx.AttributeProto
    if proto.type == kind.STRING:
        return str(proto.s.decode("utf-8"))
    if proto.type == kind.INT:
        return int(proto.i)
    if proto.type == kind.INTS:
        return [int(i) for i in proto.ints]
    if proto.type == kind.STRINGS:
        return [s.decode("utf-8") for s in proto.strings]
    if proto.type == kind.TENSOR and proto.t.data_type == onnx.TensorProto.DOUBLE and len(proto.t.raw_data) == 8:
        return float(np.frombuffer(proto.t.raw_data, "<f8")[0])
    raise ValueError(f"the attribute '{proto.name[:80]}' is of another kind")
