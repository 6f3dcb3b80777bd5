"""What an emulated program reads and writes, and why it stopped: common to both emulators. Imported by the worker process only."""

from __future__ import annotations

from typing import Any

PAINT = 0xA5  # what the stack is filled with before the start


class Program:
    """Console, end and stack of one emulated program; subclasses run it.

    A subclass has ``run``, ``read_memory``, ``write_memory`` and ``return_state`` (link register and stack pointer, for faults).
    """

    stack_window = 1 << 16  # bytes that stack_used looks at first

    def __init__(self, setup: dict[str, Any]) -> None:
        self.input = bytearray()
        self.input_closed = False
        self.output = bytearray()
        self.want_output: int | None = None
        self.reason = ""
        self.exit_code: int | None = None
        self.fault: dict[str, Any] | None = None
        self.pending = False  # a host call waits for input
        self.counts: dict[int, dict[tuple[int, int, int], int]] = {}
        self.labels: dict[int, int] = {}  # region -> argument of the last label in it
        self.stack_limit, self.stack_top = setup["stack"]

    def read_memory(self, address: int, size: int) -> bytes:
        raise NotImplementedError

    def write_memory(self, address: int, data: bytes) -> None:
        raise NotImplementedError

    def return_state(self) -> dict[str, int]:
        raise NotImplementedError

    def run(self, until_output: int | None, count: bool, max_instructions: int) -> dict[str, Any]:
        raise NotImplementedError

    def close(self) -> None:
        """Ends what the emulator has started; called when the process is about to end."""

    def has_input(self) -> bool:
        return bool(self.input) or self.input_closed

    def take(self, count: int) -> bytes:
        data = bytes(self.input[:count])
        del self.input[:count]
        return data

    def put(self, data: bytes) -> None:
        self.output += data
        if self.want_output is not None and len(self.output) >= self.want_output:
            self.stop("output")

    def wait_for_input(self) -> None:
        self.stop("input")

    def stop(self, reason: str) -> None:
        if not self.reason:
            self.reason = reason

    def stack_used(self) -> int:
        """Bytes from the top of the stack down to the deepest one that was written.

        Looks at a window that doubles while its lower half was written, so an untouched gap of more than half of it hides what
        lies deeper; stack frames of that size do not occur.
        """
        window = self.stack_window
        while True:
            start = max(self.stack_limit, self.stack_top - window)
            data = self.read_memory(start, self.stack_top - start)
            clean = len(data) - len(data.lstrip(bytes([PAINT])))
            if start == self.stack_limit or clean >= len(data) // 2:
                return len(data) - clean
            window *= 2


class Semihosting(Program):
    """Arm semihosting for bare-metal programs: the four calls of ``port_semihosting.c``."""

    STDIN, STDOUT = 1, 2

    def semihosting(self, operation: int, block: int) -> int | None:
        """Does a call (arguments: r0 and r1); its result, or None when it has to wait for input (:attr:`reason` says so)."""
        if operation == 0x01:  # SYS_OPEN: name, mode, length
            name, mode, length = self.words(block, 3)
            if self.read_memory(name, length) == b":tt":
                return self.STDIN if mode < 4 else self.STDOUT
        elif operation == 0x05:  # SYS_WRITE: handle, data, length; returns the bytes not written
            handle, data, length = self.words(block, 3)
            if handle == self.STDOUT:
                self.put(self.read_memory(data, length))
                return 0
        elif operation == 0x06:  # SYS_READ: handle, buffer, length; returns the bytes not read
            handle, buffer, length = self.words(block, 3)
            if handle == self.STDIN:
                if not self.has_input():
                    self.wait_for_input()
                    return None
                data_read = self.take(length)
                self.write_memory(buffer, data_read)
                return length - len(data_read)
        elif operation == 0x20:  # SYS_EXIT_EXTENDED: reason, code
            code = self.words(block, 2)[1]
            self.exit_code = code - (1 << 32) if code >> 31 else code
            self.stop("exit")
        return 0xFFFFFFFF  # -1: refused

    def words(self, address: int, count: int) -> list[int]:
        raw = self.read_memory(address, 4 * count)
        return [int.from_bytes(raw[i : i + 4], "little") for i in range(0, 4 * count, 4)]
