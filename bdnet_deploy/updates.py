"""Models for firmware that is in the field: does a file fit what a manifest says, and a plan that does."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from bdnet_deploy import bdn_format
from bdnet_deploy.bdn_format import ALIGN, NONE, RECORD_MAP, BdnFile, Place
from bdnet_deploy.errors import DoesNotFitError
from bdnet_deploy.graph import NUMERICS
from bdnet_deploy.lowering import Lowered
from bdnet_deploy.manifest import Manifest, Port, arena_bytes, ports
from bdnet_deploy.report import Column, Report, Table
from bdnet_deploy.report.tables import Value


@dataclass(frozen=True)
class Requirement:
    """One thing that a model needs, and what the firmware has of it. ``lack`` says what is missing, None: nothing."""

    what: str
    needed: str
    available: str
    lack: str | None = None


@dataclass(frozen=True)
class Fit:
    """What a model needs of a firmware. ``notes`` are for whoever maintains its application."""

    requirements: list[Requirement]
    notes: list[str]
    fixes: list[str]

    @property
    def lacks(self) -> list[str]:
        return [r.lack for r in self.requirements if r.lack is not None]

    def check(self, where: str, firmware: str) -> None:
        """Refuse a model that the firmware cannot run.

        Raises:
            DoesNotFitError: with every lack.
        """
        if self.lacks:
            raise DoesNotFitError(
                f"the firmware of {firmware} cannot run this model",
                where=where,
                why="; ".join(self.lacks),
                fix="; or ".join(self.fixes),
            )

    def report(self, artifact: str, firmware: str) -> Report:
        """Every requirement as a table."""
        columns = [Column("what"), Column("needed", align="right"), Column("firmware", align="right"), Column("fits")]
        table = Table("requirements", columns)
        for r in self.requirements:
            table.add(what=r.what, needed=r.needed, firmware=r.available, fits="no" if r.lack else "yes")
        table.notes += self.notes
        facts: dict[str, Value] = {
            "artifact": artifact,
            "firmware": firmware,
            "verdict": "does not fit" if self.lacks else "fits",
        }
        return Report("verify", facts, [table])


def fit(manifest: Manifest, data: bytes, *, least_ram: int | None = None) -> Fit:
    """Compare what a model needs with what a firmware has.

    Args:
        manifest: of the firmware.
        data: the model's ``.bdn`` bytes, which the loader has accepted.
        least_ram: bytes that tensors and scratch take in the smallest plan, where the file's own plan is a larger one.

    Raises:
        ModelFileError: damaged bytes.
    """
    file = bdn_format.read(data)
    requirements, fixes, rebuild = [], [], []
    missing = sorted(set(file.kernels) - set(manifest.kernels))
    for kernel in sorted(file.kernels):
        what = f"kernel {_printable(kernel)}"
        absent = f"{what} is not in it ({_layers(file, kernel)})" if kernel in missing else None
        requirements.append(Requirement(what, "yes", "no" if absent else "yes", absent))
    if missing:
        if manifest.model is not None and manifest.model.numerics != _numerics(file):
            fixes.append(f"export with its numerics: --numerics {manifest.model.numerics}")
        rebuild.append(f"--keep-kernels {_printable(','.join(missing))}")
    largest = 0
    for bits, available in sorted(manifest.arena_bytes.items()):
        needed = arena_bytes(file, bits)
        if least_ram is not None:
            needed += least_ram - int(file.header["tensor_bytes"]) - int(file.header["scratch_bytes"])
        what = f"arena bytes, {bits}-bit"
        requirements.append(_room(what, needed, available, "at least " if least_ram is not None else ""))
        largest = max(largest, needed if needed > available else 0)
    if largest:
        fixes.append("export with fixed8 numerics, a smaller input or narrower layers")
        rebuild.append(f"--reserve-arena {largest}")
    requirements.append(_room("model bytes", len(file.data), manifest.model_bytes))
    if requirements[-1].lack:
        fixes.append("export a model with fewer or narrower layers")
        rebuild.append(f"--reserve-model {len(file.data)}")
    reader = int(file.header["oldest_reader"])
    too_new: str | None = None
    if reader > manifest.format_version:
        too_new = f"it reads .bdn format version {manifest.format_version}, and the file needs {reader}"
        fixes.append("export with the bdnet-deploy that it was built with")
    requirements.append(Requirement("format version", str(reader), str(manifest.format_version), too_new))
    notes: list[str] = []
    if manifest.model is not None:
        for place, theirs in ((Place.INPUT, manifest.model.inputs), (Place.OUTPUT, manifest.model.outputs)):
            found, remarks, remedies = _ports(place.name.lower(), ports(file, place), theirs)
            requirements += found
            notes += remarks
            fixes += remedies
    if rebuild:
        fixes.append(f"build the firmware anew with {' '.join(rebuild)}")
    return Fit(requirements, notes, fixes)


def _room(what: str, needed: int, available: int, least: str = "") -> Requirement:
    lack = f"{what}: {least}{needed:,} needed, {available:,} there" if needed > available else None
    return Requirement(what, f"{needed:,}", f"{available:,}", lack)


def _numerics(file: BdnFile) -> str | None:
    """What the header states; None where that is nothing known, for it is information only."""
    number = int(file.header["numerics"])
    return NUMERICS[number] if number < len(NUMERICS) else None


def _printable(text: str) -> str:
    """Names of a file in messages: without control characters and what no console encodes."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _layers(file: BdnFile, kernel: str) -> str:
    """The layers whose steps need a kernel, by the names in the file's map."""
    index = file.kernels.index(kernel)
    numbers = [i for i, s in enumerate(file.steps) if index in (s["kernel"], s["epilogue"]) and index != NONE]
    try:
        steps = json.loads(file.records[RECORD_MAP])["steps"]
        names = [_printable(str(steps[i]["name"])) for i in numbers]
    except (KeyError, IndexError, TypeError, ValueError, RecursionError):
        names = [f"step {i}" for i in numbers]
    if not names:
        return "no layer uses it"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"needed by {', '.join(names[:3])}{more}"


