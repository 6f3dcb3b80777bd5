"""``bdnet-deploy verify``: does an exported file say what the model says?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bdnet_deploy.cli import common
from bdnet_deploy.errors import UsageError

if TYPE_CHECKING:
    from bdnet_deploy.report import Report


@common.command("verify")
@click.argument("files", type=common.PATH, nargs=-1, metavar="[MODEL] [ARTIFACT]")
@common.code_options
@click.option(
    "--inputs",
    "samples",
    type=common.PATH,
    metavar="DATA",
    help="Samples to compare on: an .npz, images, or 'bundled': test.npz beside MODEL, else the file's test vector  "
    "[default: random ones].",
)
@common.calibrate
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Use at most so many samples.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="What one process of a foreign runtime may take.",
)
@click.option(
    "--min-agreement",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Share of top-1 predictions that must agree  [default: 0.99; fixed16, fixed8 and int8 files 0.9, judged with "
    "--inputs only].",
)
@common.for_firmware
@common.report_options
def command(
    files: tuple[Path, ...],
    samples: Path | None,
    calibrate: Path | None,
    calibrate_limit: int | None,
    limit: int,
    timeout: float,
    min_agreement: float | None,
    for_firmware: Path | None,
    output: common.Output,
    **options: Any,
) -> None:
    """Compare ARTIFACT (.tflite, .onnx, .bdn, .c) with MODEL, or with a model by code (--model).

    MODEL may be any file that can be imported, or an exported one: any two files of one network are compared.
    Decoded weights and thresholds first, then layer by layer in the runtime that the file is for, then end to end. Exit
    code 4 when they differ; the first divergent layer is named, and the likely cause where one fits. Every byte of a fixed16
    or fixed8 file is compared when
    --calibrate has the samples that it was exported with. Without ARTIFACT the model as imported is compared with
    PyTorch, value by value. With --for-firmware a .bdn alone is enough: does it run there?
    Exit code 3 when it does not.
    """
    if for_firmware is not None:
        alone = len(files) == 1 and options["factory"] is None and options["arch"] is None
        if alone and not (samples is None and calibrate is None and calibrate_limit is None):
            raise UsageError(
                "--inputs and --calibrate compare with a model, and none is named",
                fix=f"bdnet-deploy verify model.pt {files[0]} --for-firmware {for_firmware}, or leave them out",
            )
        _check_fit(files[-1], for_firmware, output if alone else None)
        if alone:
            return
    from bdnet_deploy.formats import TARGETS
    from bdnet_deploy.loading import PROGRAMS, load

    by_code = options["factory"] is not None or options["arch"] is not None
    exported = len(files) == 1 and not by_code and files[0].suffix.lower() in set(TARGETS.values()) - set(PROGRAMS)
    if len(files) > 2 or (not files and not by_code) or exported:
        raise UsageError(
            f"verify takes a model and an exported file, not {len(files)} files",
            fix="bdnet-deploy verify model.pt model.tflite, or --model package.module:factory model.tflite",
        )
    judging: dict[str, Any] = {"limit": limit, "timeout": timeout, "min_agreement": min_agreement}
    if len(files) == 2 and not by_code:
        from bdnet_deploy.analysis.verify import reference_first, verify_files

        first, second = files = reference_first(*files)
        if first.suffix.lower() in (".bdn", ".c"):
            if calibrate_limit is not None:
                raise UsageError("--calibrate-limit needs a model to calibrate", fix="leave it out")
            _show(
                lambda: verify_files(first, second, load, inputs=samples, calibrate=calibrate, **judging),
                output,
            )
            return
    has_artifact = len(files) == 2 or (by_code and len(files) == 1)
    source = files[0] if len(files) == 2 or (not by_code and files) else None
    model = common.load_model(source, **options)
    if not has_artifact:
        if calibrate is not None or calibrate_limit is not None:
            raise UsageError("--calibrate is for exported files, and none is named", fix="leave it out")
        _show(lambda: model.verify_import(inputs=samples, limit=limit), output)
        return
    calibration = common.calibration_samples(model, calibrate, calibrate_limit)
    _show(lambda: model.verify(files[-1], inputs=samples, calibrate=calibration, **judging), output)


def _show(verify: Callable[[], Report], output: common.Output) -> None:
    """Print the report, also of a comparison that ends in an error."""
    from bdnet_deploy.analysis.verify import VerifyError

    try:
        report = verify()
    except VerifyError as error:
        output.show(error.report)
        raise
    output.show(report)


def _check_fit(artifact: Path, firmware: Path, output: common.Output | None) -> None:
    """Show what the firmware has of what the file needs.

    Raises:
        DoesNotFitError: it lacks something.
    """
    from bdnet_deploy import bdn_format
    from bdnet_deploy.bdn_reader import read_bytes
    from bdnet_deploy.host import inspect
    from bdnet_deploy.manifest import read_manifest
    from bdnet_deploy.updates import fit

    manifest = read_manifest(firmware)
    data = read_bytes(artifact)
    bdn_format.read(data, where=str(artifact))
    inspect(data)
    found = fit(manifest, data)
    if output is not None:
        output.show(found.report(str(artifact), str(firmware)))
    found.check(str(artifact), str(firmware))
