"""The emulator process; it and what it alone imports (:mod:`.engine`, :mod:`.processors`) are the only users of unicorn, and
:mod:`.qemu_machine` of QEMU as an emulator of its own.

Started as ``python -m bdnet_deploy.emulator.worker``; obeys frames (see :mod:`.protocol`) on standard input and answers on standard
output. It ends when its input closes, even in the middle of an endless program: a thread reads the pipe and ends the process.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from typing import TYPE_CHECKING, Any, BinaryIO

from . import protocol

if TYPE_CHECKING:
    from .console import Program


def answer(machine: Program | None, header: dict[str, Any], payload: bytes, out: BinaryIO) -> Program | None:
    """Obeys one frame and answers it."""
    command = header["do"]
    if command == "setup":
        if header["engine"] == "qemu":
            from .qemu_machine import QemuMachine

            machine = QemuMachine(header, payload)
        else:
            try:
                import unicorn  # noqa: F401
            except ImportError as error:
                protocol.send(out, {"missing": str(error)})
                return None
            from .processors import MACHINES

            machine = MACHINES[header["machine"]](header, payload)
        protocol.send(out, {})
        return machine
    if machine is None:
        raise ValueError("the first frame must be a setup")
    if command == "input":
        machine.input += payload
        machine.input_closed = machine.input_closed or header["close"]
        protocol.send(out, {})
    elif command == "read":
        protocol.send(out, {}, machine.read_memory(header["address"], header["size"]))
    elif command == "write":
        machine.write_memory(header["address"], payload)
        protocol.send(out, {})
    elif command == "run":
        result = machine.run(header["until_output"], header["count"], header["max_instructions"])
        if machine.reason == "fault":
            result["fault"] = {**machine.return_state(), **(machine.fault or {})}
        if header["count"]:
            result["counts"] = {r: [[*key, n] for key, n in table.items()] for r, table in machine.counts.items()}
            result["labels"] = machine.labels
        result["stack"] = machine.stack_used()
        output, machine.output = machine.output, bytearray()
        protocol.send(out, result, output)
    else:
        raise ValueError(f"unknown command {command!r}")
    return machine


def main() -> int:
    """Serves one emulator until the pipe closes."""
    pipe_in, pipe_out = sys.stdin.buffer, sys.stdout.buffer
    frames: queue.SimpleQueue[tuple[dict[str, Any], bytes]] = queue.SimpleQueue()

    def read_pipe() -> None:
        while True:
            try:
                frames.put(protocol.receive(pipe_in))
            except (EOFError, OSError):
                if machine is not None:
                    machine.close()
                os._exit(0)  # the owner is gone; the program may be in an endless loop

    machine: Program | None = None
    threading.Thread(target=read_pipe, daemon=True).start()
    while True:
        header, payload = frames.get()
        try:
            machine = answer(machine, header, payload, pipe_out)
        except Exception as error:  # the other side must get an answer to every frame
            protocol.send(pipe_out, {"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    sys.exit(main())
