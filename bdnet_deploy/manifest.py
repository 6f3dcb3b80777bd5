"""What a firmware in the field can run, as JSON that is written beside it (docs/c-api.md, "Updates in the field")."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bdnet_deploy import __version__, bdn_format
from bdnet_deploy.bdn_format import NAME_BYTES, RECORD_MAP, BdnFile, DType, Place, align
from bdnet_deploy.errors import BdnetError, UsageError
from bdnet_deploy.files import no_such_file
from bdnet_deploy.graph import NUMERICS

#: Changes when older readers must not use a newer manifest; members that a reader does not know are ignored.
MANIFEST_VERSION = 1
#: ``BD_API_VERSION`` of ``bdnet.h``.
API_VERSION = 1
#: Ending of the manifest beside a generated C source.
SUFFIX = ".manifest.json"
#: Bits of a pointer: ``BD_ARENA_BYTES`` depends on their size.
POINTERS = (32, 64)

_LARGEST_FILE = 1 << 20
_U16, _U32 = 0xFFFF, 0xFFFFFFFF
_KERNEL = re.compile(rf"[A-Za-z0-9_]{{1,{NAME_BYTES - 1}}}")


@dataclass(frozen=True)
class Port:
    """An input or output: its buffer, and what its integers mean: real = (q - zero_point) * scale.

    ``scale`` and ``zero_point`` have one value for all channels or one for each, and none where nothing is stated.
    """

    height: int
    width: int
    channels: int
    dtype: str
    pushed: bool = False
    scale: tuple[float, ...] = ()
    zero_point: tuple[float, ...] = ()

    @property
    def buffer(self) -> str:
        """Shape and type in words, ``8x8x1 u8``."""
        pushed = ", pushed row by row" if self.pushed else ""
        return f"{self.height}x{self.width}x{self.channels} {self.dtype}{pushed}"

    @property
    def meaning(self) -> str:
        """Quantization in words."""
        if not self.scale:
            return "none"
        scale, zero_point = (" ".join(f"{v:.9g}" for v in values) for values in (self.scale, self.zero_point))
        return f"scale {scale}, zero point {zero_point}"


@dataclass(frozen=True)
class BuiltWith:
    """The model that a firmware was built with."""

    model_bytes: int
    model_version: int
    numerics: str
    sha256: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True)
class Manifest:
    """What a firmware can run.

    Attributes:
        kernels: of its table, by name.
        arena_bytes: what it reserves, by the bits of its pointers; both where the source fits machines of both.
        model_bytes: what it reserves for a model.
        format_version: of the newest ``.bdn`` that it reads.
        api_version: ``BD_API_VERSION`` of its runtime.
        made_by: what wrote this.
        model: what it was built with; None where it has none, so that its application takes any inputs and outputs.
    """

    kernels: tuple[str, ...]
    arena_bytes: Mapping[int, int]
    model_bytes: int
    format_version: int = bdn_format.FORMAT_VERSION
    api_version: int = API_VERSION
    made_by: str = f"bdnet-deploy {__version__}"
    model: BuiltWith | None = None

    def to_json(self) -> str:
        """The same bytes for the same firmware."""
        model: dict[str, Any] | None = None
        if self.model is not None:
            model = {
                **{k: getattr(self.model, k) for k in ("model_bytes", "model_version", "numerics", "sha256")},
                "inputs": [_port_members(port) for port in self.model.inputs],
                "outputs": [_port_members(port) for port in self.model.outputs],
            }
        members = {
            "manifest_version": MANIFEST_VERSION,
            "made_by": self.made_by,
            "api_version": self.api_version,
            "format_version": self.format_version,
            "arena_bytes": {str(bits): size for bits, size in sorted(self.arena_bytes.items())},
            "model_bytes": self.model_bytes,
            "kernels": sorted(self.kernels),
            "model": model,
        }
        return json.dumps(members, indent=2, allow_nan=False) + "\n"


def arena_bytes(file: BdnFile, bits: int) -> int:
    """``BD_ARENA_BYTES`` of a model on a machine with pointers of ``bits``."""
    pointer = bits // 8
    tables = len(file.kernels) * pointer + len(file.steps) * 2
    header = file.header
    return 16 * pointer + 32 + align(tables) + int(header["tensor_bytes"]) + int(header["scratch_bytes"])


def ports(file: BdnFile, place: Place) -> tuple[Port, ...]:
    """Inputs or outputs of a model file."""
    count = int(file.header["inputs" if place == Place.INPUT else "outputs"])
    found = []
    for index in range(count):
        tensor = file.tensors[file.tensor_at(place, index)]
        scale, zero_point = _quantization(file, place, index)
        found.append(
            Port(
                height=int(tensor["height"]),
                width=int(tensor["width"]),
                channels=int(tensor["channels"]),
                dtype=DType(int(tensor["dtype"])).name.lower(),
                pushed=place == Place.INPUT and bool(tensor["rows_held"] < tensor["height"]),
                scale=scale,
                zero_point=zero_point,
            )
        )
    return tuple(found)


def _quantization(file: BdnFile, place: Place, index: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scales and zero points that the file's map states, empty where it states none."""
    try:
        record = json.loads(file.records[RECORD_MAP])[f"{place.name.lower()}s"][index]
        scale, zero_point = (np.atleast_1d(np.asarray(record[k], np.float64)) for k in ("scale", "zero_point"))
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, RecursionError):
        return (), ()
    sound = scale.ndim == zero_point.ndim == 1 and (scale > 0).all() and np.isfinite([*scale, *zero_point]).all()
    return (tuple(scale.tolist()), tuple(zero_point.tolist())) if sound else ((), ())


