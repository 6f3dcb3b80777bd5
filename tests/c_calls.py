"""The host library as C sees it, in memory with guard pages around every buffer."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from bdnet_deploy.host import HostModel
from bdnet_deploy.hostlib import host_library

OK, TRUNCATED, MAGIC, VERSION, CRC = range(5)
RECORD, KERNEL, ARENA, ALIGNMENT, ARGUMENT = 5, 8, 9, 10, 11
DONE, MORE, ROWS = range(3)


class Guarded:
    """``size`` bytes in pages of their own, between two that nobody may read or write.

    Args:
        size: bytes that a caller may use.
        content: what they begin with; the rest is 0xA5.
        at: ``"end"``: the last byte lies before the guard page, as nearly as ``align`` and ``skew`` allow; ``"start"``: the
            first byte lies behind the other one.
        align, skew: the address is a multiple of ``align`` plus ``skew``.
    """

    def __init__(self, size: int, content: bytes = b"", *, at: str = "end", align: int = 16, skew: int = 0) -> None:
        if sys.platform == "win32":
            pytest.skip("needs mprotect")
        page = mmap.PAGESIZE
        room = -(-(size + align + skew) // page) * page
        self._map = mmap.mmap(-1, room + 2 * page)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.memory = np.frombuffer(self._map, np.uint8)[page : page + room]
        self.memory[:] = 0xA5
        self._base, self._room = self.memory.ctypes.data, room
        for guard in (self._base - page, self._base + room):
            self._protect(guard, page, mmap.PROT_NONE if hasattr(mmap, "PROT_NONE") else 0)
        self.at = skew if at == "start" else (room - size - skew) // align * align + skew
        self.bytes = self.memory[self.at : self.at + size]
        self.address, self.size = self.bytes.ctypes.data, size
        self.bytes[: len(content)] = np.frombuffer(content, np.uint8)

    def _protect(self, address: int, size: int, access: int) -> None:
        done = self._libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), access)
        assert done == 0, ctypes.get_errno()

    def read_only(self, yes: bool = True) -> None:
        """Whether a write to the bytes is a fault too."""
        self._protect(self._base, self._room, mmap.PROT_READ | (0 if yes else mmap.PROT_WRITE))

    def put(self, content: bytes) -> None:
        """Other bytes, read-only."""
        self.read_only(False)
        self.bytes[: len(content)] = np.frombuffer(content, np.uint8)
        self.read_only()

    def intact(self) -> bool:
        """Whether nothing was written between the bytes and the guard pages, where alignment leaves room."""
        return bool((self.memory[: self.at] == 0xA5).all() and (self.memory[self.at + self.size :] == 0xA5).all())

    def untouched(self) -> bool:
        return bool((self.memory == 0xA5).all())


class Table(ctypes.Structure):
    _fields_ = (("kernels", ctypes.c_void_p), ("count", ctypes.c_uint32))


class ModelInfo(ctypes.Structure):
    _fields_ = (
        ("arena_bytes", ctypes.c_uint32),
        ("scratch_bytes", ctypes.c_uint32), ("model_version", ctypes.c_uint32), ("inputs", ctypes.c_uint16),
        ("outputs", ctypes.c_uint16), ("steps", ctypes.c_uint16), ("missing_kernel", ctypes.c_char_p),
    )  # fmt: skip


class Runtime:
    """The host library as C sees it, with one model."""

    def __init__(self, data: bytes, at: str = "end") -> None:
        info = HostModel(data)
        self.lib = ctypes.CDLL(str(host_library()))
        self.table = ctypes.addressof(ctypes.c_char.in_dll(self.lib, "bd_kernels_all"))
        self.model = Guarded(len(data), data, at=at)
        self.model.read_only()
        self.arena = Guarded(info.info.arena_bytes, at=at)
        sizes = [int(np.prod(port.shape)) * port.dtype.itemsize for port in (info.inputs[0], info.outputs[0])]
        self.input, self.output = (Guarded(size, at=at, align=4) for size in sizes)
        self.context = ctypes.c_void_p(1)
        self.kept: list[Any] = []

    def load(
        self,
        *,
        arena: int | None = -1,
        arena_size: int = -1,
        model: int | None = -1,
        size: int = -1,
        table: int | None = -1,
    ) -> int:
        """``bd_load`` with some arguments replaced."""
        arguments = (
            ctypes.c_void_p(self.arena.address if arena == -1 else arena),
            ctypes.c_uint32(self.arena.size if arena_size == -1 else arena_size),
            ctypes.c_void_p(self.model.address if model == -1 else model),
            ctypes.c_uint32(self.model.size if size == -1 else size),
            ctypes.c_void_p(self.table if table == -1 else table),
        )
        return int(self.lib.bd_load(*arguments, ctypes.byref(self.context)))

    def infer(
        self,
        inputs: Sequence[int | None] | None = None,
        outputs: Sequence[int | None] | None = None,
        function: str = "bd_run",
    ) -> int:
        """``bd_run`` or ``bd_begin``; addresses replace the buffers."""
        ins = [self.input.address] if inputs is None else inputs
        outs = [self.output.address] if outputs is None else outputs
        arrays = (ctypes.c_void_p * len(ins))(*ins), (ctypes.c_void_p * len(outs))(*outs)
        self.kept.append(arrays)  # an inference in slices uses them to its end
        call = getattr(self.lib, function)
        return int(call(self.context, arrays[0], len(ins), arrays[1], len(outs)))

    def advance(self) -> tuple[int, int]:
        progress = ctypes.c_int(-1)
        return int(self.lib.bd_advance(self.context, ctypes.byref(progress))), progress.value

    def push(self, row: int | None) -> int:
        return int(self.lib.bd_push_row(self.context, ctypes.c_void_p(row)))

    def intact(self) -> bool:
        return all(buffer.intact() for buffer in (self.model, self.arena, self.input, self.output))

    def name(self, status: int) -> str:
        self.lib.bd_status_name.restype = ctypes.c_char_p
        text: bytes = self.lib.bd_status_name(status)
        return text.decode("ascii")
