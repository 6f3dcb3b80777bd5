"""From a storage's bytes to numpy arrays, every size checked before memory is taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bdnet_deploy.checkpoint.pickles import DamagedError, LazyTensor, Storage

_FLOATS = ("float16", "float32", "float64", "complex64", "complex128")
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_NUMPY_TYPES: dict[str, np.dtype[Any]] = {name: np.dtype(name) for name in (*_FLOATS, *_INTEGERS)}
# Read as integers, then converted: numpy has no bfloat16, and a byte of a damaged bool may be neither 0 nor
# 1.
_NUMPY_TYPES |= {"bool": np.dtype(np.uint8), "bfloat16": np.dtype(np.uint16)}

_MAX_AXES = 32
_SPARE_BYTES = 64 << 20


def item_size(dtype: str) -> int | None:
    """Bytes of one element, or None for a type that cannot be read (float8, quantized, ...)."""
    known = _NUMPY_TYPES.get(dtype)
    return None if known is None else known.itemsize


class TensorReader:
    """Makes arrays of :class:`LazyTensor`.

    Expanded views and tensors that share a storage can be far larger than the file: together they may take
    four times the size of the file and 64 MiB.

    Args:
        read: the bytes of a storage, which must be ``numel`` elements long; raises DamagedError.
        file_size: in bytes.
        big_endian: byte order of the elements.
    """

    def __init__(self, read: Callable[[Storage], bytes], file_size: int, big_endian: bool = False) -> None:
        self._read = read
        self._left = 4 * file_size + _SPARE_BYTES
        self._order: Literal[">", "<"] = ">" if big_endian else "<"
        self._cache: dict[str, bytes] = {}

    def array(self, tensor: LazyTensor) -> npt.NDArray[Any]:
        """The tensor as a contiguous array of its own; bfloat16 becomes float32.

        Raises:
            DamagedError: an unknown type, or sizes, strides and offset that do not fit the storage or the
                bounds.
        """
        dtype = _NUMPY_TYPES.get(tensor.dtype)
        if dtype is None:
            raise DamagedError(f"its element type {tensor.dtype[:40]} cannot be read")
        size, stride, offset = self._geometry(tensor)
        elements = math.prod(size)
        self._left -= elements * max(dtype.itemsize, 4)
        if self._left < 0:
            raise DamagedError("it and the tensors before it are larger than the file allows")
        if not elements:
            return np.zeros(size, _final_type(tensor.dtype))
        storage = tensor.storage
        if storage.key not in self._cache:
            self._cache[storage.key] = self._read(storage)
        width = item_size(storage.dtype)
        if width is None:
            raise DamagedError(f"the type of its storage, {storage.dtype[:40]}, cannot be read")
        part = memoryview(self._cache[storage.key])[storage.start * width : (storage.start + storage.count) * width]
        last = offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True))
        if (last + 1) * dtype.itemsize > len(part):
            raise DamagedError("it reaches beyond its storage")
        flat = np.frombuffer(part, dtype.newbyteorder(self._order), last + 1 - offset, offset * dtype.itemsize)
        view = np.lib.stride_tricks.as_strided(flat, size, [step * dtype.itemsize for step in stride], writeable=False)
        if tensor.dtype == "bfloat16":
            return (view.astype(np.uint32, order="C") << 16).view(np.float32)
        return np.array(view, _final_type(tensor.dtype), order="C")

    def _geometry(self, tensor: LazyTensor) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        size, stride, offset = tensor.size, tensor.stride, tensor.offset
        if not (isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= _MAX_AXES):
            raise DamagedError("its shape is damaged")
        for number in (*size, *stride, offset):
            if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**48:
                raise DamagedError("its shape has numbers that cannot be")
        if math.prod(max(extent, 1) for extent in size) >= 2**48:
            raise DamagedError("its shape is absurdly large")
        # The stride of an axis of one element means nothing and may be anything.
        steps = tuple(step if extent > 1 else 0 for extent, step in zip(size, stride, strict=True))
        return size, steps, offset


def _final_type(dtype: str) -> np.dtype[Any]:
    if dtype == "bool":
        return np.dtype(np.bool_)
    return np.dtype(np.float32) if dtype == "bfloat16" else _NUMPY_TYPES[dtype]
