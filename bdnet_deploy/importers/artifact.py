"""What the readers of our own ``.tflite`` and ``.onnx`` files share."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bdnet_deploy.errors import ModelFileError
from bdnet_deploy.iodesc import IODescription

Array = npt.NDArray[Any]

_FORMATS = (1,)
# What hostile content raises when it is taken for ours.
_DAMAGE = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError)


class NotOursError(ModelFileError):
    """A sound file of another program: it has no description of ours."""


class EditedFileError(ModelFileError):
    """A file of ours that computes something else than the graph that it was written from: it was edited, or rounded."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A part of an exported model that stands alone: float32 in and out, NHWC, bits and trits as -1.0, 0.0, 1.0.

    Attributes:
        name: the graph value that it computes.
        source: the layer of the user's model.
        nodes: names of the graph nodes that it covers.
        inputs: the graph values that it reads, in the order of the inputs of ``model``.
        model: a file of the same kind, with one output.
    """

    name: str
    source: str
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    model: bytes

    def feed(self, values: Mapping[str, Array]) -> list[Array]:
        """Its inputs out of the reference's values: name -> array (N, ...)."""
        return [np.asarray(values[name], np.float32) for name in self.inputs]


def load_bytes(source: bytes | str | Path) -> bytes:
    """The content of a file, or ``source`` itself when it is bytes.

    Raises:
        ModelFileError: the file cannot be read.
    """
    if isinstance(source, bytes):
        return source
    path = Path(source)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError("the file cannot be read", where=str(path), why=error.strerror or str(error)) from error


def load_description(content: bytes | None, kind: str) -> dict[str, Any]:
    """Our JSON in a file of ``kind``.

    Raises:
        ModelFileError: there is none, or it is damaged, or newer than this program.
    """
    if content is None:
        raise NotOursError(
            f"this {kind} file was not written by bdnet-deploy", why="it has no metadata entry 'bdnet_deploy'"
        )
    with damage_reported(kind):
        description = json.loads(content.decode("utf-8"))
        if description["format"] not in _FORMATS:
            raise ModelFileError(
                f"the {kind} file has metadata of format {description['format']!r}, which this version does not know",
                fix="update bdnet-deploy, or export the model again",
            )
        return dict(description)


def load_io(description: Mapping[str, Any]) -> IODescription | None:
    """The I/O description that travels in the file, if any.

    Raises:
        ModelFileError: it is damaged.
    """
    io = description.get("io")
    return None if io is None else IODescription.from_json(json.dumps(io))


@contextlib.contextmanager
def damage_reported(kind: str) -> Iterator[None]:
    """Turn what damaged content raises into :class:`ModelFileError`; strange numbers in it are no cause for warnings."""
    try:
        with np.errstate(all="ignore"):
            yield
    except _DAMAGE as error:
        why = f"{type(error).__name__}: {error}"
        raise ModelFileError(f"the {kind} file is damaged", why=why, fix="export the model again") from error
