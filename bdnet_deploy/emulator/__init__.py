"""Running images without the hardware: unicorn in a process of its own, or QEMU where it is installed."""

from __future__ import annotations

from .client import Emulator, EmulatorFault, RunResult

__all__ = ["Emulator", "EmulatorFault", "RunResult"]
