"""``inspect``: what a model consists of, layer by layer."""

from __future__ import annotations

import numpy as np

from bdnet_deploy.analysis.macs import KINDS, RULES, count_macs, node_kind, node_macs
from bdnet_deploy.analysis.recognised import find_layers, owner
from bdnet_deploy.bitplanes import words
from bdnet_deploy.graph import Conv2d, DType, Graph, Linear, Value
from bdnet_deploy.iodesc import IODescription, describe_io
from bdnet_deploy.passes import merge_affine
from bdnet_deploy.report import Column, Report, Table
from bdnet_deploy.report import Value as Cell


def weight_bytes(value: Value, depthwise: bool) -> int:
    """Bytes of a layer's weights as packed for the runtime: bit planes, or one byte a full-precision weight."""
    shape = value.type.shape
    if not value.type.dtype.is_packed:
        return value.type.size
    if depthwise:
        return shape[1] * shape[2] * value.type.dtype.planes * words(shape[0]) * 4
    taps = int(np.prod(shape[1:-1]))
    return shape[0] * taps * value.type.dtype.planes * words(shape[-1]) * 4


def inspect_graph(graph: Graph, *, io: IODescription | None = None, title: str = "layers") -> Report:
    """Layers with shapes, dtypes, MACs by kind, weights in bytes, and why a layer is not binary."""
    graph = merge_affine(graph) if graph.numerics == "real" else graph
    reasons = Table("why layers are not binary", [Column("layer"), Column("reason")], key="reasons")
    layers = Table(
        title,
        [
            Column("layer"),
            Column("kind"),
            Column("input"),
            Column("output"),
            Column("kernel"),
            Column("macs", "MACs", align="right", format=","),
            Column("weight_bytes", "weights", "B", "right", ","),
        ],
        key="layers",
    )
    for node in graph.nodes:
        if not isinstance(node.op, Conv2d | Linear):
            continue
        x, w = node.inputs[0].type, node.inputs[1].type
        kind = node_kind(node)
        stride = node.op.strides[0] if isinstance(node.op, Conv2d) else 1
        window = f"{w.shape[1]}x{w.shape[2]}/{stride}" if isinstance(node.op, Conv2d) else "linear"
        layers.add(
            layer=node.name if owner(node) else node.source or node.name,
            kind=kind,
            input=f"{_dtype(x.dtype)} {_shape(x.shape)}",
            output=_shape(node.output.type.shape),
            kernel=f"{_dtype(w.dtype)} {window}",
            macs=node_macs(node),
            weight_bytes=weight_bytes(node.inputs[1], kind.startswith("depth-wise")),
        )
    layers.notes.append("Full-precision weights count one byte each (int8).")
    found = find_layers(graph)
    recognised = Table(
        "what layers were recognised as", [Column("layer"), Column("recognised", "recognised as")], key="recognised"
    )
    if any(layer.line for layer in found):
        recognised.columns.append(Column("line", "run in"))
    for layer in found:
        row: dict[str, Cell] = {"layer": layer.name, "recognised": layer.form}
        recognised.add(**row, **({"line": layer.line} if layer.line else {}))
        if layer.reason or not layer.binary:
            reasons.add(layer=layer.name, reason=layer.reason)
    macs = count_macs(graph)
    kinds = Table(
        "multiply-accumulates", [Column("kind"), Column("macs", "MACs", align="right", format=",")], key="macs"
    )
    for kind in KINDS:
        if macs.by_kind[kind]:
            kinds.add(kind=kind, macs=macs.by_kind[kind])
    operations = Table(
        "operations",
        [
            Column("convention"),
            Column("ops", "OPs", align="right", format=",.0f"),
            Column("ops_millions", "OPs", "M", "right", ".2f"),
            Column("rule"),
        ],
        key="operations",
    )
    for convention, ops in (("bireal", macs.ops_bireal), ("flops", macs.ops_flops)):
        operations.add(convention=convention, ops=ops, ops_millions=ops / 1e6, rule=RULES[convention])
    total = sum(int(str(row["weight_bytes"])) for row in layers.rows)
    facts: dict[str, Cell] = {
        "model": graph.name,
        "inputs": ", ".join(f"{v.name} {_shape(v.type.shape)}" for v in graph.inputs),
        "outputs": ", ".join(f"{v.name} {_shape(v.type.shape)}" for v in graph.outputs),
        "preprocessing": describe_io(io),
        "binary_layers": f"{sum(layer.binary for layer in found)} of {len(found)}",
        "weight_bytes": total,
    }
    return Report("inspect", facts, [layers, recognised, *([reasons] if reasons.rows else []), kinds, operations])


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape[1:]))


def _dtype(dtype: DType) -> str:
    return {DType.F32: "real", DType.F64: "real", DType.BIT: "1-bit", DType.TRIT: "1.58-bit"}.get(dtype, dtype.value)
