"""The run loop around unicorn: memory, exact counting, faults. Imported by the worker process only.

Counting: a hook on every basic block counts (end of the block before, address, size) and nothing else, so that no instruction is
decoded while the program runs. Blocks are whole: host calls end a block, and a call that has to wait for input is finished on the
next run instead of being executed again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import unicorn

from .console import PAINT, Program
from .peripherals import Bus

PAGE = 0x1000
OVERHEAD = -1  # the region of everything outside steps
NOWHERE = -1  # "end of the block before" after a start


class Machine(Program):
    """Memory, counters and the run loop; subclasses know the processor and how it calls its host."""

    call_length = 0  # bytes between the program counter in a host call and the next instruction

    def __init__(self, setup: dict[str, Any], blob: bytes) -> None:
        super().__init__(setup)
        self.uc = self.create(setup["cpu"])
        self.bus = Bus(self)
        self.pc: int = setup["pc"]
        self.counting: list[int] = []
        self.position: Callable[[], tuple[int, int]] = lambda: (OVERHEAD, NOWHERE)  # region, end of the last block
        self.markers: dict[str, int] = setup.get("markers", {})
        for address, size, writable in setup["maps"]:
            access = unicorn.UC_PROT_READ | (unicorn.UC_PROT_WRITE if writable else 0) | unicorn.UC_PROT_EXEC
            self.uc.mem_map(address, size, access)
        self.map_registers(setup)
        offset = 0
        for address, size in setup["writes"]:
            self.uc.mem_write(address, blob[offset : offset + size])
            offset += size
        self.uc.reg_write(self.SP, self.stack_top)
        self.uc.mem_write(self.stack_limit, bytes([PAINT]) * (self.stack_top - self.stack_limit))
        self.uc.hook_add(unicorn.UC_HOOK_INTR, self.on_exception)
        invalid = unicorn.UC_HOOK_MEM_UNMAPPED | unicorn.UC_HOOK_MEM_PROT
        self.uc.hook_add(invalid, self.on_invalid_access)

    SP = PC = LR = ARGUMENT = 0

    def create(self, cpu: str) -> Any:
        raise TypeError("a processor's machine creates its own engine")

    def start_address(self) -> int:
        return self.pc

    def is_call(self, number: int) -> bool:
        """Whether a CPU exception is a call of the host."""
        return False

    def sleeps(self) -> bool:
        """Whether the program waits for an interrupt; none will come."""
        return False

    def serve(self) -> None:
        """Does the host call at the program counter; calls :meth:`stop` with ``"input"`` when it cannot yet."""

    def read_memory(self, address: int, size: int) -> bytes:
        return bytes(self.uc.mem_read(address, size))

    def write_memory(self, address: int, data: bytes) -> None:
        self.uc.mem_write(address, data)

    def return_state(self) -> dict[str, int]:
        return {"lr": self.uc.reg_read(self.LR), "sp": self.uc.reg_read(self.SP)}

    def stop(self, reason: str) -> None:
        super().stop(reason)
        self.uc.emu_stop()

    # -- registers -----------------------------------------------------------------------------------------------------

    def map_registers(self, setup: dict[str, Any]) -> None:
        for register in setup["registers"]:
            self.bus.add_register(register["address"], register["reset"], register["fixed"])
        if setup.get("uart"):
            self.bus.add_uart(setup["uart"]["kind"], setup["uart"]["base"])
        for page in self.bus.pages(PAGE):
            self.uc.mmio_map(page, PAGE, self.on_register_read, page, self.on_register_write, page)

    def on_register_read(self, uc: Any, offset: int, size: int, page: int) -> int:
        value = self.bus.read(page + offset)
        if value is None:
            self.bad_access("read", page + offset, size)
            return 0
        return value

    def on_register_write(self, uc: Any, offset: int, size: int, value: int, page: int) -> None:
        if not self.bus.write(page + offset, value):
            self.bad_access("write", page + offset, size)

    # -- faults --------------------------------------------------------------------------------------------------------

    def bad_access(self, kind: str, address: int, size: int) -> None:
        if self.fault is None:
            self.fault = {"kind": kind, "address": address, "size": size, "pc": self.uc.reg_read(self.PC)}
        self.stop("fault")

    def on_invalid_access(self, uc: Any, access: int, address: int, size: int, value: int, data: Any) -> bool:
        kinds = {
            unicorn.UC_MEM_WRITE_UNMAPPED: "write",
            unicorn.UC_MEM_WRITE_PROT: "write",
            unicorn.UC_MEM_FETCH_UNMAPPED: "fetch",
            unicorn.UC_MEM_FETCH_PROT: "fetch",
        }
        if self.fault is None:
            self.fault = {"kind": kinds.get(access, "read"), "address": address, "size": size}
        return False  # the engine raises an error, with the exact program counter

    def on_exception(self, uc: Any, number: int, data: Any) -> None:
        self.pc = uc.reg_read(self.PC)
        if not self.is_call(number):
            self.fault = {"kind": "exception", "number": number, "pc": self.pc}
            self.stop("fault")
            return
        self.serve()
        if self.reason == "input":
            self.pending = True
        else:
            self.leave_call()

    def leave_call(self) -> None:
        self.pc += self.call_length
        self.uc.reg_write(self.PC, self.start_address())

    # -- running -------------------------------------------------------------------------------------------------------

    def count_blocks(self) -> None:
        uc = self.uc
        region = OVERHEAD
        table: dict[tuple[int, int, int], int] = defaultdict(int)
        self.counts = {region: table}
        self.labels = {}
        end = NOWHERE

        def on_block(uc: Any, address: int, size: int, data: Any) -> None:
            nonlocal end
            table[end, address, size] += 1
            end = address + size

        def on_enter(uc: Any, address: int, size: int, data: Any) -> None:
            nonlocal table, region
            region = uc.reg_read(self.ARGUMENT) & 0xFFFFFFFF
            table = self.counts.setdefault(region, defaultdict(int))

        def on_leave(uc: Any, address: int, size: int, data: Any) -> None:
            nonlocal table, region
            region = OVERHEAD
            table = self.counts[region]

        def on_label(uc: Any, address: int, size: int, data: Any) -> None:
            self.labels[region] = uc.reg_read(self.ARGUMENT) & 0xFFFFFFFF

        self.position = lambda: (region, end)

        uc.ctl_flush_tb()  # blocks translated without hooks would stay silent
        self.counting = [uc.hook_add(unicorn.UC_HOOK_BLOCK, on_block)]
        for name, action in (("enter", on_enter), ("leave", on_leave), ("label", on_label)):
            if name in self.markers:
                at = self.markers[name]
                self.counting.append(uc.hook_add(unicorn.UC_HOOK_CODE, action, begin=at, end=at))

    def stop_counting(self) -> None:
        for hook in self.counting:
            self.uc.hook_del(hook)
        self.counting = []
        self.uc.ctl_flush_tb()

    def run(self, until_output: int | None, count: bool, max_instructions: int) -> dict[str, Any]:
        if self.exit_code is not None:
            return {"reason": "exit", "exit_code": self.exit_code}
        self.want_output = until_output
        self.reason = ""
        self.fault = None
        if self.pending:
            self.serve()
            if self.reason == "input":
                return {"reason": "input", "exit_code": None}
            self.pending = False
            self.leave_call()
        if count:
            self.count_blocks()
        try:
            if not self.reason:
                self.uc.emu_start(self.start_address(), (1 << 64) - 1, count=max_instructions)
        except unicorn.UcError as error:
            self.fault = {"kind": "exception", "pc": self.uc.reg_read(self.PC), **(self.fault or {})}
            self.fault["error"] = str(error)
            self.reason = "fault"
        finally:
            if count:
                self.stop_counting()
        self.pc = self.uc.reg_read(self.PC)
        if not self.reason:
            self.reason = "halt" if self.sleeps() or not max_instructions else "limit"
        result: dict[str, Any] = {"reason": self.reason, "exit_code": self.exit_code}
        if count and self.reason == "limit":
            # The last block was counted whole, but only its instructions before the program counter ran.
            region, end = self.position()
            result["cut"] = [region, self.pc, end]
        return result
