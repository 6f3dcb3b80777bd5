"""Profile "portable": every operator is a call of a function in the file, whose body are standard operators.

The functions are in the domain ``bdnet_deploy``. ``conv2d__bit_bit_3x3_64to64`` is the operator ``conv2d`` of the graph for
operands of those types; what follows ``__`` tells functions with other bodies apart. The attributes of a call are those of the
operator, and ``layer`` (of the user's model), ``operands`` and ``result`` (types with shapes). ``input__...`` and ``output__...``
turn the NHWC of the model's ends into NCHW and back.
"""

from __future__ import annotations

import hashlib
from typing import Any

from bdnet_deploy.export.names import Names
from bdnet_deploy.export.onnx.body import TO_NCHW, TO_NHWC, Call, FunctionBody
from bdnet_deploy.export.onnx.checks import computed_inputs
from bdnet_deploy.export.onnx.emit import EMIT
from bdnet_deploy.export.onnx.packing import pack
from bdnet_deploy.export.onnx.types import LAYER, OPERANDS, RESULT, to_onnx, type_text
from bdnet_deploy.graph import Affine, Array, Conv2d, Graph, Node, TensorType, Unary, Value, attributes, make_op

DOMAIN = "bdnet_deploy"
#: Of the functions: another one where a name or an attribute changes its meaning.
DOMAIN_VERSION = 1
INPUT, OUTPUT = "input", "output"

_PARAMETERS = {
    "clamp": ("low", "high"),
    "conv2d": ("weights",),
    "linear": ("weights",),
    "sign": ("threshold",),
    "ternarize": ("low", "high"),
    "two_slope": ("positive", "negative", "bias"),
    "add_map": ("map",),
    "mul_map": ("map",),
}


class Functions:
    """The graph's operators as calls, in ``nodes``, of ``protos``."""

    def __init__(self, onnx: Any, graph: Graph, names: Names, opset: int) -> None:
        self.onnx = onnx
        self.graph = graph
        self.nodes: list[Any] = []
        self.protos: list[Any] = []
        self.constants: dict[Value, tuple[str, Array]] = {}
        self.ports: list[str] = []
        self._opsets = [onnx.helper.make_opsetid("", opset)]
        self._names = names
        self._known: dict[tuple[str, bytes], str] = {}
        self._functions = Names()
        self._tensors: dict[Value, str] = {}
        ends = set(graph.outputs)
        for value in graph.inputs:
            self.ports.append(names.unique(value.name))
            self._tensors[value] = names.unique(f"{value.name}/inner")
            self._enter(value, self.ports[-1])
        # The tensor of an output bears the value's name at the file's end, so its inner one cannot.
        self.outputs = [names.unique(v.name) for v in graph.outputs]
        for node in graph.nodes:
            value = node.output
            self._tensors[value] = names.unique(f"{value.name}/inner" if value in ends else value.name)
            self._call(node)
        for value, port in zip(graph.outputs, self.outputs):
            self._leave(value, port)

    def initializers(self) -> list[tuple[str, Array]]:
        """(name, array) of every constant; what is packed is uint8."""
        return list(self.constants.values())

    def stored(self) -> dict[Value, int]:
        """Constant of the graph -> its bytes."""
        return {value: array.nbytes for value, (_, array) in self.constants.items()}

    def domains(self, opset: int) -> list[tuple[str, int]]:
        """(domain, version) of the operators in use."""
        return [("", opset), (DOMAIN, DOMAIN_VERSION)]

    def tensor(self, value: Value) -> str:
        """The file's name of a value."""
        if value.data is None:
            return self._tensors[value]
        if value not in self.constants:
            data = pack(value.data, value.type.dtype) if value.type.dtype.is_packed else value.data
            self.constants[value] = (self._names.unique(value.name), data)
        return self.constants[value][0]

    # -- calls --------------------------------------------------------------------------------------------------------

    def _enter(self, value: Value, port: str) -> None:
        body = FunctionBody(self.onnx, ["x"])
        x = "x" if value.type.dtype.is_float else body.op("Cast", "x", to=self.onnx.TensorProto.FLOAT)
        y = body.op("Transpose", x, perm=TO_NCHW) if len(value.type.shape) == 4 else body.op("Identity", x)
        self._add(self._names.unique(f"{value.name}/input"), INPUT, _shape_word(value.type), body, ["x"], y, [port], self._tensors[value],
                  {RESULT: type_text(value.type)})  # fmt: skip

    def _leave(self, value: Value, port: str) -> None:
        body = FunctionBody(self.onnx, ["x"])
        y = body.op("Transpose", "x", perm=TO_NHWC) if len(value.type.shape) == 4 else body.op("Identity", "x")
        self._add(self._names.unique(f"{port}/output"), OUTPUT, "map" if len(value.type.shape) == 4 else "vector", body, ["x"], y,
                  [self._tensors[value]], port, {RESULT: type_text(value.type)})  # fmt: skip

    def _call(self, node: Node) -> None:
        inputs = _formal(node)
        body = FunctionBody(self.onnx, inputs)
        result = EMIT[node.op.name](body, Call(node, tuple(inputs)))
        given: dict[str, Any] = {
            **attributes(
                make_op(node.op.name, attributes(node.op))
            ),  # whole numbers become floats where a field is one
            LAYER: node.source,
            OPERANDS: [type_text(v.type) for v in node.inputs],
            RESULT: type_text(node.output.type),
        }
        actual = [self.tensor(v) for v in node.inputs]
        self._add(node.name, node.op.name, _hint(node), body, inputs, result, actual, self._tensors[node.output], given)

    def _add(self, name: str, kind: str, hint: str, body: FunctionBody, formal: list[str], result: str,
             actual: list[str], output: str, given: dict[str, Any]) -> None:  # fmt: skip
        """A call of the function of that body, which is entered into the file once."""
        helper = self.onnx.helper
        arguments = [DOMAIN, "", formal, [result], body.nodes, self._opsets]
        proto = helper.make_function(*arguments, attributes=sorted(given))
        key = (kind, bytes(proto.SerializeToString(deterministic=True)))
        if key not in self._known:
            proto.name = self._known[key] = self._functions.unique(f"{kind}__{hint}")
            self.protos.append(proto)
        node = helper.make_node(self._known[key], actual, [output], name=name, domain=DOMAIN)
        node.attribute.extend(to_onnx(self.onnx, given))
        self.nodes.append(node)


