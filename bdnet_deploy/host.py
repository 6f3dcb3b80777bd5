"""The C runtime on this computer, through ctypes: whole inferences and single steps."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bdnet_deploy import bdn_format
from bdnet_deploy.bdn_format import BdnFile, Place
from bdnet_deploy.errors import BdnetError, ModelFileError, UsageError
from bdnet_deploy.hostlib import host_library, level, levels

Array = npt.NDArray[Any]

_ERROR_KERNEL = 8


_MAX_THREADS = 64
_DONE, _MORE, _ROWS = range(3)  # bd_progress


class _ModelInfo(ctypes.Structure):
    """``bd_model_info``."""

    _fields_ = [
        ("arena_bytes", ctypes.c_uint32),
        ("scratch_bytes", ctypes.c_uint32),
        ("model_version", ctypes.c_uint32),
        ("inputs", ctypes.c_uint16),
        ("outputs", ctypes.c_uint16),
        ("steps", ctypes.c_uint16),
        ("missing_kernel", ctypes.c_char_p),
    ]


@dataclass(frozen=True)
class Info:
    """What ``bd_inspect`` says of a sound model."""

    arena_bytes: int
    scratch_bytes: int
    model_version: int
    inputs: int
    outputs: int
    steps: int


@dataclass(frozen=True)
class Port:
    """An input or output: its tensor's index, shape (H, W, C) and dtype (bits and trits are int8 here)."""

    tensor: int
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    code: bdn_format.DType


def inspect(data: bytes) -> Info:
    """Check a model as the runtime does before it runs it.

    Raises:
        ModelFileError: with the status, and the missing kernel's name where one is missing.
    """
    buffer = _aligned_copy(data)
    return _inspect(_library(host_library()), buffer, len(data))


def kernels() -> tuple[str, ...]:
    """What :data:`~bdnet_deploy.hostlib.KERNELS` may name here, the fastest last."""
    return tuple(levels(_library(host_library())))


