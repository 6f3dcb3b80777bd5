"""``bdnet-deploy demo``: the main job on the bundled model, in one go."""

from __future__ import annotations

import click

from bdnet_deploy.cli import common, console


@common.command("demo")
@click.option("--limit", type=click.IntRange(min=1), help="Use only the first test images.")
@common.report_options
def command(limit: int | None, output: common.Output) -> None:
    """Take the bundled digits BD-Net from model.pt to verified, counted inference on emulated cores."""
    from bdnet_deploy.analysis.demo import demo

    with console.steps() as progress:
        report = demo(limit=limit, note=console.note, progress=progress)
    output.show(report)
