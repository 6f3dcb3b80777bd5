"""Appends operators to a TensorFlow Lite model: built-in ones and those of Larq Compute Engine (LCE).

Methods take and return tensor indices. LCE's operators are described in its source,
``larq_compute_engine/tflite/kernels``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flatbuffers import flexbuffers

from bdnet_deploy.export.names import Names
from bdnet_deploy.export.tflite.packing import words
from bdnet_deploy.export.tflite.schema import ABSENT, Array, Model, Operator, Tensor, TensorKind

SAME, VALID = 0, 1
F32, I32, I8 = TensorKind.FLOAT32, TensorKind.INT32, TensorKind.INT8
#: Versions of the built-in operators that int8 needs.
_INT8_VERSION = {"ADD": 2, "PAD": 2, "PADV2": 2, "DEQUANTIZE": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3}
_INT8_VERSION |= {"FULLY_CONNECTED": 4, "MUL": 2, "AVERAGE_POOL_2D": 2, "MAX_POOL_2D": 2, "RESHAPE": 1, "MEAN": 2}


class Builder:
    """Holds the model that grows."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._names = Names(t.name for t in model.tensors)

    # -- tensors ----------------------------------------------------------------------------------------------------

    def unique(self, name: str) -> str:
        """A tensor's name that is not taken."""
        return self._names.unique(name)

    def tensor(self, name: str, shape: Sequence[int], kind: TensorKind = F32, scale: float | None = None) -> int:
        """A tensor that an operator or the caller fills; int8 stands for ``value * scale``."""
        quantization = None if scale is None else np.array([scale], np.float32)
        self.model.tensors.append(Tensor(self.unique(name), tuple(map(int, shape)), kind, scale=quantization))
        return len(self.model.tensors) - 1

    def constant(self, name: str, data: Array, scale: Array | None = None, axis: int = 0) -> int:
        """A constant of float32, int32 or int8, whichever ``data`` has."""
        kind = {"f": F32, "i": I8 if data.dtype.itemsize == 1 else I32}[data.dtype.kind]
        content = np.ascontiguousarray(data, kind.numpy)
        self.model.tensors.append(Tensor(self.unique(name), content.shape, kind, content, scale, axis))
        return len(self.model.tensors) - 1

    def shape(self, index: int) -> tuple[int, ...]:
        return self.model.tensors[index].shape

    def name(self, index: int) -> str:
        return self.model.tensors[index].name

    # -- built-in operators -----------------------------------------------------------------------------------------

    def op(self, operator: str, inputs: Sequence[int], output: int, **options: float) -> int:
        """Append a built-in operator that fills ``output``; returns ``output``."""
        kind = self.model.tensors[inputs[0]].kind
        version = _INT8_VERSION.get(operator, 1) if kind is I8 else 1
        self.model.operators.append(Operator(operator, tuple(inputs), (output,), options, version=version))
        return output

    def unary(self, operator: str, x: int, name: str, **options: float) -> int:
        """A float operator of one operand that keeps the shape."""
        return self.op(operator, (x,), self.tensor(name, self.shape(x)), **options)

    def binary(self, operator: str, a: int, b: int, name: str, kind: TensorKind = F32, **options: int) -> int:
        """An operator of two operands, of which the smaller is repeated over the axes that it lacks or has once."""
        shape = np.broadcast_shapes(self.shape(a), self.shape(b))
        return self.op(operator, (a, b), self.tensor(name, shape, kind), **options)

    def add(self, a: int, b: int, name: str) -> int:
        return self.binary("ADD", a, b, name, pot_scale_int16=0)

    def subtract(self, a: int, b: int, name: str) -> int:
        return self.binary("SUB", a, b, name, pot_scale_int16=0)

    def multiply(self, a: int, b: int, name: str) -> int:
        return self.binary("MUL", a, b, name)

    def reshape(self, x: int, shape: Sequence[int], name: str) -> int:
        target = self.constant(f"{name}/shape", np.array(shape, np.int32))
        return self.op("RESHAPE", (x, target), self.like(x, shape, name))

    def like(self, x: int, shape: Sequence[int], name: str) -> int:
        """A tensor of another shape whose elements are those of ``x``."""
        source = self.model.tensors[x]
        output = self.tensor(name, shape, source.kind)
        self.model.tensors[output].scale = source.scale
        return output

    def transpose(self, x: int, perm: Sequence[int], name: str) -> int:
        order = self.constant(f"{name}/perm", np.array(perm, np.int32))
        shape = [self.shape(x)[axis] for axis in perm]
        return self.op("TRANSPOSE", (x, order), self.like(x, shape, name))

    def gather(self, x: int, indices: Sequence[int] | Array, axis: int, name: str) -> int:
        """The elements ``indices`` of one axis."""
        taken = self.constant(f"{name}/indices", np.asarray(indices, np.int32))
        shape = [*self.shape(x)]
        shape[axis] = len(indices)
        return self.op("GATHER", (x, taken), self.like(x, shape, name), axis=axis)

    def strided_slice(self, x: int, begin: Sequence[int], end: Sequence[int], strides: Sequence[int], name: str) -> int:
        """``x[begin[0]:end[0]:strides[0], ...]``, of every axis, without negative numbers."""
        limits = [self.constant(f"{name}/{n}", np.array(v, np.int32)) for n, v in
                  (("begin", begin), ("end", end), ("strides", strides))]  # fmt: skip
        shape = [len(range(*limit)) for limit in zip(begin, end, strides, strict=True)]
        return self.op("STRIDED_SLICE", (x, *limits), self.like(x, shape, name))

    def concatenate(self, items: Sequence[int], name: str) -> int:
        """Along the last axis."""
        shape = (*self.shape(items[0])[:-1], sum(self.shape(i)[-1] for i in items))
        return self.op("CONCATENATION", items, self.like(items[0], shape, name), axis=len(shape) - 1)

    def reduce(self, operator: str, x: int, axes: Sequence[int], name: str, *, keep: bool = False) -> int:
        """``MEAN``, ``SUM`` or ``REDUCE_MAX`` over ``axes``, which disappear or, with ``keep``, become 1."""
        indices = self.constant(f"{name}/axes", np.array(axes, np.int32))
        shape = [1 if i in axes else s for i, s in enumerate(self.shape(x)) if keep or i not in axes]
        return self.op(operator, (x, indices), self.tensor(name, shape), keep_dims=int(keep))

    def pad(self, x: int, padding: tuple[int, int, int, int], value: int, name: str) -> int:
        """Pad height and width of NHWC (top, bottom, left, right) with ``value``, in the units that are stored."""
        return self.pad_axes(x, [(0, 0), padding[:2], padding[2:], (0, 0)], value, name)

    def pad_axes(self, x: int, amounts: Sequence[tuple[int, int]], value: float, name: str) -> int:
        """Elements ``value``, in the units that are stored, before and behind every axis."""
        source = self.model.tensors[x]
        sizes = self.constant(f"{name}/amounts", np.array(amounts, np.int32))
        fill = self.constant(f"{name}/value", np.array(value, source.kind.numpy), source.scale)
        shape = [a + n + b for n, (a, b) in zip(source.shape, amounts, strict=True)]
        return self.op("PADV2", (x, sizes, fill), self.like(x, shape, name))

    # -- operators of Larq Compute Engine -----------------------------------------------------------------------------

    def lce_quantize(self, x: int, name: str) -> int:
        """Bits of x < 0, packed along the last axis. x may hold no -0.0 (the Arm kernel looks at the raw sign)."""
        shape = self.shape(x)
        output = self.tensor(name, (*shape[:-1], words(shape[-1])), I32)
        self.model.operators.append(Operator("LceQuantize", (x,), (output,)))
        return output

    def lce_dequantize(self, x: int, channels: int, kind: TensorKind, name: str) -> int:
        """-1 or +1 as float32, or as int8 of scale 1."""
        scale = 1.0 if kind is I8 else None
        output = self.tensor(name, (*self.shape(x)[:-1], channels), kind, scale)
        self.model.operators.append(Operator("LceDequantize", (x,), (output,)))
        return output

    def lce_max_pool(self, x: int, kernel: tuple[int, int], strides: tuple[int, int], name: str) -> int:
        """The largest of the packed values of each window, without padding."""
        n, h, w, c = self.shape(x)
        size = [(s - k) // step + 1 for s, k, step in zip((h, w), kernel, strides, strict=True)]
        options = {"filter_height": kernel[0], "filter_width": kernel[1], "padding": VALID}
        options |= {"stride_height": strides[0], "stride_width": strides[1]}
        output = self.tensor(name, (n, *size, c), I32)
        custom = bytes(flexbuffers.Dumps(options))
        self.model.operators.append(Operator("LceBMaxPool2d", (x,), (output,), custom_options=custom))
        return output

    def lce_bconv2d(
        self,
        x: int,
        weights: int,
        output: int,
        channels_in: int,
        *,
        multiplier: int = ABSENT,
        bias: int = ABSENT,
        threshold: int = ABSENT,
        padding: int = VALID,
        pad_values: int = 0,
        strides: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        activation: int = 0,
    ) -> int:
        """Binary convolution of packed x and OHWI weights.

        With multiplier and bias (both (O,) float32): ``activation(dot) * multiplier + bias``. With threshold ((O,) int32): packed
        bits, -1 where more than threshold products are negative.
        """
        options = {
            "channels_in": channels_in,
            "dilation_height_factor": dilation[0],
            "dilation_width_factor": dilation[1],
            "fused_activation_function": activation,
            "pad_values": pad_values,
            "padding": padding,
            "stride_height": strides[0],
            "stride_width": strides[1],
        }
        custom = bytes(flexbuffers.Dumps(options))
        inputs = (x, weights, multiplier, bias, threshold)
        self.model.operators.append(Operator("LceBconv2d", inputs, (output,), custom_options=custom))
        return output
