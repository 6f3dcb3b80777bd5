"""The package's side of an emulated processor: loads an image, talks to the worker process, turns its answers into results."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from .. import errors
from ..targets import Board, Core, Register
from ..toolchain.image import Image, read_image
from . import protocol, qemu
from .counting import Counts, Decoder, RegionCount
from .loading import load_image

STEP_MARKERS = {"enter": "bd_step_enter", "leave": "bd_step_leave"}
"""Functions whose entry switches the region that instructions are counted for; the first argument of ``enter`` is its index.
One for the key ``label`` gives the region that is counted a label, its first argument."""

_MAX_LINE = 2000


#: Real seconds after which a run is ended, unless its caller says otherwise.
TIMEOUT_S = 300.0


# Not "python -m": that would search the user's folder, which may hold a dis.py, before the standard library.
_WORKER = (
    "import sys; sys.path[:] = filter(None, sys.path); from bdnet_deploy.emulator.worker import main; sys.exit(main())"
)


class EmulatorFault(errors.BdnetError):
    """The program did what the processor or the memory map does not allow.

    Attributes:
        pc: the instruction's address.
        function: the function it lies in, or None.
        address: the address accessed, or None.
    """

    def __init__(self, what: str, *, where: str, why: str, pc: int, function: str | None, address: int | None) -> None:
        super().__init__(what, where=where, why=why)
        self.pc = pc
        self.function = function
        self.address = address


@dataclass(frozen=True)
class RunResult:
    """What one :meth:`Emulator.run` did.

    Attributes:
        output: the bytes that the program wrote.
        stopped: why the run ended: ``"exit"``, ``"input"`` (it waits for bytes), ``"output"`` (as many bytes as asked for are
            there), ``"limit"`` (``max_instructions``), ``"halt"`` (it sleeps for ever).
        exit_code: with ``"exit"``, else None.
        instructions: executed instructions, exact; None unless counted.
        by_function: function -> instructions; a sum of all is ``instructions``.
        by_region: step index, or what else the markers delimit -> its counts; a sum of all and ``overhead`` is
            ``instructions``.
        labels: region -> its last label, where the markers have one.
        overhead: the counts outside all regions.
        counts: the whole run's counts by instruction class; None unless counted.
        stack_high_water: the deepest stack use since the start, in bytes.
        cycles: *estimated* by the core's timing table; None without a table or unless counted.
    """

    output: bytes
    stopped: str
    exit_code: int | None
    instructions: int | None = None
    by_function: Mapping[str, int] = field(default_factory=dict)
    by_region: Mapping[int, RegionCount] = field(default_factory=dict)
    labels: Mapping[int, int] = field(default_factory=dict)
    overhead: RegionCount | None = None
    counts: Counts | None = None
    stack_high_water: int = 0
    cycles: float | None = None


class Emulator:
    """One program on one emulated processor, in a process of its own. Use as a context manager.

    Args:
        image: the ELF, or what :func:`bdnet_deploy.toolchain.build_image` returned.
        core: the processor.
        board: its board: memory map, registers and UART; without one the core's default map.
        stdin: the first bytes of the program's input.
        markers: the functions that delimit regions, as :data:`STEP_MARKERS`; those that the image does not have are left out.

    Raises:
        MissingPackageError: unicorn, capstone or pyelftools are not installed.
        BdnetError: the core runs in QEMU, which is not installed.
        ModelFileError: the image is no ELF for this processor.
        DoesNotFitError: the image lies outside the memory map.
    """

    def __init__(
        self,
        image: Image | Path,
        core: Core,
        board: Board | None = None,
        stdin: bytes = b"",
        markers: Mapping[str, str] = STEP_MARKERS,
    ) -> None:
        self.image = read_image(image) if isinstance(image, Path) else image
        self.core = core
        self.board = board
        self._counter: Decoder | None = None
        self._process: subprocess.Popen[bytes] | None = None
        loaded = load_image(self.image, core, board)
        self._memory = loaded
        addresses = {
            key: self.image.symbols[name].address for key, name in markers.items() if name in self.image.symbols
        }
        registers = [*core.registers, *(board.registers if board is not None else ())]
        setup: dict[str, Any] = {
            "do": "setup",
            "engine": core.engine,
            "machine": core.machine,
            "cpu": core.emulator_cpu,
            "maps": loaded.maps,
            "writes": [[address, len(data)] for address, data in loaded.contents],
            "pc": loaded.entry,
            "stack": [loaded.stack_limit, loaded.stack_top],
            "registers": [_register(r) for r in registers],
            "uart": {"kind": board.uart.kind, "base": board.uart.base} if board is not None else None,
            "markers": addresses,
        }
        if core.engine == "qemu":
            fault = self.image.symbols.get("bd_fault")
            setup["qemu"], setup["plugin"] = qemu.find(core), str(qemu.counter(core))
            setup["cpu"] = core.qemu
            setup["vectors"] = self.image.symbols["bd_vectors"].address
            setup["fault"] = fault.address if fault is not None else None
        self._start()
        try:
            self._ask(setup, b"".join(data for _, data in loaded.contents))
            if stdin:
                self.send(stdin)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Emulator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process; harmless when it has ended already."""
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            try:
                if stream is not None:
                    stream.close()
            except OSError:  # the worker is gone and its pipe with it
                pass
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._log.close()

    def send(self, data: bytes) -> None:
        """Appends bytes to the program's input."""
        self._ask({"do": "input", "close": False}, data)

    def close_input(self) -> None:
        """Ends the program's input: once all bytes are read, ``port_read`` returns 0."""
        self._ask({"do": "input", "close": True})

    def address(self, where: str | int) -> int:
        """The address of a symbol, or the address itself.

        Raises:
            UsageError: no such symbol.
        """
        if isinstance(where, int):
            return where
        symbol = self.image.symbols.get(where)
        if symbol is None:
            raise errors.unknown_name("symbol", where, self.image.symbols)
        return symbol.address

    def read_memory(self, where: str | int, size: int) -> bytes:
        """``size`` bytes at an address or symbol."""
        return self._ask({"do": "read", "address": self.address(where), "size": size})[1]

    def write_memory(self, where: str | int, data: bytes) -> None:
        """Writes bytes at an address or symbol; flash may be written too."""
        self._ask({"do": "write", "address": self.address(where)}, data)

    def run(
        self,
        *,
        until_output: int | None = None,
        count: bool = False,
        max_instructions: int | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> RunResult:
        """Runs until the program exits, waits for input, or has written ``until_output`` bytes; goes on at the next call.

        Args:
            until_output: stop after the write that completes so many bytes in this run.
            count: count instructions: about 1.5 million basic blocks a second instead of 1000 million instructions.
            max_instructions: stop after so many, not counting those whose condition fails in an IT block; slows down about fourfold
                (in QEMU to some thousand instructions a second).
            timeout_s: real seconds after which the process is ended and an error raised.

        Raises:
            EmulatorFault: access outside the memory map, undefined instruction, ...
            BdnetError: the time is over.
        """
        header, output = self._ask(
            {
                "do": "run",
                "until_output": until_output,
                "count": count,
                "max_instructions": max_instructions or 0,
            },
            timeout_s=timeout_s,
        )
        if "fault" in header:
            raise self._fault(header["fault"], output)
        used = header["stack"]
        stopped, code = header["reason"], header["exit_code"]
        if not count:
            return RunResult(output, stopped, code, stack_high_water=used)
        if self._counter is None:
            self._counter = Decoder(self.image, self.core, self._memory.code)
        regions = {int(region): rows for region, rows in header.get("counts", {}).items()}
        total = self._counter.decode(regions, header.get("cut"))
        return RunResult(
            output=output,
            stopped=stopped,
            exit_code=code,
            instructions=total.all.instructions,
            by_function=total.by_function,
            by_region=total.by_region,
            labels={int(region): label for region, label in header.get("labels", {}).items()},
            overhead=total.overhead,
            counts=total.all.counts,
            stack_high_water=used,
            cycles=total.all.cycles,
        )

    def _fault(self, fault: Mapping[str, Any], output: bytes) -> EmulatorFault:
        pc, address = fault["pc"], fault.get("address")
        function = self.function_at(pc)
        where = f"{self.image.path.name}, {function or '?'} at 0x{pc:08x}"
        kind = fault["kind"]
        if kind in ("read", "write", "fetch") and address is not None:
            verb = {"read": "reads", "write": "writes", "fetch": "runs code at"}[kind]
            owner = self.board.name if self.board is not None else self.core.name
            what = f"the program {verb} 0x{address:08x}, which {owner} does not have"
            if any(start <= address < start + size for start, size, _ in self._memory.maps):
                what = f"the program {verb} 0x{address:08x}, which cannot be written"
        else:
            what = "the program executes an instruction that faults on this core"
        detail = fault.get("error") or (f"processor exception {fault['number']}" if "number" in fault else kind)
        why = f"{detail}; return address 0x{fault['lr']:08x} ({self.function_at(fault['lr']) or '?'}), stack 0x{fault['sp']:08x}"
        if output:
            why += f"; wrote {len(output)} bytes before"
        return EmulatorFault(what, where=where, why=why, pc=pc, function=function, address=address)

    def function_at(self, address: int) -> str | None:
        """The function that an address lies in."""
        address &= ~1 if not self.core.is_linux else ~0
        for name, symbol in self.image.functions:
            if symbol.address <= address < symbol.address + max(symbol.size, 1):
                return name
        return None

    # -- the worker process --------------------------------------------------------------------------------------------

    def _start(self) -> None:
        environment = dict(os.environ)
        root = str(Path(__file__).resolve().parents[2])
        before = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = root + (os.pathsep + before if before else "")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )

    def _ask(
        self, header: dict[str, Any], payload: bytes = b"", timeout_s: float = 120.0
    ) -> tuple[dict[str, Any], bytes]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise errors.BdnetError("this emulator is closed", fix="make a new Emulator")
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(timeout_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            protocol.send(process.stdin, header, payload)
            answer, data = protocol.receive(process.stdout)
        except (EOFError, OSError) as error:
            process.kill()
            process.wait()
            self._log.seek(0)
            said = self._log.read().decode("utf-8", "replace").strip()[-_MAX_LINE:]
            self.close()
            if late.is_set():
                raise errors.BdnetError(
                    f"the emulated program did not finish in {timeout_s:g} seconds",
                    where=str(self.image.path),
                    fix="raise timeout_s, or look for an endless loop",
                ) from error
            raise errors.BdnetError("the emulator process ended unexpectedly", why=said or None) from error
        finally:
            timer.cancel()
        if "missing" in answer:
            self.close()
            raise errors.MissingPackageError(
                "emulation needs the Python package 'unicorn', which cannot be imported",
                why=answer["missing"],
                fix="pip install 'bdnet-deploy[emulate]'",
            )
        if "error" in answer:
            raise errors.BdnetError("the emulator cannot do that", where=str(self.image.path), why=answer["error"])
        return answer, data


def _register(register: Register) -> dict[str, Any]:
    return {"address": register.address, "reset": register.reset, "fixed": register.fixed}
