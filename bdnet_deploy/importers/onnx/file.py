"""An ``.onnx`` file as a plain list of nodes: model-local functions inlined, attributes as Python values, limits checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import onnx
from google.protobuf.message import DecodeError
from torch import Tensor

from bdnet_deploy.errors import ModelFileError, UnsupportedError
from bdnet_deploy.importers.artifact import load_bytes
from bdnet_deploy.importers.onnx.places import key, place_of
from bdnet_deploy.importers.onnx.tensors import TensorReader
from bdnet_deploy.importers.program import text
from bdnet_deploy.importers.torch.interpreter import Place

_OLDEST = 7
_MAX_NODES = 100_000
_MAX_DEPTH = 24
_A = onnx.AttributeProto
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Body:
    """Nodes in order; ``constants`` are the initializers; the names of nested bodies are unique in the whole file."""

    nodes: list[Node]
    constants: dict[str, Tensor]
    outputs: list[str]


@dataclass(frozen=True, eq=False)
class Node:
    """One operator. A missing optional input or output has the name ``""``.

    ``opset`` is the version of its domain; attributes are int, float, str, lists of them, tensors or bodies.
    """

    domain: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int
    place: Place

    def get(self, name: str, default: _T) -> _T:
        """The attribute, which must be of its default's type.

        Raises:
            ModelFileError: it is of another type.
        """
        value = self.attributes.get(name, default)
        if isinstance(default, float) and isinstance(value, int):
            value = float(value)
        if type(value) is not type(default):
            raise self.damaged(f"its attribute '{name}' is of another type")
        return value

    def ints(self, name: str) -> list[int] | None:
        """A list of integers, or None where it is not given."""
        value = self.attributes.get(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(v, int) for v in value)):
            raise self.damaged(f"its attribute '{name}' is no list of integers")
        return value

    @property
    def name(self) -> str:
        return self.op.lstrip("\0")

    def damaged(self, why: str) -> ModelFileError:
        return ModelFileError(f"the node {self.name} cannot be run", where=str(self.place), why=why)

    def refused(self, why: str, fix: str) -> UnsupportedError:
        return UnsupportedError(f"'{self.name}' cannot be carried over", where=str(self.place), why=why, fix=fix)


@dataclass(frozen=True, eq=False)
class File:
    """``inputs``: name -> (element type, shape; None for an axis without a size, or for an unknown number of axes)."""

    body: Body
    inputs: dict[str, tuple[int, list[int | None] | None]]
    names: dict[str, str] = field(default_factory=dict)  # input -> its axes as the file calls them
    metadata: dict[str, str] = field(default_factory=dict)


def open_file(path: Path) -> File:
    """Read a file whole.

    Raises:
        ModelFileError: missing, damaged, or out of all proportion.
        UnsupportedError: types and versions that are not read; NaN.
    """
    data = load_bytes(path)
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError) as error:
        raise ModelFileError(
            "this is not an ONNX file, or it is damaged", where=str(path), why=str(error)[:200]
        ) from error
    if not model.graph.node and not model.graph.output:
        raise ModelFileError("this is not an ONNX file, or it is damaged", where=str(path), why="it has no graph")
    reader = TensorReader(path.parent, len(data))
    versions = _versions(model.opset_import)
    version = versions.get("", _OLDEST)
    if version < _OLDEST:
        raise UnsupportedError(
            f"the file has opset {version}",
            where=str(path),
            why=f"opsets before {_OLDEST} are not read",
            fix="convert it: onnx.version_converter.convert_version(model, 17)",
        )
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    flattener = _Flattener(functions, reader)
    body = flattener.graph(model.graph, {}, versions, {}, "", 0)
    given = {key(i.name): i for i in model.graph.input if key(i.name) not in body.constants}
    shapes = {name: _shape(i) for name, i in given.items()}
    axes = {name: _axes(i) for name, i in given.items()}
    metadata = {text(p.key): text(p.value, 1 << 28) for p in model.metadata_props}
    return File(_live(body), shapes, axes, metadata)


def _versions(imports: Iterable[Any]) -> dict[str, int]:
    return {_domain(text(i.domain)): int(i.version) for i in imports}


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _shape(value: Any) -> tuple[int, list[int | None] | None]:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return int(tensor.elem_type), None
    return int(tensor.elem_type), [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]


def _axes(value: Any) -> str:
    dims = value.type.tensor_type.shape.dim
    return "x".join(str(d.dim_value) if d.HasField("dim_value") else text(d.dim_param) or "?" for d in dims)


def _live(body: Body) -> Body:
    """Without the nodes that no output needs."""
    needed, kept = set(body.outputs), []
    for node in reversed(body.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
            needed.update(name for inner in bodies(node) for name in read_by(inner))
    return Body(kept[::-1], {n: t for n, t in body.constants.items() if n in needed}, body.outputs)


def bodies(node: Node) -> list[Body]:
    """The bodies of an ``If`` or a loop."""
    return [value for value in node.attributes.values() if isinstance(value, Body)]


def read_by(body: Body) -> set[str]:
    """All names that a body reads."""
    names = set(body.outputs)
    for node in body.nodes:
        names.update(node.inputs)
        for inner in bodies(node):
            names |= read_by(inner)
    return names


class _Flattener:
    def __init__(self, functions: Mapping[tuple[str, str, str], Any], reader: TensorReader) -> None:
        self._functions = functions
        self._reader = reader
        self._nodes = 0
        self._scopes = 0
        self._types: dict[str, int] = {}  # of initializers: all integers are computed as int64

    def graph(self, proto: Any, outer: Mapping[str, str], versions: Mapping[str, int], given: Mapping[str, Any],
              call: str, depth: int) -> Body:  # fmt: skip
        """A graph; inside of another one its names get a prefix, and ``outer`` has the names that it sees."""
        names = dict(outer)
        prefix = self._prefix() if depth else ""
        if proto.sparse_initializer:
            raise UnsupportedError("the file has sparse initializers", fix="save them as dense tensors")
        constants = {}
        for tensor in proto.initializer:
            name = names[key(tensor.name)] = prefix + key(tensor.name)
            constants[name] = self._reader.read(tensor, call)
            self._types[name] = int(tensor.data_type)
        if depth and proto.input:
            raise UnsupportedError("control flow that depends on the data", where=call or None,
                                   why="a body with inputs of its own is a loop", fix="unroll it")  # fmt: skip
        nodes = self._list(proto.node, names, prefix, versions, given, call, depth)
        outputs = [self._name(key(o.name), names) for o in proto.output]
        return Body(nodes, constants, outputs)

    def _prefix(self) -> str:
        self._scopes += 1
        return f"\0{self._scopes}/"  # no name in a file has this character: key() removes it

    def _name(self, name: str, names: Mapping[str, str]) -> str:
        return names.get(name, name) if name else ""

    def _list(self, protos: Iterable[Any], names: dict[str, str], prefix: str, versions: Mapping[str, int],
              given: Mapping[str, Any], call: str, depth: int) -> list[Node]:  # fmt: skip
        nodes: list[Node] = []
        initializers = frozenset(names) if not prefix else frozenset()
        for proto in protos:
            self._nodes += 1
            if self._nodes > _MAX_NODES or depth > _MAX_DEPTH:
                raise ModelFileError("the file is out of all proportion", why="too many nodes, or functions too deep")
            inputs = tuple(self._name(key(i), names) for i in proto.input)
            outputs = []
            for output in map(key, proto.output):
                if output:
                    names[output] = prefix + output
                outputs.append(names[output] if output else "")
            domain = _domain(text(proto.domain))
            place = place_of(proto, initializers, call)
            function = self._functions.get((proto.domain, proto.op_type, proto.overload))
            attributes = self._attributes(proto, names, versions, given, place, depth)
            if function is not None:
                nodes += self._inlined(function, inputs, tuple(outputs), attributes, place, depth)
                continue
            opset = versions.get(domain, _OLDEST if domain == "" else 1)
            self._note_types(text(proto.op_type), proto, inputs, outputs, attributes)
            nodes.append(Node(domain, text(proto.op_type), inputs, tuple(outputs), attributes, opset, place))
        return nodes

    def _note_types(self, op: str, proto: Any, inputs: Sequence[str], outputs: Sequence[str],
                    attributes: dict[str, Any]) -> None:  # fmt: skip
        """The type of a Constant, and of the integers that a QuantizeLinear makes: its zero point's, else uint8."""
        if op == "Constant" and outputs and len(proto.attribute) == 1 and proto.attribute[0].type == _A.TENSOR:
            self._types[outputs[0]] = int(proto.attribute[0].t.data_type)
        if op == "QuantizeLinear" and not attributes.get("output_dtype"):
            given = len(inputs) > 2 and inputs[2]
            attributes["output_dtype"] = self._types.get(inputs[2], 0) if given else onnx.TensorProto.UINT8

    def _attributes(self, proto: Any, names: Mapping[str, str], versions: Mapping[str, int], given: Mapping[str, Any],
                    place: Place, depth: int) -> dict[str, Any]:  # fmt: skip
        result = {}
        for attribute in proto.attribute:
            name = text(attribute.name)
            if attribute.ref_attr_name:
                if text(attribute.ref_attr_name) in given:
                    result[name] = given[text(attribute.ref_attr_name)]
                continue
            result[name] = self._value(attribute, names, versions, given, place, depth)
        return result

    def _value(self, attribute: Any, names: Mapping[str, str], versions: Mapping[str, int], given: Mapping[str, Any],
               place: Place, depth: int) -> Any:  # fmt: skip
        kind = attribute.type
        if kind == _A.FLOAT:
            return float(attribute.f)
        if kind == _A.INT:
            return int(attribute.i)
        if kind == _A.STRING:
            return text(attribute.s)
        if kind == _A.TENSOR:
            return self._reader.read(attribute.t, str(place))
        if kind == _A.FLOATS:
            return [float(f) for f in attribute.floats]
        if kind == _A.INTS:
            return [int(i) for i in attribute.ints]
        if kind == _A.STRINGS:
            return [text(s) for s in attribute.strings]
        if kind == _A.GRAPH:
            return self.graph(attribute.g, names, versions, given, str(place), depth + 1)
        raise UnsupportedError(
            f"the attribute '{text(attribute.name)}' is of a type that is not read", where=str(place)
        )

    def _inlined(self, function: Any, inputs: tuple[str, ...], outputs: tuple[str, ...], given: dict[str, Any],
                 place: Place, depth: int) -> list[Node]:  # fmt: skip
        """The nodes of a function's body in place of a call."""
        prefix = self._prefix()
        names: dict[str, str] = {}
        for i, formal in enumerate(map(key, function.input)):
            names[formal] = inputs[i] if i < len(inputs) else ""
        for default in function.attribute_proto:
            if text(default.name) not in given:
                given[text(default.name)] = self._value(default, {}, {}, {}, place, depth)
        inner = self._list(function.node, names, prefix, _versions(function.opset_import), given, place.path, depth + 1)
        ends = [
            Node("", "Identity", (names.get(formal, formal),), (actual,), {}, _OLDEST, place)
            for formal, actual in zip(map(key, function.output), outputs)
            if actual
        ]
        return inner + ends
