"""The part of the TensorFlow Lite file format that binary networks need.

A :class:`Model` is what lies in a ``.tflite`` file (one subgraph); :mod:`.flatbuffer` turns it into bytes and back.
Numbers and slots are those of the public schema ``tensorflow/lite/schema/schema.fbs``, version 3.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

VERSION = 3
IDENTIFIER = b"TFL3"
#: Code of an operator that is known by name only, such as those of Larq Compute Engine.
CUSTOM = 32
#: An input that an operator does without.
ABSENT = -1


class TensorKind(enum.IntEnum):
    """Element types, ``TensorType`` of the schema."""

    FLOAT32 = 0
    INT32 = 2
    INT8 = 9

    @property
    def numpy(self) -> np.dtype[Any]:
        return np.dtype({0: "<f4", 2: "<i4", 9: "i1"}[int(self)])


@dataclass(frozen=True)
class Builtin:
    """A built-in operator: its code and the table of its options.

    ``options`` lists the fields of that table in slot order as (name, "i8" | "i32" | "bool", default in the schema).
    """

    code: int
    options_type: int
    options: tuple[tuple[str, str, int], ...] = ()


_ACTIVATION = ("activation", "i8", 0)
_WINDOW = (("padding", "i8", 0), ("stride_w", "i32", 0), ("stride_h", "i32", 0))
_DILATION = (("dilation_w", "i32", 1), ("dilation_h", "i32", 1))

BUILTINS: dict[str, Builtin] = {
    "ADD": Builtin(0, 11, (_ACTIVATION, ("pot_scale_int16", "bool", 1))),
    "AVERAGE_POOL_2D": Builtin(1, 5, (*_WINDOW, ("filter_w", "i32", 0), ("filter_h", "i32", 0), _ACTIVATION)),
    "CONCATENATION": Builtin(2, 10, (("axis", "i32", 0), _ACTIVATION)),
    "CONV_2D": Builtin(3, 1, (*_WINDOW, _ACTIVATION, *_DILATION)),
    "DEPTHWISE_CONV_2D": Builtin(4, 2, (*_WINDOW, ("depth_multiplier", "i32", 0), _ACTIVATION, *_DILATION)),
    "DEQUANTIZE": Builtin(6, 38),
    "FULLY_CONNECTED": Builtin(9, 8, (_ACTIVATION, ("weights_format", "i8", 0), ("keep_num_dims", "bool", 0))),
    "MUL": Builtin(18, 21, (_ACTIVATION,)),
    "RELU": Builtin(19, 0),
    # The new shape lies in the second input, so the options stay empty.
    "RESHAPE": Builtin(22, 17),
    "PAD": Builtin(34, 22),
    "MEAN": Builtin(40, 27, (("keep_dims", "bool", 0),)),
    "PRELU": Builtin(54, 0),
    "MINIMUM": Builtin(57, 39),
    "PADV2": Builtin(60, 43),
    "SUM": Builtin(74, 27, (("keep_dims", "bool", 0),)),
}


@dataclass(eq=False)
class Tensor:
    """``data`` is set for constants; ``scale`` quantizes an int8 tensor (zero point 0), along ``axis`` if a vector."""

    name: str
    shape: tuple[int, ...]
    kind: TensorKind
    data: Array | None = None
    scale: Array | None = None
    axis: int = 0


@dataclass(eq=False)
class Operator:
    """``name`` is a key of :data:`BUILTINS`, or of a custom operator, whose options are FlexBuffer bytes."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, int] = field(default_factory=dict)
    custom_options: bytes = b""
    version: int = 1

    @property
    def is_custom(self) -> bool:
        return self.name not in BUILTINS


@dataclass(eq=False)
class Model:
    """One subgraph; ``inputs`` and ``outputs`` index ``tensors``."""

    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    metadata: dict[str, bytes] = field(default_factory=dict)
    description: str = ""
