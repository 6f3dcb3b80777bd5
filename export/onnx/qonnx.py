"""Profile "qonnx": standard operators, with QONNX's ``BipolarQuant`` and ``Quant`` where values have few levels.

QONNX (Pappalardo et al., arXiv 2206.07527) keeps float tensors and says by such nodes which levels they have. Weights are float
initializers behind one; a sign is a ``BipolarQuant`` of x - threshold, a ternarizer the mean of two, behind a ``Quant`` of 2
narrow bits. The batch is 1, as the tools of that world have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bdnet_deploy.export.foreign import integer_threshold
from bdnet_deploy.export.names import Names
from bdnet_deploy.export.onnx.body import TO_NCHW, TO_NHWC, Body, Call
from bdnet_deploy.export.onnx.checks import computed_inputs
from bdnet_deploy.export.onnx.emit import EMIT, Emit
from bdnet_deploy.export.onnx.emit.pooling import plain_max_pool
from bdnet_deploy.graph import Array, DType, Graph, Node, Quantize, Reduce, TensorType, Value

DOMAIN = "qonnx.custom_op.general"
DOMAIN_VERSION = 1
#: Bits of the integer dtypes that weights and levels have, and whether they are signed.
_WIDTHS = {DType.U8: (8, 0), DType.I8: (8, 1), DType.I16: (16, 1)}


class Flat(Body):
    """The graph's operators as plain nodes."""

    def __init__(self, onnx: Any, graph: Graph, names: Names, bounds: Mapping[Value, int]) -> None:
        super().__init__(onnx)
        self.protos: list[Any] = []
        self.ports = [names.unique(v.name) for v in graph.inputs]
        self.outputs = [names.unique(v.name) for v in graph.outputs]
        self._names = names
        self._bounds = bounds
        self._arrays: dict[str, Array] = {}
        self._own: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._stored: dict[tuple[Value, str], str] = {}
        self._scope = ""
        self._tensors: dict[Value, str] = {}
        ends = set(graph.outputs)
        for value in (*graph.inputs, *(n.output for n in graph.nodes)):
            inner = value in ends or value.node is None
            self._tensors[value] = names.unique(f"{value.name}/inner" if inner else value.name)
        for value, port in zip(graph.inputs, self.ports):
            self._between(port, self._tensors[value], value.type, TO_NCHW)
        for node in graph.nodes:
            self._write(node)
        for value, port in zip(graph.outputs, self.outputs):
            self._between(self._tensors[value], port, TensorType(value.type.shape, DType.F32), TO_NHWC)

    def initializers(self) -> list[tuple[str, Array]]:
        """(name, array) of every constant that a node reads."""
        read = {name for node in self.nodes for name in node.input}
        return [(name, array) for name, array in self._arrays.items() if name in read]

    def stored(self) -> dict[Value, int]:
        """Constant of the graph -> bytes of what is made of it."""
        found: dict[Value, int] = {}
        names = {name for name, _ in self.initializers()}
        for (value, _), name in self._stored.items():
            if name in names:
                found[value] = found.get(value, 0) + self._arrays[name].nbytes
        return found

    def domains(self, opset: int) -> list[tuple[str, int]]:
        """(domain, version) of the operators in use."""
        return [("", opset), (DOMAIN, DOMAIN_VERSION)]

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _write(self, node: Node) -> None:
        self._scope = node.name
        first = len(self.nodes)
        computed = computed_inputs(node)
        inputs = tuple(self._tensors[v] if i < computed else v.name for i, v in enumerate(node.inputs))
        result = {**EMIT, **_OWN}[node.op.name](self, Call(node, inputs))
        self._rename(first, result, self._tensors[node.output])

    def _rename(self, first: int, old: str, new: str) -> None:
        """In the nodes from ``first`` on."""
        for node in self.nodes[first:]:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == old:
                        names[i] = new
            node.name = new if node.name == old else node.name

    def _between(self, source: str, target: str, type_: TensorType, perm: Sequence[int]) -> None:
        first, self._scope = len(self.nodes), target
        x = source
        if not type_.dtype.is_float:
            x = self.op("Cast", x, to=self.onnx.TensorProto.FLOAT)
        y = self.op("Transpose", x, perm=perm) if len(type_.shape) == 4 else self.op("Identity", x)
        self._rename(first, y, target)

    def name(self, hint: str) -> str:
        return self._names.unique(f"{self._scope}/{hint}")

    def op(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        if operator in ("Transpose", "Expand") and all(i in self._arrays for i in inputs):
            arrays = [self._arrays[i] for i in inputs]
            if operator == "Transpose":
                return self.const(arrays[0].transpose(attributes["perm"]))
            return self.const(np.broadcast_to(arrays[0], arrays[1]))
        return super().op(operator, *inputs, domain=domain, **attributes)

    # -- constants ----------------------------------------------------------------------------------------------------

    def const(self, data: Any, dtype: str = "float32") -> str:
        array: Array = np.array(data, dtype, order="C")
        key = (dtype, array.shape, array.tobytes())
        if key not in self._own:
            self._own[key] = self._names.unique(f"{self._scope}/constant")
            self._arrays[self._own[key]] = array
        return self._own[key]

    def store(self, value: Value, kind: str, data: Array) -> str:
        """An array made of a constant of the graph; ``kind`` tells apart what is made of one."""
        if (value, kind) not in self._stored:
            name = self._stored[value, kind] = self._names.unique(value.name)
            self._arrays[name] = np.ascontiguousarray(data, np.float32)
        return self._stored[value, kind]

    def number(self, call: Call, index: int) -> str:
        value = call.node.inputs[index]
        return self.store(value, "", _data(value))

    def channels(self, call: Call, index: int, like: TensorType) -> str:
        value = call.node.inputs[index]
        data = _data(value)
        if not value.type.dtype.is_float and call.node.inputs[0] in self._bounds:
            data = integer_threshold(value, self._bounds[call.node.inputs[0]])
        if len(like.shape) == 4:
            return self.store(value, "map", data.reshape(-1, 1, 1))
        return self.store(value, "vector", data)

    def weights(self, call: Call, index: int = 1) -> str:
        value = call.node.inputs[index]
        data = _data(value)
        if data.ndim == 4:
            data = data.transpose(TO_NCHW)
        name, dtype = self.store(value, "weights", data), value.type.dtype
        if dtype is DType.BIT:
            return bipolar(self, name)
        if dtype in (DType.TRIT, DType.UBIT):
            return quant(self, name, 2 if dtype is DType.TRIT else 1, signed=int(dtype is DType.TRIT), narrow=1)
        if dtype in _WIDTHS:
            bits, signed = _WIDTHS[dtype]
            return quant(self, name, bits, signed=signed)
        return name


def _data(value: Value) -> Array:
    assert value.data is not None
    return value.data


# -- quantizers -------------------------------------------------------------------------------------------------------


def bipolar(b: Body, x: str) -> str:
    """+1 from 0 on, else -1."""
    return b.op("BipolarQuant", x, b.const(1.0), domain=DOMAIN)


def quant(b: Body, x: str, bits: int, *, signed: int, narrow: int = 0) -> str:
    """Whole numbers of so many bits, which stay as they are."""
    numbers = [b.const(float(v)) for v in (1, 0, bits)]
    narrow = narrow if signed else 0
    return b.op("Quant", x, *numbers, domain=DOMAIN, signed=signed, narrow=narrow, rounding_mode="ROUND")


def _above(b: Body, call: Call, index: int) -> str:
    """+1 where x >= threshold: the difference of two floats is below 0 exactly where the first one is smaller."""
    threshold = call.node.inputs[index]
    x = call.inputs[0]
    if _data(threshold).any():
        x = b.op("Sub", x, b.channels(call, index, call.operand()))
    return bipolar(b, x)


def _sign(b: Body, call: Call) -> str:
    y = _above(b, call, 1)
    if call.out.dtype is DType.BIT:
        return y
    return quant(b, b.op("Mul", b.op("Add", y, b.const(1.0)), b.const(0.5)), 1, signed=0)


def _ternarize(b: Body, call: Call) -> str:
    both = b.op("Add", _above(b, call, 1), _above(b, call, 2))
    return quant(b, b.op("Mul", both, b.const(0.5)), 2, signed=1, narrow=1)


def _quantize(b: Body, call: Call) -> str:
    """``Quant`` cuts off what is beyond the integers. It does not round itself, since it would add the zero point before."""
    op = call.as_op(Quantize)
    whole = b.op("Round", b.op("Div", call.inputs[0], b.const(np.float32(op.scale))))
    shifted = b.op("Add", whole, b.const(float(op.zero_point))) if op.zero_point else whole
    bits, signed = _WIDTHS[op.dtype]
    return quant(b, shifted, bits, signed=signed)


def _reduce(b: Body, call: Call) -> str:
    op = call.as_op(Reduce)
    if op.kind == "sum" or not call.out.dtype.is_float:
        return EMIT["reduce"](b, call)
    over_map = op.over == "map"
    return b.op("ReduceMax", call.inputs[0], axes=[2, 3] if over_map else [1], keepdims=int(not over_map))


#: Instead of those that keep NaN and the signs of zeros as the reference has them.
_OWN: dict[str, Emit] = {
    "max_pool": plain_max_pool,
    "quantize": _quantize,
    "reduce": _reduce,
    "sign": _sign,
    "ternarize": _ternarize,
}
