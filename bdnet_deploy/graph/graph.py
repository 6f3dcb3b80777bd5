"""The typed, semantic graph between the importers and everything that runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from bdnet_deploy.graph.dtypes import Array, DType, Quant, TensorType
from bdnet_deploy.graph.op import GraphError, Op

NUMERICS = ("float", "fixed16", "fixed8")


@dataclass(eq=False)
class Value:
    """A tensor of the graph: an input, a constant (``data`` set) or the output of ``node``."""

    name: str
    type: TensorType
    data: Array | None = None
    node: Node | None = None

    @property
    def is_constant(self) -> bool:
        return self.data is not None

    def __repr__(self) -> str:
        return f"{self.name}: {self.type}"


@dataclass(eq=False)
class Node:
    """An operator applied to values. ``source`` names the layer of the user's model that it came from."""

    op: Op
    inputs: tuple[Value, ...]
    output: Value
    source: str = ""

    @property
    def name(self) -> str:
        return self.output.name

    def __repr__(self) -> str:
        return f"{self.output!r} = {self.op.name}({', '.join(v.name for v in self.inputs)})"


@dataclass(eq=False)
class Graph:
    """Nodes in topological order between named inputs and outputs.

    ``numerics`` is ``"real"`` as imported (parameters in double, arithmetic in double), then ``"float"``,
    ``"fixed16"`` or ``"fixed8"``, whose references define every byte. ``reasons`` maps the source name of each
    layer that could be binary but is not to the reason, ``lines`` each layer's to the user's source line, where known;
    ``unfinished`` the layers whose weights are real only because their training is not finished.
    """

    name: str = "model"
    numerics: str = "real"
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)
    unfinished: set[str] = field(default_factory=set)
    _names: set[str] = field(default_factory=set)

    # -- building -----------------------------------------------------------------------------------------------

    def unique(self, name: str) -> str:
        """``name`` or, if taken, ``name.1``, ``name.2``, ..."""
        candidate, n = name, 0
        while candidate in self._names:
            n += 1
            candidate = f"{name}.{n}"
        self._names.add(candidate)
        return candidate

    def input(self, name: str, shape: Sequence[int], dtype: DType, quant: Quant | None = None) -> Value:
        value = Value(self.unique(name), TensorType(tuple(shape), dtype, quant))
        self.inputs.append(value)
        return value

    def constant(self, name: str, data: Array, dtype: DType, quant: Quant | None = None) -> Value:
        array = np.ascontiguousarray(data, dtype.numpy)
        return Value(self.unique(name), TensorType(array.shape, dtype, quant), array)

    def add(self, op: Op, inputs: Sequence[Value], name: str, *, source: str = "", quant: Quant | None = None) -> Value:
        """Append a node and return its output. ``quant`` sets the quantization of an integer output.

        Raises:
            GraphError: when the operator does not take these inputs; the message names the source layer.
        """
        try:
            type_ = op.infer([v.type for v in inputs])
        except GraphError as error:
            raise GraphError(f"{source or name}: {op.name}: {error}") from None
        if quant is not None:
            type_ = TensorType(type_.shape, type_.dtype, quant)
        output = Value(self.unique(name), type_)
        node = Node(op, tuple(inputs), output, source)
        output.node = node
        self.nodes.append(node)
        return output

    def parameter(self, name: str, data: Array, quant: Quant | None = None) -> Value:
        """A float64 constant: a scale, bias, slope or threshold before numerics are chosen."""
        return self.constant(name, data, DType.F64, quant)

    # -- rewriting ----------------------------------------------------------------------------------------------------

    def copy(self) -> Graph:
        """The same graph over new nodes and values (constant data shared)."""
        new = Graph(
            self.name,
            self.numerics,
            reasons=dict(self.reasons),
            lines=dict(self.lines),
            unfinished=set(self.unfinished),
            _names=set(self._names),
        )
        values: dict[Value, Value] = {}

        def of(value: Value) -> Value:
            if value not in values:
                values[value] = Value(value.name, value.type, value.data)
            return values[value]

        new.inputs = [of(v) for v in self.inputs]
        for node in self.nodes:
            twin = Node(node.op, tuple(of(v) for v in node.inputs), of(node.output), node.source)
            twin.output.node = twin
            new.nodes.append(twin)
        new.outputs = [of(v) for v in self.outputs]
        return new

    def redirect(self, old: Value, new: Value) -> None:
        """Let every reader of ``old``, and the outputs, read ``new``."""
        for node in self.nodes:
            node.inputs = tuple(new if v is old else v for v in node.inputs)
        self.outputs = [new if v is old else v for v in self.outputs]

    def prune(self) -> None:
        """Remove the nodes that no output needs."""
        needed = set(self.outputs)
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if node.output in needed:
                needed.update(node.inputs)
                kept.append(node)
        self.nodes = kept[::-1]

    # -- reading ------------------------------------------------------------------------------------------------

    def users(self) -> dict[Value, list[Node]]:
        """Value -> the nodes that read it, in order."""
        users: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in node.inputs:
                users.setdefault(value, []).append(node)
        return users

    def constants(self) -> Iterator[Value]:
        """Every constant once, in order of first use."""
        seen: set[int] = set()
        for node in self.nodes:
            for value in node.inputs:
                if value.is_constant and id(value) not in seen:
                    seen.add(id(value))
                    yield value

    def __str__(self) -> str:
        head = f"graph {self.name} ({self.numerics}): {', '.join(map(repr, self.inputs))}"
        body = [f"  {node!r}" for node in self.nodes]
        return "\n".join([head, *body, f"  return {', '.join(v.name for v in self.outputs)}"])


def evaluate(graph: Graph, inputs: Sequence[Array], *, keep: bool = False) -> dict[str, Array]:
    """Run the numpy references.

    Args:
        graph: any graph.
        inputs: one array per graph input, shape (N, ...) with any N.
        keep: return every value instead of the outputs only.

    Returns:
        name -> array (N, ...), bits and trits as int8.
    """
    env: dict[Value, Array] = {}
    for value, array in zip(graph.inputs, inputs, strict=True):
        if tuple(array.shape[1:]) != value.type.shape[1:]:
            raise GraphError(
                f"input {value.name} has shape {tuple(array.shape)}, expected {value.type.shape} (any batch)"
            )
        env[value] = array.astype(value.type.dtype.numpy)
    last_use = {v: i for i, node in enumerate(graph.nodes) for v in node.inputs}
    kept = set(graph.outputs)
    for i, node in enumerate(graph.nodes):
        arrays = [v.data if v.data is not None else env[v] for v in node.inputs]
        env[node.output] = node.op.reference([v.type for v in node.inputs], arrays, node.output.type)
        if not keep:
            for value in node.inputs:
                if last_use[value] == i and value not in kept:
                    env.pop(value, None)
    wanted = env if keep else {v: env[v] for v in graph.outputs}
    return {v.name: a for v, a in wanted.items()}
