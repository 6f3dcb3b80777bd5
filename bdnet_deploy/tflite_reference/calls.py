"""One operator of a file at work: what a kernel is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.export.tflite.schema import Operator, Tensor, TensorKind
from bdnet_deploy.tflite_reference.fixed_point import HIGH, LOW, round_away

Array = npt.NDArray[Any]
#: Limits of the fused activations, ``ActivationFunctionType`` of the schema.
ACTIVATIONS: dict[int, tuple[float, float]] = {0: (-np.inf, np.inf), 1: (0.0, np.inf), 2: (-1.0, 1.0), 3: (0.0, 6.0)}


@dataclass(frozen=True, eq=False)
class Call:
    """``values`` are the inputs (None: absent), ``ins`` and ``outs`` the tensors' descriptions."""

    op: Operator
    values: tuple[Array | None, ...]
    ins: tuple[Tensor | None, ...]
    outs: tuple[Tensor, ...]

    def option(self, name: str, default: Any = 0) -> Any:
        return self.op.options.get(name, default)

    def value(self, index: int) -> Array:
        """An input that must be there.

        Raises:
            ValueError: it is absent.
        """
        value = self.values[index] if index < len(self.values) else None
        if value is None:
            raise ValueError(f"input {index} is absent")
        return value

    def has(self, index: int) -> bool:
        return index < len(self.values) and self.values[index] is not None

    @property
    def out(self) -> Tensor:
        return self.outs[0]

    @property
    def is_int8(self) -> bool:
        """Whether the first input holds quantized int8."""
        tensor = self.ins[0]
        return tensor is not None and tensor.kind is TensorKind.INT8

    @property
    def is_float(self) -> bool:
        return self.ins[0] is not None and self.ins[0].kind is TensorKind.FLOAT32

    def unsupported(self, why: str) -> UnsupportedError:
        return UnsupportedError(f"{self.op.name} cannot be evaluated", where=self.out.name, why=why)

    # -- quantization ----------------------------------------------------------------------------------------------------

    def scale(self, index: int) -> float:
        """Scale of an input as a double."""
        return _scale(self, self.ins[index])

    def zero(self, index: int) -> int:
        return zero_point(self.ins[index])

    @property
    def out_scale(self) -> float:
        return _scale(self, self.out)

    @property
    def out_zero(self) -> int:
        return zero_point(self.out)

    def centred(self, index: int) -> Array:
        """An int8 input as int64 without its zero point."""
        return self.value(index).astype(np.int64) - self.zero(index)

    def limits(self) -> tuple[int, int]:
        """Where the fused activation cuts int8 results off."""
        low, high = ACTIVATIONS[self.option("activation")]
        return self.quantized_limits(low, high)

    def quantized_limits(self, low: float, high: float) -> tuple[int, int]:
        """``low`` and ``high`` in the output's units."""
        scale, zero = np.float32(self.out_scale), self.out_zero
        least, most = LOW, HIGH
        if np.isfinite(low):
            least = max(least, zero + int(round_away(np.float32(low) / scale)))
        if np.isfinite(high):
            most = min(most, zero + int(round_away(np.float32(high) / scale)))
        return least, most

    def activated(self, y: Array) -> Array:
        """A float result after the fused activation."""
        low, high = ACTIVATIONS[self.option("activation")]
        return np.clip(y, np.float32(low), np.float32(high)) if np.isfinite(low) or np.isfinite(high) else y


Kernel = Callable[[Call], list[Array]]


def zero_point(tensor: Tensor | None) -> int:
    if tensor is None or tensor.zero_point is None:
        return 0
    return int(np.atleast_1d(tensor.zero_point)[0])


def _scale(call: Call, tensor: Tensor | None) -> float:
    if tensor is None or tensor.scale is None:
        raise call.unsupported("an int8 tensor without a scale")
    return float(np.atleast_1d(tensor.scale)[0])
