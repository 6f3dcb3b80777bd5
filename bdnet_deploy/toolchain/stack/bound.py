"""The worst-case stack of a linked image: frames of all functions, edges of all calls, the heaviest path."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from ... import errors
from .frames import Call, Frame, walk
from .program import Program

#: What is bounded by default, as far as it is linked: the program from its start, and the functions of ``bdnet.h``.
ENTRIES = (
    "bd_reset",
    "main",
    "bd_inspect",
    "bd_load",
    "bd_begin",
    "bd_advance",
    "bd_push_row",
    "bd_run",
    "bd_self_test",
)
#: Functions of the runtime that call through a pointer: which member of a kernel it is, and its offset in ``bd_kernel``.
_KERNEL_CALLERS = {"bd_run_rows": ("run", 4), "bd_check_model": ("check", 8)}
#: Functions of kernels that choose one of the loops in their constant table ``bd_loops_<packing>``.
_LOOP_CALLERS = ("epilogue", "one_pixel")


class StackError(errors.BdnetError):
    """The stack has no bound, or none that can be shown: recursion, or code that cannot be followed."""


@dataclass(frozen=True)
class PathStep:
    """A function on a path, and the bytes that it holds when it calls the next one; of the last one, its most."""

    function: str
    bytes: int


@dataclass(frozen=True)
class StackBound:
    """The most stack that a function and all that it calls can take.

    Attributes:
        bytes: from the stack pointer at entry down; the sum over the path.
        path: from the entry to the deepest function.
    """

    bytes: int
    path: tuple[PathStep, ...]


@dataclass(frozen=True)
class StackReport:
    """What :func:`analyse_stack` found.

    Attributes:
        bounds: entry -> its bound, where there is one.
        problems: entry -> why there is none.
        cycles: recursion among all analysed functions; each cycle names the caller first and ends where it began.
        frames: function -> the most bytes that it holds by itself.
        calls: function -> what it may call.
    """

    bounds: Mapping[str, StackBound]
    problems: Mapping[str, Sequence[str]]
    cycles: Sequence[Sequence[str]]
    frames: Mapping[str, int]
    calls: Mapping[str, Sequence[str]]

    def bound(self, entry: str) -> StackBound:
        """The bound of one entry.

        Raises:
            UsageError: it was not analysed.
            StackError: it has none; says why.
        """
        if entry in self.bounds:
            return self.bounds[entry]
        if entry not in self.problems:
            raise errors.unknown_name("function", entry, [*self.bounds, *self.problems])
        raise StackError(f"the stack of {entry} has no bound", why="\n".join(self.problems[entry]))


def analyse_stack(
    path: Path, entries: Sequence[str] | None = None, *, indirect: Mapping[str, Sequence[str]] | None = None
) -> StackReport:
    """Bounds the stack of an image for a Cortex-M.

    Every function that an entry can reach is followed through its Thumb code (:mod:`.frames`). A kernel call of the runtime may
    reach the ``run`` function of every kernel that is linked, a check of the loader every ``check`` function, a kernel with a
    table of loops each of them. Any other call
    through a pointer whose target cannot be read off the code must be described by ``indirect``, or there is no bound.

    What exceptions push is not counted, nor what their handlers need.

    Args:
        path: the linked ELF with its symbols.
        entries: functions to bound; by default those of :data:`ENTRIES` that are linked.
        indirect: function -> all functions that its calls through pointers can reach.

    Raises:
        MissingPackageError: capstone or pyelftools is not installed.
        ModelFileError: no ELF for a Cortex-M, or one without symbols.
        UsageError: a named function is not in the image.
    """
    program = Program(path)
    if entries is None:
        entries = [name for name in ENTRIES if name in program.entries]
    for name in {*entries, *(n for pair in (indirect or {}).items() for n in (pair[0], *pair[1]))}:
        if name not in program.entries:
            raise errors.unknown_name("function", name, program.entries)
    graph = _Graph(program, indirect or {})
    graph.explore(program.entries[name] for name in entries)
    bounds: dict[str, StackBound] = {}
    problems: dict[str, Sequence[str]] = {}
    for name in entries:
        found = graph.bound(program.entries[name])
        if isinstance(found, StackBound):
            bounds[name] = found
        else:
            problems[name] = found
    names = {address: frame.name for address, frame in graph.frames.items()}
    return StackReport(
        bounds,
        problems,
        [[names[f] for f in cycle] for cycle in graph.cycles(graph.frames)],
        {frame.name: frame.deepest for frame in graph.frames.values()},
        {frame.name: sorted({names[f] for f in graph.callees(frame)}) for frame in graph.frames.values()},
    )


class _Graph:
    """The frames of all functions that were reached, and who calls whom."""

    def __init__(self, program: Program, indirect: Mapping[str, Sequence[str]]) -> None:
        self.program = program
        self.frames: dict[int, Frame] = {}
        self._indirect = {
            program.entries[caller]: [program.entries[n] for n in callees] for caller, callees in indirect.items()
        }
        self._kernels = kernels(program)
        self._loops = loops(program)

    def explore(self, entries: Iterable[int]) -> None:
        """Walks everything that the entries reach.

        Whether a function returns decides what its callers reach behind the call, so callees go first. Within a cycle none is
        known to return at first; whoever has called one that turns out to is walked again.
        """
        callers: dict[int, set[int]] = {}
        begun: set[int] = set()
        stale: set[int] = set()
        waiting = list(entries)
        while waiting:
            address = waiting[-1]
            if address in self.frames and address not in stale:
                waiting.pop()
                continue
            begun.add(address)
            frame = walk(self.program, address, self._returns)
            direct = {call.target for call in frame.calls if call.target is not None}
            if direct - begun:
                waiting.extend(sorted(direct - begun))
                continue
            waiting.pop()
            stale.discard(address)
            news = frame.returns and not self._returns(address)
            self.frames[address] = frame
            for callee in direct:
                callers.setdefault(callee, set()).add(address)
            waiting[:0] = sorted(self.callees(frame) - begun)  # through pointers: taken to return
            if news:
                again = callers.get(address, set()) & self.frames.keys()
                stale |= again
                waiting.extend(sorted(again))

    def _returns(self, address: int) -> bool:
        return address in self.frames and self.frames[address].returns

    def targets(self, frame: Frame, call: Call) -> Sequence[int] | None:
        """What a call can reach; None: unknown."""
        if call.target is not None:
            return [call.target]
        if frame.address in self._indirect:
            return self._indirect[frame.address]
        name = re.sub(r"\..*", "", frame.name)  # GCC calls a piece of f "f.part.0"
        if self._loops and name.partition(" ")[0] in _LOOP_CALLERS:
            return self._loops
        member, offset = _KERNEL_CALLERS.get(name, ("", None))
        if call.field not in (offset, None) or not self._kernels.get(member):
            return None
        return self._kernels[member]

    def callees(self, frame: Frame) -> set[int]:
        return {target for call in frame.calls for target in self.targets(frame, call) or ()}

    def reached(self, entry: int) -> list[int]:
        """Addresses, the entry first."""
        found: dict[int, None] = {entry: None}
        waiting = [entry]
        while waiting:
            for callee in sorted(self.callees(self.frames[waiting.pop()])):
                if callee not in found:
                    found[callee] = None
                    waiting.append(callee)
        return list(found)

    def cycles(self, among: Iterable[int]) -> list[list[int]]:
        """Enough cycles that without them there would be none."""
        edges = {address: self.callees(self.frames[address]) for address in among}
        found: list[list[int]] = []
        while True:
            try:
                TopologicalSorter(edges).prepare()
                return found
            except CycleError as error:
                cycle = error.args[1][::-1]  # each is called by the next
                found.append(cycle)
                edges[cycle[0]].discard(cycle[1])

    def bound(self, entry: int) -> StackBound | list[str]:
        reached = self.reached(entry)
        problems = self._problems(reached)
        if problems:
            return problems
        order = TopologicalSorter({a: self.callees(self.frames[a]) for a in reached}).static_order()
        worst: dict[int, StackBound] = {}
        for address in order:  # callees first
            frame = self.frames[address]
            best = StackBound(frame.deepest, (PathStep(frame.name, frame.deepest),))
            for call in frame.calls:
                for target in self.targets(frame, call) or ():
                    total = call.depth + worst[target].bytes
                    if total > best.bytes:
                        best = StackBound(total, (PathStep(frame.name, call.depth), *worst[target].path))
            worst[address] = best
        return worst[entry]

    def _problems(self, reached: Sequence[int]) -> list[str]:
        problems = []
        for address in reached:
            frame = self.frames[address]
            if frame.problem is not None:
                problems.append(f"it cannot be followed at {frame.problem}")
            for call in frame.calls:
                if self.targets(frame, call) is None:
                    problems.append(
                        f"{frame.name} calls through a pointer at 0x{call.at:08x}, and it is not known what"
                    )
        for cycle in self.cycles(reached):
            problems.append("recursion: " + " -> ".join(self.frames[address].name for address in cycle))
        return problems


def kernels(program: Program) -> Mapping[str, Sequence[int]]:
    """``"run"`` and ``"check"`` -> addresses of these functions of all linked kernels.

    A kernel is a constant ``bd_kernel`` {name, run, check} whose symbol is its name, as ``BD_DEFINE_KERNEL`` makes it, or
    of a variant ``<name>_on_<set>``.
    """
    found: dict[str, set[int]] = {"run": set(), "check": set()}
    for symbol, (address, size) in program.objects.items():
        words = program.words(address, 3) if size == 12 else None
        if words is not None and program.string(words[0]) == symbol.partition("_on_")[0]:
            found["run"].add(words[1] & ~1)
            found["check"].add(words[2] & ~1)
    return {member: sorted(addresses) for member, addresses in found.items()}


def loops(program: Program) -> Sequence[int]:
    """Addresses of the functions in constant tables ``bd_loops_*``: what kernels with many forms of one loop call."""
    found: set[int] = set()
    for symbol, (address, size) in program.objects.items():
        if symbol.startswith("bd_loops_"):
            found |= {word & ~1 for word in program.words(address, size // 4) or ()}
    return sorted(found)
