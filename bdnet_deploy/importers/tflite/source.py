"""The operators of a file with their operands, checked: every error names the operator's number, kind and output."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from flatbuffers import flexbuffers

from bdnet_deploy.errors import ModelFileError, UnsupportedError
from bdnet_deploy.export.tflite.schema import Array, Model, Operator, Tensor, TensorKind

#: Elements that one tensor may have: a hostile shape must not take the memory.
MAX_ELEMENTS = 1 << 26
#: Windows, strides and dilations that the runtime has room for.
MAX_WINDOW = 255
_MAX_OPTIONS = 1 << 12
_MAX_NAME = 80


class Operation:
    """One operator of the file."""

    def __init__(self, model: Model, index: int) -> None:
        self.model, self.index = model, index
        self.operator: Operator = model.operators[index]
        self.kind = self.operator.name
        if not self.operator.outputs:
            raise ModelFileError("the TensorFlow Lite file is damaged", where=self.where, why="it has no output")
        self._custom: dict[str, Any] | None = None

    # -- errors -------------------------------------------------------------------------------------------------------

    @property
    def where(self) -> str:
        outputs = self.operator.outputs
        name = f", '{clean_name(self.model.tensors[outputs[0]].name)}'" if outputs else ""
        return f"operator {self.index} ({self.kind}{name})"

    def refuse(self, why: str, fix: str | None = None) -> UnsupportedError:
        return UnsupportedError("the operator cannot be imported", where=self.where, why=why, fix=fix)

    def damaged(self, why: str) -> ModelFileError:
        return ModelFileError(
            "the TensorFlow Lite file is damaged", where=self.where, why=why, fix="convert the model again"
        )

    # -- operands -----------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Of what the operator makes."""
        return clean_name(self.output().name) or f"{self.kind.lower()}_{self.index}"

    def has(self, i: int) -> bool:
        return i < len(self.operator.inputs) and self.operator.inputs[i] >= 0

    def tensor(self, i: int) -> Tensor:
        """Input ``i``.

        Raises:
            ModelFileError: there is none.
        """
        if not self.has(i):
            raise self.damaged(f"input {i} is missing")
        return self.model.tensors[self.operator.inputs[i]]

    def output(self, k: int = 0) -> Tensor:
        if k >= len(self.operator.outputs):
            raise self.damaged(f"output {k} is missing")
        return self.model.tensors[self.operator.outputs[k]]

    def numbers(self, i: int) -> list[int]:
        """A constant list of integers.

        Raises:
            UnsupportedError: it is computed.
            ModelFileError: it is no list of integers.
        """
        tensor = self.tensor(i)
        if tensor.data is None:
            raise self.refuse(f"its operand '{clean_name(tensor.name)}' is no constant")
        if tensor.kind not in (TensorKind.INT32, TensorKind.INT64) or tensor.data.size > 1 << 16:
            raise self.damaged(f"its operand '{clean_name(tensor.name)}' is no list of integers")
        return [int(v) for v in tensor.data.ravel()]

    # -- options ------------------------------------------------------------------------------------------------------

    def option(self, name: str) -> Any:
        return self.operator.options[name]

    def custom(self, name: str, default: int | None = None) -> int:
        """A number in the FlexBuffer of an operator of Larq Compute Engine.

        Raises:
            ModelFileError: it is missing or no number.
        """
        if self._custom is None:
            self._custom = self._flexbuffer()
        value = self._custom.get(name, default)
        if not isinstance(value, int):
            raise self.damaged(f"its option '{name}' is missing")
        return value

    def _flexbuffer(self) -> dict[str, Any]:
        content = self.operator.custom_options
        if len(content) > _MAX_OPTIONS:
            raise self.damaged(f"{len(content)} bytes of options")
        try:
            root = flexbuffers.GetRoot(bytearray(content)) if content else None
            if root is None or not root.IsMap:
                return {}
            keys, values = root.AsMap.Keys, root.AsMap.Values
            if len(keys) > 64:
                raise ValueError("too many options")
            return {keys[i].AsKey: values[i].AsInt for i in range(len(keys)) if values[i].IsInt}
        except Exception as error:  # the reader of FlexBuffers raises whatever its arithmetic meets
            raise self.damaged(f"its options cannot be read ({type(error).__name__})") from error

    def positive(self, value: int, what: str, limit: int = MAX_WINDOW) -> int:
        """``value`` if it lies in 1 .. ``limit``."""
        if value < 1:
            raise self.damaged(f"its {what} is {value}")
        if value > limit:
            raise self.refuse(f"a {what} of {value} is beyond the limit of {limit}")
        return value


