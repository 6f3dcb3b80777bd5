"""Calls functions of a linked image in an emulated Cortex-M and counts what they execute. Run as a process of its own.

Reads a job (JSON) from standard input: ``cpu`` (unicorn's name), ``image`` (``[address, hex]`` of the ELF's contents), ``data``
(``address`` and ``size`` of the data area) and ``calls``, each with ``address``, ``arguments`` (32-bit words) and ``memory`` (the
data area before the call, hex). Writes a list of results: ``returned``, ``instructions``, ``stack`` (bytes that were written) and
``memory`` (the data area afterwards).
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
    """A core with the image, a data area and a stack."""

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
        """Call a function by the Arm procedure call standard."""
        self.uc.mem_write(self.data[0], memory)
        self.uc.mem_write(STACK, bytes([PATTERN]) * STACK_BYTES)
        stacked = b"".join(a.to_bytes(4, "little") for a in arguments[4:])
        top = STACK + STACK_BYTES - 64
        self.uc.mem_write(top, stacked)
        for index, value in enumerate(arguments[:4]):
            self.uc.reg_write(arm.UC_ARM_REG_R0 + index, value)
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
