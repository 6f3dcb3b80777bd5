"""The terminal: encodings, verbosity, remarks, progress. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_LEVELS = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}

_verbosity = 0


def prepare() -> None:
    """Make both streams safe to write to, whatever their encoding, and forget the last run's verbosity."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            # A character that a cp1252 or ASCII console lacks becomes "?", never a UnicodeEncodeError.
            reconfigure(errors="replace")
    set_verbosity(0)


def set_verbosity(level: int) -> None:
    """-1: errors only (``-q``); 0: remarks and progress too; 1 (``-v``): logs; 2 (``-vv``): tracebacks."""
    global _verbosity
    _verbosity = level
    logger = logging.getLogger("bdnet_deploy")
    logger.setLevel(_LEVELS.get(level, logging.DEBUG))
    for handler in list(logger.handlers):
        if isinstance(handler, _StderrHandler):
            logger.removeHandler(handler)
    logger.addHandler(_StderrHandler())


def verbosity() -> int:
    """The level that :func:`set_verbosity` set."""
    return _verbosity


def encodes(stream: TextIO, text: str) -> bool:
    """Whether the stream's encoding has these characters."""
    try:
        text.encode(getattr(stream, "encoding", None) or "ascii")
    except UnicodeError:
        return False
    return True


def width(stream: TextIO) -> int | None:
    """Columns of the terminal behind a stream; None for pipes and files."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def colours(stream: TextIO) -> bool:
    """Whether to write ANSI colours: a terminal, and https://no-color.org not asked for."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def write(text: str) -> None:
    """Write a result to stdout as it is."""
    sys.stdout.write(text)
    sys.stdout.flush()


def note(text: str) -> None:
    """A remark on stderr; ``-q`` silences it."""
    if _verbosity >= 0:
        sys.stderr.write(f"{text}\n")


def error(text: str) -> None:
    """An error message on stderr."""
    label = "\x1b[1;31merror:\x1b[0m" if colours(sys.stderr) else "error:"
    sys.stderr.write(f"{label} {text}\n")


Step = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done and how many there are."""


@contextmanager
def steps() -> Iterator[Step]:
    """Progress bars on stderr, one a description, where that is a terminal and ``-q`` was not given; else nothing."""
    if not sys.stderr.isatty() or _verbosity < 0:
        yield lambda description, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def step(description: str, done: int, total: int) -> None:
            if description not in tasks:
                tasks[description] = bars.add_task(description, total=total)
            bars.update(tasks[description], completed=done, total=total)

        yield step


class _StderrHandler(logging.Handler):
    """Looks stderr up at every record: test runners and notebooks exchange it."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{record.levelname.lower()}: {self.format(record)}\n")
