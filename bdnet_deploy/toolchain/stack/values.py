"""What is known of the registers and of words on the stack, and how instructions change it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .program import Address, Instruction, Operand, Program

_WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class Constant:
    """An unsigned word."""

    number: int


@dataclass(frozen=True)
class OnStack:
    """The stack pointer at entry minus ``depth``, or, once it was aligned down, at most that far below. ``shifted``: right by so many bits."""

    depth: int
    shifted: int = 0


@dataclass(frozen=True)
class ReturnAddress:
    """What was in lr at entry."""


@dataclass(frozen=True)
class Field:
    """A word loaded from ``offset`` of a structure somewhere."""

    offset: int


@dataclass(frozen=True)
class Index:
    """``base`` plus ``scale`` times a number of 0 to ``most``."""

    most: int
    scale: int = 1
    base: int = 0


@dataclass(frozen=True)
class Entry:
    """``scale`` times one of ``count`` numbers of ``size`` bytes that lie at ``table``."""

    table: int
    count: int
    size: int
    scale: int = 1


Value = Constant | OnStack | ReturnAddress | Field | Index | Entry | None
"""None: nothing is known."""


@dataclass
class State:
    """At one instruction, on all paths to it.

    Attributes:
        depth: bytes from the stack pointer at entry down to the stack pointer.
        registers: what is known of them.
        slots: the word that many bytes below the stack pointer at entry.
        compared: the flags are those of this register minus this number.
        block: whether the next instructions, those of an IT block, run; None: they may or may not.
    """

    depth: int = 0
    registers: dict[str, Value] = field(default_factory=dict)
    slots: dict[int, Value] = field(default_factory=dict)
    compared: tuple[str, int] | None = None
    block: tuple[bool | None, ...] = ()

    def copy(self) -> State:
        return State(self.depth, dict(self.registers), dict(self.slots), self.compared, self.block)

    def value(self, operand: Operand) -> Value:
        """Of a number or a register."""
        if isinstance(operand, int):
            return Constant(operand & _WORD)
        if operand == "sp":
            return OnStack(self.depth)
        return self.registers.get(operand) if isinstance(operand, str) else None

    def joined(self, other: State) -> State:
        """What holds on the paths of both, which have the same depth."""
        registers = {name: _common(value, other.registers.get(name)) for name, value in self.registers.items()}
        return State(
            self.depth,
            {name: value for name, value in registers.items() if value is not None},
            {slot: value for slot, value in self.slots.items() if other.slots.get(slot) == value},
            self.compared if self.compared == other.compared else None,
            self.block,
        )

    def keep(self, slot: int, size: int, value: Value) -> None:
        """``size`` bytes from ``slot`` upwards were written; ``value`` if they are a word."""
        self.slots = {s: v for s, v in self.slots.items() if not slot - size < s < slot + 4}
        if size == 4 and value is not None:
            self.slots[slot] = value

    def forget_slots(self) -> None:
        """Something was written through a pointer; the rules of C keep it off the return address."""
        self.slots = {s: v for s, v in self.slots.items() if v == ReturnAddress()}

    def refined(self, condition: str, holds: bool) -> State:
        """A copy that knows what an unsigned comparison says of its register."""
        state = self.copy()
        if self.compared is None:
            return state
        register, number = self.compared
        most = -1
        if (condition, holds) in (("hi", False), ("ls", True)):
            most = number
        elif (condition, holds) in (("hs", False), ("cs", False), ("lo", True), ("cc", True)):
            most = number - 1
        old = self.registers.get(register)
        # A constant, too: another path may bring another one, and what both have in common is the bound.
        better = old is None or isinstance(old, (Field, Constant))
        better |= isinstance(old, Index) and old.most > most and (old.scale, old.base) == (1, 0)
        if most >= 0 and better:
            state.registers[register] = Index(most)
        return state


def _common(a: Value, b: Value) -> Value:
    if isinstance(a, Index) and isinstance(b, Index) and (a.scale, a.base) == (b.scale, b.base):
        return a if a.most > b.most else b
    return a if a == b else None


def result(program: Program, i: Instruction, state: State) -> tuple[bool, Value]:
    """(whether the only register that it writes is its first operand, what is then known of that one)."""
    name = i.name.removesuffix("s") if i.name in _WITH_FLAGS else i.name
    operands = i.operands
    if name in ("ldr", "ldrb", "ldrh", "ldrsb", "ldrsh"):
        return True, _loaded(program, i, state, name)
    if name not in _MODELLED or not isinstance(operands[0], str):
        return False, None
    if name == "ubfx":
        return True, Index((1 << int(str(operands[3]))) - 1)
    if name == "bfc":
        return True, _aligned(state.value(operands[0]), int(str(operands[2]))) if operands[1] == 0 else None
    sources = operands[1:] if len(operands) > 2 or name in _MOVES else operands
    if len(sources) > (1 if name in _MOVES else 2):
        return True, None  # a shifted operand
    return True, _computed(i, name, sources, state)


_MOVES = ("mov", "movw", "mvn", "adr", "uxtb", "uxth")
_MODELLED = (*_MOVES, "movt", "add", "addw", "sub", "subw", "lsl", "lsr", "bic", "bfc", "and", "ubfx")
_WITH_FLAGS = ("movs", "mvns", "adds", "subs", "lsls", "lsrs", "bics", "ands")


def _computed(i: Instruction, name: str, sources: Sequence[Operand], state: State) -> Value:
    here = i.address + 4
    if name == "adr":
        number = sources[0]
        return Constant((here & ~3) + number) if isinstance(number, int) else None
    if name in ("add", "addw", "sub", "subw") and sources[0] == "pc" and isinstance(sources[1], int):
        return Constant((here & ~3) + (sources[1] if name[0] == "a" else -sources[1]))
    a, *rest = (Constant(here) if source == "pc" else state.value(source) for source in sources)
    b = rest[0] if rest else None
    if name in ("mov", "movw"):
        return a
    if name == "mvn":
        return Constant(~a.number & _WORD) if isinstance(a, Constant) else None
    if name == "movt":
        return Constant(a.number & 0xFFFF | int(str(sources[1])) << 16) if isinstance(a, Constant) else None
    if name in ("add", "addw"):
        return _sum(a, b)
    if name in ("sub", "subw"):
        return _sum(a, Constant(-b.number & _WORD)) if isinstance(b, Constant) else None
    if name in ("uxtb", "uxth"):
        return _masked(a, 0xFF if name == "uxtb" else 0xFFFF)
    return _bits(name, a, b.number if isinstance(b, Constant) else -1)


def _sum(a: Value, b: Value) -> Value:
    if not isinstance(b, Constant):
        a, b = b, a
    if not isinstance(b, Constant):
        return None
    if isinstance(a, Constant):
        return Constant((a.number + b.number) & _WORD)
    if isinstance(a, OnStack) and not a.shifted:
        return OnStack(a.depth - (b.number - (b.number >> 31 << 32)))
    return replace(a, base=(a.base + b.number) & _WORD) if isinstance(a, Index) else None


def _masked(a: Value, mask: int) -> Value:
    if isinstance(a, Constant):
        return Constant(a.number & mask)
    plain = isinstance(a, Index) and a.scale == 1 and a.base == 0
    return a if isinstance(a, Index) and plain and a.most <= mask else Index(mask)


def _bits(name: str, a: Value, number: int) -> Value:
    """Shifts and masks by constants. The stack pointer is aligned down by bic, by bfc, or by a shift there and back."""
    if number < 0:
        return None
    if name == "bic":
        exact = number & (number + 1) == 0
        if isinstance(a, OnStack):
            return _aligned(a, number.bit_length()) if exact else None
        return Constant(a.number & ~number) if isinstance(a, Constant) else None
    if name == "and":
        return _masked(a, number)
    if isinstance(a, Constant):
        return Constant(a.number << number & _WORD if name == "lsl" else a.number >> number)
    if name == "lsr":
        if isinstance(a, OnStack):
            return None if a.shifted else replace(a, shifted=number)
        return Index(_WORD >> number)
    if isinstance(a, OnStack):
        return _aligned(replace(a, shifted=0), number) if a.shifted == number else None
    if isinstance(a, Entry) or (isinstance(a, Index) and a.base == 0):
        return replace(a, scale=a.scale << number)
    return None


def _aligned(a: Value, bits: int) -> Value:
    if not isinstance(a, OnStack) or a.shifted:
        return None
    return OnStack(a.depth + max((1 << bits) - 4, 0))  # the stack pointer is always a multiple of 4


def _loaded(program: Program, i: Instruction, state: State, name: str) -> Value:
    place = next((o for o in i.operands if isinstance(o, Address)), None)
    if place is None:
        return None
    base = Constant((i.address + 4) & ~3) if place.base == "pc" else state.value(place.base)
    index = state.value(place.index) if place.index is not None else None
    size = {"ldr": 4, "ldrh": 2, "ldrb": 1}.get(name, 0)
    if size != 0:
        entry = _entry(base, index, place, size)
        if entry is not None:
            return entry
    if size != 4:
        return Index((1 << 8 * size) - 1) if size else None
    offset = place.offset
    if place.index is not None:
        if not isinstance(index, Constant):
            return None
        offset = index.number << place.shift
    if isinstance(base, Constant):
        word = program.constant((base.number + offset) & _WORD)
        return None if word is None else Constant(word)
    if isinstance(base, OnStack):
        return None if base.shifted else state.slots.get(base.depth - offset)
    return Field(offset)


def _entry(base: Value, index: Value, place: Address, size: int) -> Value:
    """A number from a table: [table, index] either way around, or [table plus index]."""
    if isinstance(base, Index) and isinstance(index, Constant) and not place.shift:
        base, index = index, base
    if isinstance(base, Index) and place.index is None and base.base != 0 and base.scale == size:
        return Entry(base.base + place.offset, base.most + 1, size)
    if (
        isinstance(base, Constant)
        and isinstance(index, Index)
        and index.scale << place.shift == size
        and not index.base
    ):
        return Entry(base.number, index.most + 1, size)
    return None
