"""Initializers as arrays, without PyTorch: sizes are those of the bytes that are there, other files stay in the model's folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from bdnet_deploy.errors import ModelFileError
from bdnet_deploy.graph import Array

#: ONNX's element types that graphs have, by number: FLOAT, UINT8, INT8, INT16, INT32.
_TYPES = {1: "<f4", 2: "<u1", 3: "<i1", 5: "<i2", 6: "<i4"}
_EXTERNAL = 1


class Stored:
    """Reads the initializers of one file.

    Args:
        folder: where the files of its external data lie; None: nowhere.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def read(self, proto: Any) -> Array:
        """The tensor.

        Raises:
            ModelFileError: external data are missing, or outside of the model's folder.
            ValueError: it is damaged.
        """
        if proto.data_type not in _TYPES:
            raise ValueError(f"'{proto.name[:80]}' has an element type that no graph has")
        dtype, shape = np.dtype(_TYPES[proto.data_type]), tuple(int(n) for n in proto.dims)
        if len(shape) > 4 or min(shape, default=1) < 1:
            raise ValueError(f"'{proto.name[:80]}' has no shape of a constant")
        size = math.prod(shape) * dtype.itemsize
        if proto.data_location == _EXTERNAL:
            data = self._external(proto, size)
        elif proto.HasField("raw_data"):
            data = proto.raw_data
        else:  # as other tools write it again
            values = np.array(proto.float_data if dtype.kind == "f" else proto.int32_data)
            data = values.astype(dtype).tobytes()
        if len(data) != size:
            raise ValueError(f"'{proto.name[:80]}' has {len(data)} of {size} bytes")
        return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))

    def _external(self, proto: Any, size: int) -> bytes:
        record = {entry.key: entry.value for entry in proto.external_data}
        location, offset = record.get("location", ""), record.get("offset", "0")
        path = self._find(location)
        try:
            if not (offset.isdecimal() and len(offset) < 18 and record.get("length", str(size)) == str(size)):
                raise ValueError(f"the place of '{proto.name[:80]}' in '{location[:80]}' is damaged")
            if int(offset) + size > path.stat().st_size:
                raise ValueError(f"'{location[:80]}' is too short for '{proto.name[:80]}'")
            with path.open("rb") as stream:
                stream.seek(int(offset))
                return stream.read(size)
        except OSError as error:
            raise ModelFileError("the file cannot be read", where=location[:200], why=error.strerror) from error

    def _find(self, location: str) -> Path:
        if self._folder is None:
            raise ModelFileError(
                "the weights lie in another file",
                where=location[:200],
                fix="give the path of the .onnx, not its content",
            )
        # Only a plain name: no folders, no links out of this one, no drives or streams of Windows.
        path = self._folder / location
        if not location or Path(location).name != location or any(c in location for c in "\0\\:"):
            raise ModelFileError("the weights lie outside of the model's folder", where=location[:200])
        try:
            inside = path.resolve().is_relative_to(self._folder.resolve()) and path.is_file()
        except OSError as error:
            raise ModelFileError("the file cannot be read", where=location[:200], why=error.strerror) from error
        if not inside:
            raise ModelFileError(
                f"the weights are missing: there is no file '{location[:200]}' beside the model",
                fix=f"copy '{location[:200]}' to the folder of the .onnx",
            )
        return path