class HostModel:
    """A loaded ``.bdn`` model. Not for several threads at once.

    Attributes:
        kernels: what it runs with, one of :func:`kernels`.

    Args:
        data: the file's bytes.
        threads: that share each map's rows in :meth:`run`; the bytes are the same for any number.

    Raises:
        ModelFileError: when the runtime refuses them.
        UsageError: so many threads cannot be had.
        BdnetError: when the host library was not built.
    """

    def __init__(self, data: bytes, *, threads: int = 1) -> None:
        if not 1 <= threads <= _MAX_THREADS:
            raise UsageError(f"{threads} threads", fix=f"1 to {_MAX_THREADS}")
        self._lib = _library(host_library())
        self.kernels = level(self._lib)
        self._model = _aligned_copy(data)
        self.info = _inspect(self._lib, self._model, len(data))
        self.file: BdnFile = bdn_format.read(data)
        arena_bytes = self.info.arena_bytes + (threads - 1) * self.info.scratch_bytes
        self._arena = _aligned(arena_bytes)
        self._context = ctypes.c_void_p()
        status = self._lib.bd_load(
            self._arena.ctypes.data,
            arena_bytes,
            self._model.ctypes.data,
            len(data),
            _kernels(self._lib),
            ctypes.byref(self._context),
        )
        self._check(status)
        self.inputs = [self._port(Place.INPUT, i) for i in range(self.info.inputs)]
        self.outputs = [self._port(Place.OUTPUT, i) for i in range(self.info.outputs)]
        self._buffers = {p.tensor: self._buffer(p) for p in (*self.inputs, *self.outputs)}
        self._in_pointers = self._pointers(self.inputs)
        self._out_pointers = self._pointers(self.outputs)
        area = self._lib.bd_tensor_area(self._context) - self._arena.ctypes.data
        self._area = self._arena[area : area + int(self.file.header["tensor_bytes"])]
        self._threads = _start_threads(self._lib, self, threads) if threads != 1 else None

    def run(self, x: Array | Sequence[Array]) -> list[Array]:
        """Inference, sample by sample.

        Args:
            x: (N, H, W, C) in the input's own dtype, or a list with one such array per input. Axes of size 1 may be
                left out: (N, C) does for a 1x1 map.

        Returns:
            One array (N, H, W, C) per output, in the output's own dtype.

        Raises:
            BdnetError: when x does not fit the model's inputs.
        """
        arrays = self._batch(x)
        count = len(arrays[0])
        results = [np.empty((count, *p.shape), p.dtype) for p in self.outputs]
        for i in range(count):
            self._put_inputs([a[i] for a in arrays])
            operands = (self._context, self._in_pointers, len(self.inputs), self._out_pointers, len(self.outputs))
            if self._threads is None:
                self._check(self._lib.bd_run(*operands))
            else:
                self._check(self._lib.bd_threads_run(ctypes.c_void_p(self._threads.ctypes.data), *operands))
            for result, port in zip(results, self.outputs, strict=True):
                result[i] = self._read(port.tensor)
        return results

    def run_rows(self, x: Array) -> tuple[list[Array], int]:
        """One inference in slices, the input pushed row by row where the model takes it so.

        Args:
            x: (H, W, C), one sample of a model of one input.

        Returns:
            One array (H, W, C) per output, and the number of slices.
        """
        (sample,) = self._batch(x[None])
        rows = np.ascontiguousarray(sample[0])
        pushed = bool(self._lib.bd_input_is_pushed(self._context))
        self._put_inputs([rows])
        pointers = (ctypes.c_void_p * 1)() if pushed else self._in_pointers
        self._check(
            self._lib.bd_begin(self._context, pointers, len(self.inputs), self._out_pointers, len(self.outputs))
        )
        progress = ctypes.c_int(_MORE)
        slices = row = 0
        while progress.value != _DONE:
            self._check(self._lib.bd_advance(self._context, ctypes.byref(progress)))
            slices += 1
            if progress.value == _ROWS:
                self._check(self._lib.bd_push_row(self._context, rows[row].ctypes.data))
                row += 1
        return [self._read(port.tensor) for port in self.outputs], slices

    def run_steps(self, x: Array | Sequence[Array]) -> dict[int, Array]:
        """One inference, step by step.

        Args:
            x: one sample, shaped as for :meth:`run` with N = 1 or without N.

        Returns:
            tensor index -> its decoded content (H, W, C) right after the step that wrote it (bits and trits as int8);
            the inputs too.
        """
        arrays = self._batch(x, single=True)
        self._put_inputs([a[0] for a in arrays])
        self._need_whole_maps()
        self._begin()
        seen = {p.tensor: self._read(p.tensor) for p in self.inputs}
        for index in range(self.info.steps):
            self._check(self._lib.bd_run_step(self._context, index))
            seen.update(self._read_outputs(index))
        return seen

    def run_step_isolated(self, index: int, values: Mapping[int, Array]) -> dict[int, Array]:
        """Run one step on given operands.

        Args:
            index: of the step.
            values: tensor index -> decoded content (H, W, C), for every tensor that the step reads.

        Returns:
            tensor index -> decoded content of the tensors that it writes.
        """
        self._need_whole_maps()
        self._begin()
        for tensor, content in values.items():
            self._write(tensor, content)
        self._check(self._lib.bd_run_step(self._context, index))
        return self._read_outputs(index)

    def self_test(self) -> bool:
        """Whether the model's own test vector gives the recorded bytes here.

        Raises:
            ModelFileError: when the model has no test vector.
        """
        if self.file.test_vector is None:
            raise ModelFileError("the model has no test vector")
        passed = ctypes.c_int()
        source, result = self._buffers[self.inputs[0].tensor], self._buffers[self.outputs[0].tensor]
        self._check(self._lib.bd_self_test(self._context, source.ctypes.data, result.ctypes.data, ctypes.byref(passed)))
        return bool(passed.value)

    # -- memory -------------------------------------------------------------------------------------------------

    def _port(self, place: Place, index: int) -> Port:
        tensor = self.file.tensor_at(place, index)
        record = self.file.tensors[tensor]
        code = bdn_format.DType(int(record["dtype"]))
        return Port(tensor, _shape(record), bdn_format.element_dtype(code) or np.dtype(np.int8), code)

    def _buffer(self, port: Port) -> npt.NDArray[np.uint8]:
        record = self.file.tensors[port.tensor]
        return _aligned(int(record["height"]) * int(record["row_stride"]))

    def _pointers(self, ports: Sequence[Port]) -> ctypes.Array[ctypes.c_void_p]:
        return (ctypes.c_void_p * len(ports))(*(self._buffers[p.tensor].ctypes.data for p in ports))

    def _memory(self, tensor: int) -> npt.NDArray[np.uint8]:
        if tensor in self._buffers:
            return self._buffers[tensor]
        record = self.file.tensors[tensor]
        offset = int(record["offset"])
        return self._area[offset : offset + int(record["height"]) * int(record["row_stride"])]

    def _need_whole_maps(self) -> None:
        if self.file.steps["segment"].any():
            raise BdnetError("this model runs row by row: its maps are never whole in memory")

    def _read(self, tensor: int) -> Array:
        record = self.file.tensors[tensor]
        content = bdn_format.unpack_map(
            self._memory(tensor).tobytes(), _shape(record), int(record["dtype"]), int(record["row_stride"])
        )
        return content.copy()

    def _write(self, tensor: int, content: Array) -> None:
        record = self.file.tensors[tensor]
        if np.shape(content) != _shape(record):
            raise BdnetError(f"tensor {tensor} has shape {_shape(record)}, not {np.shape(content)}")
        packed = bdn_format.pack_map(content, int(record["dtype"]), int(record["row_stride"]))
        self._memory(tensor)[:] = np.frombuffer(packed, np.uint8)

    def _read_outputs(self, index: int) -> dict[int, Array]:
        written = [int(t) for t in self.file.steps[index]["out"] if t != bdn_format.NONE]
        return {t: self._read(t) for t in written}

    # -- running ------------------------------------------------------------------------------------------------

    def _batch(self, x: Array | Sequence[Array], *, single: bool = False) -> list[Array]:
        arrays = [np.asarray(a) for a in (x if isinstance(x, (list, tuple)) else [x])]
        if len(arrays) != len(self.inputs):
            raise BdnetError(f"the model has {len(self.inputs)} inputs, {len(arrays)} arrays were given")
        shaped = []
        for i, (array, port) in enumerate(zip(arrays, self.inputs, strict=True)):
            size = int(np.prod(port.shape))
            batch = 1 if single else array.shape[0] if array.ndim > 1 else 0
            if array.size != batch * size or not batch:
                raise BdnetError(f"input {i} takes {'one' if single else 'N'} x {port.shape}, not {array.shape}")
            if array.dtype != port.dtype:
                raise BdnetError(f"input {i} takes {port.dtype}, not {array.dtype}")
            shaped.append(array.reshape(batch, *port.shape))
        if len({len(a) for a in shaped}) != 1:
            raise BdnetError("the inputs differ in their number of samples")
        return shaped

    def _put_inputs(self, samples: Sequence[Array]) -> None:
        for port, sample in zip(self.inputs, samples, strict=True):
            self._write(port.tensor, sample)

    def _begin(self) -> None:
        self._check(
            self._lib.bd_begin(
                self._context, self._in_pointers, len(self.inputs), self._out_pointers, len(self.outputs)
            )
        )

    def _check(self, status: int) -> None:
        if status:
            raise BdnetError("the runtime refused to run the model", why=_status_name(self._lib, status))


