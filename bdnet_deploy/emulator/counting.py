"""From counted basic blocks to counted instructions: per function, per step and per instruction class.

The worker counts blocks; here each distinct block is disassembled once, after the run. A conditional instruction, inside
an IT block or of A32 code, counts whether or not its condition holds, as it does on the processor (it takes its slot) and in QEMU.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import errors
from ..targets import Core
from ..toolchain.image import Image
from . import cycles

_OVERHEAD = -1
_NOWHERE = -1


@dataclass(frozen=True)
class Counts:
    """What was executed.

    Attributes:
        instructions: all of them.
        classes: instruction class -> number, see :mod:`.cycles`; the sum is ``instructions``.
        taken_branches: how often control did not go on to the next instruction.
        registers: registers moved by load/store multiple, push and pop.
        returns_by_pop: pops and loads multiple that write the program counter.
    """

    instructions: int
    classes: Mapping[str, int]
    taken_branches: int
    registers: int
    returns_by_pop: int


@dataclass(frozen=True)
class RegionCount:
    """The counts of one step, of everything outside steps, or of a whole run.

    Attributes:
        instructions: exact.
        cycles: *estimated*; None for a core without a timing table.
        by_function: function -> instructions.
        counts: by instruction class.
    """

    instructions: int
    cycles: float | None
    by_function: Mapping[str, int]
    counts: Counts


@dataclass(frozen=True)
class Decoded:
    """All counts of one run."""

    all: RegionCount
    by_region: Mapping[int, RegionCount]
    overhead: RegionCount

    @property
    def by_function(self) -> Mapping[str, int]:
        """Function -> instructions, largest first."""
        return self.all.by_function


class _Tally:
    """Adds up blocks."""

    def __init__(self) -> None:
        self.functions: Counter[str] = Counter()
        self.classes: Counter[str] = Counter()
        self.taken = self.registers = self.returns = 0

    def add(self, block: _Block, times: int, taken: bool) -> None:
        for name, number in block.functions.items():
            self.functions[name] += number * times
        for name, number in block.classes.items():
            self.classes[name] += number * times
        self.registers += block.registers * times
        self.returns += block.returns * times
        self.taken += times if taken else 0

    def result(self, core: Core) -> RegionCount:
        total = self.classes.total()
        counts = Counts(
            total,
            {name: number for name, number in self.classes.items() if number},
            self.taken,
            self.registers,
            self.returns,
        )
        functions = {name: number for name, number in self.functions.most_common() if number}
        return RegionCount(total, cycles.estimate(counts, core.timing), functions, counts)


@dataclass(frozen=True)
class _Block:
    functions: Mapping[str, int]
    classes: Mapping[str, int]
    registers: int
    returns: int


class Decoder:
    """Turns block counts of one image into instruction counts; disassembled blocks are kept between runs.

    Args:
        image: for its function symbols.
        core: for the instruction set and the timing table.
        code: (address, bytes) of everything that may be executed.
    """

    def __init__(self, image: Image, core: Core, code: Sequence[tuple[int, bytes]]) -> None:
        capstone = errors.require("capstone", extra="emulate")
        if core.pointer_bits == 64:
            self._disassembler: Any = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
        else:
            mode = capstone.CS_MODE_ARM if core.is_linux else capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS
            mode |= capstone.CS_MODE_V8 if core.isa.startswith("armv8") else 0
            self._disassembler = capstone.Cs(capstone.CS_ARCH_ARM, mode)
        self._thumb = not core.is_linux
        self._core = core
        self._code = sorted(code)
        self._code_starts = [start for start, _ in self._code]
        self._blocks: dict[tuple[int, int], _Block] = {}
        self._starts, self._names = _functions(image)

    def decode(self, regions: Mapping[int, Sequence[Sequence[int]]], cut: Sequence[int] | None = None) -> Decoded:
        """Counts of a run.

        Args:
            regions: step index, or -1 for outside -> rows of (end of the block before or -1, address, size, times).
            cut: (region, start, end) of the instructions at the end of the last block that did not run.
        """
        whole = _Tally()
        parts: dict[int, _Tally] = {_OVERHEAD: _Tally()}
        for region, rows in regions.items():
            part = parts.setdefault(region, _Tally())
            for before, address, size, times in rows:
                block = self._block(address, size)
                taken = before not in (_NOWHERE, address)
                part.add(block, times, taken)
                whole.add(block, times, taken)
        if cut is not None and cut[2] > cut[1]:
            region, start, end = cut
            for tally in (whole, parts[region]):
                tally.add(self._block(start, end - start), -1, False)
        done = {region: part.result(self._core) for region, part in parts.items()}
        overhead = done.pop(_OVERHEAD)
        return Decoded(whole.result(self._core), dict(sorted(done.items())), overhead)

    def _block(self, address: int, size: int) -> _Block:
        key = (address, size)
        if key not in self._blocks:
            self._blocks[key] = self._disassemble(address, size)
        return self._blocks[key]

    def _disassemble(self, address: int, size: int) -> _Block:
        code = self._bytes(address, size)
        functions: Counter[str] = Counter()
        classes: Counter[str] = Counter()
        registers = returns = at = 0
        after_memory = False
        while at < size:
            length = self._length(code, at)
            text = next(iter(self._disassembler.disasm_lite(code[at : at + length], address + at, 1)), None)
            mnemonic, operands = (text[2], text[3]) if text is not None else ("", "")
            kind = cycles.classify(mnemonic, operands, after_memory)
            classes[kind.name] += 1
            registers += kind.registers
            returns += kind.writes_pc
            after_memory = kind.single_access
            functions[self._function(address + at)] += 1
            at += length
        return _Block(functions, classes, registers, returns)

    def _length(self, code: bytes, at: int) -> int:
        # Thumb: a first halfword of 0b11101, 0b11110 or 0b11111 in its top bits begins a 32-bit instruction
        # (Armv7-M Architecture Reference Manual, A5.1).
        return 4 if not self._thumb or code[at + 1] >> 3 >= 0b11101 else 2

    def _bytes(self, address: int, size: int) -> bytes:
        index = bisect.bisect_right(self._code_starts, address) - 1
        if index >= 0:
            start, data = self._code[index]
            if address + size <= start + len(data):
                return data[address - start : address - start + size]
        raise errors.BdnetError(
            f"the program ran code at 0x{address:08x} that is not in its image",
            fix="code that is written while the program runs cannot be counted",
        )

    def _function(self, address: int) -> str:
        index = bisect.bisect_right(self._starts, address) - 1
        return self._names[index] if index >= 0 else "?"


def _functions(image: Image) -> tuple[list[int], list[str]]:
    """Start addresses and names of all functions, sorted; of several names for one address the shortest is kept."""
    best: dict[int, str] = {}
    for name, symbol in image.functions:
        other = best.get(symbol.address)
        if other is None or (len(name), name) < (len(other), other):
            best[symbol.address] = name
    starts = sorted(best)
    return starts, [best[start] for start in starts]
