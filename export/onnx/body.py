"""Where standard operators are collected: in the body of a function, or straight in the graph of a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from bdnet_deploy.export.onnx.packing import emit_unpack
from bdnet_deploy.graph import Array, Node, Op, TensorType

_Op = TypeVar("_Op", bound=Op)
#: NHWC to NCHW and back; OHWI to OIHW is the same.
TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


@dataclass(frozen=True, eq=False)
class Call:
    """One operator to be written: its node in the graph and the names of the tensors that it reads.

    What is computed is float32, maps are NCHW; constants are as in the graph, or packed (:mod:`.packing`).
    """

    node: Node
    inputs: tuple[str, ...]

    @property
    def op(self) -> Op:
        return self.node.op

    @property
    def out(self) -> TensorType:
        return self.node.output.type

    def operand(self, index: int = 0) -> TensorType:
        return self.node.inputs[index].type

    def as_op(self, cls: type[_Op]) -> _Op:
        """The operator, which is of this class."""
        assert isinstance(self.op, cls)
        return self.op


class Body(ABC):
    """Nodes in order."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []

    @abstractmethod
    def name(self, hint: str) -> str:
        """A tensor's name that is not taken."""

    @abstractmethod
    def const(self, data: Any, dtype: str = "float32") -> str:
        """A constant tensor."""

    def op(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Append a node; the name of its output."""
        output = self.name(operator.lower())
        self.nodes.append(
            self.onnx.helper.make_node(operator, list(inputs), [output], name=output, domain=domain, **attributes)
        )
        return output

    # -- operands -----------------------------------------------------------------------------------------------------

    def ints(self, values: Sequence[int]) -> str:
        """Axes, shapes and other lists of whole numbers."""
        return self.const(np.asarray(values, np.int64), "int64")

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """To (N, ...) with the given sizes behind the batch, whose own is free."""
        return self.op("Reshape", x, self.ints([-1, *shape]))

    def number(self, call: Call, index: int) -> str:
        """A constant operand as float32 in its own shape."""
        type_, name = call.operand(index), call.inputs[index]
        if type_.dtype.is_packed:
            return emit_unpack(self, name, type_)
        return name if type_.dtype.is_float else self.op("Cast", name, to=self.onnx.TensorProto.FLOAT)

    def channels(self, call: Call, index: int, like: TensorType) -> str:
        """A constant (C,) as float32 that broadcasts over ``like`` in the layout of ONNX."""
        number = self.number(call, index)
        return self.op("Unsqueeze", number, self.ints([1, 2])) if len(like.shape) == 4 else number

    def weights(self, call: Call, index: int = 1) -> str:
        """Constant weights as float32: OIHW, or OI."""
        number = self.number(call, index)
        return self.op("Transpose", number, perm=TO_NCHW) if len(call.operand(index).shape) == 4 else number

    def where(self, condition: str, a: str, b: str) -> str:
        return self.op("Where", condition, a, b)


class FunctionBody(Body):
    """The body of a function: names are local, constants are nodes."""

    def __init__(self, onnx: Any, inputs: Sequence[str]) -> None:
        super().__init__(onnx)
        self._taken = set(inputs)
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def name(self, hint: str) -> str:
        count = 1
        while f"{hint}_{count}" in self._taken:
            count += 1
        self._taken.add(f"{hint}_{count}")
        return f"{hint}_{count}"

    def const(self, data: Any, dtype: str = "float32") -> str:
        array: Array = np.array(data, dtype)
        key = (dtype, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.op("Constant", value=self.onnx.numpy_helper.from_array(array))
        return self._constants[key]
