"""QONNX's quantizers, and ONNX's own for int8.

``BipolarQuant`` and ``Quant`` as Brevitas writes them. Their arithmetic: Pappalardo et al., "QONNX: Representing Arbitrary-
Precision Quantized Neural Networks", arXiv 2206.07527, and the executor of the package qonnx 1.0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bdnet_deploy.importers.onnx.file import Node
from bdnet_deploy.importers.onnx.operators.common import nonnegative, scalar

#: ONNX's numbers of the types UINT8, INT8, UINT16 and INT16, and their limits.
_INTEGERS = {2: (0.0, 255.0), 3: (-128.0, 127.0), 4: (0.0, 65535.0), 5: (-32768.0, 32767.0)}

QONNX_DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")


def _half_up(x: Tensor) -> Tensor:
    return torch.sign(x) * torch.floor(torch.abs(x) + 0.5)


def _half_down(x: Tensor) -> Tensor:
    return torch.sign(x) * torch.ceil(torch.abs(x) - 0.5)


_ROUNDING: dict[str, Callable[[Tensor], Tensor]] = {
    "ROUND": torch.round,
    "HALF_EVEN": torch.round,
    "CEIL": torch.ceil,
    "FLOOR": torch.floor,
    "UP": lambda x: torch.sign(x) * torch.ceil(torch.abs(x)),
    "DOWN": torch.trunc,
    "HALF_UP": _half_up,
    "HALF_DOWN": _half_down,
}


def _bipolar(node: Node, x: Tensor, scale: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0) * scale


def _quant(node: Node, x: Tensor, scale: Tensor, zero: Tensor, width: Tensor) -> Tensor:
    """Signed at 1 bit means two levels -1 and +1, which have no zero."""
    bits = scalar(node, width, "bit width")
    if not 1 <= bits <= 64:
        raise node.damaged(f"a bit width of {bits}")
    signed, narrow = bool(node.get("signed", 1)), bool(node.get("narrow", 0))
    mode = node.get("rounding_mode", "ROUND").upper()
    if mode not in _ROUNDING:
        raise node.refused(f"its rounding mode is '{mode}'", f"one of {', '.join(_ROUNDING)}")
    y = x / scale + zero
    if bits == 1 and signed:
        levels = torch.where(y >= 0, 1.0, -1.0)
    else:
        lowest = -(2 ** (bits - 1)) + narrow if signed else 0.0
        highest = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
        levels = _ROUNDING[mode](torch.clamp(y, float(lowest), float(highest)))
    return (levels - zero) * scale


def _per_axis(node: Node, x: Tensor, parameter: Tensor) -> Tensor:
    """A parameter of one axis in the shape that broadcasts over x."""
    if parameter.dim() == 0 or parameter.numel() == 1:
        return parameter.reshape(())
    if parameter.dim() != 1 or node.get("block_size", 0):
        raise node.refused("it is scaled in blocks", "quantize per tensor or per channel")
    shape = [1] * x.dim()
    shape[nonnegative(node, [node.get("axis", 1)], x.dim())[0]] = -1
    return parameter.reshape(shape)


def _dequantize(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    values = x.to(torch.float32)
    if zero is not None:
        values = values - _per_axis(node, x, zero).to(torch.float32)
    return values * _per_axis(node, x, scale)


def _quantize(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """The integers as float32: what reads them is a DequantizeLinear, perhaps behind operators that move elements."""
    kind = node.get("output_dtype", 0)
    if kind not in _INTEGERS:
        raise node.refused(
            "it makes integers of a type that is not known here" if kind else "the type of its integers is not known",
            "int8, uint8, int16 and uint16 are read, with the zero point as a constant of that type",
        )
    levels = torch.round(x / _per_axis(node, x, scale))
    if zero is not None:
        levels = levels + _per_axis(node, x, zero).to(torch.float32)
    return torch.clamp(levels, *_INTEGERS[kind])


OPERATORS: dict[str, Callable[..., Any]] = {"DequantizeLinear": _dequantize, "QuantizeLinear": _quantize}

QONNX: dict[str, Callable[..., Any]] = {"BipolarQuant": _bipolar, "IntQuant": _quant, "Quant": _quant}
