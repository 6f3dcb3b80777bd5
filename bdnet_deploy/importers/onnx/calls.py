"""The graph of a file of ours out of its nodes, their attributes and the initializers."""

from __future__ import annotations

import math
from typing import Any

from bdnet_deploy.export.onnx.functions import INPUT, OUTPUT
from bdnet_deploy.export.onnx.packing import unpack
from bdnet_deploy.export.onnx.types import LAYER, OPERANDS, RESULT, from_onnx, parse_type, type_text
from bdnet_deploy.graph import Graph, TensorType, Value, make_op
from bdnet_deploy.importers.onnx.stored import Stored

#: Axes and numbers in attributes end here; so does what the shape rules of all operators together may count through.
_LARGEST, _WORK = 1 << 24, 1 << 28
#: Operators whose shape rule counts through products of sizes and attributes.
_PRODUCTS = ("max_pool", "repeat", "upsample")


def call_kind(node: Any) -> str:
    """The graph's operator of a call, or "input" or "output"."""
    return str(node.op_type).partition("__")[0]


def call_attributes(onnx: Any, node: Any) -> dict[str, Any]:
    """The attributes of a call by name."""
    return {str(a.name): from_onnx(onnx, a) for a in node.attribute}


class CallReader:
    """Builds the graph of ``model``.

    Raises:
        ValueError, KeyError, TypeError: the file is damaged.
        ModelFileError: external data are missing.
    """

    def __init__(self, onnx: Any, model: Any, stored: Stored, name: str) -> None:
        self._onnx = onnx
        self._stored = stored
        self._left = _WORK
        self.graph = Graph(name, "float")
        self._initializers = {t.name: t for t in model.graph.initializer}
        self._values: dict[str, Value] = {}
        self._constants: dict[str, Value] = {}
        self._inputs: dict[str, Value] = {}
        self._outputs: dict[str, Value] = {}
        for node in model.graph.node:
            self._node(node)
        # Not in the order of the nodes.
        self.graph.inputs = [self._inputs[v.name] for v in model.graph.input]
        self.graph.outputs = [self._outputs[v.name] for v in model.graph.output]
        for port, value in zip(model.graph.input, self.graph.inputs, strict=True):
            kind = onnx.helper.np_dtype_to_tensor_dtype(value.type.dtype.numpy)
            if port.type.tensor_type.elem_type != kind:
                raise ValueError(f"the input '{port.name}' is not of {value.type.dtype.value}")

    def _node(self, node: Any) -> None:
        kind, given = call_kind(node), call_attributes(self._onnx, node)
        (target,) = node.output
        result = self._type(given.pop(RESULT))
        if target in self._values or target in self._initializers:
            raise ValueError(f"'{target}' is computed twice")
        if kind == INPUT:
            (port,) = node.input
            if port in self._inputs:
                raise ValueError(f"the input '{port}' is read twice")
            self._values[target] = self._inputs[port] = self.graph.input(port, result.shape, result.dtype)
            return
        if kind == OUTPUT:
            (source,) = node.input
            self._outputs[target] = self._values[source]
            return
        source, operands = given.pop(LAYER), given.pop(OPERANDS)
        inputs = [self._operand(name, text) for name, text in zip(node.input, operands, strict=True)]
        self._count(kind, given, [*(v.type for v in inputs), result])
        output = self.graph.add(make_op(kind, given), inputs, node.name, source=source)
        if type_text(output.type) != type_text(result):
            raise ValueError(f"'{node.name}' is {output.type}, not {result}")
        self._values[target] = output

    def _operand(self, name: str, text: str) -> Value:
        if name in self._values:
            value = self._values[name]
        elif name in self._constants:
            value = self._constants[name]
        else:
            value = self._constants[name] = self._constant(name, self._type(text))
        if type_text(value.type) != text:
            raise ValueError(f"'{name}' is {value.type}, not {text[:80]}")
        return value

    def _constant(self, name: str, type_: TensorType) -> Value:
        data = self._stored.read(self._initializers[name])
        if type_.dtype.is_packed:
            data = unpack(data, type_)
        if data.dtype != type_.dtype.numpy or data.shape != type_.shape:
            raise ValueError(f"'{name}' holds no {type_}")
        return self.graph.constant(name, data, type_.dtype)

    def _type(self, text: str) -> TensorType:
        type_ = parse_type(text)
        if max(type_.shape) > _LARGEST or math.prod(type_.shape) >= 1 << 40:
            raise ValueError(f"{text} is out of all proportion")
        return type_

    def _count(self, kind: str, given: dict[str, Any], types: list[TensorType]) -> None:
        """Refuse what would keep the shape rules busy for long."""
        sides = max(n for t in types for n in t.shape)
        numbers = [abs(n) for v in given.values() for n in (v if isinstance(v, list) else [v]) if type(n) is int]
        largest = max(numbers, default=0)
        self._left -= len(numbers) + (sides * max(1, largest) if kind in _PRODUCTS else sides + largest)
        if self._left < 0 or largest > _LARGEST:
            raise ValueError("its sizes are out of all proportion")
