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
    FLOAT16 = 1
    INT32 = 2
    UINT8 = 3
    INT64 = 4
    BOOL = 6
    INT16 = 7
    INT8 = 9

    @property
    def numpy(self) -> np.dtype[Any]:
        return np.dtype(_NUMPY[int(self)])


_NUMPY = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 4: "<i8", 6: "?", 7: "<i2", 9: "i1"}


@dataclass(frozen=True)
class Builtin:
    """A built-in operator: its code and the table of its options.

    ``options`` lists the fields of that table in slot order as (name, "i8" | "i32" | "f32" | "bool", default in the
    schema).
    """

    code: int
    options_type: int
    options: tuple[tuple[str, str, int], ...] = ()


_ACTIVATION = ("activation", "i8", 0)
_WINDOW = (("padding", "i8", 0), ("stride_w", "i32", 0), ("stride_h", "i32", 0))
_DILATION = (("dilation_w", "i32", 1), ("dilation_h", "i32", 1))

_POOL = (*_WINDOW, ("filter_w", "i32", 0), ("filter_h", "i32", 0), _ACTIVATION)
_KEEP_DIMS = (("keep_dims", "bool", 0),)
_BLOCK = (("block_size", "i32", 0),)
_AXIS = ("axis", "i32", 0)
_STRIDED_SLICE = tuple((f"{name}_mask", "i32", 0) for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis"))

#: What we write, and what the importer reads. New shapes (RESHAPE, SQUEEZE) lie in inputs or the output's own shape.
BUILTINS: dict[str, Builtin] = {
    "ADD": Builtin(0, 11, (_ACTIVATION, ("pot_scale_int16", "bool", 1))),
    "AVERAGE_POOL_2D": Builtin(1, 5, _POOL),
    "CONCATENATION": Builtin(2, 10, (_AXIS, _ACTIVATION)),
    "CONV_2D": Builtin(3, 1, (*_WINDOW, _ACTIVATION, *_DILATION)),
    "DEPTHWISE_CONV_2D": Builtin(4, 2, (*_WINDOW, ("depth_multiplier", "i32", 0), _ACTIVATION, *_DILATION)),
    "DEPTH_TO_SPACE": Builtin(5, 94, _BLOCK),
    "DEQUANTIZE": Builtin(6, 38),
    "FULLY_CONNECTED": Builtin(9, 8, (_ACTIVATION, ("weights_format", "i8", 0), ("keep_num_dims", "bool", 0))),
    "LOGISTIC": Builtin(14, 0),
    "MAX_POOL_2D": Builtin(17, 5, _POOL),
    "MUL": Builtin(18, 21, (_ACTIVATION,)),
    "RELU": Builtin(19, 0),
    "RELU_N1_TO_1": Builtin(20, 0),
    "RELU6": Builtin(21, 0),
    "RESHAPE": Builtin(22, 17),
    "SOFTMAX": Builtin(25, 9, (("beta", "f32", 0),)),
    "SPACE_TO_DEPTH": Builtin(26, 19, _BLOCK),
    "TANH": Builtin(28, 0),
    "PAD": Builtin(34, 22),
    "GATHER": Builtin(36, 23, (_AXIS, ("batch_dims", "i32", 0))),
    "TRANSPOSE": Builtin(39, 26),
    "MEAN": Builtin(40, 27, _KEEP_DIMS),
    "SUB": Builtin(41, 28, (_ACTIVATION, ("pot_scale_int16", "bool", 1))),
    "DIV": Builtin(42, 29, (_ACTIVATION,)),
    "SQUEEZE": Builtin(43, 30),
    "STRIDED_SLICE": Builtin(45, 32, (*_STRIDED_SLICE, ("offset", "bool", 0))),
    "EXP": Builtin(47, 33),
    "SPLIT": Builtin(49, 35, (("num_splits", "i32", 0),)),
    "PRELU": Builtin(54, 0),
    "MAXIMUM": Builtin(55, 39),
    "MINIMUM": Builtin(57, 39),
    "LESS": Builtin(58, 41),
    "NEG": Builtin(59, 42),
    "PADV2": Builtin(60, 43),
    "SLICE": Builtin(65, 48),
    "TILE": Builtin(69, 51),
    "EXPAND_DIMS": Builtin(70, 52),
    "LOG": Builtin(73, 0),
    "SUM": Builtin(74, 27, _KEEP_DIMS),
    "SQRT": Builtin(75, 0),
    "RSQRT": Builtin(76, 0),
    "REDUCE_MAX": Builtin(82, 27, _KEEP_DIMS),
    "PACK": Builtin(83, 59, (("values_count", "i32", 0), _AXIS)),
    "UNPACK": Builtin(88, 64, (("num", "i32", 0), _AXIS)),
    "SQUARE": Builtin(92, 66),
    "RESIZE_NEAREST_NEIGHBOR": Builtin(97, 74, (("align_corners", "bool", 0), ("half_pixel_centers", "bool", 0))),
    "LEAKY_RELU": Builtin(98, 75, (("alpha", "f32", 0),)),
    "ABS": Builtin(101, 78),
    "SPLIT_V": Builtin(102, 79, (("num_splits", "i32", 0),)),
    "REVERSE_V2": Builtin(105, 81),
    "QUANTIZE": Builtin(114, 89),
    "ROUND": Builtin(116, 0),
    "HARD_SWISH": Builtin(117, 91),
    "SELECT_V2": Builtin(123, 98),
    "BATCH_MATMUL": Builtin(
        126, 101, (("adj_x", "bool", 0), ("adj_y", "bool", 0), ("asymmetric_quantize_inputs", "bool", 0))
    ),
    "GELU": Builtin(150, 116, (("approximate", "bool", 0),)),
    "RELU_0_TO_1": Builtin(152, 0),
    "BITWISE_XOR": Builtin(160, 125),
}


@dataclass(eq=False)
class Tensor:
    """``data`` is set for constants; ``scale`` quantizes an integer tensor, along ``axis`` if a vector.

    ``zero_point`` is as long as ``scale``, or None where it is 0 throughout. ``signature`` is the shape with -1 for the
    sizes that a caller may choose, empty if there are none.
    """

    name: str
    shape: tuple[int, ...]
    kind: TensorKind
    data: Array | None = None
    scale: Array | None = None
    axis: int = 0
    zero_point: Array | None = None
    signature: tuple[int, ...] = ()


@dataclass(eq=False)
class Operator:
    """``name`` is a key of :data:`BUILTINS`, or of a custom operator, whose options are FlexBuffer bytes."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    custom_options: bytes = b""
    version: int = 1

    @property
    def is_custom(self) -> bool:
        return self.name not in BUILTINS


@dataclass(frozen=True)
class Signature:
    """Names of the model's inputs and outputs: name -> tensor."""

    key: str
    inputs: dict[str, int]
    outputs: dict[str, int]


@dataclass(eq=False)
class Model:
    """One subgraph; ``inputs`` and ``outputs`` index ``tensors``."""

    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    metadata: dict[str, bytes] = field(default_factory=dict)
    description: str = ""
    signatures: list[Signature] = field(default_factory=list)
