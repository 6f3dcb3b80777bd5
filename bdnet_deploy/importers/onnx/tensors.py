"""Initializers as tensors: every size is checked before memory is taken, and external data stay in the file's folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from bdnet_deploy.errors import ModelFileError, UnsupportedError
from bdnet_deploy.importers.program import text

_P = onnx.TensorProto
_TYPES: dict[int, str] = {
    _P.FLOAT: "<f4",
    _P.DOUBLE: "<f8",
    _P.FLOAT16: "<f2",
    _P.BFLOAT16: "<u2",
    _P.INT8: "<i1",
    _P.INT16: "<i2",
    _P.INT32: "<i4",
    _P.INT64: "<i8",
    _P.UINT8: "<u1",
    _P.UINT16: "<u2",
    _P.UINT32: "<u4",
    _P.UINT64: "<u8",
    _P.BOOL: "<u1",
}
_FLOATS = (_P.FLOAT, _P.DOUBLE, _P.FLOAT16, _P.BFLOAT16)
# Where the numbers lie that are not raw; half-precision ones are the bits of a float in an int32.
_FIELDS = {
    _P.FLOAT: "float_data",
    _P.DOUBLE: "double_data",
    _P.INT64: "int64_data",
    _P.UINT32: "uint64_data",
    _P.UINT64: "uint64_data",
}
_SPARE_BYTES = 64 << 20


def is_float(elem_type: int) -> bool:
    return elem_type in _FLOATS


def torch_type(elem_type: int) -> torch.dtype | None:
    """The type in which values of an ONNX type are computed: every float is float32, every integer int64."""
    if elem_type in _FLOATS:
        return torch.float32
    if elem_type == _P.BOOL:
        return torch.bool
    return torch.int64 if elem_type in _TYPES else None


class TensorReader:
    """Reads the tensors of one file.

    Tensors may share bytes of a ``.data`` file: together they may take four times the size of all files and 64 MiB.

    Args:
        folder: of the ``.onnx`` file.
        size: of the ``.onnx`` file, in bytes.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._left = 4 * size + _SPARE_BYTES
        self._external: dict[str, np.memmap[Any, Any]] = {}

    def read(self, proto: Any, where: str) -> Tensor:
        """Float32, bool or int64.

        Raises:
            ModelFileError: sizes that do not fit, or a ``.data`` file that is missing or outside of the folder.
            UnsupportedError: strings, complex numbers and other types that networks do not have; NaN.
        """
        if proto.data_type not in _TYPES:
            kind = _P.DataType.Name(proto.data_type) if proto.data_type in _P.DataType.values() else proto.data_type
            raise UnsupportedError(
                f"the tensor '{text(proto.name)}' has the type {kind}",
                where=where or None,
                fix="float and integer tensors are read",
            )
        shape = tuple(proto.dims)
        if min(shape, default=0) < 0 or len(shape) > 32:
            raise self._damaged(proto, where, "its shape is damaged")
        self._left -= math.prod(shape) * 4
        if self._left < 0:
            raise self._damaged(proto, where, "it and the tensors before it are larger than the file allows")
        values = self._values(proto, where, math.prod(shape)).reshape(shape)
        if proto.data_type == _P.BOOL:
            return torch.from_numpy(np.asarray(values != 0))
        if proto.data_type not in _FLOATS:
            return torch.from_numpy(np.asarray(values.astype(np.int64)))
        with np.errstate(all="ignore"):
            tensor = torch.from_numpy(np.array(values, np.float32, order="C"))
        if bool(torch.isnan(tensor).any()):
            raise UnsupportedError(
                f"the initializer '{text(proto.name) or where}' holds NaN",
                where=where or None,
                why="no numerics can carry it",
                fix="train again, or repair the checkpoint, and export anew",
            )
        return tensor

    def _values(self, proto: Any, where: str, count: int) -> Any:
        dtype = np.dtype(_TYPES[proto.data_type])
        if proto.data_location == _P.EXTERNAL:
            data: Any = self._external_bytes(proto, where, count * dtype.itemsize)
        elif proto.HasField("raw_data"):
            data = proto.raw_data
        else:
            values = np.array(getattr(proto, _FIELDS.get(proto.data_type, "int32_data")))
            if values.size != count:
                raise self._damaged(proto, where, f"it has {values.size} of {count} numbers")
            if proto.data_type in (_P.FLOAT16, _P.BFLOAT16):
                values = values.astype(np.uint16)
            return _decode(values.astype(dtype) if proto.data_type != _P.FLOAT16 else values.view(dtype), proto)
        if len(data) != count * dtype.itemsize:
            raise self._damaged(proto, where, f"it has {len(data)} of {count * dtype.itemsize} bytes")
        return _decode(np.frombuffer(data, dtype, count), proto)

    def _external_bytes(self, proto: Any, where: str, size: int) -> Any:
        record = {entry.key: entry.value for entry in proto.external_data}
        location = text(record.get("location", ""), 1000)
        if location not in self._external:
            self._external[location] = self._map(location, proto, where)
        data = self._external[location]
        offset, length = (record.get(key, default) for key, default in (("offset", "0"), ("length", str(size))))
        if not (offset.isdecimal() and length.isdecimal()) or len(offset) > 18 or int(length) != size:
            raise self._damaged(proto, where, "its place in the external file is damaged")
        if int(offset) + size > data.size:
            raise self._damaged(proto, where, f"the external file '{location}' is too short: it is of another export")
        return data[int(offset) : int(offset) + size].tobytes()

    def _map(self, location: str, proto: Any, where: str) -> np.memmap[Any, Any]:
        path = self._folder / location
        folder = self._folder.resolve()
        try:
            inside = bool(location) and "\0" not in location and path.resolve().is_relative_to(folder)
        except (OSError, RuntimeError, ValueError):
            inside = False
        if not inside or Path(location).is_absolute():
            raise ModelFileError(
                f"the tensor '{text(proto.name)}' lies in a file outside of the model's folder",
                where=where or None,
                why=f"external data at '{location[:200]}'",
                fix="put the weights beside the .onnx file and export again",
            )
        if not path.is_file():
            raise ModelFileError(
                f"the weights are missing: there is no file '{location[:200]}' beside the model",
                where=where or None,
                why="torch.onnx.export keeps large weights in a second file",
                fix=f"copy '{location[:200]}' to {self._folder}, under that name, "
                "or export with torch.onnx.export(..., external_data=False)",
            )
        size = path.stat().st_size
        self._left += 4 * size
        try:
            return np.memmap(path, np.uint8, "r") if size else np.zeros(0, np.uint8)  # type: ignore[return-value]
        except OSError as error:
            raise ModelFileError("the file cannot be read", where=str(path), why=error.strerror) from error

    def _damaged(self, proto: Any, where: str, why: str) -> ModelFileError:
        return ModelFileError(
            f"the tensor '{text(proto.name)}' cannot be read",
            where=where or None,
            why=why,
            fix="export the model again",
        )


def _decode(values: Any, proto: Any) -> Any:
    if proto.data_type == _P.BFLOAT16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values
