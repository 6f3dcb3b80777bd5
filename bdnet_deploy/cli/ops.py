"""``bdnet-deploy ops``: the operators of the graph and what supports them."""

from __future__ import annotations

import click

from bdnet_deploy.cli import common, console


@common.command("ops")
@click.option(
    "--format",
    "format_",
    type=common.Choice("format", ("text", "json", "markdown")),
    default="text",
    show_default=True,
    help="How to print the list.",
)
def command(format_: str) -> None:
    """List the operators of the graph: meaning, numerics, exporters, kernels.

    docs/ops.md is the markdown.
    """
    from bdnet_deploy.analysis.operators import markdown, operators, summary

    report = operators()
    if format_ == "markdown":
        console.write(markdown(report))
    else:
        common.Output(format_, None).show(summary(report) if format_ == "text" else report)
