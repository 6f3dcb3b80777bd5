"""Estimated cycles: counted instructions times the core's timing table (``[timing]`` in ``targets/cores/*.toml``).

Keys of the table, in cycles; a class that is left out costs ``default``:

===================  ==============================================================================================
load, store          one register, integer or float; ``load_pipelined`` right after another single load or store
load_double,         LDRD, STRD
store_double
multiple             LDM, STM, PUSH, POP, VLDM, ...: ``multiple`` plus ``multiple_register`` for each register, plus
                     ``multiple_pc`` when it returns from a function
multiply             MUL; ``multiply_accumulate`` MLA, MLS; ``multiply_long`` 64-bit results
divide               UDIV, SDIV: the middle of a data-dependent range
float_accumulate     VMLA, VMLS, VFMA, ...; ``float_divide`` VDIV and VSQRT
call                 BL and BLX, without the branch itself
branch_taken         added for every taken branch, call and return
===================  ==============================================================================================

The table assumes zero wait states. What an estimate is worth stands in ``[validation]`` of the core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .counting import Counts

_MULTIPLE = ("ldm", "stm", "push", "pop", "vldm", "vstm", "vpush", "vpop")
_LONG = ("umull", "smull", "umlal", "smlal", "umaal")
_FLOAT_ACCUMULATE = ("vmla", "vmls", "vnmla", "vnmls", "vfma", "vfms", "vfnma", "vfnms")
_REGISTER_NUMBERS = {"sb": 9, "sl": 10, "fp": 11, "ip": 12, "sp": 13, "lr": 14, "pc": 15}
_ALONE = ("load", "load_pipelined", "store")


@dataclass(frozen=True)
class Kind:
    """The class of an instruction, and for load/store multiple how many registers it moves and whether it is a return."""

    name: str
    registers: int = 0
    writes_pc: bool = False

    @property
    def single_access(self) -> bool:
        """Whether a following load or store can overlap with it."""
        return self.name in _ALONE


def classify(mnemonic: str, operands: str, after_memory: bool) -> Kind:
    """The class of an Arm instruction as capstone prints it.

    Args:
        mnemonic: e.g. ``"ldr.w"``.
        operands: e.g. ``"r0, [r1]"``.
        after_memory: whether the instruction before it was a single load or store.
    """
    base = mnemonic.split(".")[0]
    if base.startswith(_MULTIPLE):
        moved = _list_length(operands)
        loads = base.startswith(("pop", "ldm"))
        return Kind("multiple", moved, loads and "pc" in operands[operands.find("{") :])
    if base.startswith(("ldrd", "ldp", "ldaxp")):
        return Kind("load_double")
    if base.startswith(("strd", "stp")):
        return Kind("store_double")
    if base.startswith(("ldr", "vldr", "ldur")):
        return Kind("load_pipelined" if after_memory else "load")
    if base.startswith(("str", "vstr", "stur")):
        return Kind("store")
    if base.startswith(("udiv", "sdiv")):
        return Kind("divide")
    if base.startswith(_LONG):
        return Kind("multiply_long")
    if base.startswith(("mla", "mls", "madd", "msub")):
        return Kind("multiply_accumulate")
    if base.startswith("mul"):
        return Kind("multiply")
    if base.startswith(_FLOAT_ACCUMULATE):
        return Kind("float_accumulate")
    if base.startswith(("vdiv", "vsqrt")):
        return Kind("float_divide")
    if base in ("bl", "blx", "blr"):
        return Kind("call")
    return Kind("other")


def estimate(counts: Counts, timing: Mapping[str, float]) -> float | None:
    """Cycles of the counted instructions; None without a table."""
    if not timing:
        return None
    default = timing["default"]
    total = sum(number * timing.get(name, default) for name, number in counts.classes.items())
    total += counts.registers * timing.get("multiple_register", 0)
    total += counts.returns_by_pop * timing.get("multiple_pc", 0)
    return total + counts.taken_branches * timing.get("branch_taken", 0)


def _list_length(operands: str) -> int:
    """How many registers a list like ``{r4-r7, lr}`` or ``sp!, {s0, s1}`` names."""
    inside = operands[operands.find("{") + 1 : operands.rfind("}")]
    count = 0
    for part in inside.split(","):
        first, _, last = part.strip().partition("-")
        count += _number(last) - _number(first) + 1 if last else 1
    return count


def _number(register: str) -> int:
    name = register.strip()
    return _REGISTER_NUMBERS[name] if name in _REGISTER_NUMBERS else int(name.lstrip("rsdqvx"))
