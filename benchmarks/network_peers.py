"""Published figures of other tools (``peers.toml``)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdnet_deploy import errors
from bdnet_deploy._toml import read_toml

FILE = Path(__file__).resolve().parent / "peers.toml"
#: What a number can be -> its units.
MEASURES = {
    "arena": ("KiB", "kB"),
    "activation RAM": ("KiB",),
    "peak SRAM": ("kB",),
    "total RAM": ("KiB", "KB"),
    "model file": ("B",),
    "total flash": ("KiB", "kB", "KB"),
    "latency": ("ms",),
    "throughput": ("inf/s",),
}
#: Measures of memory at run time.
MEMORY = ("arena", "activation RAM", "peak SRAM", "total RAM")


@dataclass(frozen=True)
class Figure:
    """One number from one source; the fields are explained at the top of ``peers.toml``."""

    network: str
    peer: str
    version: str
    model: str
    measure: str
    value: float
    unit: str
    platform: str
    source: str
    where: str
    note: str = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kinds = (int, float) if field.name == "value" else (str,)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise ValueError(f"{field.name} is {value!r}")
            if value == "" and field.name != "note":
                raise ValueError(f"{field.name} is empty")
        if self.unit not in MEASURES.get(self.measure, ()):
            raise ValueError(f"{self.measure!r} in {self.unit!r}")
        if not self.source.startswith("https://"):
            raise ValueError(f"source is {self.source!r}, not an address")
        if not self.value > 0:
            raise ValueError(f"value is {self.value}")


def read(path: Path = FILE) -> list[Figure]:
    """All figures, in the file's order.

    Raises:
        BdnetError: the file cannot be read, or a figure lacks a field or has one of the wrong kind.
    """
    content = read_toml(path)
    entries = content.get("figure", [])
    if set(content) - {"figure"} or not isinstance(entries, list):
        raise errors.BdnetError("a file of figures holds [[figure]] tables only", where=str(path))
    return [_figure(entry, i, path) for i, entry in enumerate(entries)]


def _figure(entry: dict[str, Any], index: int, path: Path) -> Figure:
    try:
        return Figure(**entry)
    except (TypeError, ValueError) as error:
        raise errors.BdnetError(f"figure {index + 1} is not valid", where=str(path), why=str(error)) from error
