"""What the exporters for other people's runtimes (TensorFlow Lite, ONNX) share.

Those runtimes compute in f32, so they carry graphs of numerics "float". Integers travel as floats, which is exact up
to 2**24.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import bdnet_deploy
from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.graph import Affine, BoxSum, Conv2d, DType, GlobalAvgPool, Graph, Linear, Node, Value
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


def without_unpacking(graph: Graph) -> Graph:
    """The graph without the sums of one pixel and one channel that make numbers of bits for our kernels.

    In a file of float32 the bits are numbers.
    """
    graph = graph.copy()
    for node in graph.nodes:
        x = node.inputs[0]
        if node.op == BoxSum((1, 1), groups=x.type.channels):
            graph.redirect(node.output, x)
    graph.prune()
    return graph


def check_graph(graph: Graph, target: str, known: Collection[str]) -> dict[Value, int]:
    """Check what every operator must fulfil; the largest absolute value of each integer, bit or trit value.

    Args:
        graph: the network.
        target: whom the file is for.
        known: names of the operators that the exporter can write.

    Raises:
        UnsupportedError: the numerics are not "float", an operator is none of ``known``, a parameter is computed, or an
            integer is quantized, comes from fixed point or may reach 2**24.
    """
    if graph.numerics != "float":
        raise UnsupportedError(
            f"a graph of numerics '{graph.numerics}' cannot be exported to {target}",
            where=graph.name,
            why=f"{target} computes in float32",
            fix="export with --numerics float",
        )
    for v in graph.inputs:
        if v.type.quant is not None:
            raise UnsupportedError(f"a quantized input cannot be exported to {target}", where=v.name)
    bounds = {v: _range(v) for v in graph.inputs if not v.type.dtype.is_float}
    for node in graph.nodes:
        if node.op.name not in known:
            why = "the exporter does not know this operator"
            raise refuse(node, why, target=target, fix="export to bdn or c, whose runtime has it")
        if isinstance(node.op, Conv2d) and len(node.inputs) > 2:
            raise refuse(node, "its border is corrected by integers of fixed point", target=target)
        terms = node.op.terms if isinstance(node.op, Affine) else 1
        if len({v.type.shape for v in node.inputs[:terms]}) > 1:
            raise refuse(node, "its second term is one vector for all pixels", target=target)
        if any(v.is_constant for v in node.inputs[:terms]) or not all(v.is_constant for v in node.inputs[terms:]):
            raise refuse(node, "its parameters are computed, or its input is constant", target=target)
        if node.output.type.dtype is DType.F64 or any(v.type.quant for v in (*node.inputs, node.output)):
            raise refuse(node, f"{node.output.type} is neither float32 nor a plain integer", target=target)
        if not node.output.type.dtype.is_float:
            bounds[node.output] = _bound(node, bounds, target)
    return bounds


def _bound(node: Node, bounds: dict[Value, int], target: str) -> int:
    out, x = node.output, node.inputs[0]
    if out.type.dtype.is_packed:
        return 1
    if out.type.dtype is not DType.I32:
        raise refuse(node, f"it computes {out.type.dtype.value} in fixed point", target=target)
    bound = bounds[x]
    if isinstance(node.op, (Conv2d, Linear)):
        w = node.inputs[1]
        # A padded tap may be 1 where all of x is 0.
        bound = max(bound, 1) * _range(w) * int(np.prod(w.type.shape[1:]))
    elif isinstance(node.op, GlobalAvgPool):
        bound *= x.type.shape[1] * x.type.shape[2]
    if bound >= EXACT:
        raise refuse(node, f"its sums may reach {bound}: float32 is exact up to {EXACT}", target=target)
    return bound


def _range(value: Value) -> int:
    if value.data is not None:
        return int(np.abs(value.data.astype(np.int64)).max(initial=0))
    low, high = value.type.dtype.range
    return max(-low, high)


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
