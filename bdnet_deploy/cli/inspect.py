"""``bdnet-deploy inspect``: what a model consists of."""

from __future__ import annotations

from typing import Any

from bdnet_deploy.cli import common


@common.command("inspect")
@common.model_options
@common.report_options
def command(output: common.Output, **options: Any) -> None:
    """Show MODEL layer by layer: shapes, dtypes, MACs, weights, and why a layer is not binary."""

    output.show(common.load_model(**options).inspect())
