"""Running images without the hardware: unicorn in a process of its own, or QEMU where it is installed."""

from __future__ import annotations

from .client import TIMEOUT_S, Emulator, EmulatorFault, RunResult

__all__ = ["TIMEOUT_S", "Emulator", "EmulatorFault", "RunResult"]
