"""Sample sets: ``.npz`` files with arrays ``x`` and, where known, ``y``."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bdnet_deploy.errors import BdnetError, UsageError
from bdnet_deploy.graph import Array
from bdnet_deploy.iodesc import IODescription


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
    if not path.exists():
        raise BdnetError("there is no such file", where=str(path))
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive.keys())
            x = np.asarray(archive["x"]) if "x" in names else None
            y = np.asarray(archive["y"]) if "y" in names else None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise BdnetError("this is not a readable .npz file", where=str(path), why=str(error)) from error
    if x is None:
        found = f"it has {', '.join(names)}" if names else "it is empty"
        raise UsageError("the file has no array 'x'", where=str(path), why=found)
    if y is not None and y.shape != x.shape[:1]:
        raise UsageError(f"'y' has shape {y.shape} for {x.shape[0]} samples", where=str(path))
    if limit is not None:
        x, y = x[:limit], None if y is None else y[:limit]
    real = io.preprocess(x) if io is not None else x
    if real.shape[1:] != shape or real.shape[0] == 0:
        raise UsageError(
            f"samples have shape {tuple(real.shape)}, the model takes (N, {', '.join(map(str, shape))})",
            where=str(path),
        )
    if not np.issubdtype(real.dtype, np.floating):
        raise UsageError(
            f"samples are {real.dtype}, and the model has no I/O description that says what they mean",
            where=str(path),
            fix="save floats as the network saw them in training, or save the model with preprocess=...",
        )
    return Samples(real.astype(np.float32), y)
