"""The graph itself as JSON in the file's metadata: everything but the content of constants.

.. code-block:: text

    inputs     [[name, shape, dtype], ...]
    constants  [[name, shape, dtype, record], ...]     the record says how it lies in the file (:mod:`.storage`)
    nodes      [[operator, attributes, operands, name, source], ...]   attributes without those that are defaults
    outputs    operands
    reasons, lines, unfinished                          as the Graph has them
    digest     of the file's operators and tensors, but for these constants: does the file still compute this graph?

An operand is a number that counts through inputs, constants and nodes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bdnet_deploy.export.tflite.schema import BUILTINS, Array, Model, Operator, Tensor
from bdnet_deploy.export.tflite.storage import Record, decode
from bdnet_deploy.graph import DType, Graph, Node, Op, TensorType, Value, attributes, make_op
from bdnet_deploy.graph.attributes import Attribute

#: What a file may ask for: elements of a value, indices of all tables together, and characters of a name.
MAX_ELEMENTS, MAX_WORK, MAX_NAME = 1 << 26, 1 << 27, 1 << 10
_VALUES = {DType.BIT: (-1, 1), DType.TRIT: (-1, 0, 1), DType.UBIT: (0, 1)}
#: Operators whose numbers make maps larger, and allocate tables for that before their shape is known.
_GROWING = ("pad", "upsample", "repeat", "max_pool", "pixel_shuffle")


def describe_graph(graph: Graph, stored: Mapping[str, Record], model: Model) -> dict[str, Any]:
    """The JSON object; ``stored`` has the record of every constant by name."""
    constants = list(graph.constants())
    order = [*graph.inputs, *constants, *(n.output for n in graph.nodes)]
    number = {value: i for i, value in enumerate(order)}
    content = [[*_head(v), stored[v.name]] for v in constants]
    return {
        "inputs": [_head(v) for v in graph.inputs],
        "constants": content,
        "nodes": [[n.op.name, _given(n.op), [number[v] for v in n.inputs], n.name, n.source] for n in graph.nodes],
        "outputs": [number[v] for v in graph.outputs],
        "reasons": dict(sorted(graph.reasons.items())),
        "lines": dict(sorted(graph.lines.items())),
        "unfinished": sorted(graph.unfinished),
        "digest": digest(model, content),
    }


def _given(op: Op) -> dict[str, Attribute]:
    """The attributes that are not the operator's defaults."""
    defaults = attributes(make_op(op.name, {}))
    return {key: value for key, value in attributes(op).items() if key not in defaults or defaults[key] != value}


def _head(value: Value) -> list[Any]:
    return [value.name, list(value.type.shape), value.type.dtype.value]


def restore_graph(content: Mapping[str, Any], name: str, find: Callable[[str], Array]) -> Graph:
    """The graph of :func:`describe_graph`; nothing in ``content`` is trusted.

    Args:
        content: the JSON object.
        name: of the graph.
        find: the content of a tensor of the file, by name.

    Raises:
        KeyError, TypeError, ValueError, IndexError: the content is damaged.
    """
    graph = Graph(name, "float")
    work = 0
    values: list[Value] = []
    for entry in content["inputs"]:
        value = Value(_name(graph, entry[0]), _type(entry[1], entry[2]))
        graph.inputs.append(value)
        values.append(value)
    for entry in content["constants"]:
        type_ = _type(entry[1], entry[2])
        work = _budget(work, type_)
        label = _name(graph, entry[0])
        data = decode(dict(entry[3]), label, type_.shape, type_.dtype.numpy, find)
        if type_.dtype.is_packed and not np.isin(data, _VALUES[type_.dtype]).all():
            raise ValueError(f"'{label}' is no {type_.dtype.value}")
        values.append(Value(label, type_, data))
    for kind, given, operands, label, source in content["nodes"]:
        inputs = tuple(_operand(values, i) for i in operands)
        _check_growth(str(kind), given, inputs)
        op = make_op(str(kind), given)
        output = Value(_name(graph, label), op.infer([v.type for v in inputs]))
        _check_size(output.type.shape)
        work = _budget(work, output.type)
        output.node = Node(op, inputs, output, _text(source))
        graph.nodes.append(output.node)
        values.append(output)
    graph.outputs = [_operand(values, i) for i in content["outputs"]]
    graph.reasons = {_text(k): _text(v) for k, v in content["reasons"].items()}
    graph.lines = {_text(k): _text(v) for k, v in content["lines"].items()}
    graph.unfinished = {_text(v) for v in content["unfinished"]}
    return graph


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value


def _name(graph: Graph, value: object) -> str:
    name = _text(value)
    if not name or len(name) > MAX_NAME or graph.unique(name) != name:
        raise ValueError(f"the name '{name[:80]}' is empty, too long or there twice")
    return name


def _type(shape: Any, dtype: Any) -> TensorType:
    sizes = tuple(shape)
    if any(type(n) is not int or n < 1 for n in sizes):
        raise ValueError(f"a shape of {shape!r:.80}")
    _check_size(sizes)
    return TensorType(sizes, DType(dtype))


def _check_size(shape: tuple[int, ...]) -> None:
    size = 1
    for n in shape:
        size *= int(n)
    if size > MAX_ELEMENTS or max(shape, default=1) > 1 << 22:
        raise ValueError(f"a value of shape {shape}")


def _budget(work: int, type_: TensorType) -> int:
    work += sum(type_.shape)
    if work > MAX_WORK:
        raise ValueError("its values are too many and too large")
    return work


def _check_growth(kind: str, given: Mapping[str, Any], inputs: tuple[Value, ...]) -> None:
    if kind not in _GROWING or not inputs:
        return
    numbers = [n for v in given.values() for n in (v if isinstance(v, list) else [v]) if isinstance(n, int)]
    if max(map(abs, numbers), default=0) * max(inputs[0].type.shape) > MAX_ELEMENTS:
        raise ValueError(f"{kind} of {inputs[0].type} with {given!r:.80}")


def _operand(values: list[Value], index: object) -> Value:
    if type(index) is not int or not 0 <= index < len(values):
        raise ValueError(f"operand {index!r:.20} of {len(values)}")
    return values[index]


# -- digest -----------------------------------------------------------------------------------------------------------


def digest(model: Model, constants: Sequence[Any]) -> str:
    """SHA-256 of the operators, the tensors, and what goes in and out.

    The content of tensors that hold ``constants`` (as in :func:`describe_graph`) is left out: it is read, not known.
    """
    read = {name for entry in constants for name in entry[3].get("tensors", [entry[0]])}
    content = [
        [_operator(op) for op in model.operators],
        [_tensor(t, t.name in read) for t in model.tensors],
        list(map(int, model.inputs)),
        list(map(int, model.outputs)),
    ]
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


def _operator(op: Operator) -> list[Any]:
    options: Any = op.custom_options.hex()
    if not op.is_custom:
        options = [float(op.options.get(key, default)) for key, _, default in BUILTINS[op.name].options]
    return [op.name, list(map(int, op.inputs)), list(map(int, op.outputs)), options, op.version]


def _tensor(tensor: Tensor, read: bool) -> list[Any]:
    scale = [] if tensor.scale is None else [float(s) for s in tensor.scale]
    zeros = [] if tensor.zero_point is None else [int(z) for z in tensor.zero_point]
    if not any(zeros):
        zeros = []
    axis = tensor.axis if scale else 0
    data = None if tensor.data is None else "" if read else hashlib.sha256(tensor.data.tobytes()).hexdigest()
    return [tensor.name, list(tensor.shape), int(tensor.kind), data, scale, zeros, axis]