@cache
def _library(path: Path) -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL(str(path))
        pointer, u32 = ctypes.c_void_p, ctypes.c_uint32
        run = [pointer, pointer, u32, pointer, u32]
        for name, arguments in {
            "bd_inspect": [pointer, u32, pointer, pointer],
            "bd_load": [pointer, u32, pointer, u32, pointer, pointer],
            "bd_run": run,
            "bd_begin": run,
            "bd_advance": [pointer, pointer],
            "bd_push_row": [pointer, pointer],
            "bd_input_is_pushed": [pointer],
            "bd_run_step": [pointer, u32],
            "bd_self_test": [pointer, pointer, pointer, pointer],
            "bd_tensor_area": [pointer],
            "bd_status_name": [ctypes.c_int],
        }.items():
            function = getattr(lib, name)
            function.argtypes, function.restype = arguments, ctypes.c_int
        lib.bd_tensor_area.restype = pointer
        lib.bd_status_name.restype = ctypes.c_char_p
        levels(lib)
    except (OSError, AttributeError, ValueError) as error:
        raise BdnetError(
            "the host library cannot be loaded",
            where=str(path),
            why=str(error),
            fix="reinstall bdnet-deploy; in a source tree: make install",
        ) from None
    return lib


def _kernels(lib: ctypes.CDLL) -> ctypes.c_void_p:
    return ctypes.c_void_p(levels(lib)[level(lib)])


def _status_name(lib: ctypes.CDLL, status: int) -> str:
    name: bytes = lib.bd_status_name(status)
    return name.decode("ascii")


def _start_threads(lib: Any, owner: HostModel, count: int) -> Array:
    """Memory of a running ``bd_threads``, which ends with ``owner``."""
    if not hasattr(lib, "bd_threads_start"):
        raise UsageError("the runtime has no threads on this system", fix="threads=1")
    memory = _aligned(lib.bd_threads_bytes())
    if lib.bd_threads_start(ctypes.c_void_p(memory.ctypes.data), ctypes.c_uint32(count)):
        raise UsageError(f"the system starts no {count} threads", fix="fewer threads")
    weakref.finalize(owner, _stop_threads, lib, memory)
    return memory


def _stop_threads(lib: Any, memory: Array) -> None:
    lib.bd_threads_stop(ctypes.c_void_p(memory.ctypes.data))


def _inspect(lib: ctypes.CDLL, model: npt.NDArray[np.uint8], size: int) -> Info:
    info = _ModelInfo()
    status = lib.bd_inspect(model.ctypes.data, size, _kernels(lib), ctypes.byref(info))
    if status == _ERROR_KERNEL:
        name = (info.missing_kernel or b"").decode("ascii", "replace")
        raise ModelFileError(
            f"the model needs the kernel '{name}', which this runtime does not have",
            why=_status_name(lib, status),
            fix="pip install --upgrade bdnet-deploy, or export the model again",
        )
    if status:
        raise ModelFileError(
            "the runtime refuses the model", why=_status_name(lib, status), fix="copy or export it again"
        )
    return Info(info.arena_bytes, info.scratch_bytes, info.model_version, info.inputs, info.outputs, info.steps)


def _shape(record: np.void) -> tuple[int, int, int]:
    return int(record["height"]), int(record["width"]), int(record["channels"])


def _aligned(size: int) -> npt.NDArray[np.uint8]:
    """Zeros at an address that is a multiple of 16."""
    raw = np.zeros(size + bdn_format.ALIGN, np.uint8)
    start = -raw.ctypes.data % bdn_format.ALIGN
    return raw[start : start + size]


def _aligned_copy(data: bytes) -> npt.NDArray[np.uint8]:
    copy = _aligned(len(data))
    copy[:] = np.frombuffer(data, np.uint8)
    return copy
