"""What one Thumb function does to the stack: how deep it goes, and how deep it is where it calls.

Every path through the function is followed with the stack pointer's distance from its value at entry, and with what is known of
the registers: constants (from literal pools, ``movw``/``movt`` or computed), addresses on the stack, the return address, bounds of
a switch index. Where paths meet only what all agree on is kept, so the walk ends; the distance itself must agree. What cannot be followed is
an error and never left out.

Encodings and their meaning: Armv7-M Architecture Reference Manual (DDI 0403), A7.7; Armv6-M (DDI 0419). Calls keep r4 to r11 and sp: Procedure
Call Standard for the Arm Architecture (IHI 0042), 6.1.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from .effects import READ_ONLY, SETS_FLAGS, STORES, LostError, apply, pop
from .program import Instruction, Program
from .values import Constant, Entry, Field, Index, ReturnAddress, State, Value


@dataclass(frozen=True)
class Call:
    """A call or, where ``tail``, a jump into another function.

    Attributes:
        at: address of the instruction.
        target: address of the callee; None where it depends on data.
        depth: bytes of this function's frame at that moment.
        field: of an unknown target, the offset in the structure it was loaded from, if known.
    """

    at: int
    target: int | None
    depth: int
    tail: bool
    field: int | None = None


@dataclass(frozen=True)
class Frame:
    """A function by itself.

    Attributes:
        address, name: of its entry.
        deepest: the most bytes it holds.
        calls: in the order of their addresses.
        returns: whether it ever does.
        problem: why it could not be followed.
    """

    address: int
    name: str
    deepest: int
    calls: tuple[Call, ...]
    returns: bool
    problem: str | None = None


_KEPT = ("r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11")
_CONDITIONS = ("eq", "ne", "hs", "lo", "cs", "cc", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le")
#: Control transfers beyond C code for one security state, and loops in hardware (Armv8.1-M).
_FOREIGN = re.compile(r"(bxns|blxns|bxj|rfe\w*|eret|le|letp|wls\w*|dls\w*|bf|bfx|bfl|bflx|bfcsel|bxaut|sg|hvc|smc)")
#: GNU helpers that jump through a table behind the call; entries are signed or unsigned bytes, halfwords or words.
_SWITCH_HELPER = re.compile(r"__gnu_thumb1_case_([su])(q|h)i|__gnu_thumb1_case_(s)(i)")


def walk(program: Program, entry: int, returns: Callable[[int], bool]) -> Frame:
    """Follows the function at ``entry``.

    Args:
        program: the image.
        entry: address of its first instruction.
        returns: whether the function at an address returns; code behind a call that does not is not followed.
    """
    walker = _Walker(program, entry, returns)
    try:
        walker.run()
        problem = None
    except LostError as error:
        problem = f"0x{error.address:08x} ({program.name_of(error.address)}): {error}"
    if _SWITCH_HELPER.fullmatch(program.name_of(entry)):  # where it goes on is seen where it is called
        return Frame(entry, program.name_of(entry), walker.deepest, (), returns=False)
    calls = tuple(sorted(walker.calls, key=lambda call: (call.at, call.target or 0)))
    return Frame(entry, program.name_of(entry), walker.deepest, calls, walker.returned, problem)


class _Walker:
    def __init__(self, program: Program, entry: int, returns: Callable[[int], bool]) -> None:
        self.program = program
        self.entry = entry
        self.returns = returns
        self.calls: set[Call] = set()
        self.deepest = 0
        self.returned = False

    def run(self) -> None:
        states: dict[tuple[int, tuple[bool | None, ...]], State] = {}
        waiting = [(self.entry, State(registers={"lr": ReturnAddress()}))]
        while waiting:
            address, state = waiting.pop()
            key = (address, state.block)
            if key in states:
                known = states[key]
                if known.depth != state.depth:
                    raise LostError(address, f"paths meet with {known.depth} and {state.depth} bytes on the stack")
                state = known.joined(state)
                if state == known:
                    continue
            states[key] = state
            self.deepest = max(self.deepest, state.depth)
            waiting.extend(self._step(address, state.copy()))
        # Calls that the first visits saw with more knowledge than the last: the last are the ones that hold.
        self.calls.clear()
        for (address, _), state in states.items():
            list(self._step(address, state.copy()))

    # -- one instruction --

    def _step(self, address: int, state: State) -> Iterator[tuple[int, State]]:
        if not self.program.is_code(address):
            raise LostError(address, "control runs into data")
        instruction = self.program.instruction(address)
        if instruction is None:
            raise LostError(address, "not a known instruction")
        following = address + instruction.size
        if not state.block:
            yield from self._run(instruction, state, following)
            return
        runs, state.block = state.block[0], state.block[1:]
        if instruction.name in SETS_FLAGS:  # the conditions behind it are new
            state.block = (None,) * len(state.block)
        if runs is not True:
            yield following, state.copy()
        if runs is not False:
            yield from self._run(instruction, state, following)

    def _run(self, i: Instruction, state: State, following: int) -> Iterator[tuple[int, State]]:
        name, operands = i.name, i.operands
        if re.fullmatch(r"it[te]{0,3}", name):
            first = tuple(letter == "t" for letter in name[1:])
            for block in {first, tuple(not runs for runs in first)}:
                yield following, replace(state.copy(), block=block)
        elif name == "udf":
            return  # a trap
        elif _FOREIGN.fullmatch(name):
            raise LostError(i.address, f"'{i.text}' is not understood")
        elif name in ("bl", "blx"):
            yield from self._call(i, state, following)
        elif name == "bx":
            yield from self._jump(i, state, state.registers.get(str(operands[0])))
        elif name == "b":
            yield from self._branch(i, state, int(str(operands[0])))
        elif name in ("cbz", "cbnz"):
            yield from self._branch(i, state.copy(), int(str(operands[1])))
            yield following, state
        elif name[:1] == "b" and name[1:] in _CONDITIONS:
            yield from self._branch(i, state.refined(name[1:], True), int(str(operands[0])))
            yield following, state.refined(name[1:], False)
        elif name in ("tbb", "tbh"):
            size = 1 if name == "tbb" else 2
            index = state.registers.get(getattr(operands[0], "index", ""))
            if getattr(operands[0], "base", "") != "pc":
                raise LostError(i.address, "a jump table that does not follow its jump")
            yield from self._switch(i, state, following, size, index, signed=False)
        elif self._writes_pc(i):
            yield from self._load_pc(i, state)
        else:
            apply(self.program, i, state)
            yield following, state

    def _writes_pc(self, i: Instruction) -> bool:
        if i.name in ("pop", "ldm", "ldmdb"):
            return "pc" in (i.operands[-1] if isinstance(i.operands[-1], tuple) else ())
        return i.name not in READ_ONLY | STORES and bool(i.operands) and i.operands[0] == "pc"

    # -- control flow --

    def _branch(self, i: Instruction, state: State, target: int) -> Iterator[tuple[int, State]]:
        if target == self.entry or self._is_inside(target):
            yield target, state
        else:
            self._tail(i, state, target)

    def _is_inside(self, target: int) -> bool:
        """Whether it lies in the function that is followed, behind its entry.

        A function that others enter by its middle is followed from there once more, as another one.
        """
        here = self.program.function_at(self.entry)
        return here is not None and here == self.program.function_at(target) and target not in (here.start, self.entry)

    def _tail(self, i: Instruction, state: State, target: int) -> None:
        self.calls.add(Call(i.address, target, state.depth, tail=True))
        if self.returns(target):
            self._return(i, state, state.registers.get("lr"))

    def _return(self, i: Instruction, state: State, to: Value) -> None:
        if state.depth != 0:
            raise LostError(i.address, f"it returns with {state.depth} bytes left on the stack")
        if to != ReturnAddress():
            raise LostError(i.address, "it returns to an address that its caller did not give")
        self.returned = True

    def _jump(self, i: Instruction, state: State, to: Value) -> Iterator[tuple[int, State]]:
        """A jump to an address in a register or from memory."""
        if to == ReturnAddress():
            self._return(i, state, to)
        elif isinstance(to, Constant):
            yield from self._branch(i, state, to.number & ~1)
        elif isinstance(to, Entry) and to.size == 4 and to.scale == 1:
            for number in range(to.count):
                target = self.program.constant(to.table + 4 * number)
                if target is None:
                    raise LostError(i.address, "its jump table is not in read-only memory")
                yield from self._branch(i, state.copy(), target & ~1)
        else:
            field = to.offset if isinstance(to, Field) else None
            self.calls.add(Call(i.address, None, state.depth, tail=True, field=field))
            self._return(i, state, state.registers.get("lr"))

    def _call(self, i: Instruction, state: State, following: int) -> Iterator[tuple[int, State]]:
        operand = i.operands[0]
        value: Value = Constant(operand) if isinstance(operand, int) else state.registers.get(str(operand))
        if isinstance(value, Constant):
            target = value.number & ~1
            if i.name == "bl" and self._is_inside(target):
                # Armv6-M has no other jump that reaches far; what it puts into lr is lost.
                state.registers["lr"] = None
                yield target, state
                return
            helper = _SWITCH_HELPER.fullmatch(self.program.name_of(target))
            self.calls.add(Call(i.address, target, state.depth, tail=False))
            if helper:
                size = {"q": 1, "h": 2, "i": 4}[helper[2] or helper[4]]
                signed = (helper[1] or helper[3]) == "s"
                index = state.registers.get("r0")
                state.registers["lr"] = None
                yield from self._switch(i, state, following, size, index, signed=signed)
                return
            if not self.returns(target):
                return
        else:
            field = value.offset if isinstance(value, Field) else None
            self.calls.add(Call(i.address, None, state.depth, tail=False, field=field))
        state.registers = {r: v for r, v in state.registers.items() if r in _KEPT}
        state.forget_slots()
        state.compared = None
        yield following, state

    def _switch(
        self,
        i: Instruction,
        state: State,
        table: int,
        size: int,
        index: Value,
        *,
        signed: bool,
        origin: int | None = None,
    ) -> Iterator[tuple[int, State]]:
        """Table of offsets behind the jump, in halfwords (words: in bytes), from ``origin`` or else from the table on."""
        origin = table if origin is None else origin
        count = (self.program.data_end(table) - table) // size
        if isinstance(index, Index) and index.scale == 1 and index.base == 0:
            count = min(count, index.most + 1)
        targets = set()
        for number in range(count):
            entry = self.program.constant(table + size * number, size)
            if entry is None:
                raise LostError(i.address, "its jump table is not in read-only memory")
            if signed and entry >> (8 * size - 1):
                entry -= 1 << 8 * size
            targets.add((origin + (entry if size == 4 else 2 * entry)) & ~1)
        if not targets:
            raise LostError(i.address, "a jump table of unknown length")
        for target in sorted(targets):
            # One byte of padding may follow a table of bytes: it leads back into the table.
            if self.program.is_code(target) or not table <= target < self.program.data_end(table):
                yield from self._branch(i, state.copy(), target)

    def _load_pc(self, i: Instruction, state: State) -> Iterator[tuple[int, State]]:
        if i.name in ("pop", "ldm"):
            base, moved = ("sp", i.operands[0]) if i.name == "pop" else (i.operands[0], i.operands[1])
            assert isinstance(moved, tuple)
            if base != "sp" or not (i.name == "pop" or i.writes_back):
                raise LostError(i.address, f"'{i.text}' is not understood")
            pop(i, state, moved, 4)
            yield from self._jump(i, state, state.registers.pop("pc", None))
        elif i.name == "mov":
            yield from self._jump(i, state, state.registers.get(str(i.operands[1])))
        elif i.name == "ldr":
            apply(self.program, i, state)
            yield from self._jump(i, state, state.registers.pop("pc", None))
        elif i.name == "add":
            entry = state.registers.get(str(i.operands[-1]))
            if not isinstance(entry, Entry) or entry.table != i.address + i.size or entry.scale != 2:
                raise LostError(i.address, "a computed jump that is no table behind it")
            index = Index(entry.count - 1)
            yield from self._switch(i, state, entry.table, entry.size, index, signed=False, origin=i.address + 4)
        else:
            raise LostError(i.address, f"'{i.text}' is not understood")
