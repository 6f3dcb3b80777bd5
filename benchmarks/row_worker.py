"""Calls functions of a linked image in an emulated Cortex-M and counts what they execute. Run as a process of its own.

Reads a job (JSON) from standard input and writes the results to standard output:
``{"cpu", "image", "data": {"address", "size"}, "calls": [{"function", "arguments", "memory"}]}`` where ``image`` lists the
ELF's ``[address, hex]`` contents and a call's ``memory`` is the data area before it (hex). A function that is named
``kernel.run`` or ``kernel.check`` is read from the ``bd_kernel`` at the symbol's address. Every result has the return value,
the executed instructions, how many of them in functions other than the first (``called``), the data area afterwards and the
depth of the stack.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import unicorn
from unicorn import arm_const as arm

RETURN, STACK = 0x0FFF0000, 0x30000000
STACK_BYTES = 0x8000
PATTERN = 0x5A


def instructions_in(code: bytes) -> int:
    """Thumb instructions in a straight piece of code: 32 bits where the first halfword begins with 0b11101 to 0b11111."""
    count = at = 0
    while at < len(code):
        at += 4 if code[at + 1] >> 3 >= 0x1D else 2
        count += 1
    return count


class Machine:
    def __init__(self, job: dict[str, Any]) -> None:
        self.uc = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        self.uc.ctl_set_cpu_model(getattr(arm, job["cpu"]))
        for at, size in ((0, 1 << 20), (RETURN & ~0xFFFF, 1 << 16), (STACK, STACK_BYTES)):
            self.uc.mem_map(at, size)
        self.data = (job["data"]["address"], job["data"]["size"])
        self.uc.mem_map(self.data[0], (self.data[1] + 0xFFF) & ~0xFFF)
        for at, content in job["image"]:
            self.uc.mem_write(at, bytes.fromhex(content))
        self.blocks: dict[tuple[int, int], int] = {}
        self.lengths: dict[tuple[int, int], int] = {}
        self.uc.hook_add(unicorn.UC_HOOK_BLOCK, self._block)

    def _block(self, _uc: unicorn.Uc, at: int, size: int, _data: object) -> None:
        self.blocks[at, size] = self.blocks.get((at, size), 0) + 1

    def call(self, address: int, arguments: list[int], memory: bytes) -> dict[str, Any]:
        self.uc.mem_write(self.data[0], memory)
        self.uc.mem_write(STACK, bytes([PATTERN]) * STACK_BYTES)
        stacked = b"".join(a.to_bytes(4, "little") for a in arguments[4:])
        top = STACK + STACK_BYTES - 64
        self.uc.mem_write(top, stacked)
        for register, value in zip((arm.UC_ARM_REG_R0, arm.UC_ARM_REG_R1, arm.UC_ARM_REG_R2, arm.UC_ARM_REG_R3), arguments):
            self.uc.reg_write(register, value)
        self.uc.reg_write(arm.UC_ARM_REG_SP, top)
        self.uc.reg_write(arm.UC_ARM_REG_LR, RETURN | 1)
        self.blocks.clear()
        self.uc.emu_start(address | 1, RETURN)
        total = 0
        for (at, size), times in self.blocks.items():
            if at >= RETURN:
                continue
            if (at, size) not in self.lengths:
                self.lengths[at, size] = instructions_in(bytes(self.uc.mem_read(at, size)))
            total += self.lengths[at, size] * times
        stack = bytes(self.uc.mem_read(STACK, top - STACK))
        return {
            "returned": self.uc.reg_read(arm.UC_ARM_REG_R0),
            "instructions": total,
            "stack": len(stack) - next((i for i, b in enumerate(stack) if b != PATTERN), len(stack)),
            "memory": bytes(self.uc.mem_read(*self.data)).hex(),
        }


def main() -> None:
    job = json.load(sys.stdin)
    machine = Machine(job)
    results = [machine.call(c["address"], c["arguments"], bytes.fromhex(c["memory"])) for c in job["calls"]]
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
