"""``bdnet-deploy profile``: instructions, time and memory on a core or board, emulated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bdnet_deploy.cli import common, console
from bdnet_deploy.errors import UsageError


@common.command("profile")
@common.model_options
@common.core
@common.board
@common.numerics
@common.calibrate
@common.ram
@common.cache
@common.push_rows
@click.option("--slices", is_flag=True, help="Count an inference in slices too: how many, and the longest.")
@common.report_options
def command(
    core: str | None,
    board: str | None,
    numerics: str | None,
    calibrate: Path | None,
    calibrate_limit: int | None,
    ram: int | None,
    cache: int | None,
    push_rows: bool,
    slices: bool,
    output: common.Output,
    **options: Any,
) -> None:
    """Count what MODEL executes on an emulated core or board, per layer, and read its memory from the linked image.

    Needs no samples, though --calibrate makes the counts of fixed numerics those of the real ranges. They do not depend on
    the input.
    """
    if (core is None) == (board is None):
        raise UsageError("name one target", fix="--core cortex-m4 or --board pico; see: bdnet-deploy cores")
    from bdnet_deploy import targets

    if core is not None:
        targets.core(core)  # unknown names are said before the work
    if board is not None:
        targets.board(board)
    model = common.load_model(**options)
    samples = common.calibration_samples(model, calibrate, calibrate_limit)
    console.note("building and running")
    output.show(
        model.profile(
            core or board or "",
            numerics=numerics,
            calibrate=samples,
            ram=ram,
            cache=cache,
            push_rows=push_rows,
            slices=slices,
        )
    )
