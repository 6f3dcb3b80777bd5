"""The ZIP file that ``torch.export.save`` writes: a program in JSON, and each tensor's bytes in a file of its own.

Format: ``torch/export/pt2_archive`` and ``torch/_export/serde/schema.py`` of PyTorch.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bdnet_deploy.checkpoint.pickles import DamagedError, LazyTensor, Storage
from bdnet_deploy.checkpoint.tensors import TensorReader, item_size
from bdnet_deploy.errors import ModelFileError, UnsupportedError
from bdnet_deploy.files import no_such_file
from bdnet_deploy.importers.program import text

_MAJOR = 8
_MAX_JSON = 512 << 20
#: ``ScalarType`` of the schema, by the names that tensors have elsewhere here.
TYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
         12: "bool", 13: "bfloat16", 28: "uint16", 34: "uint32", 35: "uint64"}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Archive:
    """``program``: the JSON object of the model; ``tensors``: parameters, buffers and constants by name."""

    program: dict[str, Any]
    tensors: dict[str, Tensor]


def open_archive(path: Path) -> Archive:
    """Read a file whole.

    Raises:
        ModelFileError: missing, damaged, or written by a version with another format.
        UnsupportedError: tensors that only a pickle could restore, or NaN.
    """
    if not path.is_file():
        raise no_such_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(archive, path).read()
    except (ModelFileError, UnsupportedError):
        raise
    except OSError as error:
        raise ModelFileError("the file cannot be read", where=str(path), why=error.strerror) from error
    except (zipfile.BadZipFile, DamagedError, KeyError, TypeError, ValueError, AttributeError, IndexError, EOFError,
            NotImplementedError, OverflowError, RecursionError, RuntimeError) as error:  # fmt: skip
        raise ModelFileError(
            "this is not a file of torch.export.save, or it is damaged",
            where=str(path),
            why=f"{type(error).__name__}: {text(error)}",
            fix="write it again: torch.export.save(torch.export.export(model, (x,)), 'model.pt2')",
        ) from error


class _Reader:
    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive = archive
        self._path = path
        self._size = path.stat().st_size
        self._left = self._size
        self._records = {info.filename: info for info in archive.infolist()}

    def read(self) -> Archive:
        models = [name for name in self._records if name.endswith(".json") and "/models/" in f"/{name}"]
        if not models:
            old = any(Path(name).name == "serialized_exported_program.json" for name in self._records)
            raise ModelFileError(
                "the file was written by an older PyTorch" if old else "this is not a file of torch.export.save",
                where=str(self._path),
                why="its weights are a pickle" if old else "it has no models/*.json",
                fix="load and save it with PyTorch 2.8 or later",
            )
        if len(models) > 1:
            raise UnsupportedError("the file holds several programs", where=str(self._path),
                                   why=", ".join(text(m, 60) for m in models[:6]), fix="save one at a time")  # fmt: skip
        root, _, name = models[0].rpartition("models/")
        name = name.removesuffix(".json")
        program = self._json(models[0])
        major = program["schema_version"]["major"]
        if major != _MAJOR:
            raise ModelFileError(f"the file has a program of version {text(major)}; version {_MAJOR} is read",
                                 where=str(self._path), fix="save it with another PyTorch")  # fmt: skip
        order = self._bytes(f"{root}byteorder") if f"{root}byteorder" in self._records else b"little"
        tensors: dict[str, Tensor] = {}
        for kind, folder in (("weights", "data/weights"), ("constants", "data/constants")):
            config = f"{root}{folder}/{name}_{kind}_config.json"
            if config in self._records:
                tensors |= self._tensors(self._json(config)["config"], f"{root}{folder}", order == b"big")
        return Archive(program, tensors)

    def _bytes(self, name: str) -> bytes:
        info = self._records[name]
        self._left -= info.file_size
        if info.compress_type != zipfile.ZIP_STORED or self._left < 0:
            raise DamagedError("it is compressed, or declares more bytes than it has")
        return self._archive.read(info)

    def _json(self, name: str) -> dict[str, Any]:
        if self._records[name].file_size > _MAX_JSON:
            raise DamagedError("the program is absurdly large")
        value = json.loads(self._bytes(name))
        if not isinstance(value, dict):
            raise DamagedError(f"{name} holds no object")
        return value

    def _tensors(self, config: dict[str, Any], folder: str, big_endian: bool) -> dict[str, Tensor]:
        cache: dict[str, bytes] = {}
        reader = TensorReader(lambda storage: cache[storage.key], self._size, big_endian)
        tensors = {}
        for name, record in config.items():
            if record["use_pickle"] or "tensor_meta" not in record or record["tensor_meta"] is None:
                raise UnsupportedError(f"the tensor '{text(name)}' is stored as a pickle", where=str(self._path),
                                       why="pickles can run code; nothing of it was run",
                                       fix="export a model whose parameters are plain dense tensors")  # fmt: skip
            key = record["path_name"]
            if key not in cache:
                cache[key] = self._bytes(f"{folder}/{key}")
            array = reader.array(_lazy(record["tensor_meta"], key, len(cache[key])))
            tensors[name] = _tensor(array, name, str(self._path))
        return tensors


def _lazy(meta: dict[str, Any], key: str, size: int) -> LazyTensor:
    dtype = TYPES.get(meta["dtype"], f"type {meta['dtype']}")
    width = item_size(dtype) or 1
    storage = Storage(key=key, dtype=dtype, numel=size // width, start=0, count=size // width)
    sizes, strides = (tuple(v["as_int"] for v in meta[field]) for field in ("sizes", "strides"))
    return LazyTensor(storage=storage, dtype=dtype, offset=meta["storage_offset"]["as_int"], size=sizes, stride=strides)


def _tensor(array: Any, name: str, where: str) -> Tensor:
    if array.dtype.kind == "f":
        tensor = torch.from_numpy(np.asarray(array, np.float32))
        if bool(torch.isnan(tensor).any()):
            raise UnsupportedError(f"the tensor '{text(name)}' holds NaN", where=where, why="no numerics can carry it",
                                   fix="train again, or repair the checkpoint, and export anew")  # fmt: skip
        return tensor
    return torch.from_numpy(array if array.dtype.kind == "b" else array.astype(np.int64))
