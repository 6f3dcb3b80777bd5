"""The two containers of ``torch.save``: ZIP, and before PyTorch 1.6 pickles and raw data in a row.

Formats: ``torch/serialization.py`` and ``caffe2/serialize/inline_container.cc`` of PyTorch.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

from bdnet_deploy.checkpoint.pickles import DamagedError, PickleMachine, Storage
from bdnet_deploy.checkpoint.tensors import TensorReader, item_size

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
)


class OtherKindError(Exception):
    """A readable file of another kind: ``"torchscript"``, ``"pt2"``, ``"zip"``, ``"pickle"``."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass
class Contents:
    """What a file holds: the object at its top, a reader of its tensors, the classes that were not built."""

    root: Any
    tensors: TensorReader
    opaque: tuple[str, ...]


def read_container(file: IO[bytes]) -> Contents:
    """Read either container.

    Raises:
        DamagedError: neither of them, truncated or inconsistent.
        OtherKindError: TorchScript, ``torch.export``, another ZIP archive, a pickle of something else.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    magic = file.read(4)
    file.seek(0)
    if not size:
        raise DamagedError("the file is empty")
    if magic == b"PK\x03\x04":
        return _read_zip(file, size)
    return _read_legacy(file, size)


def _read_zip(file: IO[bytes], size: int) -> Contents:
    try:
        archive = zipfile.ZipFile(file)
    except _ZIP_ERRORS as error:
        raise DamagedError(f"not a whole ZIP archive: {error}") from error
    records = {record.filename: record for record in archive.infolist()}
    folder = _folder(list(records))
    unread = size

    def read(name: str) -> bytes:
        nonlocal unread
        record = records.get(f"{folder}/{name}")
        if record is None:
            raise DamagedError(f"the archive lacks {name[:80]}")
        if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
            raise DamagedError(f"{name[:80]} is compressed, which torch.save never does")
        unread -= record.file_size
        if unread < 0:
            raise DamagedError("the archive declares more bytes than the file has")
        try:
            return archive.read(record)
        except _ZIP_ERRORS as error:
            raise DamagedError(f"{name[:80]} cannot be read: {error}") from error

    def read_storage(storage: Storage) -> bytes:
        data = read(f"data/{storage.key}")
        width = item_size(storage.dtype)
        if width is None or len(data) != storage.numel * width:
            raise DamagedError("its storage does not have the size that it declares")
        return data

    order = read("byteorder") if f"{folder}/byteorder" in records else b"little"
    machine = PickleMachine()
    root = machine.load(io.BytesIO(read("data.pkl")))
    return Contents(root, TensorReader(read_storage, size, order == b"big"), tuple(machine.opaque))


def _folder(names: list[str]) -> str:
    """The archive's top folder, the one with data.pkl."""
    parts = [PurePosixPath(name).parts for name in names]
    inside = {part[1] for part in parts if len(part) > 1}
    if "constants.pkl" in inside:
        raise OtherKindError("torchscript")
    if "archive_format" in inside or {"serialized_exported_program.json", "models"} & inside.union(names):
        raise OtherKindError("pt2")
    folders = [part[0] for part in parts if part[1:] == ("data.pkl",)]
    if len(folders) != 1:
        raise OtherKindError("zip")
    return folders[0]


def _read_legacy(file: IO[bytes], size: int) -> Contents:
    machine = PickleMachine()
    first = machine.load(file)
    if first != _LEGACY_MAGIC:
        raise OtherKindError("pickle")
    if machine.load(file) != _LEGACY_PROTOCOL:
        raise DamagedError("a version of PyTorch's old file format that does not exist")
    machine.load(file)  # the writing machine's type sizes; the data are little-endian whatever it says
    root = machine.load(file)
    keys = machine.load(file)
    if not isinstance(keys, list) or len(keys) != len(set(map(str, keys))):
        raise DamagedError("the list of storages is damaged")
    places: dict[str, int] = {}
    for key in keys:
        storage = machine.storages.get(key) if isinstance(key, str) else None
        width = item_size(storage.dtype) if storage is not None else None
        if storage is None or width is None:
            raise DamagedError("a storage is of unknown type")
        head = file.read(8)
        if len(head) != 8 or int.from_bytes(head, "little") != storage.numel:
            raise DamagedError("a storage does not have the size that it declares")
        places[storage.key] = file.tell()
        if file.seek(storage.numel * width, os.SEEK_CUR) > size:
            raise DamagedError("the file is truncated")

    def read_storage(storage: Storage) -> bytes:
        if storage.key not in places:
            raise DamagedError("its storage is missing")
        file.seek(places[storage.key])
        return file.read(storage.numel * (item_size(storage.dtype) or 0))

    return Contents(root, TensorReader(read_storage, size), tuple(machine.opaque))
