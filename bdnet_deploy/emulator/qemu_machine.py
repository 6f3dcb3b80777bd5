"""A bare-metal program in QEMU, for cores that unicorn does not have. Imported by the worker process only.

QEMU runs and counts (``qemu_counter.c``, blocks as in :mod:`.engine`); its debug port stops it at breakpoints: at host calls, which are served
here, at the markers of regions, and in the fault handler. What QEMU's machine has beyond the core's memory map does not fault.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .console import PAINT, Semihosting
from .gdb import GdbStub

OVERHEAD = -1
NOWHERE = -1  # "end of the block before" after a start, and of every block that control simply went on into
ELSEWHERE = -2  # that of the others

_R0, _R1, _SP, _LR, _PC, _XPSR = 0, 1, 13, 14, 15, 25
_BKPT, _RETURN = b"\xab\xbe", b"\x70\x47"  # bkpt 0xab, bx lr
_CFSR, _BFAR = 0xE000ED28, 0xE000ED38
_HEAD = 32
_BLOCK = np.dtype([(name, "<u8") for name in ("start", "last", "end", "other_end", "executed", "taken")])
_ROOM = _HEAD + _BLOCK.itemsize * (1 << 20)  # struct shared of qemu_counter.c


class QemuMachine(Semihosting):
    """Memory, registers, counters and the run loop."""

    stack_window = 1 << 13  # every byte is two characters

    def __init__(self, setup: dict[str, Any], blob: bytes) -> None:
        super().__init__(setup)
        self.calls: set[int] = set()
        self.markers: dict[int, str] = {address: kind for kind, address in setup["markers"].items()}
        self.faults: set[int] = {setup["fault"]} if setup["fault"] is not None else set()
        self._folder = tempfile.TemporaryDirectory(prefix="bdnet-deploy-")
        counts = Path(self._folder.name) / "counts"
        counts.touch()
        os.truncate(counts, _ROOM)
        loads = []
        parts = [(address, blob[at : at + size]) for address, size, at in _offsets(setup["writes"])]
        parts.append((self.stack_limit, bytes([PAINT]) * (self.stack_top - self.stack_limit)))
        # The machine looks for the vector table at 0, where none of the core's memories lies; the debug port cannot write VTOR.
        table = next(
            data[setup["vectors"] - at :][:64] for at, data in parts if at <= setup["vectors"] < at + len(data)
        )
        for number, (address, data) in enumerate([*parts, (0, table)]):
            part = Path(self._folder.name) / f"{number}.bin"
            part.write_bytes(data)
            loads += ["-device", f"loader,file={part},addr=0x{address:x},force-raw=on"]
        self._log = (Path(self._folder.name) / "log").open("w+b")
        self.process = subprocess.Popen(
            [
                setup["qemu"], "-M", setup["cpu"], "-display", "none", "-monitor", "none", "-serial", "none", "-S",
                "-gdb", "stdio", "-plugin", f"{setup['plugin']},counts={counts},owner={os.getpid()}", *loads,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.gdb = GdbStub(self.process.stdin, self.process.stdout)
        except (EOFError, OSError) as error:
            raise OSError(self._said() or str(error)) from error
        with counts.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _ROOM)
        self._head = np.frombuffer(self._shared, "<u8", 4)
        self._blocks = np.frombuffer(self._shared, _BLOCK, offset=_HEAD)
        for address, data in parts[:-1]:
            at = data.find(_BKPT)
            while at >= 0:  # one that is no instruction is never reached
                if at % 2 == 0:
                    self.calls.add(address + at)
                at = data.find(_BKPT, at + 1)
        for address in {*self.calls, *self.faults}:
            self.gdb.break_at(address)
        self._code = parts[:-1]
        self._spans: dict[int, tuple[int, int]] = {}
        self._region = OVERHEAD
        self._tallies: dict[int, dict[tuple[int, int], list[int]]] = {}
        self._before = self._snapshot()
        self._left = -1  # instructions that may run, below 0 without a limit

    def _said(self) -> str:
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace").strip()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._folder.cleanup()

    def read_memory(self, address: int, size: int) -> bytes:
        return self.gdb.read(address, size)

    def write_memory(self, address: int, data: bytes) -> None:
        self.gdb.write(address, data)

    def return_state(self) -> dict[str, int]:
        return {"lr": self.gdb.register(_LR), "sp": self.gdb.register(_SP)}

    def run(self, until_output: int | None, count: bool, max_instructions: int) -> dict[str, Any]:
        if self.exit_code is not None:
            return {"reason": "exit", "exit_code": self.exit_code}
        self.want_output = until_output
        self.reason = ""
        self.fault = None
        self.labels = {}
        self._tallies = {OVERHEAD: {}}
        self._region = OVERHEAD
        self._head[1:3] = np.uint64(2**64 - 1)
        self._before = self._snapshot()
        self._left = max_instructions or -1
        for address in self.markers if count else ():  # else they would only cost time
            self.gdb.break_at(address)
        try:
            while not self.reason:
                self._at_stop(self.gdb.register(_PC), count)
                if not self.reason and self._left < 0:
                    self.gdb.resume()
                elif not self.reason:
                    self._step()
        except EOFError as error:
            raise OSError(self._said() or "QEMU ended") from error
        for address in self.markers if count else ():
            self.gdb.remove_break(address)
        if self._head[3]:
            raise OSError("this program has more code than the emulator's counters have room for")
        self._settle()
        if count:
            self.counts = {
                region: {
                    (before, start, end - start): times
                    for (start, end), (executed, taken) in blocks.items()
                    for before, times in ((NOWHERE, executed - taken), (ELSEWHERE, taken))
                    if times
                }
                for region, blocks in self._tallies.items()
            }
        return {"reason": self.reason, "exit_code": self.exit_code}

    def _at_stop(self, pc: int, count: bool) -> None:
        """Does what has to be done before the instruction at ``pc`` runs."""
        if pc in self.calls:
            result = self.semihosting(self.gdb.register(_R0), self.gdb.register(_R1))
            if result is None:
                return  # called again on the next run
            self.gdb.set_register(_R0, result)
            self.gdb.set_register(_PC, pc + 2)
            self._count_here(pc)
        elif pc in self.faults:
            self._read_fault()
            self.stop("fault")
            return
        elif pc in self.markers and count:
            kind, argument = self.markers[pc], self.gdb.register(_R0)
            # The marker's own return belongs to what was before. A step would make QEMU translate everything again.
            if self.read_memory(pc, 2) == _RETURN and self._left != 0:
                self.gdb.set_register(_PC, self.gdb.register(_LR) & ~1)
                self._count_here(pc)
            else:
                self._step()
            if self.reason:
                return
            if kind == "label":
                self.labels[self._region] = argument
            else:
                self._settle()
                self._region = argument if kind == "enter" else OVERHEAD
                self._tallies.setdefault(self._region, {})
        else:
            return
        if not self.reason:
            self._at_stop(self.gdb.register(_PC), count)

    def _count_here(self, pc: int) -> None:
        """Counts an instruction of two bytes that QEMU stopped in front of and will not run."""
        tally = self._tallies[self._region].setdefault((pc, pc + 2), [0, 0])
        tally[0] += 1
        tally[1] += int(self._head[1]) not in (pc, 2**64 - 1)
        self._head[1:3] = np.uint64(pc + 2)
        self._left -= self._left > 0

    def _step(self) -> None:
        if self._left == 0:
            self.stop("limit")
            return
        self._left -= self._left > 0
        self.gdb.step()

    def _read_fault(self) -> None:
        # The frame that the exception pushed: r0 to r3, r12, lr, pc, xPSR.
        frame = self.words(self.gdb.register(_SP), 8)
        number = self.gdb.register(_XPSR) & 0x1FF
        self.fault = {"kind": "exception", "number": number, "pc": frame[6], "lr": frame[5]}
        status = self.words(_CFSR, 1)[0]
        if status >> 15 & 1:  # BFARVALID
            self.fault["kind"] = "read"
            self.fault["address"] = self.words(_BFAR, 1)[0]

    def _snapshot(self) -> tuple[Any, Any]:
        n = int(self._head[0])
        return self._blocks["executed"][:n].copy(), self._blocks["taken"][:n].copy()

    def _settle(self) -> None:
        """Adds what ran since the last call to the current region."""
        after = self._snapshot()
        executed, taken = after[0].copy(), after[1].copy()
        known = len(self._before[0])
        executed[:known] -= self._before[0]
        taken[:known] -= self._before[1]
        tallies = self._tallies[self._region]
        for i in np.flatnonzero(executed):
            tally = tallies.setdefault(self._span(i), [0, 0])
            tally[0] += int(executed[i])
            tally[1] += int(taken[i])
        self._before = after

    def _span(self, index: int) -> tuple[int, int]:
        """Start and end of a block; the end by the code, since QEMU 7 gives wrong sizes at the end of a page."""
        if index not in self._spans:
            start, last, end = (int(self._blocks[name][index]) for name in ("start", "last", "end"))
            for address, data in self._code:
                if address <= last < address + len(data):
                    end = last + (4 if data[last - address + 1] >> 3 >= 0b11101 else 2)
            self._spans[index] = start, end
        return self._spans[index]


def _offsets(writes: list[list[int]]) -> list[tuple[int, int, int]]:
    rows, at = [], 0
    for address, size in writes:
        rows.append((address, size, at))
        at += size
    return rows
