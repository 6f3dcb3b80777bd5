"""Options that are the same in every command, their types, and how a result is shown."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bdnet_deploy.cli import console
from bdnet_deploy.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from bdnet_deploy.model import Model
    from bdnet_deploy.report import Report
    from bdnet_deploy.samples import Samples

_F = TypeVar("_F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
"""A path. That the file exists is checked by the API, which says more than click can."""


class Choice(click.Choice):
    """A choice whose error names the nearest three values."""

    def __init__(self, kind: str, values: Sequence[str]) -> None:
        super().__init__(values)
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value not in self.choices:
            raise unknown_name(self._kind, str(value), [str(choice) for choice in self.choices])
        return super().convert(value, param, ctx)


class Shape(click.ParamType):
    """A shape: ``1x3x224x224`` becomes ``(1, 3, 224, 224)``."""

    name = "shape"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        parts = str(value).lower().split("x")
        if not all(part.isdecimal() and int(part) > 0 for part in parts):
            raise UsageError(
                f"'{value}' is not a shape",
                where="--input",
                fix="positive numbers with an x between them, batch first: --input 1x3x224x224",
            )
        return tuple(int(part) for part in parts)


def parse_setting(text: str) -> tuple[str, Any]:
    """``key=value`` as (key, value); numbers, true, false, none and Python literals get their type.

    Raises:
        UsageError: when there is no ``=`` or no key.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise UsageError(f"'{text}' is not key=value", where="--set", fix="for example: --set width=0.5")
    words = {"true": True, "false": False, "none": None}
    if value.lower() in words:
        return key, words[value.lower()]
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def _settings(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    return dict(parse_setting(value) for value in values)


def _verbosity(ctx: click.Context, param: click.Parameter, value: int | bool) -> None:
    if value:
        console.set_verbosity(-1 if param.name == "quiet" else int(value))


def command(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A click command with ``-v``, ``-q`` and ``-h``."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        options = [
            click.option(
                "-v", "--verbose", count=True, expose_value=False, is_eager=True, callback=_verbosity,
                help="Tell more; -vv shows tracebacks too.",
            ),
            click.option(
                "-q", "--quiet", is_flag=True, expose_value=False, is_eager=True, callback=_verbosity,
                help="Print results and errors only.",
            ),
        ]  # fmt: skip
        for option in reversed(options):
            function = option(function)
        return click.command(name)(function)

    return decorate


# One target.
board = click.option("--board", metavar="NAME", help="Target board (see: bdnet-deploy boards).")
core = click.option("--core", metavar="NAME", help="Target core (see: bdnet-deploy cores).")
numerics = click.option(
    "--numerics",
    type=Choice("numerics", ("float", "fixed16", "fixed8")),
    help="Arithmetic between the binary layers  [default: fixed16 for C source and on Cortex-M, else float].",
)


def calibrate(function: _F) -> _F:
    """``--calibrate`` and ``--calibrate-limit``; see :func:`calibration_samples`."""
    options = [
        click.option(
            "--calibrate", type=PATH, metavar="DATA",
            help="Samples that set the ranges of fixed16 and fixed8: an .npz file (array x), an image, a folder of "
            "images, or one with a sub-folder for each class.",
        ),
        click.option(
            "--calibrate-limit", type=click.IntRange(min=1), metavar="N",
            help="Calibrate with an even part of the samples, at most so many  [default: all].",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def calibration_samples(model: Model, path: Path | None, limit: int | None) -> Path | Samples | None:
    """The samples of ``--calibrate``, at most ``--calibrate-limit`` of them, as the API takes them.

    Raises:
        UsageError: a limit for nothing.
    """
    if limit is None:
        return path
    if path is None:
        raise UsageError("--calibrate-limit needs samples", fix="--calibrate samples.npz or a folder of images")
    return model.samples(path).spread(limit)


def _option(param: click.Parameter | None) -> str:
    return param.opts[0] if param is not None else "--ram"


class Size(click.ParamType):
    """A number of bytes: ``200K``, ``1M`` or ``8192``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, int):
            return value
        number, factor = str(value).upper(), 1
        for suffix, times in (("K", 1024), ("M", 1024 * 1024)):
            if number.endswith(suffix):
                number, factor = number[:-1], times
        if not number.isdecimal() or int(number) == 0:
            raise UsageError(
                f"'{value}' is not a size",
                where=_option(param),
                fix=f"a whole number of bytes, K or M, e.g. {_option(param)} 200K",
            )
        return int(number) * factor


ram = click.option(
    "--ram",
    type=Size(),
    metavar="SIZE",
    help="What the feature maps may take, e.g. 200K; the plan runs row by row where it must.",
)
cache = click.option(
    "--cache",
    type=Size(),
    metavar="SIZE",
    help="What runs together should touch at most beside weights, e.g. 512K; the plan runs row by row where it helps.",
)
push_rows = click.option(
    "--push-rows", is_flag=True, help="Take the input row by row (a camera): no buffer holds it whole."
)


def strict(function: _F) -> _F:
    """``--strict`` and ``--allow-real``; see :meth:`Model.check_binary`."""
    options = [
        click.option(
            "--strict", is_flag=True,
            help="Refuse (exit code 1) if a layer stays real, but for the first one and classifiers.",
        ),
        click.option(
            "--allow-real", metavar="LAYER", multiple=True,
            help="This layer may be real (--strict; weights whose training is not finished); * and ? are wildcards; may be "
            "repeated.",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


for_firmware = click.option(
    "--for-firmware",
    type=PATH,
    metavar="MANIFEST.json",
    help="The firmware that must run the file: exit code 3 and every lack if it cannot.",
)
output_path = click.option("-o", "--output", "output_path", type=PATH, metavar="PATH", help="Where to write.")


def model_options(function: _F) -> _F:
    """A model from the argument MODEL, or from code by ``--model``.

    The command gets ``source`` (Path or None), ``arch``, ``factory`` (``"package.module:name"`` or None),
    ``settings`` (dict), ``weights`` (Path or None) and ``inputs`` (tuple of shapes).
    """
    return click.argument("source", type=PATH, required=False, metavar="[MODEL]")(code_options(function))


def code_options(function: _F) -> _F:
    """The options of :func:`model_options`, without its argument."""
    options = [
        click.option("--arch", metavar="NAME", help="Architecture of a bare state dict."),
        click.option("--model", "factory", metavar="PACKAGE.MODULE:FACTORY", help="Build the model by code."),
        click.option(
            "--set", "settings", metavar="KEY=VALUE", multiple=True, callback=_settings,
            help="Argument of the architecture or factory; may be repeated.",
        ),
        click.option("--weights", type=PATH, metavar="FILE", help="State dict for --model."),
        click.option(
            "--input", "inputs", type=Shape(), metavar="SHAPE", multiple=True,
            help="Input shape, batch first, e.g. 1x3x224x224; repeat it for several inputs.",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def load_model(
    source: Path | None,
    arch: str | None,
    factory: str | None,
    settings: Mapping[str, Any],
    weights: Path | None,
    inputs: tuple[tuple[int, ...], ...],
) -> Model:
    """:func:`bdnet_deploy.load` for the options of :func:`~bdnet_deploy.cli.common.model_options`.

    Raises:
        UsageError: neither a file nor code was named, or both.
    """
    if (source is None) == (factory is None) and arch is None:
        raise UsageError(
            "name one model: a file, or --model package.module:factory",
            fix="bdnet-deploy inspect model.pt, or bdnet-deploy inspect --model bdnet_deploy.models:bdnet_mobilenet_v1",
        )
    from bdnet_deploy.loading import load

    console.note(f"importing {source or factory or arch}")
    model = load(source, arch=arch, model=factory, settings=settings, weights=weights, inputs=inputs or None)
    for text in model.notes:
        console.note(text)
    return model


@dataclass(frozen=True)
class Output:
    """How the user wants to see a report: ``--format`` and ``--report``."""

    format: str
    file: Path | None

    def show(self, report: Report) -> None:
        """Print the report on stdout, and write the file that ``--report`` names."""
        if self.file is not None:
            from bdnet_deploy.files import write_atomic

            write_atomic(self.file, _view(report, _SUFFIXES[self.file.suffix.lower()]))
            console.note(f"wrote {self.file}")
        console.write(_view(report, self.format, terminal=True))


_SUFFIXES = {".html": "html", ".json": "json", ".txt": "text", ".md": "markdown", ".csv": "csv"}


def _view(report: Report, kind: str, *, terminal: bool = False) -> str:
    """The report as text, JSON, Markdown, CSV or HTML; text fits the terminal when it goes there."""
    from bdnet_deploy.report import csv_view, html, json_view, markdown, text

    views = {"json": json_view.render, "html": html.render, "markdown": markdown.render, "csv": csv_view.render}
    if kind in views:
        return views[kind](report)

    if not terminal:
        return text.render(report)
    return text.render(
        report,
        width=console.width(sys.stdout),
        unicode=sys.stdout.isatty() and console.encodes(sys.stdout, "─"),
        colour=console.colours(sys.stdout),
    )


def _report_file(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix.lower() not in _SUFFIXES:
        raise UsageError(
            f"no view of a report ends in '{value.suffix}'",
            where=str(value),
            fix=f"use {', '.join(_SUFFIXES)}",
        )
    return value


def report_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--format`` and ``--report``; the command gets them as ``output``, an :class:`Output`."""

    @click.option(
        "--format",
        "format_",
        type=Choice("format", ("text", "json", "markdown", "csv")),
        default="text",
        show_default=True,
        help="How to print the result.",
    )
    @click.option(
        "--report", "report_file", type=PATH, metavar="FILE", callback=_report_file,
        help="Write the result to FILE too (.html, .json, .txt, .md or .csv).",
    )  # fmt: skip
    @functools.wraps(function)
    def wrapper(*args: Any, format_: str, report_file: Path | None, **kwargs: Any) -> Any:
        return function(*args, output=Output(format_, report_file), **kwargs)

    return wrapper
