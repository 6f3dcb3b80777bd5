"""The command line: thin, one file per command.

A command parses its options, calls the Python API and prints the :class:`~bdnet_deploy.report.Report` that it
gets. To add one:

1. Write ``cli/<name>.py`` with a ``command``, made by :func:`bdnet_deploy.cli.common.command`::

       '''``bdnet-deploy size``: what a model needs.'''

       from __future__ import annotations

       from pathlib import Path

       import click

       from bdnet_deploy.cli import common


       @common.command("size")
       @click.argument("model", type=common.PATH)
       @common.core
       @common.report_options
       def command(model: Path, core: str | None, output: common.Output) -> None:
           '''Show what MODEL needs on a core.'''
           from bdnet_deploy import api  # heavy imports stand here, not at the top

           output.show(api.load(model).size(core))

2. Add ``"size"`` to :data:`bdnet_deploy.cli.app.COMMANDS`, where ``--help`` shows it.

``--help`` reads every command file, so a command file imports only click and ``cli.common`` at its top.

Errors are raised as :class:`~bdnet_deploy.errors.BdnetError`, anywhere; the frame prints them and sets the
exit code. A command that has printed its result and still must fail (``verify``) raises after printing.
Results go to stdout through ``output.show``; remarks (:func:`bdnet_deploy.cli.console.note`), progress
(:func:`bdnet_deploy.cli.console.steps`) and logs (``logging.getLogger(__name__)``) go to stderr.
"""

from __future__ import annotations


def main() -> None:
    """Entry point of ``bdnet-deploy``."""
    from bdnet_deploy.cli.app import cli

    cli.main(prog_name="bdnet-deploy")
