"""ONNX for any runtime (opset 15): ``write(graph)`` gives the bytes of an ``.onnx``.

===============  =============================================================================
``functions``    profile "portable": each operator is a call of a function in the file
``qonnx``        profile "qonnx": standard operators and QONNX's quantizers, for FINN and Brevitas
``emit``         every operator of the graph in standard operators
``body``         where these are collected
``packing``      weights of one bit as bit planes
``checks``       what cannot be carried
``storage``      initializers, in the file or beside it
``types``        types and attributes in nodes
``forms``        what is said of each layer
===============  =============================================================================

Everything computed is float32: bits and trits as -1.0, 0.0, 1.0 and integers exactly. The inputs and outputs of the model are
NHWC as in the graph, with a free batch; inside, maps are NCHW. Under the metadata key ``bdnet_deploy`` lies a JSON object:
``producer``, ``model``, ``numerics``, ``io``, ``profile``, ``meta`` and, of portable files, ``functions``: the digest of what
the file computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bdnet_deploy.errors import require, unknown_name
from bdnet_deploy.export.foreign import METADATA_KEY, Written, describe
from bdnet_deploy.export.names import Names
from bdnet_deploy.export.onnx.checks import check
from bdnet_deploy.export.onnx.emit import EMIT
from bdnet_deploy.export.onnx.forms import layer_forms, sizes
from bdnet_deploy.export.onnx.functions import DOMAIN, DOMAIN_VERSION, Functions, digest
from bdnet_deploy.export.onnx.storage import LIMIT, initializers
from bdnet_deploy.formats import PROFILES
from bdnet_deploy.graph import Graph, Value
from bdnet_deploy.iodesc import IODescription

__all__ = ["IR_VERSION", "OPERATORS", "OPSET", "write"]

#: Names of the operators that can be written.
OPERATORS = frozenset(EMIT)
OPSET = 15
#: The oldest file version with functions.
IR_VERSION = 8


def write(
    graph: Graph,
    *,
    io: IODescription | None = None,
    profile: str = "portable",
    meta: Mapping[str, Any] | None = None,
    limit: int = LIMIT,
    beside: str | None = None,
) -> Written:
    """An ``.onnx`` that any ONNX runtime runs. Equal graphs give equal bytes.

    Args:
        graph: numerics "float".
        io: the I/O description to store.
        profile: ``"portable"``, which keeps every operator of the graph as a function, or ``"qonnx"``.
        meta: what made the file, to store.
        limit: bytes of constants from which on these lie in a second file, ``Written.external``.
        beside: that file's name; files in one folder need different ones. By default made of the graph's name.

    Raises:
        UnsupportedError: another numerics, or an operator that cannot be carried; ``where`` names the user's layer.
        UsageError: no such profile.
        MissingPackageError: the package onnx is not installed.
    """
    if profile not in PROFILES["onnx"]:
        raise unknown_name("profile of onnx", profile, PROFILES["onnx"])
    onnx = require("onnx", extra="onnx")
    bounds = check(graph)
    if profile == "qonnx":
        from bdnet_deploy.export.onnx.qonnx import Flat

        written: Functions | Flat = Flat(onnx, graph, Names(), bounds)
        batch: str | int = 1
    else:
        written, batch = Functions(onnx, graph, Names(), OPSET), "N"
    location = beside or f"{_file_name(graph.name)}.onnx.data"
    tensors, external = initializers(onnx, written.initializers(), limit=limit, location=location)
    helper = onnx.helper

    def port(name: str, value: Value, kind: Any) -> Any:
        return helper.make_tensor_value_info(name, kind, [batch, *value.type.shape[1:]])

    inputs = [
        port(name, v, helper.np_dtype_to_tensor_dtype(v.type.dtype.numpy))
        for name, v in zip(written.ports, graph.inputs, strict=True)
    ]
    outputs = [port(name, v, onnx.TensorProto.FLOAT) for name, v in zip(written.outputs, graph.outputs, strict=True)]
    model = helper.make_model(
        helper.make_graph(written.nodes, graph.name, inputs, outputs, tensors),
        producer_name="bdnet-deploy",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid(d, v) for d, v in written.domains(OPSET)],
        functions=written.protos,
    )
    details: dict[str, Any] = {"meta": dict(meta or {}), "profile": profile}
    if profile == "portable":
        details["functions"] = {"domain": DOMAIN, "version": DOMAIN_VERSION, "sha256": digest(model)}
    content = describe(graph, io, **details).decode("utf-8")
    helper.set_model_props(model, {METADATA_KEY: content})
    data = bytes(model.SerializeToString(deterministic=True))
    stored = written.stored()
    forms = layer_forms(graph, profile, stored)
    total = len(data) + sum(map(len, external.values()))
    notes = [f"weights lie in {name}, which belongs beside the file" for name in external]
    return Written(data, external, forms, sizes(graph, stored, total), notes)


def _file_name(name: str) -> str:
    """A graph's name as that of a file."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name).lstrip(".") or "model"