def make_manifest(
    data: bytes,
    *,
    keep: Iterable[str] = (),
    bits: Iterable[int] = POINTERS,
    reserve_arena: int = 0,
    reserve_model: int = 0,
) -> Manifest:
    """The manifest of a firmware around a model.

    Args:
        data: the model's ``.bdn`` bytes.
        keep: kernels in its table besides the model's.
        bits: of pointers on its machine.
        reserve_arena, reserve_model: bytes that it reserves, where that is more than the model needs.
    """
    file = bdn_format.read(data)
    return Manifest(
        kernels=tuple(sorted({*file.kernels, *keep})),
        arena_bytes={b: max(arena_bytes(file, b), align(reserve_arena)) for b in bits},
        model_bytes=max(len(file.data), align(reserve_model)),
        model=BuiltWith(
            model_bytes=len(file.data),
            model_version=int(file.header["model_version"]),
            numerics=NUMERICS[int(file.header["numerics"])],
            sha256=hashlib.sha256(file.data).hexdigest(),
            inputs=ports(file, Place.INPUT),
            outputs=ports(file, Place.OUTPUT),
        ),
    )


def read_manifest(path: Path) -> Manifest:
    """A manifest from its file, of which nothing is believed.

    Raises:
        ModelFileError: there is no such file.
        UsageError: it is no manifest; the member that is wrong is named.
    """
    if not path.exists():
        raise no_such_file(path)
    if not path.is_file() or path.stat().st_size > _LARGEST_FILE:
        raise _no_manifest(path, "it is no ordinary file of at most 1 MiB")
    try:
        members = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise BdnetError("the file cannot be read", where=str(path), why=error.strerror) from error
    except RecursionError:
        raise _no_manifest(path, "its values are nested too deeply") from None
    except ValueError as error:  # neither UTF-8 nor JSON, or a number of too many digits
        raise _no_manifest(path, f"it is not JSON: {error}") from None
    try:
        return _manifest(_Members(members, "the file"))
    except _ContentError as wrong:
        raise _no_manifest(path, str(wrong)) from None


def _no_manifest(path: Path, why: str) -> UsageError:
    return UsageError(
        "this is no manifest of a firmware",
        where=str(path),
        why=why.encode("ascii", "backslashreplace").decode("ascii"),
        fix=f"name the {SUFFIX[1:]} that export --target c wrote beside the firmware's model",
    )


class _ContentError(Exception):
    """What is wrong with a manifest."""


