"""Sample sets: ``.npz`` files with arrays ``x`` and, where known, ``y``."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bdnet_deploy.errors import BdnetError, UsageError
from bdnet_deploy.files import no_such_file
from bdnet_deploy.graph import Array
from bdnet_deploy.iodesc import IODescription

_SAVE = "numpy.savez('samples.npz', x=samples, y=classes), with x of shape (N, height, width, channels)"


@dataclass(frozen=True, eq=False)
class Samples:
    """``x``: (N, H, W, C) float32 as the network sees it; ``y``: (N,) class numbers, or None."""

    x: Array
    y: Array | None

    def __len__(self) -> int:
        return int(self.x.shape[0])


def load_samples(path: Path, io: IODescription | None, shape: tuple[int, ...], *, limit: int | None = None) -> Samples:
    """Read samples and bring them to what the network sees.

    Args:
        path: an ``.npz`` file.
        io: the model's I/O description; None takes float NHWC samples as they are.
        shape: of the network's input without the batch, (H, W, C).
        limit: use the first ``limit`` samples only.

    Raises:
        UsageError: the samples do not fit the model, or there are none.
        BdnetError: the file cannot be read.
    """
    x, y = _arrays(path)
    if x.ndim == 0 or len(x) == 0:
        why = f"'x' has shape {x.shape}"
        raise UsageError("there are no samples in the file", where=str(path), why=why, fix=_SAVE)
    if y is not None and (y.shape != x.shape[:1] or y.dtype.kind not in "iu"):
        raise UsageError(
            f"'y' has shape {y.shape} and type {y.dtype} for {len(x)} samples",
            where=str(path),
            fix="save y as one whole class number a sample, or leave it out",
        )
    if limit is not None:
        x, y = x[:limit], None if y is None else y[:limit]
    if x.dtype.kind not in "iuf":
        raise UsageError(f"samples are {x.dtype}, not numbers", where=str(path), fix=_SAVE)
    try:
        real = io.preprocess(x) if io is not None else x
    except UsageError as error:
        error.where = error.where or str(path)
        raise
    if real.shape[1:] != shape:
        raise UsageError(
            f"samples have shape {tuple(real.shape)}, the model takes (N, {', '.join(map(str, shape))})",
            where=str(path),
            why="N samples, then height, width, channels" if len(shape) == 3 else None,
            fix=_SAVE,
        )
    if not np.issubdtype(real.dtype, np.floating):
        raise UsageError(
            f"samples are {real.dtype}, and the model has no I/O description that says what they mean",
            where=str(path),
            fix="save floats as the network saw them in training, or save the model with preprocess=...",
        )
    if not np.isfinite(real).all():
        raise UsageError("a sample holds NaN or infinity", where=str(path))
    return Samples(real.astype(np.float32), y)


def _arrays(path: Path) -> tuple[Array, Array | None]:
    """The arrays ``x`` and ``y`` of a file."""
    if not path.exists():
        raise no_such_file(path)
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise UsageError("this is one array (.npy), not an .npz file", where=str(path), fix=_SAVE)
        with archive:
            names = list(archive.keys())
            if "x" not in names:
                why = f"it has {', '.join(names)}" if names else "it is empty"
                raise UsageError("the file has no array 'x'", where=str(path), why=why, fix=_SAVE)
            return np.asarray(archive["x"]), np.asarray(archive["y"]) if "y" in names else None
    except OSError as error:
        why = error.strerror or str(error)
        raise BdnetError("this is not a readable .npz file", where=str(path), why=why, fix=_SAVE) from error
    except (ValueError, zipfile.BadZipFile, EOFError, KeyError, NotImplementedError, zlib.error) as error:
        why = str(error)
        if "pickle" in why:  # numpy's words for everything that is no archive, too
            why = "it is no ZIP archive, or it holds Python objects, which could run code; nothing of it was run"
        raise BdnetError("this is not a readable .npz file", where=str(path), why=why, fix=_SAVE) from error
