"""Operators as plain data, for files: the attributes of an operator and back."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

from bdnet_deploy.graph.dtypes import DType
from bdnet_deploy.graph.op import OPS, GraphError, Op
from bdnet_deploy.graph.ops.softmax import ExpScale

#: An attribute in a file: a number, a name, or a list of numbers.
Attribute = bool | int | float | str | list[int] | list[float]


def attributes(op: Op) -> dict[str, Attribute]:
    """All attributes of an operator in the order of its fields; dtypes by name. What is None is left out."""
    found: dict[str, Attribute] = {}
    for name, value in ((f.name, getattr(op, f.name)) for f in dataclasses.fields(op)):
        if value is None:
            continue
        if isinstance(value, DType):
            value = value.value
        elif isinstance(value, ExpScale):
            value = list(dataclasses.astuple(value))
        found[name] = list(value) if isinstance(value, tuple) else value
    return found


def make_op(name: str, given: Mapping[str, Any]) -> Op:
    """The operator of that name; attributes that are not given have their default.

    Raises:
        GraphError: an unknown operator or attribute, or a value of another kind.
    """
    if name not in OPS:
        raise GraphError(f"there is no operator '{name}'")
    kinds = _kinds(OPS[name])
    unknown = sorted(set(given) - set(kinds))
    if unknown:
        raise GraphError(f"{name} has no attribute '{unknown[0]}'")
    return OPS[name](**{key: _checked(f"{name}: {key}", kinds[key], value) for key, value in given.items()})


@cache
def _kinds(cls: type[Op]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _checked(where: str, kind: Any, value: Any) -> Any:
    """``value`` as the field of type ``kind`` takes it."""
    if isinstance(kind, types.UnionType):  # X | None
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    wrong = GraphError(f"{where} is {value!r:.80}")
    if kind is DType:
        try:
            return DType(value)
        except ValueError:
            raise wrong from None
    if kind is ExpScale:
        if not isinstance(value, list) or len(value) != len(dataclasses.fields(ExpScale)):
            raise wrong
        return ExpScale(*(_checked(where, int, v) for v in value))
    if typing.get_origin(kind) is tuple:
        arguments = typing.get_args(kind)
        if not isinstance(value, list):
            raise wrong
        if arguments[-1] is not Ellipsis and len(arguments) != len(value):
            raise wrong
        return tuple(_checked(where, arguments[0], v) for v in value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise wrong
    return value
