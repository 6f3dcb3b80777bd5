"""Sample sets: ``.npz`` files with arrays ``x`` and, where known, ``y``; image files and folders of them."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bdnet_deploy.errors import BdnetError, UsageError, unknown_name
from bdnet_deploy.files import no_such_file
from bdnet_deploy.graph import Array
from bdnet_deploy.images import SUFFIXES, ImageFiles, check_images, find_images, read_image
from bdnet_deploy.iodesc import InputDescription, IODescription
from bdnet_deploy.sample_lists import read_list

_SAVE = "numpy.savez('samples.npz', x=samples, y=classes), with x of shape (N, height, width, channels)"


@dataclass(frozen=True, eq=False)
class Samples:
    """``x``: (N, H, W, C) float32 as the network sees it; ``y``: (N,) class numbers, or None."""

    x: Array
    y: Array | None

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def batches(self, size: int) -> Iterator[Array]:
        """``x`` in parts of at most ``size`` samples, in order."""
        for start in range(0, len(self), size):
            yield self.x[start : start + size]

    def parts(self) -> Iterator[Array]:
        """``x`` in parts of about 256 MB."""
        size = int(np.prod(next(self.batches(1)).shape))
        return self.batches(max(1, (1 << 26) // size))

    def spread(self, limit: int) -> Samples:
        """At most ``limit`` of the samples, in order: evenly over the classes where those are known, else evenly."""
        chosen = spread(len(self), self.y, limit)
        return self if len(chosen) == len(self) else self._chosen(chosen)

    def limited(self, limit: int | None) -> Samples:
        """At most ``limit`` of the samples: the first ones, of image files an even part; None: all."""
        return self if limit is None or limit >= len(self) else self._chosen(np.arange(limit))

    def _chosen(self, chosen: Array) -> Samples:
        return Samples(self.x[chosen], None if self.y is None else self.y[chosen])

    @cached_property
    def key(self) -> str:
        """Equal for equal samples."""
        return hashlib.sha256(np.ascontiguousarray(self.x).tobytes()).hexdigest()


class ImageSamples(Samples):
    """Image files, read when they are needed: :meth:`batches` holds one part at a time, ``x`` all of them.

    ``files``: their paths; ``classes``: the names of the class folders, empty where there are none.
    """

    def __init__(
        self, files: Sequence[Path], y: Array | None, description: InputDescription, classes: Sequence[str] = ()
    ) -> None:
        put = object.__setattr__  # frozen
        put(self, "files", tuple(files))
        put(self, "y", y)
        put(self, "classes", tuple(classes))
        put(self, "_description", description)

    files: tuple[Path, ...]
    classes: tuple[str, ...]
    _description: InputDescription

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def x(self) -> Array:
        """(N, H, W, C) float32, all images at once."""
        return np.concatenate(list(self.batches(1)))

    def batches(self, size: int) -> Iterator[Array]:
        for start in range(0, len(self), size):
            yield np.concatenate([self.read(i) for i in range(start, min(start + size, len(self)))])

    def read(self, index: int) -> Array:
        """One image (1, H, W, C) as the network sees it.

        Raises:
            BdnetError: the file is no image, or a damaged one.
        """
        file = self.files[index]
        raw = read_image(file, self._description)
        try:
            return self._description.preprocess(raw)
        except UsageError as error:
            error.where = str(file)
            raise

    def limited(self, limit: int | None) -> Samples:
        return self if limit is None else self.spread(limit)

    def _chosen(self, chosen: Array) -> Samples:
        y = None if self.y is None else self.y[chosen]
        return ImageSamples([self.files[i] for i in chosen], y, self._description, self.classes)

    @cached_property
    def key(self) -> str:
        """Equal for the same files, unchanged; their contents are not read."""
        states = [(str(file.absolute()), *_state(file)) for file in self.files]
        return hashlib.sha256(repr((states, self._description)).encode()).hexdigest()


def _state(file: Path) -> tuple[int, int]:
    """Size and time of change; of a file that is not there, nothing that a file has."""
    try:
        found = file.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def spread(count: int, y: Array | None, limit: int) -> Array:
    """Sorted indices of at most ``limit`` of ``count`` samples: as many of each class as there are, if that is even.

    Small classes give all that they have, the others share the rest; within a class the indices are evenly spaced.
    """
    if limit >= count:
        return np.arange(count)
    groups = [np.arange(count)] if y is None else [np.flatnonzero(y == number) for number in np.unique(y)]
    sizes = np.array([len(group) for group in groups])
    level = 0
    for candidate in np.unique(sizes):  # the share of each class, as if classes were filled with water
        larger = sizes >= candidate
        fits = (limit - int(sizes[~larger].sum())) // int(larger.sum())
        level = max(level, min(int(candidate), fits))
    quotas = np.minimum(sizes, level)
    wanting = np.flatnonzero(sizes > level)
    rest = limit - int(quotas.sum())
    quotas[wanting[_even(len(wanting), rest)]] += 1
    return np.sort(np.concatenate([group[_even(len(group), int(n))] for group, n in zip(groups, quotas, strict=True)]))


def _even(count: int, chosen: int) -> Array:
    """``chosen`` evenly spaced indices below ``count``."""
    return np.arange(chosen) * count // max(chosen, 1)


def load_samples(path: Path, io: IODescription | None, shape: tuple[int, ...], *, limit: int | None = None) -> Samples:
    """Samples as the network sees them.

    Args:
        path: an ``.npz`` file, an image file, a folder of images, a folder with a sub-folder of images for each class, or
            a ``.csv`` with columns ``file`` and ``label`` (:func:`bdnet_deploy.sample_lists.read_list`). Images are read later, when they are needed. Classes are numbered in the sorted order of
            their folders' names or, where these are the model's labels, as the labels are.
        io: the model's I/O description; None takes float NHWC samples as they are, and no images.
        shape: of the network's input without the batch, (H, W, C).
        limit: use at most so many samples: the first ones of a file, an even part of a folder.

    Raises:
        UsageError: the samples do not fit the model, or there are none.
        BdnetError: the file cannot be read.
    """
    if path.is_dir() or path.suffix.lower() in SUFFIXES:
        files = find_images(path)
        description = check_images(io.inputs[0] if io is not None and io.inputs else None, shape, str(path))
        y = _class_numbers(files, io, path)
        images = ImageSamples(files.paths, y, description, files.classes)
        return images.limited(limit)
    if path.suffix.lower() == ".csv":
        labels = io.outputs[0].labels if io is not None and io.outputs else ()
        paths, numbers = read_list(path, labels)
        description = check_images(io.inputs[0] if io is not None and io.inputs else None, shape, str(path))
        return ImageSamples(paths, numbers, description).limited(limit)
    return _load_npz(path, io, shape, limit)


def _class_numbers(files: ImageFiles, io: IODescription | None, path: Path) -> Array | None:
    """(N,) class numbers of images in class folders: by the model's labels where the folders are called so."""
    if not files.classes:
        return None
    labels = io.outputs[0].labels if io is not None and io.outputs else ()
    strangers = [name for name in files.classes if name not in labels]
    numbers = np.arange(len(files.classes))
    if not strangers and len(set(labels)) == len(labels):
        numbers = np.array([labels.index(name) for name in files.classes])
    elif labels and len(strangers) < len(files.classes):
        error = unknown_name("class", strangers[0], labels)
        error.where = str(path / strangers[0])
        error.why = "other folders here have the names of the model's labels"
        raise error
    return numbers[list(files.folders)]


def _load_npz(path: Path, io: IODescription | None, shape: tuple[int, ...], limit: int | None) -> Samples:
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
