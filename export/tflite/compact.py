"""The records of a file as they lie in its metadata: tensors and values by number, and nothing that can be told from others.

Every function has its inverse; nothing that is read is trusted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bdnet_deploy.export.tflite.encoding import FLOAT, SHIFTS
from bdnet_deploy.export.tflite.schema import Model, Tensor

#: Encodings of values, by number.
_ENCODINGS = (FLOAT, *SHIFTS)


def pack_structure(content: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """:func:`~bdnet_deploy.export.tflite.structure.describe_graph` with shorter constants and nodes.

    A constant is [name, shape, dtype, record]: 0 for a name or shape that is that of its first tensor, a number for the record
    of form "same" in that tensor; other records have their tensors by number. The layer of a node is 0 where it is its name.
    """
    number = _numbers(model)
    constants = []
    for name, shape, dtype, record in content["constants"]:
        tensors = [] if record["form"] == "fill" else [number[t] for t in record.get("tensors", [name])]
        first = model.tensors[tensors[0]] if tensors else None
        short: Any = dict(record)
        if first is not None:
            short = tensors[0] if record["form"] == "same" and len(tensors) == 1 else {**record, "tensors": tensors}
        same = first is not None and tuple(shape) == first.shape
        constants.append([0 if first is not None and first.name == name else name, 0 if same else shape, dtype, short])
    nodes = [[*node[:-1], 0 if node[-1] == node[-2] else node[-1]] for node in content["nodes"]]
    return {**content, "constants": constants, "nodes": nodes}


def unpack_structure(content: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """The inverse of :func:`pack_structure`.

    Raises:
        KeyError, TypeError, ValueError: the content is damaged.
    """
    constants = []
    for name, shape, dtype, short in content["constants"]:
        record = {"form": "same", "tensors": [short]} if _is_number(short) else dict(short)
        first = None
        if record["form"] != "fill":
            tensors = [_tensor(model, t) for t in record["tensors"]]
            first = tensors[0] if tensors else None
            record["tensors"] = [t.name for t in tensors]
        if first is None and 0 in (name, shape):
            raise ValueError("a constant without tensor, name or shape")
        label = first.name if first is not None and _is_number(name) else name
        size = list(first.shape) if first is not None and _is_number(shape) else shape
        constants.append([label, size, dtype, record])
    nodes = [[*node[:-1], node[-2] if _is_number(node[-1]) else node[-1]] for node in content["nodes"]]
    return {**content, "constants": constants, "nodes": nodes}


def pack_values(values: Sequence[Mapping[str, Any]], structure: Mapping[str, Any], model: Model) -> list[list[Any]]:
    """Values that exist in the file, [number, encoding, channels, tensors, nodes] each.

    The number is that of operands in the structure. Channels are those of packed words; 0 where the shape is the
    tensor's, a whole shape where it is another one. Nodes are those besides the value's own; left out where there are none.
    """
    names, number = _names(structure), _numbers(model)
    order = {name: i for i, name in enumerate(names)}
    result = []
    for value in values:
        tensors = [number[t] for t in value["tensors"]]
        stored, shape = model.tensors[tensors[0]].shape, list(value["shape"])
        packed = value["encoding"] != FLOAT and shape[:-1] == list(stored[:-1])
        size = shape[-1] if packed else 0 if shape == list(stored) else shape
        parts = [order[n] for n in value["nodes"][:-1]]
        own = order[value["name"]]
        result.append([own, _ENCODINGS.index(value["encoding"]), size, tensors, *([parts] if parts else [])])
    return result


def unpack_values(content: Sequence[Any], structure: Mapping[str, Any], model: Model) -> list[dict[str, Any]]:
    """The inverse: name, encoding, shape, names of tensors and nodes, source. ``structure`` is unpacked.

    Raises:
        IndexError, KeyError, TypeError, ValueError: the content is damaged.
    """
    names = _names(structure)
    computed = {node[3]: node[4] for node in structure["nodes"]}
    result = []
    for own, encoding, size, numbers, *rest in content:
        tensors = [_tensor(model, t) for t in numbers]
        stored = tensors[0].shape
        shape = list(size) if isinstance(size, list) else [*stored[:-1], size] if size else list(stored)
        name = names[_number(own)]
        nodes = [*(names[_number(n)] for n in (rest[0] if rest else ())), *([name] if name in computed else ())]
        result.append(
            {
                "name": name,
                "encoding": _ENCODINGS[_number(encoding)],
                "shape": [_number(n) for n in shape],
                "tensors": [t.name for t in tensors],
                "nodes": nodes,
                "source": computed.get(name, ""),
            }
        )
    return result


def _names(structure: Mapping[str, Any]) -> list[str]:
    """Names of inputs, constants and nodes, as operands count through them; constants are no values of the file."""
    nodes = [node[3] for node in structure["nodes"]]
    return [str(n) for n in (*(e[0] for e in structure["inputs"]), *("" for _ in structure["constants"]), *nodes)]


def _numbers(model: Model) -> dict[str, int]:
    return {t.name: i for i, t in enumerate(model.tensors)}


def _is_number(value: object) -> bool:
    return type(value) is int


def _number(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r:.40} is no number")
    return value


def _tensor(model: Model, index: object) -> Tensor:
    return model.tensors[_number(index)]
