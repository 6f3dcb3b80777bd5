"""Image files as samples: which files a folder holds, and their pixels as a model's I/O description wants them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bdnet_deploy.errors import BdnetError, UsageError, require
from bdnet_deploy.files import no_such_file
from bdnet_deploy.graph import Array
from bdnet_deploy.iodesc import InputDescription

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
#: Decoders that may run. Pillow has more, and one of them (EPS) would start another program.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
#: What the systems' file managers leave behind and hide.
_HIDDEN = ("thumbs.db", "desktop.ini")
#: Larger images are refused before a pixel is decoded: a few bytes of a hostile file can stand for gigabytes.
MAX_PIXELS = 1 << 26


@dataclass(frozen=True)
class ImageFiles:
    """Image files in a fixed order; ``folders``: per file the index of its class folder in ``classes``, or empty."""

    paths: tuple[Path, ...]
    classes: tuple[str, ...] = ()
    folders: tuple[int, ...] = ()


def find_images(path: Path) -> ImageFiles:
    """The images at a path: one file, the files of a folder, or of a folder for each class.

    Class folders are in sorted order, as in torchvision's ``ImageFolder``, and may hold folders of their own. Files are
    sorted by name. Hidden files and folders are passed over.

    Raises:
        ModelFileError: there is no such path.
        UsageError: no images, files that are none, or images beside class folders.
    """
    if not path.exists():
        raise no_such_file(path)
    if not path.is_dir():
        return ImageFiles((_checked(path),))
    try:
        entries = sorted((entry for entry in path.iterdir() if not _is_hidden(entry.name)), key=lambda e: e.name)
    except OSError as error:
        raise _unreadable(error, path) from error
    folders = [entry for entry in entries if entry.is_dir()]
    files = [entry for entry in entries if not entry.is_dir()]
    if not entries:
        raise UsageError("there are no images in the folder", where=str(path), fix=f"suffixes: {' '.join(SUFFIXES)}")
    if not folders:
        return ImageFiles(tuple(_checked(file) for file in files))
    if files:
        raise UsageError(
            "files lie beside folders, so what is a class cannot be told",
            where=str(path),
            why=f"{files[0].name} is a file, {folders[0].name} a folder",
            fix="give one folder of images, or one with a sub-folder for each class and nothing else",
        )
    paths: list[Path] = []
    numbers: list[int] = []
    for number, folder in enumerate(folders):
        found = [_checked(file) for file in _walk(folder)]
        if not found:
            raise UsageError(
                "there are no images in the class folder",
                where=str(folder),
                why="the numbers of the classes are counted from the folders",
                fix="remove the folder, or put the images of its class there",
            )
        paths += found
        numbers += [number] * len(found)
    return ImageFiles(tuple(paths), tuple(folder.name for folder in folders), tuple(numbers))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _HIDDEN


def _unreadable(error: OSError, path: Path) -> BdnetError:
    return BdnetError("the folder cannot be read", where=str(error.filename or path), why=error.strerror or str(error))


def _walk(folder: Path) -> Iterator[Path]:
    """All visible files below a folder, sorted by their folder and name; links are followed once."""

    def refuse(error: OSError) -> None:
        raise _unreadable(error, folder) from error

    seen: set[str] = set()
    found: list[tuple[str, list[str]]] = []
    for root, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = str(Path(root).resolve())
        if real in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        found.append((root, sorted(name for name in files if not _is_hidden(name))))
    for root, files in sorted(found):
        yield from (Path(root) / name for name in files)


def _checked(path: Path) -> Path:
    """The path of an ordinary file with the suffix of an image: else a folder fails before its first image is read."""
    if not path.is_file():
        raise BdnetError("this is no image file", where=str(path), why="it is no ordinary file, or a link to nothing")
    if path.suffix.lower() not in SUFFIXES:
        raise BdnetError(
            "this is no image file",
            where=str(path),
            why=f"images end in {' '.join(SUFFIXES)}",
            fix="move it out of the folder (hidden files are passed over)",
        )
    return path


def check_images(description: InputDescription | None, shape: tuple[int, ...], where: str) -> InputDescription:
    """The description, if it says what the pixels of image files mean.

    Args:
        description: of the model's first input.
        shape: of that input, without the batch.
        where: named in errors.

    Raises:
        UsageError: it does not.
    """
    fix = "save the model with preprocess={'dtype': 'u8', 'color': 'rgb', 'mean': ..., 'std': ...}, or give an .npz"
    if description is None:
        why = "it has no I/O description"
        raise UsageError("the model does not say what the pixels of an image mean to it", where=where, why=why, fix=fix)
    if description.dtype != "u8":
        why = f"its samples are {description.dtype}: 0 to 1, 0 to 255 or otherwise"
        raise UsageError("the model does not say what the pixels of an image mean to it", where=where, why=why, fix=fix)
    if description.shape != shape:
        why = f"it takes {shape}, its I/O description says {description.shape}"
        raise UsageError("the model and its I/O description differ in shape", where=where, why=why)
    channels = {"gray": 1, "rgb": 3, "bgr": 3}.get(description.color or "", shape[-1])
    if len(shape) != 3 or channels != shape[-1] or channels not in (1, 3):
        why = f"its input is {shape}" + (f", its color is {description.color}" if description.color else "")
        raise UsageError("the model takes no gray or colour images", where=where, why=why, fix="give an .npz file")
    return description


def read_image(path: Path, description: InputDescription) -> Array:
    """One image as a raw sample: (1, H, W, C) or (1, C, H, W) u8 in the description's order of colours.

    Turned as its EXIF orientation says. Alpha is dropped, as torchvision's loader does; of 16-bit pixels the high byte
    is taken; of several frames the first.

    Raises:
        BdnetError: no image, or a damaged or too large one.
    """
    pillow = require("PIL.Image", extra="images")
    operations = require("PIL.ImageOps", extra="images")
    pillow.init()  # only then it knows its decoders; a build may lack one
    formats = [name for name in _FORMATS if name in pillow.OPEN]
    color = description.color or ("gray" if description.shape[-1] == 1 else "rgb")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata, which nobody asked for
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            with pillow.open(path, formats=formats) as image:
                kind, (width, height) = image.format, image.size
                if width * height > MAX_PIXELS:
                    raise _bomb(path, f"it has {width} x {height} pixels")
                pixels = _pixels(operations.exif_transpose(image), kind, "L" if color == "gray" else "RGB")
    except BdnetError:
        raise
    except (pillow.DecompressionBombWarning, pillow.DecompressionBombError) as error:
        raise _bomb(path, str(error)) from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's parsers let whatever a damaged file provokes through
        raise BdnetError(
            "this is no image that can be read", where=str(path), why=str(error) or type(error).__name__
        ) from error
    if color == "bgr":
        pixels = pixels[..., ::-1]
    return np.moveaxis(pixels, -1, 0)[None] if description.layout == "NCHW" else pixels[None]


def _bomb(path: Path, why: str) -> BdnetError:
    return BdnetError("the image is too large", where=str(path), why=why, fix=f"at most {MAX_PIXELS:,} pixels")


def _pixels(image: Any, kind: str | None, mode: str) -> Array:
    """(H, W, C) u8 of a Pillow image, ``mode`` L or RGB."""
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        # Pillow would clip 16 bits at 255. Of colours with 16 bits it takes the high byte itself.
        gray = (np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)
        return np.repeat(gray[..., None], 1 if mode == "L" else 3, axis=-1)
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers, and nothing says which of them is white")
    if image.mode in ("P", "PA"):  # a palette may have alpha, which only this step carries
        image = image.convert("RGBA")
    pixels = np.asarray(image.convert(mode))
    return pixels[..., None] if mode == "L" else pixels
