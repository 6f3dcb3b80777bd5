"""``bdnet-deploy evaluate``: accuracy of back ends side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bdnet_deploy.cli import common, console


@common.command("evaluate")
@common.model_options
@click.option(
    "--data",
    type=common.PATH,
    required=True,
    metavar="DATA",
    help="Samples: an .npz file (arrays x and y), or a folder with a sub-folder of images for each class.",
)
@click.option(
    "--backend",
    "backends",
    metavar="NAME[:NUMERICS]",
    multiple=True,
    help="pytorch, reference, host, lce, onnxruntime, or a core; may be repeated  [default: pytorch (reference for a "
    ".tflite) and host:float].",
)
@common.calibrate
@click.option("--limit", type=click.IntRange(min=1), help="Use at most so many samples.")
@common.report_options
def command(
    data: Path,
    backends: tuple[str, ...],
    calibrate: Path | None,
    calibrate_limit: int | None,
    limit: int | None,
    output: common.Output,
    **options: Any,
) -> None:
    """Top-1 accuracy of MODEL in several back ends on the same samples, and how often they agree with the first."""

    from bdnet_deploy.analysis.evaluate import check_bytes

    model = common.load_model(**options)
    samples = common.calibration_samples(model, calibrate, calibrate_limit)
    with console.steps() as progress:
        report = model.evaluate(data, backends, calibrate=samples, limit=limit, progress=progress)
    output.show(report)
    check_bytes(report)
