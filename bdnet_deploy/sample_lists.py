"""Lists of image files with their classes: ``.csv`` with a header and columns ``file`` and, where known, ``label``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bdnet_deploy.errors import BdnetError, UsageError, unknown_name
from bdnet_deploy.files import no_such_file
from bdnet_deploy.graph import Array
from bdnet_deploy.images import SUFFIXES

_EXAMPLE = "a first line 'file,label', then lines as 'cats/1.png,0'"
#: Longer lists are refused before they fill the memory.
MAX_LINES = 1 << 24


def read_list(path: Path, labels: Sequence[str] = ()) -> tuple[list[Path], Array | None]:
    """The files that a list names, in its order, and their class numbers.

    Files are relative to the list's folder. A label is one of the model's ``labels``, or a class number from 0. Other columns
    are passed over; empty lines, too. That the files exist is seen when they are read.

    Returns:
        Paths, and (N,) int64; None where there is no column ``label``.

    Raises:
        BdnetError: the list cannot be read.
        UsageError: no such column, no files, or a label that is neither; the line is named.
    """
    if not path.exists():
        raise no_such_file(path)
    files: list[Path] = []
    numbers: list[int] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            if "file" not in columns:
                why = f"its first line is '{', '.join(columns)[:100]}'" if columns else "it is empty"
                raise UsageError("the list has no column 'file'", where=str(path), why=why, fix=_EXAMPLE)
            for row in reader:
                place = f"{path}, line {reader.line_num}"
                name = (row["file"] or "").strip()
                if not name:
                    raise UsageError("the line names no file", where=place, fix=_EXAMPLE)
                if Path(name).suffix.lower() not in SUFFIXES:
                    why = f"images end in {' '.join(SUFFIXES)}"
                    raise UsageError(f"'{name[:100]}' is no image file", where=place, why=why)
                files.append(path.parent / name)
                if "label" in columns:
                    numbers.append(_number((row["label"] or "").strip(), labels, place))
                if len(files) > MAX_LINES:
                    raise UsageError(f"the list has more than {MAX_LINES:,} lines", where=str(path))
    except OSError as error:
        raise BdnetError("the list cannot be read", where=str(path), why=error.strerror or str(error)) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise BdnetError("this is no CSV file", where=str(path), why=str(error), fix=_EXAMPLE) from error
    if not files:
        raise UsageError("the list names no files", where=str(path), fix=_EXAMPLE)
    return files, np.array(numbers, np.int64) if "label" in columns else None


def _number(label: str, labels: Sequence[str], where: str) -> int:
    if label in labels:
        return list(labels).index(label)
    if label.isascii() and label.isdigit() and len(label) < 10:
        return int(label)
    if labels:
        error = unknown_name("class", label[:100], labels)
        error.where = where
        raise error
    raise UsageError(
        f"the label '{label[:100]}' is no class number",
        where=where,
        why="the model has no labels, so that names mean nothing to it",
        fix="class numbers from 0, or save the model with labels=...",
    )
