"""How values of the graph lie in the file, and the operators from one encoding to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bdnet_deploy.export.tflite.builder import F32, I8, Builder
from bdnet_deploy.graph import DType, Value

#: The packed planes of a trit, in order: for the lower and for the higher threshold.
PLANES = ("low", "high")
FLOAT, BITS, UBITS, TRITS = "float", "bits", "ubits", "trits"
#: The packed encoding of each packed dtype.
PACKED = {DType.BIT: BITS, DType.UBIT: UBITS, DType.TRIT: TRITS}
#: What is added to the values of each packed encoding so that the signs of the sums are its planes.
SHIFTS: dict[str, tuple[float, ...]] = {BITS: (0.0,), UBITS: (-0.5,), TRITS: (0.5, -0.5)}


class Place(Protocol):
    """Where operators are added."""

    b: Builder

    def number(self, value: float) -> int:
        """A constant of one float32."""


@dataclass(frozen=True)
class Encoded:
    """A value's tensors.

    ``encoding`` is "float" (one f32 tensor, also of integers), "bits" (one of packed words), "ubits" (the same, where -1
    stands for 0) or "trits" (two: :data:`PLANES`, whose mean is the value).
    """

    encoding: str
    tensors: tuple[int, ...]


def packed_like(value: Value, tensors: tuple[int, ...]) -> Encoded:
    """The planes of a value of a packed dtype."""
    return Encoded(PACKED[value.type.dtype], tensors)


def to_float(low: Place, encoded: Encoded, channels: int, name: str) -> int:
    """Packed planes as float32 numbers."""
    b = low.b
    planes = [b.lce_dequantize(t, channels, F32, f"{name}/plane") for t in encoded.tensors]
    if encoded.encoding == BITS:
        return planes[0]
    other = planes[1] if encoded.encoding == TRITS else low.number(1.0)
    return b.multiply(b.add(planes[0], other, f"{name}/twice"), low.number(0.5), f"{name}/half")


def to_planes(low: Place, tensor: int, encoding: str, name: str) -> tuple[int, ...]:
    """Float32 numbers of -1, 0 and +1 as packed planes; none of the sums is -0.0."""
    b, planes = low.b, []
    for shift in SHIFTS[encoding]:
        shifted = b.add(tensor, low.number(shift), f"{name}/shifted") if shift else tensor
        planes.append(b.lce_quantize(shifted, f"{name}/packed"))
    return tuple(planes)


def to_int8(low: Place, encoded: Encoded, shape: tuple[int, ...], name: str) -> tuple[int, float]:
    """int8 of {-1, 0, +1}, and the scale that the file gives these integers."""
    b = low.b
    if encoded.encoding == FLOAT:
        return b.op("QUANTIZE", encoded.tensors, b.tensor(name, shape, I8, 1.0)), 1.0
    planes = [b.lce_dequantize(t, shape[-1], I8, f"{name}/plane") for t in encoded.tensors]
    if encoded.encoding == BITS:
        return planes[0], 1.0
    # Integers -1 and +1 of scale 1 add up to {-2, 0, 2}, which are {-1, 0, 1} of scale 2: no rounding.
    if encoded.encoding == UBITS:
        one = low.b.constant(f"{name}/one", np.ones(1, np.int8), np.ones(1, np.float32))
        planes.append(one)
    return b.op("ADD", planes, b.tensor(name, shape, I8, 2.0), pot_scale_int16=0), 2.0
