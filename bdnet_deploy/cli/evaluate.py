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
    help="Samples: an .npz file (arrays x and y), a folder with a sub-folder of images for each class, or a .csv (columns "
    "file and label).",
)
@click.option(
    "--backend",
    "backends",
    metavar="NAME[:FORM]",
    multiple=True,
    help="pytorch, reference, host, lce, tflite, onnxruntime, a core, or an exported file; may be repeated  [default: pytorch "
    "(reference for a .tflite) and host:float].",
)
@common.calibrate
@click.option("--limit", type=click.IntRange(min=1), help="Use at most so many samples.")
@click.option(
    "--resume",
    type=common.PATH,
    metavar="STATE.json",
    help="Keep the state of the run in this file; the same command goes on where one was stopped.",
)
@click.option("--per-class", is_flag=True, help="Also the accuracy of each class.")
@click.option("--flips", is_flag=True, help="Also the signs that are not the float reference's, layer by layer.")
@click.option("--skip-broken", is_flag=True, help="Leave out images that cannot be read, and name them.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="What one process of a foreign runtime may take.",
)
@common.report_options
def command(
    data: Path,
    backends: tuple[str, ...],
    calibrate: Path | None,
    calibrate_limit: int | None,
    limit: int | None,
    resume: Path | None,
    per_class: bool,
    flips: bool,
    skip_broken: bool,
    timeout: float,
    output: common.Output,
    **options: Any,
) -> None:
    """Top-1 and top-5 accuracy of MODEL in several back ends on the same samples, and how often they agree with the first.

    reference, host and cores take numerics (host:fixed8), lce a mode (lce:indirect), tflite a form (stock, extended, int8).
    """

    from bdnet_deploy.analysis.evaluate import check_bytes

    model = common.load_model(**options)
    samples = common.calibration_samples(model, calibrate, calibrate_limit)
    with console.steps() as progress:
        report = model.evaluate(
            data,
            backends,
            calibrate=samples,
            limit=limit,
            resume=resume,
            per_class=per_class,
            flips=flips,
            skip_broken=skip_broken,
            timeout=timeout,
            progress=progress,
        )
    output.show(report)
    check_bytes(report)
