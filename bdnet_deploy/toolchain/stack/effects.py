"""What one Thumb instruction does to the stack pointer, the registers and the words on the stack."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .program import Address, Instruction, Operand, Program
from .values import OnStack, State, Value, result

READ_ONLY = frozenset("cmp cmn tst teq nop bkpt svc dsb dmb isb sev wfe wfi cpsie cpsid yield".split())
STORES = frozenset("str strb strh strd strex strexb strexh stl stlb stlh stm stmdb vstr vstmia vstmdb".split())
SETS_FLAGS = ("cmp", "cmn", "tst", "teq", "vmrs", "msr")


class LostError(Exception):
    """The code cannot be followed beyond ``address``."""

    def __init__(self, address: int, why: str) -> None:
        super().__init__(why)
        self.address = address


def apply(program: Program, i: Instruction, state: State) -> None:
    """Changes ``state`` as an instruction does that goes on to the next one.

    Raises:
        LostError: the stack pointer is not known afterwards.
    """
    name, operands = i.name, i.operands
    listed = operands[-1] if operands and isinstance(operands[-1], tuple) else ()
    size = 8 if listed and listed[0].startswith("d") else 4
    on_sp = operands[:1] == ("sp",) and i.writes_back
    if name in ("push", "vpush") or (name in ("stmdb", "vstmdb") and on_sp):
        _push(i, state, listed, size)
    elif name in ("pop", "vpop") or (name in ("ldm", "vldmia") and on_sp):
        pop(i, state, listed, size)
    elif name in READ_ONLY:
        if name in ("svc", "bkpt"):  # whoever serves it answers in registers
            for register in ("r0", "r1", "r2", "r3", "r12"):
                state.registers.pop(register, None)
    elif name in STORES:
        _store(i, state)
    else:
        _compute(program, i, state)
    first = operands[0] if operands else None
    if name == "cmp" and isinstance(first, str) and isinstance(operands[1], int):
        state.compared = (first, operands[1])
    elif name in SETS_FLAGS or name.endswith("s") or (state.compared and state.compared[0] in _registers(operands)):
        state.compared = None


def pop(i: Instruction, state: State, moved: tuple[str, ...], size: int) -> None:
    """Loads registers of ``size`` bytes from the top of the stack."""
    if "sp" in moved:
        raise LostError(i.address, "it loads the stack pointer")
    for number, register in enumerate(moved):
        state.registers[register] = state.slots.get(state.depth - size * number) if size == 4 else None
    _deepen(i, state, state.depth - size * len(moved))


def _deepen(i: Instruction, state: State, depth: int) -> None:
    if depth < 0:
        raise LostError(i.address, "the stack pointer rises above its value at entry")
    state.depth = depth
    state.slots = {s: v for s, v in state.slots.items() if s <= depth}


def _push(i: Instruction, state: State, moved: tuple[str, ...], size: int) -> None:
    _deepen(i, state, state.depth + size * len(moved))
    for number, register in enumerate(moved):
        state.keep(state.depth - size * number, size, state.registers.get(register))


def _store(i: Instruction, state: State) -> None:
    place = next((o for o in i.operands if isinstance(o, Address)), None)
    if place is None:  # a list of registers
        base, listed = str(i.operands[0]), i.operands[-1]
        assert isinstance(listed, tuple)
        words = len(listed) * (2 if listed[0].startswith("d") else 1)
        offset = -4 * words if i.name.endswith("db") else 0
        _overwrite(state, base, offset, 4 * words, None)
        if i.writes_back:
            _write_back(i, state, base, 0, unknown=True)
        return
    behind = i.operands[-1] if isinstance(i.operands[-1], int) else None
    words = {"str": 1, "strd": 2}.get(i.name, 0)
    values = [state.registers.get(str(operand)) for operand in i.operands[:words]]
    offset = place.offset
    if place.before:  # the stack grows before the word is written
        _write_back(i, state, place.base, place.offset)
        offset = 0
    if place.index is not None:
        _overwrite(state, "", 0, 4, None)
    elif not values:
        _overwrite(state, place.base, offset, 8 if i.name == "vstr" else 4, None)
    for number, value in enumerate(values if place.index is None else ()):
        _overwrite(state, place.base, offset + 4 * number, 4, value)
    if behind is not None:
        _write_back(i, state, place.base, behind)
    if i.name.startswith("strex"):
        state.registers.pop(str(i.operands[0]), None)


def _overwrite(state: State, base: str, offset: int, size: int, value: Value) -> None:
    at = state.value(base)
    if isinstance(at, OnStack) and not at.shifted:
        state.keep(at.depth - offset, size, value)
    else:
        state.forget_slots()


def _write_back(i: Instruction, state: State, base: str, offset: int, *, unknown: bool = False) -> None:
    if base == "sp" and unknown:
        raise LostError(i.address, f"'{i.text}' is not understood")
    if base == "sp":
        _deepen(i, state, state.depth - offset)
    else:
        state.registers.pop(base, None)


def _compute(program: Program, i: Instruction, state: State) -> None:
    """Instructions that write registers."""
    operands = i.operands
    first = operands[0] if operands and isinstance(operands[0], str) else ""
    place = next((o for o in operands if isinstance(o, Address)), None)
    only_first, value = result(program, i, state)
    if only_first and first == "sp" and isinstance(value, OnStack) and not value.shifted:
        _deepen(i, state, value.depth)
        return
    if i.name in ("ldm", "ldmdb", "vldmia", "vldmdb", "mrs"):
        written = _registers(operands if i.writes_back or i.name == "mrs" else operands[1:])
    else:
        written = (first,) if only_first else _registers(operands)
    if "sp" in written or re.match(r"[mp]sp|control", first):
        raise LostError(i.address, f"after '{i.text}' the stack pointer is unknown")
    for register in written:
        state.registers.pop(register, None)
    if place is not None and (place.before or isinstance(operands[-1], int)):
        offset = place.offset if place.before else operands[-1]
        assert isinstance(offset, int)
        _write_back(i, state, place.base, offset)
    if value is not None:
        state.registers[first] = value


def _registers(operands: Iterable[Operand]) -> tuple[str, ...]:
    """All registers among operands and in their lists."""
    flat = (o if isinstance(o, tuple) else (o,) for o in operands if isinstance(o, (str, tuple)))
    return tuple(name for names in flat for name in names)
