"""Convolution and linear layers of every operand type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdnet_deploy.graph.dtypes import Array, DType, Quant, TensorType
from bdnet_deploy.graph.op import Op, check, register


def _product_type(x: TensorType, w: TensorType, shape: tuple[int, ...]) -> TensorType:
    """Accumulators: i32 for integer operands, f32 when an operand is real (f64 before rounding)."""
    if DType.F64 in (x.dtype, w.dtype):
        return TensorType(shape, DType.F64)
    if x.dtype.is_float or w.dtype.is_float:
        return TensorType(shape, DType.F32)
    if x.quant is None and w.quant is None:
        return TensorType(shape, DType.I32)
    sx = x.quant.scale if x.quant else np.float64(1.0)
    sw = w.quant.scale if w.quant else np.float64(1.0)
    check(np.ndim(sx) == 0, "the input of a convolution needs one scale per tensor")
    return TensorType(shape, DType.I32, Quant.of(sx * sw))


def _operand(x: Array, type_: TensorType, acc: DType) -> Array:
    """The factor that enters the products: zero point taken off, in the accumulator's arithmetic."""
    if type_.quant is not None and np.any(type_.quant.zero_point):
        check(bool(np.all(type_.quant.zero_point == np.rint(type_.quant.zero_point))), "fractional zero point")
        x = x.astype(np.int64) - type_.quant.zero_point.astype(np.int64)
    # Integers are exact in double (|sum| < 2**53) and BLAS makes the reference quick.
    return x.astype(np.float64 if acc is DType.I32 else acc.numpy)


def border_classes(size: int, kernel: int, stride: int, dilation: int, before: int, outputs: int) -> Array:
    """Class (outputs,) of each output row or column, by which taps of its window lie in 0 .. ``size`` - 1."""
    starts = np.arange(outputs) * stride - before
    at = starts[:, None] + np.arange(kernel) * dilation
    inside = (at >= 0) & (at < size)
    known: dict[bytes, int] = {}
    return np.array([known.setdefault(row.tobytes(), len(known)) for row in inside])


#: A padding value: each pixel outside the map is the nearest one inside.
REPLICATE = 2


