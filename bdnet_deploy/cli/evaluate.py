"""``bdnet-deploy evaluate``: accuracy of back ends side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bdnet_deploy.cli import common, console


@common.command("evaluate")
@common.model_options
@click.option("--data", type=common.PATH, required=True, metavar="DATA.npz", help="Samples: arrays x and y.")
@click.option(
    "--backend",
    "backends",
    metavar="NAME[:NUMERICS]",
    multiple=True,
    default=("pytorch", "host:float"),
    show_default=True,
    help="pytorch, reference, host, lce, onnxruntime, or a core; may be repeated.",
)
@common.calibrate
@click.option("--limit", type=click.IntRange(min=1), help="Use at most so many samples.")
@common.report_options
def command(
    data: Path,
    backends: tuple[str, ...],
    calibrate: Path | None,
    limit: int | None,
    output: common.Output,
    **options: Any,
) -> None:
    """Top-1 accuracy of MODEL in several back ends on the same samples, and how often they agree with the first."""

    from bdnet_deploy.analysis.evaluate import check_bytes

    model = common.load_model(**options)
    with console.steps() as progress:
        report = model.evaluate(data, backends, calibrate=calibrate, limit=limit, progress=progress)
    output.show(report)
    check_bytes(report)
