"""The base class of the operators, and their table."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from bdnet_deploy.graph.dtypes import Array, TensorType


class GraphError(ValueError):
    """An operator was given tensors that it does not take. The message says which rule is broken."""


@dataclass(frozen=True)
class Op(ABC):
    """One operator: meaning (the docstring), shape rule and numpy reference.

    Subclasses are frozen dataclasses whose fields are the attributes (numbers and strings; arrays are constant
    inputs). ``reference`` takes any batch size in the leading dimension, though types say 1.
    """

    name: ClassVar[str]

    @abstractmethod
    def infer(self, types: Sequence[TensorType]) -> TensorType:
        """The type of the output for inputs of these types.

        Raises:
            GraphError: when they do not fit.
        """

    @abstractmethod
    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        """The output's exact values: the judge of every back end."""


OPS: dict[str, type[Op]] = {}
_T = TypeVar("_T", bound=type[Op])


def register(cls: _T) -> _T:
    """Class decorator: name the operator in snake case and enter it into :data:`OPS`."""
    cls.name = re.sub(r"(?<!^)(?=[A-Z0-9])(?<![A-Z0-9])", "_", cls.__name__).lower().replace("conv_2d", "conv2d")
    OPS[cls.name] = cls
    return cls


def check(condition: bool, message: str) -> None:
    """Raise :class:`GraphError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise GraphError(message)
