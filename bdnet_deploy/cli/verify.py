"""``bdnet-deploy verify``: does an exported file say what the model says?"""

from __future__ import annotations

from pathlib import Path

import click

from bdnet_deploy.cli import common


@common.command("verify")
@click.argument("source", type=common.PATH, metavar="MODEL")
@click.argument("artifact", type=common.PATH)
@click.option("--arch", metavar="NAME", help="Architecture of a bare state dict.")
@click.option(
    "--inputs", "samples", type=common.PATH, metavar="DATA.npz", help="Samples to compare on  [default: random ones]."
)
@click.option(
    "--calibrate",
    type=common.PATH,
    metavar="DATA.npz",
    help="The samples that a fixed16 or fixed8 file was exported with: compares every byte.",
)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Use at most so many samples.")
@common.report_options
def command(
    source: Path,
    artifact: Path,
    arch: str | None,
    samples: Path | None,
    calibrate: Path | None,
    limit: int,
    output: common.Output,
) -> None:
    """Compare ARTIFACT (.tflite, .onnx, .bdn, .c) with MODEL.

    Decoded weights and thresholds first, then layer by layer in the runtime that the file is for, then end to end. Exit
    code 4 when they differ; the first divergent layer is named.
    """
    from bdnet_deploy.analysis.verify import VerifyError

    model = common.load_model(source, arch, None, {}, None, ())
    try:
        report = model.verify(artifact, inputs=samples, calibrate=calibrate, limit=limit)
    except VerifyError as error:
        output.show(error.report)
        raise
    output.show(report)
