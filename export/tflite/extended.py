"""Profile "extended": depth-wise layers of bits and trits as one operator of ours, ``BdDepthwiseConv2d``.

Larq Compute Engine has no binary depth-wise convolution, so stock files unpack the map to int8. Ours reads and writes
packed words. ``runtime/tflite/`` has it for TensorFlow Lite interpreters, beside Larq's operators.

``inputs`` of the operator, absent ones are -1 and may be left out at the end:

0. map: int32 (N, H, W, words), bits, or trits' plane of the lower threshold
1. trits' plane of the higher threshold, or absent
2. weights: int32 (kernel height, kernel width, words of channels_out), bits, or ternary weights' first plane
3. ternary weights' second plane, or absent
4. multiplier: float32 (channels_out,), or absent: 1
5. bias: float32 (channels_out,), or absent: 0
6. threshold: int32 (channels_out,), or absent
7. a second threshold, no lower than the first, or absent

``outputs``: float32 ``acc * multiplier + bias``; int8 of the same; int32 ``acc``; with a threshold, packed int32 bits that
are 1 (for -1) where ``acc < threshold``, and with two thresholds the two planes of a trit. ``options`` are the integers
of :class:`Options` as a FlexBuffer map. In all planes a bit of 1 counts -1, 32 channels a word from the lowest bit on; a trit
is 1 minus its two bits, so 0 is (0, 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from flatbuffers import flexbuffers

from bdnet_deploy.export.tflite.builder import I32
from bdnet_deploy.export.tflite.encoding import PLANES
from bdnet_deploy.export.tflite.forms import BINARY, TERNARY
from bdnet_deploy.export.tflite.geometry import Product
from bdnet_deploy.export.tflite.packing import pack, words
from bdnet_deploy.export.tflite.schema import ABSENT, Operator
from bdnet_deploy.graph import DType, Value

if TYPE_CHECKING:
    from bdnet_deploy.export.tflite.lowering import Lowering

Array = npt.NDArray[Any]

#: Name of the operator.
NAME = "BdDepthwiseConv2d"
#: Most taps of a filter: both planes of all are counted in a byte.
MOST_TAPS = 127


@dataclass(frozen=True)
class Options:
    """Integers of the operator. ``channels_out`` is a multiple of ``channels_in``; ``pad_value`` is -1, 0 or 1."""

    channels_in: int
    channels_out: int
    stride_height: int = 1
    stride_width: int = 1
    dilation_height: int = 1
    dilation_width: int = 1
    pad_top: int = 0
    pad_bottom: int = 0
    pad_left: int = 0
    pad_right: int = 0
    pad_value: int = 0

    def to_bytes(self) -> bytes:
        """The custom options of the operator."""
        return bytes(flexbuffers.Dumps(asdict(self)))

    @staticmethod
    def from_bytes(data: bytes) -> Options:
        """The reverse of :meth:`to_bytes`.

        Raises:
            ValueError: ``data`` is no FlexBuffer map of these integers.
        """
        try:
            content = flexbuffers.Loads(data)
            return Options(**{k: int(v) for k, v in content.items()})
        except Exception as e:
            raise ValueError(f"no options of {NAME}") from e


def unpack(planes: Sequence[Array], channels: int) -> Array:
    """int8 values (..., channels) of packed int32 planes (..., words): one plane of bits, or two of trits."""
    bits = [
        np.unpackbits(np.ascontiguousarray(p, "<i4").view(np.uint8), axis=-1, bitorder="little")[..., :channels]
        for p in planes
    ]
    return np.int8(1) - bits[0].view(np.int8) - bits[-1].view(np.int8)


def planes(values: Array) -> list[Array]:
    """The packed int32 planes of values in {-1, 0, 1}: one if none is 0, else two."""
    if np.all(values != 0):
        return [pack(values)]
    return [pack(np.where(values < 0, -1, 1)), pack(np.where(values <= 0, -1, 1))]


def accumulators(x: Array, weights: Array, options: Options) -> Array:
    """int32 (N, H', W', channels_out) sums of x (N, H, W, channels_in) and weights (kernel height, width, channels_out).

    Both hold -1, 0 or 1. This is what the operator computes, whatever becomes of it.
    """
    o = options
    amounts = ((0, 0), (o.pad_top, o.pad_bottom), (o.pad_left, o.pad_right), (0, 0))
    x = np.pad(x.astype(np.int32), amounts, constant_values=o.pad_value)
    x = np.repeat(x, o.channels_out // o.channels_in, axis=-1)
    height, width = weights.shape[:2]
    rows = (x.shape[1] - (height - 1) * o.dilation_height - 1) // o.stride_height + 1
    columns = (x.shape[2] - (width - 1) * o.dilation_width - 1) // o.stride_width + 1
    total = np.zeros((x.shape[0], rows, columns, o.channels_out), np.int32)
    for i in range(height):
        for j in range(width):
            top, left = i * o.dilation_height, j * o.dilation_width
            window = x[:, top:, left:][:, :: o.stride_height, :: o.stride_width][:, :rows, :columns]
            total += window * weights[i, j].astype(np.int32)
    return total


def evaluate(
    inputs: Sequence[Array | None],
    options: Options,
    dtype: npt.DTypeLike,
    scale: float = 1.0,
    zero_point: int = 0,
) -> list[Array]:
    """The operator in numpy: its outputs, byte for byte.

    Args:
        inputs: as the module says, None for absent ones.
        options: the integers.
        dtype: element type of output 0: float32, int8 or int32.
        scale: of an int8 output.
        zero_point: of an int8 output.
    """
    given = list(inputs) + [None] * (8 - len(inputs))
    x, second, weights, others, multiplier, bias, low, high = given
    assert x is not None and weights is not None
    o = options
    value = unpack([x] if second is None else [x, second], o.channels_in)
    taps = unpack([weights] if others is None else [weights, others], o.channels_out)
    acc = accumulators(value, taps, o)
    thresholds = [t for t in (low, high) if t is not None]
    if thresholds:
        return [pack(np.where(acc < t, -1, 1)) for t in thresholds]
    kind = np.dtype(dtype)
    if kind == np.int32:
        return [acc]
    ones, zeros = np.ones(o.channels_out), np.zeros(o.channels_out)
    m, a = (
        default if given is None else given.astype(np.float64) for given, default in ((multiplier, ones), (bias, zeros))
    )
    if kind == np.float32:
        return [acc.astype(np.float32) * m.astype(np.float32) + a.astype(np.float32)]
    step = float(np.float32(scale))
    y = acc.astype(np.float32) * (m / step).astype(np.float32) + (a / step + zero_point).astype(np.float32)
    # Ties away from zero; float64 holds y + 0.5 exactly.
    rounded = np.copysign(np.floor(np.abs(y.astype(np.float64)) + 0.5), y)
    return [np.clip(rounded, -128, 127).astype(np.int8)]


# -- emission ---------------------------------------------------------------------------------------------------------


def takes(low: Lowering, p: Product) -> bool:
    """Whether the profile has the operator, and it computes this product: depth-wise, of bits or trits, with few taps."""
    packed = {p.x.type.dtype, p.dtype} <= {DType.BIT, DType.TRIT}
    return low.profile == "extended" and packed and p.is_depthwise and p.taps <= MOST_TAPS


def sums(low: Lowering, p: Product, mul: Value | None = None, add: Value | None = None) -> int:
    """float32 tensor of ``sums * mul + add``."""
    inputs = [ABSENT if v is None else low.parameter(v) for v in (mul, add)]
    output = low.b.tensor(f"{p.node.name}/acc", p.out_shape)
    _emit(low, p, inputs, (output,), "float out")
    return output


def signs(low: Lowering, p: Product, thresholds: Sequence[Value], name: str) -> tuple[int, ...]:
    """Packed planes of the signs of ``sums - threshold``, one for each int32 threshold."""
    inputs = [ABSENT, ABSENT]
    for threshold in thresholds:
        assert threshold.data is not None
        inputs.append(low.b.constant(threshold.name, threshold.data.astype(np.int32)))
        low.stored.setdefault(threshold.name, {"form": "same", "tensors": [low.b.name(inputs[-1])]})
    shape = (*p.out_shape[:3], words(p.outputs))
    outputs = tuple(low.b.tensor(f"{name}/bits", shape, I32) for _ in thresholds)
    _emit(low, p, inputs, outputs, "bits out" if len(outputs) == 1 else "trits out")
    return outputs


def _emit(low: Lowering, p: Product, rest: Sequence[int], outputs: tuple[int, ...], what: str) -> None:
    sources = [low.repeat_border(t, p) for t in low.planes(p.x)]
    filters = planes(p.weights[..., 0].transpose(1, 2, 0)) if p.dtype is DType.TRIT else [_by_tap(p)]
    weights = []
    for i, data in enumerate(filters):
        suffix = "weights" if len(filters) == 1 else f"weights/{PLANES[i]}"
        weights.append(low.b.constant(f"{p.node.name}/{suffix}", data))
        low.forms.kinds[weights[-1]] = BINARY if p.dtype is DType.BIT else TERNARY
    if p.constant is not None:
        names = [low.b.name(t) for t in weights]
        low.stored.setdefault(p.constant.name, {"form": "packed_taps", "tensors": names})
    top, bottom, left, right = (0, 0, 0, 0) if p.repeats_border else p.op.padding
    options = Options(
        p.shape[3],
        p.outputs,
        *p.op.strides,
        *p.op.dilation,
        pad_top=top,
        pad_bottom=bottom,
        pad_left=left,
        pad_right=right,
        pad_value=p.op.pad_value if any((top, bottom, left, right)) else 0,
    )
    inputs = [*(*sources, ABSENT)[:2], *(*weights, ABSENT)[:2], *rest]
    while inputs[-1] == ABSENT:
        inputs.pop()
    low.model.operators.append(Operator(NAME, tuple(inputs), outputs, custom_options=options.to_bytes()))
    size = sum(data.nbytes for data in filters)
    low.forms.add(p.node, f"{NAME}, {what}", {"binary": p.macs}, weight_bytes=size)


def _by_tap(p: Product) -> Array:
    """Binary weights OHW1 as packed words (kernel height, kernel width, words)."""
    return pack(p.weights[..., 0].transpose(1, 2, 0))
