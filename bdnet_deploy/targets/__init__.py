"""The processor cores and boards that bdnet-deploy knows, read from TOML files.

A *core* (``cores/<name>.toml`` beside this file) says how to compile for a processor, how to emulate it and what its instructions
cost. A *board* (``firmware_examples/boards/<board>/board.toml``) is a core with the memories, clock and UART that it really has.
Adding either needs no change in Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from .. import errors, resources
from .._toml import read_toml

__all__ = ["Board", "Core", "Memory", "Register", "Uart", "Validation", "board", "boards", "core", "cores"]


@dataclass(frozen=True)
class Memory:
    """One memory region, addresses and lengths in bytes; ``kind`` is ``"flash"`` or ``"ram"``."""

    name: str
    kind: str
    origin: int
    length: int

    @property
    def end(self) -> int:
        """The first address after the region."""
        return self.origin + self.length


@dataclass(frozen=True)
class Register:
    """A 32-bit memory-mapped register that emulation answers.

    Reads give the last value written, at first ``reset``; with ``fixed`` always ``reset``.
    """

    name: str
    address: int
    reset: int = 0
    fixed: bool = False


@dataclass(frozen=True)
class Uart:
    """A UART that emulation models: ``kind`` is ``"cmsdk"`` or ``"pl011"``; ``baud`` is what ``board.c`` sets up."""

    kind: str
    base: int
    baud: int


@dataclass(frozen=True)
class Validation:
    """How far the cycle estimate of a core was compared with silicon, and by whom."""

    status: str
    source: str


@dataclass(frozen=True)
class Core:
    """A processor core.

    Attributes:
        name: e.g. ``"cortex-m4"``.
        description: one line for listings.
        isa: the instruction set, e.g. ``"armv7e-m"``.
        sets: of instructions that kernels have variants for (:mod:`bdnet_deploy.plan.variants`).
        has_fpu: whether float code uses hardware; otherwise soft-float library calls.
        target, cpu, flags: what the zig compiler gets as ``-target``, ``-mcpu`` and more options.
        machine: ``"cortex-m"`` (bare metal, semihosting), ``"linux-aarch64"`` or ``"linux-armv7"`` (static ELF, system calls; the
            latter in A32 code).
        engine: what emulates it: ``"unicorn"``, or ``"qemu"`` where unicorn lacks the core.
        emulator_cpu: the CPU model of unicorn that runs it; empty without.
        qemu: the QEMU machine (``qemu-system-arm -M``) or, for Linux, the CPU (``qemu-aarch64 -cpu``, ``qemu-arm -cpu``).
        memories: the map used when no board is named; empty for Linux.
        registers: core registers that start-up code touches.
        timing: instruction class -> cycles, see :mod:`bdnet_deploy.emulator.cycles`; empty when there is no sourced table.
        validation: how the estimate compares with hardware.
        path: the TOML file.
    """

    name: str
    description: str
    isa: str
    sets: tuple[str, ...]
    has_fpu: bool
    target: str
    cpu: str
    flags: tuple[str, ...]
    machine: str
    engine: str
    emulator_cpu: str
    qemu: str
    memories: tuple[Memory, ...]
    registers: tuple[Register, ...]
    timing: Mapping[str, float] = field(hash=False)
    validation: Validation
    path: Path = field(compare=False)

    @property
    def is_linux(self) -> bool:
        """Whether images are static Linux programs rather than bare-metal firmware."""
        return self.machine.startswith("linux-")

    @property
    def pointer_bits(self) -> int:
        """Bits of an address: 64 on AArch64, else 32."""
        return 64 if self.machine == "linux-aarch64" else 32


@dataclass(frozen=True)
class Board:
    """A board: a core with its real memories.

    Attributes:
        name: the folder's name, e.g. ``"pico"``.
        description: one line for listings.
        chip: the part's name.
        core: its core.
        clock_hz: the CPU clock that ``board.c`` leaves running; None when unknown.
        clock_note: where that clock comes from and how exact it is.
        memories: what the linker may use; the first ``flash`` holds code, the first ``ram`` data and stack.
        vector_table: address of the vector table.
        boot2: whether flash starts with a 256-byte second-stage boot (RP2040).
        uart: the UART that ``port_uart.c`` uses.
        registers: peripheral registers that ``board.c`` touches.
        flash: model of the flash: ``kind``, and wait states or XIP cost, free-form but named in the file.
        sources: where the addresses come from.
        folder: the folder with ``board.toml`` and ``board.c``.
    """

    name: str
    description: str
    chip: str
    core: Core
    clock_hz: int | None
    clock_note: str
    memories: tuple[Memory, ...]
    vector_table: int
    boot2: bool
    uart: Uart
    registers: tuple[Register, ...]
    flash: Mapping[str, Any] = field(hash=False)
    sources: tuple[str, ...]
    folder: Path = field(compare=False)


_CORES = Path(__file__).resolve().parent / "cores"


def cores() -> tuple[str, ...]:
    """The names of all cores, sorted."""
    return tuple(sorted(path.stem for path in _CORES.glob("*.toml")))


def boards() -> tuple[str, ...]:
    """The names of all boards, sorted."""
    return tuple(sorted(path.parent.name for path in _boards_dir().glob("*/board.toml")))


@cache
def core(name: str) -> Core:
    """The core called ``name``.

    Raises:
        UsageError: no such core; names the nearest three.
    """
    if name not in cores():
        raise errors.unknown_name("core", name, cores())
    path = _CORES / f"{name}.toml"
    data = read_toml(path)
    with _Readable(path):
        tools, emulator = data["toolchain"], data["emulator"]
        return Core(
            name=name,
            description=data["description"],
            isa=data["isa"],
            sets=tuple(data.get("sets", ())),
            has_fpu=data["has_fpu"],
            target=tools["target"],
            cpu=tools["cpu"],
            flags=tuple(tools.get("flags", ())),
            machine=emulator["machine"],
            engine="unicorn" if "cpu" in emulator else "qemu",
            emulator_cpu=emulator.get("cpu", ""),
            qemu=emulator["qemu"],
            memories=_memories(data.get("memory", ())),
            registers=_registers(data.get("register", ())),
            timing=dict(data.get("timing", {})),
            validation=Validation(**data["validation"]),
            path=path,
        )


@cache
def board(name: str) -> Board:
    """The board called ``name``.

    Raises:
        UsageError: no such board; names the nearest three.
        BdnetError: its ``board.toml`` is incomplete.
    """
    if name not in boards():
        raise errors.unknown_name("board", name, boards())
    path = _boards_dir() / name / "board.toml"
    data = read_toml(path)
    with _Readable(path):
        memories = _memories(data["memory"])
        return Board(
            name=name,
            description=data["description"],
            chip=data["chip"],
            core=core(data["core"]),
            clock_hz=data.get("clock_hz"),
            clock_note=data["clock_note"],
            memories=memories,
            vector_table=data.get("vector_table", memories[0].origin),
            boot2=data.get("boot2", False),
            uart=Uart(**data["uart"]),
            registers=_registers(data.get("register", ())),
            flash=dict(data["flash"]),
            sources=tuple(data["sources"]),
            folder=path.parent,
        )


def _boards_dir() -> Path:
    return resources.firmware_dir() / "boards"


def _memories(rows: Iterable[Mapping[str, Any]]) -> tuple[Memory, ...]:
    return tuple(Memory(**row) for row in rows)


def _registers(rows: Iterable[Mapping[str, Any]]) -> tuple[Register, ...]:
    return tuple(Register(**row) for row in rows)


class _Readable:
    """Turns a missing or misspelt key of a target file into a readable error."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (KeyError, TypeError)):
            raise errors.BdnetError(
                "this target description is incomplete",
                where=str(self.path),
                why=f"missing key {error}" if isinstance(error, KeyError) else str(error),
                fix="compare it with a board or core file that comes with bdnet-deploy",
            ) from error