@register
@dataclass(frozen=True)
class Conv2d(Op):
    """2-D convolution (cross-correlation): ``y[oy, ox, o] = sum x[oy*sh + ky*dh - pt, ..., ci] * w[o, ky, kx, ci]``.

    Inputs: x ``(1, H, W, C)``; w ``(O, kh, kw, C / groups)``. Depth-wise is ``groups == C``. Operands of any dtype:
    two of bit, trit, u8, i8, i16 give i32 accumulators; a real operand gives real ones. No bias: an Affine follows.

    Padding is explicit per side and has the value ``pad_value`` in {-1, 0, +1}, in the units of the real
    input (a quantized input's padding of 0 is its zero point), or is :data:`REPLICATE`.

    With a third input, i32 ``(row classes, column classes, O)``, the raw integers of x are convolved, padded with 0, and
    it is added: the scales and zero points of x, one a channel, lie in the weights and in it. Output rows (and columns)
    are of one class where the same taps lie inside the map (:func:`border_classes`).

    Real accumulation: one accumulator per output starting at +0, terms ascending in (ky, kx, ci), each product and
    each sum rounded, padded taps left out when the padding is 0.
    """

    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, bottom, left, right
    pad_value: int = 0
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def output_size(self, height: int, width: int, kh: int, kw: int) -> tuple[int, int]:
        top, bottom, left, right = self.padding
        oh = (height + top + bottom - (kh - 1) * self.dilation[0] - 1) // self.strides[0] + 1
        ow = (width + left + right - (kw - 1) * self.dilation[1] - 1) // self.strides[1] + 1
        return oh, ow

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        x, w = types[:2]
        check(len(types) in (2, 3), "needs an input, weights and perhaps corrections of the border")
        check(len(x.shape) == 4 and len(w.shape) == 4, f"needs x NHWC and w OHWI, got {x} and {w}")
        check(self.groups > 0 and w.shape[0] % self.groups == 0, f"{w.shape[0]} outputs in {self.groups} groups")
        check(
            x.channels == w.shape[3] * self.groups,
            f"{x.channels} input channels, but the filter takes {w.shape[3]} x {self.groups} groups",
        )
        values = (0, 1, REPLICATE) if x.dtype is DType.UBIT else (-1, 0, 1, REPLICATE)
        check(self.pad_value in values, f"padding value {self.pad_value} for {x.dtype.value}")
        check(min(self.padding) >= 0 and min(self.strides) > 0 and min(self.dilation) > 0, "negative geometry")
        oh, ow = self.output_size(x.shape[1], x.shape[2], w.shape[1], w.shape[2])
        check(oh > 0 and ow > 0, f"filter {w.shape[1]}x{w.shape[2]} is larger than the padded map of {x}")
        if len(types) == 2:
            return _product_type(x, w, (1, oh, ow, w.shape[0]))
        check(
            not x.dtype.is_float and not w.dtype.is_float and self.pad_value == 0,
            "borders are for integers, padded with 0",
        )
        rows, columns = self.classes(x, w)
        expected = (int(rows.max()) + 1, int(columns.max()) + 1, w.shape[0])
        check(
            types[2].shape == expected and types[2].dtype is DType.I32, f"{types[2]} as border, expected i32 {expected}"
        )
        return TensorType((1, oh, ow, w.shape[0]), DType.I32)

    def classes(self, x: TensorType, w: TensorType) -> tuple[Array, Array]:
        """Border classes of the output's rows and columns."""
        sides = zip(x.shape[1:3], w.shape[1:3], self.strides, self.dilation, self.padding[::2], strict=True)
        outputs = self.output_size(*x.shape[1:3], *w.shape[1:3])
        rows, columns = (border_classes(*side, count) for side, count in zip(sides, outputs, strict=True))
        return rows, columns

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        x = arrays[0].astype(np.float64) if len(types) == 3 else _operand(arrays[0], types[0], out.dtype)
        w = _operand(arrays[1], types[1], out.dtype)
        n = x.shape[0]
        _, oh, ow, outputs = out.shape
        top, bottom, left, right = self.padding
        sides = ((0, 0), (top, bottom), (left, right), (0, 0))
        if self.pad_value == REPLICATE:
            padded = np.pad(x, sides, mode="edge")
        else:
            padded = np.pad(x, sides, constant_values=self.pad_value)
        per_in, per_out = w.shape[3], outputs // self.groups
        acc = np.zeros((n, oh, ow, self.groups, per_out), x.dtype)
        for ky in range(w.shape[1]):
            for kx in range(w.shape[2]):
                y0, x0 = ky * self.dilation[0], kx * self.dilation[1]
                window = padded[
                    :,
                    y0 : y0 + (oh - 1) * self.strides[0] + 1 : self.strides[0],
                    x0 : x0 + (ow - 1) * self.strides[1] + 1 : self.strides[1],
                ].reshape(n, oh, ow, self.groups, per_in)
                taps = w[:, ky, kx].reshape(self.groups, per_out, per_in)
                if out.dtype is DType.F32:
                    for ci in range(per_in):
                        acc = acc + window[..., ci, None] * taps[..., ci]
                elif per_in == 1:
                    acc += window * taps[..., 0]
                else:
                    acc += np.einsum("nyxgi,goi->nyxgo", window, taps, optimize=True)
        acc = acc.reshape(n, oh, ow, outputs)
        if len(types) == 3:
            rows, columns = self.classes(types[0], types[1])
            acc = acc + arrays[2][rows][:, columns]
        return acc.astype(np.int32) if out.dtype is DType.I32 else acc


@register
@dataclass(frozen=True)
class Linear(Op):
    """Matrix product ``y[o] = sum_i x[i] * w[o, i]`` of x ``(1, I)`` and w ``(O, I)``; accumulators as in Conv2d."""

    def infer(self, types: Sequence[TensorType]) -> TensorType:
        x, w = types
        check(len(x.shape) == 2 and len(w.shape) == 2, f"needs x (1, I) and w (O, I), got {x} and {w}")
        check(x.shape[1] == w.shape[1], f"{x.shape[1]} features, but the weights take {w.shape[1]}")
        return _product_type(x, w, (1, w.shape[0]))

    def reference(self, types: Sequence[TensorType], arrays: Sequence[Array], out: TensorType) -> Array:
        x = _operand(arrays[0], types[0], out.dtype)
        w = _operand(arrays[1], types[1], out.dtype)
        if out.dtype is not DType.F32:
            product: Array = x @ w.T
            return product.astype(np.int32) if out.dtype is DType.I32 else product
        acc = np.zeros((x.shape[0], w.shape[0]), np.float32)
        for i in range(w.shape[1]):
            acc = acc + x[:, i, None] * w[:, i]
        return acc
