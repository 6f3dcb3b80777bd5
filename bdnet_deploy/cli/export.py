"""``bdnet-deploy export``: write a model for a runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bdnet_deploy.cli import common, console
from bdnet_deploy.formats import PROFILES, TARGETS


@common.command("export")
@common.model_options
@click.option(
    "--target",
    type=common.Choice("target", tuple(TARGETS)),
    required=True,
    help="tflite (Larq Compute Engine), onnx, bdn (our runtime) or c (our runtime, as C source).",
)
@common.output_path
@common.numerics
@common.calibrate
@common.ram
@common.cache
@common.push_rows
@click.option(
    "--model-version", type=click.IntRange(0, 2**32 - 1), default=0, help="Your own number, stored in bdn and c."
)
@common.for_firmware
@click.option(
    "--keep-kernels",
    metavar="KERNELS",
    help="c: kernels kept for later models: all, names with commas between, a .bdn, or a manifest.",
)
@click.option("--reserve-arena", type=common.Size(), default=0, metavar="SIZE", help="c: arena for later models.")
@click.option("--reserve-model", type=common.Size(), default=0, metavar="SIZE", help="c: room for later models.")
@click.option(
    "--profile",
    type=common.Choice("profile", tuple(p for names in PROFILES.values() for p in names)),
    help="tflite: stock (default) or extended; onnx: portable (default) or qonnx.",
)
@click.option("--int8", is_flag=True, help="tflite: what is not binary in 8 bits; needs --calibrate.")
@click.option("--core", metavar="NAME", help="bdn, c: choose kernels and pack weights for this core or board.")
@common.strict
@common.report_options
def command(
    target: str,
    output_path: Path | None,
    numerics: str | None,
    calibrate: Path | None,
    calibrate_limit: int | None,
    ram: int | None,
    cache: int | None,
    push_rows: bool,
    model_version: int,
    for_firmware: Path | None,
    keep_kernels: str | None,
    reserve_arena: int,
    reserve_model: int,
    profile: str | None,
    int8: bool,
    core: str | None,
    strict: bool,
    allow_real: tuple[str, ...],
    output: common.Output,
    **options: Any,
) -> None:
    """Write MODEL for a runtime.

    Without -o the file is <model>.<target> in the current folder. Numerics of bdn default to float, of c to fixed16;
    tflite and onnx are float; with --for-firmware they are the firmware's.
    """

    model = common.load_model(**options)
    if strict:
        model.check_binary(allow_real)
    samples = common.calibration_samples(model, calibrate, calibrate_limit)
    with console.steps() as progress:
        artifact = model.export(
            target,
            output_path,
            numerics=numerics,
            calibrate=samples,
            ram=ram,
            cache=cache,
            push_rows=push_rows,
            model_version=model_version,
            for_firmware=for_firmware,
            keep_kernels=keep_kernels,
            reserve_arena=reserve_arena,
            reserve_model=reserve_model,
            allow_real=allow_real,
            profile=profile,
            int8=int8,
            core=core,
            progress=progress,
        )
        console.note(f"wrote {', '.join(map(str, artifact.paths))}")
        report = artifact.report()
        chosen = artifact.provenance.get("numerics", "float")
        if samples is not None and chosen != "float":
            report.tables.append(model.calibration(samples, chosen, progress=progress).table("calibration"))
    output.show(report)