def _ports(
    kind: str, ours: tuple[Port, ...], theirs: tuple[Port, ...]
) -> tuple[list[Requirement], list[str], list[str]]:
    """Requirements, notes and remedies of the inputs or outputs. The application's buffers and loops are compiled in."""
    if len(ours) != len(theirs):
        count = f"its application handles {len(theirs)} {kind}s, not {len(ours)}"
        return [Requirement(f"{kind}s", str(len(ours)), str(len(theirs)), count)], [], []
    requirements, notes, fixes = [], [], []
    for i, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        what = kind if len(ours) == 1 else f"{kind} {i}"
        lack: str | None = None
        if our.buffer != their.buffer:
            lack = f"{what}: its application handles {their.buffer}, not {our.buffer}"
            if our.pushed != their.pushed:
                fixes.append("add --push-rows" if their.pushed else "leave --push-rows out")
            else:
                fixes.append(f"export a model whose {what} is {their.buffer}")
        elif our.meaning != their.meaning:
            notes.append(
                f"{what}: {our.meaning}; the firmware was built with {their.meaning}. An application that compiled the "
                "old numbers in must take the new ones"
            )
        requirements.append(Requirement(what, our.buffer, their.buffer, lack))
    return requirements, notes, fixes


def plan_for(
    lowered: Lowered,
    manifest: Manifest,
    *,
    ram: int | None = None,
    cache: int | None = None,
    push_rows: bool = False,
    sets: Collection[str] = (),
) -> tuple[Lowered, int | None]:
    """A plan for the arena of a firmware, streamed where it must be.

    Args:
        lowered: the model.
        manifest: of the firmware.
        ram: the user's own limit, instead of the firmware's.
        cache: a wish that comes after the limit, as in :func:`bdnet_deploy.plan.memory.choose_layout`.
        push_rows: the input comes row by row.
        sets: instruction sets of the firmware's core, where its kernels were chosen for one.

    Returns:
        The plan, and None; or where no plan fits, one that does not, and the bytes of tensors and scratch that the
        smallest one takes.

    Raises:
        DoesNotFitError: no plan fits into ``ram``.
    """
    if ram is not None:
        return lowered.replanned(ram=ram, cache=cache, push_rows=push_rows, sets=sets), None
    plain = lowered.replanned(push_rows=push_rows, sets=sets) if push_rows or sets else lowered
    needed = plain.plan.tensor_bytes + plain.plan.scratch_bytes
    tables = {b: _tables(plain, b) for b in manifest.arena_bytes}
    limit = min(size - tables[b] for b, size in manifest.arena_bytes.items())
    if needed <= limit and cache is None:
        return plain, None
    try:
        return lowered.replanned(ram=max(limit, 0), cache=cache, push_rows=push_rows, sets=sets), None
    except DoesNotFitError:
        return plain, _least_ram(lowered, push_rows, max(limit, 0), needed)


def _tables(lowered: Lowered, bits: int) -> int:
    """What of an arena the context and its tables take."""
    pointer, plan = bits // 8, lowered.plan
    return 16 * pointer + 32 + bdn_format.align(len(plan.kernels) * pointer + len(plan.steps) * 2)


def _least_ram(lowered: Lowered, push_rows: bool, low: int, high: int) -> int:
    """The smallest limit that a plan fits, between one that none fits and one that some plan does."""
    while high - low > ALIGN:
        middle = (low + high) // 2
        try:
            plan = lowered.replanned(ram=middle, push_rows=push_rows).plan
            high = plan.tensor_bytes + plan.scratch_bytes
        except DoesNotFitError:
            low = middle
    return high
