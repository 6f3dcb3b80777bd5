"""The kinds of processor and how their programs call the host. Imported by the worker process only."""

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


class Linux(Machine):
    """A static Linux program; the program counter of a system call is already behind the SVC."""

    call_length = 0
    EXCP_SWI = 2  # QEMU target/arm/cpu.h
    ENOSYS, EBADF = 38, 9
    READ, WRITE, EXITS = 0, 0, (0, 0)  # the architecture's system calls
    NUMBER = FIRST = SECOND = THIRD = 0  # registers of a call and its arguments
    BITS = 0

    def is_call(self, number: int) -> bool:
        return number == self.EXCP_SWI

    def serve(self) -> None:
        number, a, b, c = (self.uc.reg_read(r) for r in (self.NUMBER, self.FIRST, self.SECOND, self.THIRD))
        result = -self.ENOSYS
        if number == self.READ:
            if a != 0:
                result = -self.EBADF
            elif not self.has_input():
                self.wait_for_input()
                return
            else:
                data = self.take(c)
                self.uc.mem_write(b, data)
                result = len(data)
        elif number == self.WRITE:
            if a == 1:
                self.put(bytes(self.uc.mem_read(b, c)))
                result = c
            else:
                result = -self.EBADF
        elif number in self.EXITS:  # exit, exit_group
            self.exit_code = a & 0xFF
            self.stop("exit")
        self.uc.reg_write(self.FIRST, result & ((1 << self.BITS) - 1))


class LinuxAArch64(Linux):
    """64-bit code; system calls of include/uapi/asm-generic/unistd.h."""

    READ, WRITE, EXITS = 63, 64, (93, 94)
    NUMBER, FIRST = arm64_const.UC_ARM64_REG_X8, arm64_const.UC_ARM64_REG_X0
    SECOND, THIRD = arm64_const.UC_ARM64_REG_X1, arm64_const.UC_ARM64_REG_X2
    BITS = 64

    def create(self, cpu: str) -> Any:
        self.SP, self.PC, self.LR = (
            arm64_const.UC_ARM64_REG_SP,
            arm64_const.UC_ARM64_REG_PC,
            arm64_const.UC_ARM64_REG_LR,
        )
        self.ARGUMENT = self.FIRST
        uc = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        uc.ctl_set_cpu_model(getattr(arm64_const, "UC_CPU_ARM64_" + cpu.upper().removeprefix("CORTEX-")))
        # Linux gives programs the FPU and NEON: CPACR_EL1.FPEN = 0b11.
        uc.reg_write(arm64_const.UC_ARM64_REG_CPACR_EL1, 3 << 20)
        return uc


class LinuxArmv7(Linux):
    """A32 code; system calls of arch/arm/tools/syscall.tbl."""

    READ, WRITE, EXITS = 3, 4, (1, 248)
    NUMBER, FIRST = arm_const.UC_ARM_REG_R7, arm_const.UC_ARM_REG_R0
    SECOND, THIRD = arm_const.UC_ARM_REG_R1, arm_const.UC_ARM_REG_R2
    BITS = 32

    def create(self, cpu: str) -> Any:
        self.SP, self.PC, self.LR = arm_const.UC_ARM_REG_SP, arm_const.UC_ARM_REG_PC, arm_const.UC_ARM_REG_LR
        self.ARGUMENT = self.FIRST
        uc = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_ARM)
        uc.ctl_set_cpu_model(getattr(arm_const, "UC_CPU_ARM_" + cpu.upper().replace("-", "_")))
        # Linux gives programs the FPU and NEON: full access to coprocessors 10 and 11 in CPACR, and FPEXC.EN.
        uc.reg_write(arm_const.UC_ARM_REG_C1_C0_2, 0xF << 20)
        uc.reg_write(arm_const.UC_ARM_REG_FPEXC, 1 << 30)
        return uc


MACHINES = {"cortex-m": CortexM, "linux-aarch64": LinuxAArch64, "linux-armv7": LinuxArmv7}
