"""What the exporters for other people's runtimes (TensorFlow Lite, ONNX) share.

Those runtimes compute in f32, so they carry graphs of numerics "float". Integers travel as floats, which is exact up
to 2**24.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import bdnet_deploy
from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.graph import Graph, Node, Value
from bdnet_deploy.iodesc import IODescription
from bdnet_deploy.report import Column, Table


@dataclass(frozen=True)
class LayerForm:
    """How one layer of the user's model lies in a file.

    Attributes:
        layer: the user's name of it (``Node.source``), else the node's.
        op: the graph's operator.
        recipe: a short fixed name of how it is expressed, each explained in docs/exporting.md: ``"LceBconv2d, bits out"``.
        macs: multiply-accumulates as the file computes them, by kind: "binary", "int8", "float".
        weight_bytes: bytes of its weights in the file.
        extra_bytes: bytes of further constants that only this form needs, such as border maps.
        note: what else a reader should know, or "".
    """

    layer: str
    op: str
    recipe: str
    macs: Mapping[str, int] = field(default_factory=dict)
    weight_bytes: int = 0
    extra_bytes: int = 0
    note: str = ""


@dataclass(frozen=True)
class Written:
    """An exported file and what is to be said about it.

    Attributes:
        data: the file.
        external: further files that belong beside it: name -> content.
        forms: how each layer lies in it, in the graph's order.
        sizes: bytes by kind ("binary weights", "ternary weights", "int8 weights", "float weights", "parameters",
            "structure"); they add up to all files.
        notes: sentences for the user.
    """

    data: bytes
    external: Mapping[str, bytes] = field(default_factory=dict)
    forms: Sequence[LayerForm] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def tables(self) -> list[Table]:
        """The sizes and the forms for a report; empty ones are left out."""
        sizes = Table("sizes", [Column("kind"), Column("bytes", align="right", format=",")])
        for kind, size in self.sizes.items():
            sizes.add(kind=kind, bytes=size)
        kinds = [k for k in ("binary", "int8", "float") if any(k in form.macs for form in self.forms)]
        numbers = [*(f"{k}_macs" for k in kinds), "weight_bytes", "extra_bytes"]
        columns = [Column(name) for name in ("layer", "op", "recipe")]
        forms = Table("layers", [*columns, *(Column(n, align="right", format=",") for n in numbers), Column("note")])
        for form in self.forms:
            macs = {f"{k}_macs": form.macs.get(k, 0) for k in kinds}
            weights, extra = form.weight_bytes, form.extra_bytes
            forms.add(
                layer=form.layer,
                op=form.op,
                recipe=form.recipe,
                weight_bytes=weights,
                extra_bytes=extra,
                note=form.note,
                **macs,
            )
        return [table for table in (sizes, forms) if table.rows]


#: Key of our JSON in the metadata of a file.
METADATA_KEY = "bdnet_deploy"
#: Version of that JSON.
METADATA_FORMAT = 1
#: Every integer up to here is a float32.
EXACT = 1 << 24


def refuse(node: Node, why: str, *, target: str, fix: str | None = None) -> UnsupportedError:
    """The error for a node that ``target`` cannot carry; it names the value and the user's layer."""
    where = f"{node.source} ({node.name})" if node.source and node.source != node.name else node.name
    return UnsupportedError(f"{node.op.name} cannot be exported to {target}", where=where, why=why, fix=fix)


def integer_threshold(threshold: Value, bound: int) -> Any:
    """i32 thresholds as float32 that compare alike with any |x| <= ``bound`` < 2**24."""
    assert threshold.data is not None
    return np.clip(threshold.data.astype(np.int64), -bound, bound + 1).astype(np.float32)


def describe(graph: Graph, io: IODescription | None, **details: Any) -> bytes:
    """The JSON that travels in the file: who made it, the I/O description, and ``details`` for our reader.

    Canonical (sorted keys, no spaces, no dates): equal graphs give equal bytes.
    """
    content = {
        "format": METADATA_FORMAT,
        "producer": f"bdnet-deploy {bdnet_deploy.__version__}",
        "model": graph.name,
        "numerics": graph.numerics,
        "io": None if io is None else json.loads(io.to_json()),
        **details,
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("utf-8")
