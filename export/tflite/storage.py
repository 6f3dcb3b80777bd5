"""How a constant of the graph lies in the tensors of the file, and how it is read back, to the last bit.

A record is a JSON object: ``form`` is a key of the table below, ``tensors`` are names (left out where it is the constant's own).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bdnet_deploy.export.tflite.packing import unpack
from bdnet_deploy.export.tflite.schema import Array

Record = dict[str, Any]


def _same(record: Record, data: Sequence[Array], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """The elements in their order, perhaps of another type; several tensors are parts along the first axis."""
    return np.concatenate([d.reshape(-1) for d in data])


def _times(record: Record, data: Sequence[Array], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """The elements times ``factor``, a power of two, or 0 minus the elements where it is -1."""
    factor = np.float32(record["factor"])
    return np.float32(0) - data[0] if factor == -1 else data[0] / factor


def _depthwise(record: Record, data: Sequence[Array], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A depth-wise filter (1, kh, kw, O) for one of (O, kh, kw, 1)."""
    return data[0].transpose(3, 1, 2, 0)


def _packed(record: Record, data: Sequence[Array], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Packed bits; several tensors are parts along the first axis."""
    return np.concatenate([unpack(d.reshape(-1, d.shape[-1]), shape[-1]) for d in data])


def _planes(record: Record, data: Sequence[Array], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Trits: the tensors are low and high planes in turns, parts along the first axis."""
    low, high = (_packed(record, data[i::2], shape, dtype) for i in (0, 1))
    if (low < high).any():
        raise ValueError("the planes of ternary weights contradict each other")
    return (low + high) // 2


def _packed_taps(record: Record, data: Sequence[Array], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A depth-wise filter (O, kh, kw, 1) packed by tap (kh, kw, words): bits, or the two planes of trits."""
    taps = [unpack(d.reshape(-1, d.shape[-1]), shape[0]) for d in data]
    mean = (taps[0] + taps[-1]) // 2
    return mean.reshape(shape[1], shape[2], shape[0]).transpose(2, 0, 1)


def _limit(record: Record, data: Sequence[Array], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A threshold t on sums of K products as the number (K - t) // 2 of negative ones; ``odd`` has the remainders."""
    limit = data[0].astype(np.int64)
    odd = np.unpackbits(np.frombuffer(bytes.fromhex(record["odd"]), np.uint8), count=limit.size)
    return int(record["taps"]) - 2 * limit - odd


_FORMS: dict[str, Callable[[Record, Sequence[Array], tuple[int, ...], np.dtype[Any]], Array]] = {
    "same": _same,
    "times": _times,
    "depthwise": _depthwise,
    "packed": _packed,
    "packed_taps": _packed_taps,
    "planes": _planes,
    "limit": _limit,
}
#: Elements that a constant without a tensor may have.
MAX_FILL = 1 << 20


def limit_record(tensor: str, taps: int, thresholds: Array) -> Record:
    """The record of form "limit"."""
    odd = (taps - thresholds.astype(np.int64)) & 1
    return {
        "form": "limit",
        "tensors": [tensor],
        "taps": taps,
        "odd": np.packbits(odd.astype(np.uint8)).tobytes().hex(),
    }


def decode(
    record: Record, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], find: Callable[[str], Array]
) -> Array:
    """The constant ``name`` of the graph.

    Args:
        record: how it lies in the file.
        shape, dtype: of the constant.
        find: the content of a tensor.

    Raises:
        KeyError, ValueError, TypeError: the record does not fit the file.
    """
    if record["form"] == "fill":
        if int(np.prod(shape, dtype=np.float64)) > MAX_FILL:
            raise ValueError(f"a constant of shape {shape} without content")
        return np.full(shape, record["value"], dtype)
    tensors = [find(str(t)) for t in record.get("tensors", [name])]
    with np.errstate(all="ignore"):
        data = _FORMS[record["form"]](record, tensors, shape, dtype)
        return np.ascontiguousarray(data.reshape(shape).astype(dtype))
