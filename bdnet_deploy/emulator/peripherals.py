"""The few peripherals that emulation answers: stub registers and two UARTs.

Everything else in a board's peripheral space faults, so that firmware cannot lean on a register nobody described.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Console(Protocol):
    """What a UART needs from the machine around it."""

    def take(self, count: int) -> bytes: ...

    def put(self, data: bytes) -> None: ...

    def has_input(self) -> bool: ...

    def wait_for_input(self) -> None: ...


class Uart:
    """Common to both UARTs: firmware that polls for input twice in a row without getting any waits for it.

    Sending polls the status once per byte (the line is never busy here), receiving polls until a byte is there.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._polls = 0

    def _poll(self) -> None:
        if self._console.has_input():
            return
        self._polls += 1
        if self._polls >= 2:
            self._polls = 0
            self._console.wait_for_input()

    def _send(self, value: int) -> None:
        self._polls = 0
        self._console.put(bytes([value & 0xFF]))

    def _receive(self) -> int:
        self._polls = 0
        data = self._console.take(1)
        return data[0] if data else 0


class CmsdkUart(Uart):
    """Arm CMSDK APB UART (Arm DDI 0479, section 4.3): DATA, STATE, CTRL, INTSTATUS, BAUDDIV."""

    RX_FULL = 1 << 1

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._stored = {0x08: 0, 0x0C: 0, 0x10: 0}

    def read(self, offset: int) -> int | None:
        if offset == 0x00:
            return self._receive()
        if offset == 0x04:
            self._poll()
            return self.RX_FULL if self._console.has_input() else 0
        return self._stored.get(offset)

    def write(self, offset: int, value: int) -> bool:
        if offset == 0x00:
            self._send(value)
        elif offset in self._stored:
            self._stored[offset] = value
        elif offset != 0x04:  # writing STATE clears overrun flags
            return False
        return True


class Pl011Uart(Uart):
    """Arm PrimeCell UART PL011 (Arm DDI 0183, chapter 3): DR, FR, IBRD, FBRD, LCR_H, CR and the interrupt registers."""

    RX_EMPTY = 1 << 4
    TX_EMPTY = 1 << 7

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._stored = {0x24: 0, 0x28: 0, 0x2C: 0, 0x30: 0x300, 0x34: 0x12, 0x38: 0, 0x44: 0, 0x48: 0}

    def read(self, offset: int) -> int | None:
        if offset == 0x00:
            return self._receive()
        if offset == 0x18:
            self._poll()
            return self.TX_EMPTY | (0 if self._console.has_input() else self.RX_EMPTY)
        return self._stored.get(offset)

    def write(self, offset: int, value: int) -> bool:
        if offset == 0x00:
            self._send(value)
        elif offset in self._stored:
            self._stored[offset] = value
        else:
            return False
        return True


UARTS: dict[str, Callable[[Console], CmsdkUart | Pl011Uart]] = {"cmsdk": CmsdkUart, "pl011": Pl011Uart}
"""The ``kind`` of a board's ``[uart]`` table -> its model."""


class Bus:
    """Memory-mapped registers by address, all 32 bits wide."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._values: dict[int, int] = {}
        self._fixed: set[int] = set()
        self._uart: CmsdkUart | Pl011Uart | None = None
        self._uart_base = 0

    def add_register(self, address: int, reset: int, fixed: bool) -> None:
        self._values[address] = reset
        if fixed:
            self._fixed.add(address)

    def add_uart(self, kind: str, base: int) -> None:
        self._uart, self._uart_base = UARTS[kind](self._console), base

    def pages(self, size: int = 0x1000) -> list[int]:
        """The page addresses that hold a register."""
        used = {address // size * size for address in self._values}
        if self._uart is not None:
            used.add(self._uart_base // size * size)
        return sorted(used)

    def read(self, address: int) -> int | None:
        """The register's value, or None where there is none."""
        if address in self._values:
            return self._values[address]
        if self._uart is not None and 0 <= address - self._uart_base < 0x1000:
            return self._uart.read(address - self._uart_base)
        return None

    def write(self, address: int, value: int) -> bool:
        """Writes a register; False where there is none."""
        if address in self._values:
            if address not in self._fixed:
                self._values[address] = value
            return True
        if self._uart is not None and 0 <= address - self._uart_base < 0x1000:
            return self._uart.write(address - self._uart_base, value)
        return False
