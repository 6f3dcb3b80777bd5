"""``bdnet-deploy inspect``: what a model consists of, and what fixed point makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bdnet_deploy.cli import common, console


@common.command("inspect")
@common.model_options
@click.option(
    "--numerics",
    type=common.Choice("numerics", ("float", "fixed16", "fixed8")),
    help="Show how our runtime uses memory with this arithmetic, and what --calibrate makes of it.",
)
@common.calibrate
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Compare fixed point with float on at most so many of the calibration samples.",
)
@common.ram
@common.cache
@common.push_rows
@click.option("--core", metavar="NAME", help="Show which kernels and packings this core or board takes, and why.")
@common.strict
@common.report_options
def command(
    numerics: str | None,
    calibrate: Path | None,
    calibrate_limit: int | None,
    limit: int,
    ram: int | None,
    cache: int | None,
    push_rows: bool,
    core: str | None,
    strict: bool,
    allow_real: tuple[str, ...],
    output: common.Output,
    **options: Any,
) -> None:
    """Show MODEL layer by layer: shapes, dtypes, MACs, weights, what it was recognised as, and why it is not binary.

    With --calibrate also what fixed point (fixed16, unless --numerics says otherwise) makes of it: per edge between
    layers the range seen and representable and the values that saturated, per layer the signs that stay as in float,
    and the predictions.
    """

    from bdnet_deploy.errors import UsageError

    if calibrate is not None and numerics == "float":
        raise UsageError("float needs no calibration", fix="--numerics fixed16 or --numerics fixed8")
    model = common.load_model(**options)
    if strict:
        model.check_binary(allow_real)
    elif allow_real:
        raise UsageError("--allow-real goes with --strict", fix="add --strict")
    report = model.inspect(numerics=numerics, ram=ram, cache=cache, push_rows=push_rows, core=core)
    samples = common.calibration_samples(model, calibrate, calibrate_limit)
    if samples is not None:
        with console.steps() as progress:
            found = model.calibration(samples, numerics or "fixed16", limit=limit, progress=progress)
        report.tables += found.tables
    output.show(report)
