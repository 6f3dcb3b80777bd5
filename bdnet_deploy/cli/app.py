"""The command group: finds commands, prints errors, sets exit codes."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

import bdnet_deploy
from bdnet_deploy.cli import console
from bdnet_deploy.errors import BdnetError, unknown_name

COMMANDS = ("demo", "export", "inspect", "verify", "evaluate", "run", "profile", "boards", "cores", "ops", "doctor")
"""Every command in the order of ``--help``: ``command`` in the module of that name beside this file."""

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class _App(click.Group):
    """A click group that imports a command when it is called and turns every failure into a message."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"bdnet_deploy.cli.{name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise unknown_name("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        console.prepare()
        sys.exit(self._run(args, prog_name, complete_var, **extra))

    def _run(self, args: Sequence[str] | None, prog_name: str | None, complete_var: str | None, **extra: Any) -> int:
        try:
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except BdnetError as error:
            console.error(str(error))
            _trace(from_level=2)
            return error.exit_code
        except click.exceptions.Abort:
            console.note("interrupted")
            return _INTERRUPTED
        except click.ClickException as error:
            console.error(_click_message(error))
            return error.exit_code
        except Exception as error:
            named_file = isinstance(error, OSError) and error.filename is not None
            if isinstance(error, OSError) and named_file:
                console.error(f"{error.filename}: {error.strerror}")
            else:
                console.error(
                    f"internal error: {type(error).__name__}: {error}; please report it with the output of -vv"
                )
            _trace(from_level=2 if named_file else 1)
            return 1
        return result if isinstance(result, int) else 0


def _trace(*, from_level: int) -> None:
    if console.verbosity() >= from_level:
        sys.stderr.write(traceback.format_exc())


def _click_message(error: click.ClickException) -> str:
    """click's message, with the nearest names and the way to the help."""
    message = error.format_message()
    ctx = getattr(error, "ctx", None)
    if isinstance(error, click.MissingParameter):
        message = " ".join(message.split())  # click writes one choice a line
    if isinstance(error, click.NoSuchOption) and ctx is not None:
        options = [name for parameter in ctx.command.get_params(ctx) for name in parameter.opts]
        long_options = [name for name in options if name.startswith("--")]
        message = str(unknown_name("option", error.option_name, long_options))
    if isinstance(error, click.UsageError) and ctx is not None:
        message += f"\nusage: {' '.join([ctx.command_path, *ctx.command.collect_usage_pieces(ctx)])}"
        message += f"\nhelp: {ctx.command_path} --help"
    return message


@click.group(cls=_App, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(bdnet_deploy.__version__, prog_name="bdnet-deploy")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Deploy binary and 1.58-bit networks from PyTorch to Arm microcontrollers and computers.

    Exit codes: 0 success, 1 failure, 2 usage, 3 does not fit the board, 4 mismatch, 5 device.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
