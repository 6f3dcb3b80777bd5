"""``bdnet-deploy inspect``: what a model consists of."""

from __future__ import annotations

from typing import Any

import click

from bdnet_deploy.cli import common


@common.command("inspect")
@common.model_options
@click.option(
    "--numerics",
    type=common.Choice("numerics", ("float", "fixed16", "fixed8")),
    help="Show how our runtime uses memory with this arithmetic, too.",
)
@common.ram
@common.cache
@common.push_rows
@common.report_options
def command(
    numerics: str | None, ram: int | None, cache: int | None, push_rows: bool, output: common.Output, **options: Any
) -> None:
    """Show MODEL layer by layer: shapes, dtypes, MACs, weights, and why a layer is not binary."""

    model = common.load_model(**options)
    output.show(model.inspect(numerics=numerics, ram=ram, cache=cache, push_rows=push_rows))
