"""The two kinds of processor and how their programs call the host. Imported by the worker process only."""

from __future__ import annotations

from typing import Any

import unicorn
from unicorn import arm64_const, arm_const

from .console import Semihosting
from .engine import Machine


class CortexM(Machine, Semihosting):
    """Bare metal with Arm semihosting (BKPT 0xAB)."""

    call_length = 2
    EXCP_BKPT = 7  # QEMU target/arm/cpu.h

    def create(self, cpu: str) -> Any:
        self.SP, self.PC, self.LR = arm_const.UC_ARM_REG_SP, arm_const.UC_ARM_REG_PC, arm_const.UC_ARM_REG_LR
        self.ARGUMENT = arm_const.UC_ARM_REG_R0
        uc = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        uc.ctl_set_cpu_model(getattr(arm_const, "UC_CPU_ARM_" + cpu.upper().replace("-", "_")))
        return uc

    def start_address(self) -> int:
        return self.pc | 1

    def is_call(self, number: int) -> bool:
        return number == self.EXCP_BKPT and self.uc.mem_read(self.pc, 2) == b"\xab\xbe"

    def sleeps(self) -> bool:
        return bool(self.uc.mem_read(self.pc - 2, 2) == b"\x30\xbf")  # WFI

    def serve(self) -> None:
        operation, block = (self.uc.reg_read(r) for r in (arm_const.UC_ARM_REG_R0, arm_const.UC_ARM_REG_R1))
        result = self.semihosting(operation, block)
        if result is not None:
            self.uc.reg_write(arm_const.UC_ARM_REG_R0, result)


class LinuxAArch64(Machine):
    """A static Linux program; the program counter of a system call is already behind the SVC."""

    call_length = 0
    EXCP_SWI = 2  # QEMU target/arm/cpu.h
    ENOSYS, EBADF = 38, 9

    def create(self, cpu: str) -> Any:
        self.SP, self.PC, self.LR = (
            arm64_const.UC_ARM64_REG_SP,
            arm64_const.UC_ARM64_REG_PC,
            arm64_const.UC_ARM64_REG_LR,
        )
        self.ARGUMENT = arm64_const.UC_ARM64_REG_X0
        uc = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        uc.ctl_set_cpu_model(getattr(arm64_const, "UC_CPU_ARM64_" + cpu.upper().removeprefix("CORTEX-")))
        # Linux gives programs the FPU and NEON: CPACR_EL1.FPEN = 0b11.
        uc.reg_write(arm64_const.UC_ARM64_REG_CPACR_EL1, 3 << 20)
        return uc

    def is_call(self, number: int) -> bool:
        return number == self.EXCP_SWI

    def serve(self) -> None:
        number, a, b, c = (
            self.uc.reg_read(register)
            for register in (
                arm64_const.UC_ARM64_REG_X8,
                arm64_const.UC_ARM64_REG_X0,
                arm64_const.UC_ARM64_REG_X1,
                arm64_const.UC_ARM64_REG_X2,
            )
        )
        result = -self.ENOSYS
        if number == 63:  # read
            if a != 0:
                result = -self.EBADF
            elif not self.has_input():
                self.wait_for_input()
                return
            else:
                data = self.take(c)
                self.uc.mem_write(b, data)
                result = len(data)
        elif number == 64:  # write
            if a == 1:
                self.put(bytes(self.uc.mem_read(b, c)))
                result = c
            else:
                result = -self.EBADF
        elif number in (93, 94):  # exit, exit_group
            self.exit_code = a & 0xFF
            self.stop("exit")
        self.uc.reg_write(arm64_const.UC_ARM64_REG_X0, result & ((1 << 64) - 1))


MACHINES = {"cortex-m": CortexM, "linux-aarch64": LinuxAArch64}