class _Members:
    """The members of a JSON object, each of its type and range or :class:`_ContentError`."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise _ContentError(f"{where} is no object")
        self.value = value
        self.where = where

    def any(self, name: str) -> Any:
        if name not in self.value:
            raise _ContentError(f"{self.where} has no member '{name}'")
        return self.value[name]

    def integer(self, name: str, least: int, most: int) -> int:
        value = self.any(name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise _ContentError(f"'{name}' of {self.where} is no whole number from {least} to {most}")
        return value

    def numbers(self, name: str, count: int) -> tuple[float, ...]:
        """One finite number, or a list of ``count``."""
        value = self.any(name)
        values = value if isinstance(value, list) and len(value) == count else [value]
        largest = np.finfo(np.float64).max
        if any(isinstance(v, bool) or not isinstance(v, int | float) or not abs(v) <= largest for v in values):
            raise _ContentError(f"'{name}' of {self.where} is neither a finite number nor {count} of them")
        return tuple(map(float, values))

    def text(self, name: str, known: Sequence[str] | None = None) -> str:
        value = self.any(name)
        if not isinstance(value, str) or (known is not None and value not in known):
            raise _ContentError(
                f"'{name}' of {self.where} is not {'a text' if known is None else 'one of ' + ', '.join(known)}"
            )
        return value

    def list(self, name: str, most: int) -> list[Any]:
        value = self.any(name)
        if not isinstance(value, list) or not 0 < len(value) <= most:
            raise _ContentError(f"'{name}' of {self.where} is no list of 1 to {most} values")
        return value


def _manifest(members: _Members) -> Manifest:
    version = members.integer("manifest_version", 1, _U32)
    if version > MANIFEST_VERSION:
        raise _ContentError(f"its version is {version}, and this bdnet-deploy reads {MANIFEST_VERSION}: upgrade it")
    kernels = members.list("kernels", _U16)
    for kernel in kernels:
        if not isinstance(kernel, str) or not _KERNEL.fullmatch(kernel):
            raise _ContentError(f"{str(kernel)[:40]!r} in 'kernels' is no kernel's name")
    arena = _Members(members.any("arena_bytes"), "'arena_bytes'")
    sizes = {bits: arena.integer(str(bits), 1, _U32) for bits in POINTERS if str(bits) in arena.value}
    if not sizes:
        raise _ContentError("'arena_bytes' has neither '32' nor '64'")
    model = members.any("model")
    return Manifest(
        kernels=tuple(sorted(set(kernels))),
        arena_bytes=sizes,
        model_bytes=members.integer("model_bytes", 1, _U32),
        format_version=members.integer("format_version", 1, _U16),
        api_version=members.integer("api_version", 1, _U32),
        made_by=members.text("made_by"),
        model=None if model is None else _built_with(_Members(model, "'model'")),
    )


def _built_with(members: _Members) -> BuiltWith:
    return BuiltWith(
        model_bytes=members.integer("model_bytes", 1, _U32),
        model_version=members.integer("model_version", 0, _U32),
        numerics=members.text("numerics", NUMERICS),
        sha256=members.text("sha256"),
        inputs=tuple(_port(_Members(v, "an input")) for v in members.list("inputs", bdn_format.MAX_IO)),
        outputs=tuple(_port(_Members(v, "an output")) for v in members.list("outputs", bdn_format.MAX_IO)),
    )


def _port(members: _Members) -> Port:
    pushed = members.any("pushed")
    if not isinstance(pushed, bool):
        raise _ContentError(f"'pushed' of {members.where} is neither true nor false")
    channels = members.integer("channels", 1, _U16)
    scale: tuple[float, ...] = ()
    zero_point: tuple[float, ...] = ()
    if "scale" in members.value:
        scale, zero_point = members.numbers("scale", channels), members.numbers("zero_point", channels)
        if min(scale) <= 0:
            raise _ContentError(f"'scale' of {members.where} is not positive")
    return Port(
        height=members.integer("height", 1, _U16),
        width=members.integer("width", 1, _U16),
        channels=channels,
        dtype=members.text("dtype", [dtype.name.lower() for dtype in DType]),
        pushed=pushed,
        scale=scale,
        zero_point=zero_point,
    )


def _port_members(port: Port) -> dict[str, Any]:
    members: dict[str, Any] = {k: getattr(port, k) for k in ("height", "width", "channels", "dtype", "pushed")}
    if port.scale:
        members.update(scale=_json(port.scale), zero_point=_json(port.zero_point))
    return members


def _json(values: tuple[float, ...]) -> float | list[float]:
    whole = [int(v) if v.is_integer() else v for v in values]
    return whole[0] if len(whole) == 1 else whole
