"""Exported files: what was written, and how."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdnet_deploy import __version__
from bdnet_deploy.backends import need_samples
from bdnet_deploy.errors import BdnetError, UsageError, unknown_name
from bdnet_deploy.files import write_all
from bdnet_deploy.formats import PROFILES, TARGETS
from bdnet_deploy.report import Column, Report, Table

if TYPE_CHECKING:
    from bdnet_deploy.export.foreign import Written
    from bdnet_deploy.graph import Array
    from bdnet_deploy.model import Model, PathLike, Progress
    from bdnet_deploy.samples import Samples


@dataclass(frozen=True)
class Artifact:
    """One exported model: ``paths`` (the first is the model itself), and what made it."""

    target: str
    paths: tuple[Path, ...]
    provenance: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)

    def report(self) -> Report:
        """What was written."""
        files = Table("files", [Column("file"), Column("bytes", align="right", format=","), Column("sha256")])
        for path in self.paths:
            data = path.read_bytes()
            files.add(file=str(path), bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        files.notes += self.notes
        return Report("export", {"target": self.target}, [files, *self.tables], provenance=dict(self.provenance))


def provenance(model: Model, target: str, **options: Any) -> dict[str, Any]:
    """What made a file: tool, source, options. No times and no paths: the same input gives the same bytes."""
    facts: dict[str, Any] = {"made_by": f"bdnet-deploy {__version__}", "target": target, "model": model.name}
    if model.source_sha256:
        facts["source_sha256"] = model.source_sha256
    facts.update({key: value for key, value in options.items() if value is not None})
    return facts


def foreign_file(
    model: Model,
    target: str,
    *,
    profile: str | None = None,
    int8: bool = False,
    calibrate: PathLike | Array | Samples | None = None,
    progress: Progress | None = None,
    beside: str | None = None,
) -> Written:
    """The model as TFLite or ONNX; arguments as for :meth:`bdnet_deploy.model.Model.export`.

    ``beside`` is the name of the file of constants that an ``.onnx`` of more than 2 GiB needs.
    """
    profile = profile or PROFILES[target][0]
    if profile not in PROFILES[target]:
        raise unknown_name(f"profile of {target}", profile, PROFILES[target])
    meta = provenance(model, target, profile=profile, int8=int8 or None)
    if target == "onnx":
        from bdnet_deploy.export import onnx

        return onnx.write(model.float_graph(), io=model.io, profile=profile, meta=meta, beside=beside)
    from bdnet_deploy.export import tflite

    samples = model.samples(calibrate) if int8 and calibrate is not None else None
    step = (lambda done, total: progress("calibrating", done, total)) if progress else None
    return tflite.write(model.float_graph(), io=model.io, profile=profile, samples=samples, meta=meta, progress=step)


def export_model(
    model: Model,
    target: str,
    path: PathLike | None,
    *,
    numerics: str | None,
    calibrate: PathLike | Array | Samples | None,
    ram: int | None,
    cache: int | None,
    push_rows: bool,
    model_version: int,
    for_firmware: PathLike | None,
    keep_kernels: PathLike | Iterable[str] | None,
    reserve_arena: int,
    reserve_model: int,
    profile: str | None,
    int8: bool,
    core: str | None,
    progress: Progress | None,
) -> Artifact:
    """See :meth:`bdnet_deploy.model.Model.export`."""
    numbers = {"cache": (cache, 1), "reserve_arena": (reserve_arena, 0), "reserve_model": (reserve_model, 0)}
    for name, (number, least) in numbers.items():
        if number is not None and number < least:
            raise UsageError(f"{name} is {number} bytes", fix=f"a whole number from {least}")
    if not 0 <= model_version < 1 << 32:
        raise UsageError(f"model_version is {model_version}", fix="a whole number from 0 to 4294967295")
    if target != "bdn" and for_firmware is not None:
        raise UsageError(
            f"a firmware in the field takes no {target} file", fix="--target bdn, or leave --for-firmware out"
        )
    if target != "c" and (keep_kernels is not None or reserve_arena or reserve_model):
        raise UsageError(
            f"a {target} file keeps and reserves nothing: that is the firmware's",
            fix="--target c, or leave --keep-kernels, --reserve-arena and --reserve-model out",
        )
    out = Path(path) if path is not None else Path(model.name + TARGETS[target])
    _check_output(model, target, out)
    if target in ("tflite", "onnx"):
        if numerics not in (None, "float"):
            raise UsageError(f"{target} files are written in float numerics", fix="leave --numerics out")
        if int8 and target != "tflite":
            raise UsageError("only tflite files have an int8 form", fix="leave --int8 out, or --target tflite")
        if int8 and calibrate is None:
            raise UsageError(
                "int8 needs calibration samples",
                why="they set the ranges of the integers between the layers",
                fix="--calibrate samples.npz, or leave --int8 out",
            )
        if calibrate is not None and not int8:
            raise UsageError(f"{target} files are written in float numerics", fix="leave --calibrate out")
        if ram is not None or cache is not None or push_rows or model_version or core is not None:
            raise UsageError(
                f"{target} runtimes have no such settings",
                fix="leave --ram, --cache, --push-rows, --model-version and --core out",
            )
        written = foreign_file(
            model, target, profile=profile, int8=int8, calibrate=calibrate, progress=progress, beside=f"{out.name}.data"
        )
        files = {out: written.data, **{out.with_name(name): data for name, data in written.external.items()}}
        _write(files)
        facts = provenance(model, target, profile=profile or PROFILES[target][0], int8=int8 or None)
        return Artifact(target, tuple(files), facts, written.notes, written.tables())
    if profile is not None or int8:
        raise UsageError(f"{target} files have no profiles", fix="leave --profile and --int8 out")
    sets: tuple[str, ...] = ()
    if core is not None:
        from bdnet_deploy.firmware import core_of
        from bdnet_deploy.firmware import target as find_target

        sets = core_of(find_target(core)).sets
        if for_firmware is not None:
            raise UsageError("a firmware in the field has its kernels", fix="leave --core or --for-firmware out")
    firmware = None
    if for_firmware is not None:
        from bdnet_deploy.manifest import read_manifest

        firmware = read_manifest(Path(for_firmware))
    kept: list[str] = []
    if keep_kernels is not None:
        from bdnet_deploy.kept_kernels import kept_kernels

        kept = kept_kernels(keep_kernels)
    if numerics is None and firmware is not None and firmware.model is not None:
        numerics = firmware.model.numerics
    numerics = numerics or ("fixed16" if target == "c" else "float")
    need_samples(numerics, calibrate)
    lowered = model.lowered(numerics, calibrate, progress=progress)
    least_ram = None
    if firmware is not None:
        from bdnet_deploy.updates import plan_for

        lowered, least_ram = plan_for(lowered, firmware, ram=ram, cache=cache, push_rows=push_rows, sets=sets)
    elif ram is not None or cache is not None or push_rows or sets:
        lowered = lowered.replanned(ram=ram, cache=cache, push_rows=push_rows, sets=sets)
    meta = provenance(model, target, numerics=numerics)
    sample = None
    if calibrate is not None:
        sample = lowered.encode(next(model.samples(calibrate).batches(1)))
    from bdnet_deploy.export.bdn import write_bdn
    from bdnet_deploy.host import inspect

    data = write_bdn(lowered.plan, io=model.io, meta=meta, sample=sample, model_version=model_version)
    inspect(data)  # what our own loader refuses is not written
    notes = list(lowered.notes)
    if calibrate is not None and numerics == "float":
        notes.append("float numerics: of the calibration samples only the first was used, for the self-test")
    if firmware is not None:
        from bdnet_deploy.updates import fit

        found = fit(firmware, data, least_ram=least_ram)
        found.check(str(out), str(for_firmware))
        notes += [f"fits the firmware of {for_firmware}", *found.notes]
    if target == "bdn":
        _write({out: data})
        return Artifact(target, (out,), meta, notes)
    from bdnet_deploy.export.c import write_c
    from bdnet_deploy.manifest import SUFFIX, make_manifest

    source, header = write_c(
        lowered.plan,
        data,
        name=out.stem,
        io=model.io,
        keep=kept,
        reserve_arena=reserve_arena,
        reserve_model=reserve_model,
    )
    manifest = make_manifest(data, keep=kept, reserve_arena=reserve_arena, reserve_model=reserve_model)
    texts = {out: source, out.with_suffix(".h"): header, out.with_suffix(SUFFIX): manifest.to_json()}
    files = {path: text.encode("utf-8") for path, text in texts.items()}
    _write(files)
    return Artifact(target, tuple(files), meta, notes)


def _check_output(model: Model, target: str, out: Path) -> None:
    """Refuse outputs that cannot be written or would destroy something, before the work is done."""
    suffix = TARGETS[target]
    if out.is_dir():
        raise UsageError("the output is a folder", where=str(out), fix=f"name a file: -o {out / (model.name + suffix)}")
    if not out.parent.is_dir():
        raise BdnetError(
            "the file cannot be written",
            where=str(out),
            why=f"there is no folder {out.parent}",
            fix="make the folder first, or name another file with -o",
        )
    if out.exists() and not out.is_file():
        raise UsageError("the output is no ordinary file", where=str(out), fix=f"-o {model.name}{suffix}")
    if out.suffix.lower() != suffix:
        raise UsageError(
            f"the name of a {target} file ends in {suffix}",
            where=str(out),
            why="other commands tell the kind of a file by it",
            fix=f"-o {out.with_suffix(suffix)}",
        )
    if model.source is not None and out.exists() and out.samefile(model.source):
        fix = f"-o {out.with_name(out.stem + '-exported' + suffix)}"
        raise UsageError("the output would replace the file that the model came from", where=str(out), fix=fix)
    if target == "c":
        from bdnet_deploy.export.c import c_identifier

        name = c_identifier(out.stem)
        if name != out.stem:
            raise UsageError(
                f"'{out.stem}' is no C identifier", where=str(out), fix=f"-o {out.with_name(name + suffix)}"
            )


def _write(files: dict[Path, bytes]) -> None:
    try:
        write_all(files)
    except OSError as error:
        why, where = error.strerror or str(error), ", ".join(map(str, files))
        raise BdnetError("the file cannot be written", where=where, why=why) from error