def _formal(node: Node) -> list[str]:
    """Names of a function's inputs."""
    if isinstance(node.op, Affine):
        counted = ["", "_1"][: node.op.terms]
        return [*(f"x{i}" for i in counted), *(f"factor{i}" for i in counted), "addend"]
    computed = computed_inputs(node)
    first = ["x"] if computed == 1 else [f"x_{i}" for i in range(computed)]
    return [*first, *_PARAMETERS.get(node.op.name, ())]


def _shape_word(type_: TensorType) -> str:
    return f"{type_.dtype.value}_{'map' if len(type_.shape) == 4 else 'vector'}"


def _hint(node: Node) -> str:
    """What a reader wants to know of a function first."""
    op, types = node.op, [v.type for v in node.inputs]
    if isinstance(op, Conv2d):
        kernel = "x".join(map(str, types[1].shape[1:3]))
        kind = "_depthwise" if op.groups == types[0].channels > 1 else f"_{op.groups}groups" if op.groups > 1 else ""
        return f"{types[0].dtype.value}_{types[1].dtype.value}_{kernel}_{types[0].channels}to{types[1].shape[0]}{kind}"
    if op.name == "linear":
        return f"{types[0].dtype.value}_{types[1].dtype.value}_{types[1].shape[1]}to{types[1].shape[0]}"
    words = [op.function] if isinstance(op, Unary) else []
    computed = computed_inputs(node)
    distinct = [t.dtype.value for t in (types[:computed] if op.name != "concat" else types[:1])]
    shape = "map" if len(types[0].shape) == 4 else "vector"
    if computed == 2 and op.name in ("affine", "mul") and types[1].shape != types[0].shape:
        shape = "map_and_vector"
    return "_".join([*words, *distinct, shape])


def digest(model: Any) -> str:
    """SHA-256 of what the file computes but for its constants: functions, calls, inputs and outputs."""
    parts = [*model.functions, *model.graph.node, *model.graph.input, *model.graph.output, *model.opset_import]
    found = hashlib.sha256()
    for part in parts:
        data = part.SerializeToString(deterministic=True)
        found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()
