"""QEMU's GDB stub over its standard input and output: registers, memory, breakpoints, run and step.

The protocol: GDB manual, appendix E "GDB Remote Serial Protocol". Imported by the worker process only.
"""

from __future__ import annotations

from typing import IO

_LONGEST = 1536  # bytes of memory in one packet; QEMU takes packets of 4096 characters


class GdbStub:
    """One connection. ``to`` and ``back`` are QEMU's standard input and output."""

    def __init__(self, to: IO[bytes], back: IO[bytes]) -> None:
        self._to, self._back = to, back
        self.ask(
            "qXfer:features:read:target.xml:0,ffb"
        )  # QEMU lets only those write registers who have asked for their list

    def ask(self, command: str) -> str:
        """Sends a packet and returns the answer.

        Raises:
            EOFError: QEMU is gone.
            OSError: the stub answers with an error, or does not know the command.
        """
        self._send(command)
        answer = self._receive()
        if not answer or (answer[:1] == "E" and len(answer) == 3):
            raise OSError(f"the emulator refuses {command[:40]!r} ({answer})")
        return answer

    def register(self, number: int) -> int:
        return int.from_bytes(bytes.fromhex(self.ask(f"p{number:x}")), "little")

    def set_register(self, number: int, value: int) -> None:
        self.ask(f"P{number:x}={value.to_bytes(4, 'little').hex()}")

    def read(self, address: int, size: int) -> bytes:
        parts = []
        for at in range(address, address + size, _LONGEST):
            parts.append(bytes.fromhex(self.ask(f"m{at:x},{min(_LONGEST, address + size - at):x}")))
        return b"".join(parts)

    def write(self, address: int, data: bytes) -> None:
        for at in range(0, len(data), _LONGEST):
            part = data[at : at + _LONGEST]
            self.ask(f"M{address + at:x},{len(part):x}:{part.hex()}")

    def break_at(self, address: int) -> None:
        self.ask(f"Z0,{address:x},2")

    def remove_break(self, address: int) -> None:
        self.ask(f"z0,{address:x},2")

    def resume(self) -> str:
        """Runs to the next breakpoint; the answer says why it stopped."""
        return self.ask("c")

    def step(self) -> str:
        return self.ask("s")

    def _send(self, text: str) -> None:
        data = text.encode("ascii")
        self._to.write(b"$" + data + b"#%02x" % (sum(data) & 0xFF))
        self._to.flush()
        if self._byte() != b"+":
            raise OSError("the emulator's debug port does not answer")

    def _receive(self) -> str:
        while self._byte() != b"$":
            pass
        data = bytearray()
        while (byte := self._byte()) != b"#":
            if byte == b"*":  # run length: as many more of the last byte
                data += data[-1:] * (self._byte()[0] - 29)
            else:
                data += byte
        self._back.read(2)  # the check sum
        self._to.write(b"+")
        self._to.flush()
        return data.decode("ascii")

    def _byte(self) -> bytes:
        byte = self._back.read(1)
        if not byte:
            raise EOFError("the emulator ended")
        return byte
