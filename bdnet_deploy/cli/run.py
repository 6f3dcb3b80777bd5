"""``bdnet-deploy run``: predictions of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bdnet_deploy.cli import common
from bdnet_deploy.errors import UsageError


@common.command("run")
@common.model_options
@click.option(
    "--data",
    type=common.PATH,
    required=True,
    metavar="DATA",
    help="Samples: an .npz file (array x), an image, a folder.",
)
@common.numerics
@common.calibrate
@click.option("--limit", type=click.IntRange(min=1), default=10, show_default=True, help="Use at most so many samples.")
@common.report_options
def command(
    data: Path,
    numerics: str | None,
    calibrate: Path | None,
    calibrate_limit: int | None,
    limit: int,
    output: common.Output,
    **options: Any,
) -> None:
    """Run MODEL (.pt, .bdn, or --model) on samples in the host library and print its predictions."""
    from bdnet_deploy.analysis.run import run_file, run_model

    source = options["source"]
    if source is not None and source.suffix.lower() in (".bdn", ".c"):
        given = {"--numerics": numerics, "--calibrate": calibrate, "--calibrate-limit": calibrate_limit}
        superfluous = [option for option, value in given.items() if value is not None]
        if superfluous:
            raise UsageError(
                f"the numerics of a {source.suffix} file are fixed",
                where=str(source),
                fix=f"leave {', '.join(superfluous)} out",
            )
        output.show(run_file(source, data, limit=limit))
        return

    model = common.load_model(**options)
    samples = common.calibration_samples(model, calibrate, calibrate_limit)
    output.show(run_model(model, data, numerics or "float", samples, limit=limit))