@dataclass(frozen=True)
class Scale:
    """An integer q of a tensor stands for (q - zero_point) * scale."""

    scale: float
    zero_point: int

    def range(self, kind: TensorKind) -> tuple[float, float]:
        """The smallest and the largest number that the tensor can hold."""
        info = np.iinfo(kind.numpy)
        return (info.min - self.zero_point) * self.scale, (info.max - self.zero_point) * self.scale


def scale_of(op: Operation | None, tensor: Tensor) -> Scale | None:
    """The one scale of an integer tensor, None for a float one.

    Raises:
        UnsupportedError: it has none, or several.
        ModelFileError: it is no positive number.
    """
    if tensor.kind in (TensorKind.FLOAT32, TensorKind.FLOAT16):
        return None
    where = op.where if op else f"tensor '{clean_name(tensor.name)}'"
    if tensor.kind not in (TensorKind.INT8, TensorKind.UINT8, TensorKind.INT16) or tensor.scale is None:
        raise UnsupportedError(f"a tensor of {tensor.kind.name.lower()} is no map of real numbers", where=where)
    if np.size(tensor.scale) != 1:
        raise UnsupportedError("a map with a scale per channel", where=where)
    scale = float(np.ravel(tensor.scale)[0])
    zero = 0 if tensor.zero_point is None else int(np.ravel(tensor.zero_point)[0])
    if not 0 < scale < math.inf or abs(zero) > 1 << 15:
        raise ModelFileError(
            "the TensorFlow Lite file is damaged", where=where, why=f"scale {scale}, zero point {zero}"
        )
    return Scale(scale, zero)


def real_constant(op: Operation, tensor: Tensor, default_scale: Array | None = None) -> Array:
    """The real numbers of a constant, float64: integers times their scale, which may be one per channel.

    ``default_scale``: of a bias whose tensor has none.

    Raises:
        ModelFileError: scales that do not fit; NaN or infinity.
    """
    assert tensor.data is not None
    data = np.asarray(tensor.data, np.float64)
    scale, zero = tensor.scale, tensor.zero_point
    if tensor.data.dtype.kind != "f":
        if scale is None and default_scale is not None:
            scale = default_scale
        if scale is None:
            raise op.refuse(f"the integers of '{clean_name(tensor.name)}' have no scale")
        shape = [1] * data.ndim
        if np.size(scale) > 1:
            axis = tensor.axis if tensor.scale is not None else data.ndim - 1
            if not 0 <= axis < data.ndim or data.shape[axis] != np.size(scale):
                raise op.damaged(f"the scales of '{clean_name(tensor.name)}' do not fit its shape")
            shape[axis] = np.size(scale)
        with np.errstate(all="ignore"):
            if zero is not None:
                data = data - np.reshape(zero, shape if np.size(zero) > 1 else [1] * data.ndim)
            data = data * np.reshape(np.asarray(scale, np.float64), shape)
    if not np.isfinite(data).all():
        raise ModelFileError(
            "the model holds NaN or infinity", where=f"{op.where}, '{clean_name(tensor.name)}'", fix="train it again"
        )
    return data


def clean_name(name: str) -> str:
    """A tensor's name for people and files: the last of those that a converter joined, its odd characters replaced."""
    return re.sub(r"[^A-Za-z0-9_.:/-]+", "_", name.split(";")[0])[:_MAX_NAME].strip("_")
