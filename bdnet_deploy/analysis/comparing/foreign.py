"""A ``.tflite`` or ``.onnx`` of ours: what it carries, decoded, then its layers and the whole of it in its runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.analysis.comparing.alignment import Alignment
from bdnet_deploy.analysis.comparing.decoded import compare_io
from bdnet_deploy.analysis.comparing.files import is_ours, open_foreign
from bdnet_deploy.analysis.comparing.graphs import compare_graphs
from bdnet_deploy.analysis.comparing.layers import compare_with_torch
from bdnet_deploy.analysis.comparing.runtimes import Reference, Runner, flips_table
from bdnet_deploy.analysis.comparing.settings import ELEMENTS, Settings
from bdnet_deploy.analysis.comparing.verdicts import Verdicts
from bdnet_deploy.graph import Array, Graph, evaluate
from bdnet_deploy.report import Table, Value

if TYPE_CHECKING:
    from bdnet_deploy.model import Model


#: What is said where layers cannot be compared one by one.
UNMATCHED = (
    "not as the file has them: the model was imported from another program's file, where factors and operators may lie "
    "otherwise; differences are reported, not judged, and the whole is compared end to end"
)


def verify_foreign(
    model: Model, artifact: Path, inputs: list[Array], verdicts: Verdicts, settings: Settings
) -> tuple[dict[str, Value], list[Table]]:
    """Compare; returns facts and further tables for the report.

    Raises:
        NotOursError: another program wrote the file.
        ModelFileError: it is damaged.
        MissingPackageError: its runtime is not installed.
    """
    file = open_foreign(artifact)
    graph = model.float_graph()
    facts: dict[str, Value] = {"file": file.kind}
    compared = Verdicts()
    strict = not is_reimported(model) or file.meta.get("source_sha256") == model.source_sha256
    alignment = compare_graphs(graph, file.graph, compared, exact=strict, module=model._module)
    whole = not alignment.missing and not alignment.extra and (strict or compared.first is None)
    verdicts.include(compared, judged=strict)
    compare_io(file.io, model.io, verdicts)
    if not whole or not _same_inputs(graph, alignment.file):
        facts["layers"] = "not run: the file has another network"
        if not strict:
            facts["layers"] = UNMATCHED
            reference = make_reference(graph, inputs)
            for name, runtime in file.runtimes().items():
                runner = Runner(runtime, name, verdicts, settings)
                runner.compare_whole(file.content, reference, model.io)
                facts |= runner.facts
        return facts, []
    reference = make_reference(graph, inputs, alignment)
    facts["layers"] = f"each alone, on {reference.samples} of {len(inputs[0])} inputs"
    tables = []
    flips = flips_table()
    for name, runtime in file.runtimes().items():
        runner = Runner(runtime, name, verdicts, settings)
        runner.compare_layers(file.layers, reference)
        runner.count_flips(file.layers, reference, flips)
        runner.compare_whole(file.content, reference, model.io)
        facts |= runner.facts
    if flips.rows:
        tables.append(flips)
    if len(inputs) == 1:
        compare_with_torch(model, inputs[0], reference.outputs[0], verdicts)
    return facts, tables


def make_reference(graph: Graph, inputs: list[Array], alignment: Alignment | None = None) -> Reference:
    """The reference's values: all of the first samples, as many as fit into memory, and the outputs of all samples."""
    per_sample = sum(int(np.prod(v.type.shape)) for v in (*graph.inputs, *(n.output for n in graph.nodes)))
    size = max(1, min(len(inputs[0]), ELEMENTS // per_sample))
    values = evaluate(graph, [a[:size] for a in inputs], keep=True)
    parts = [{v.name: values[v.name] for v in graph.outputs}]
    for start in range(size, len(inputs[0]), size):
        parts.append(evaluate(graph, [a[start : start + size] for a in inputs]))
    outputs = [np.concatenate([part[v.name] for part in parts]) for v in graph.outputs]
    if alignment is None:
        return Reference(graph, inputs, {}, {}, outputs, {})
    renamed = {a.name: b.name for a, b in alignment.values.items()}
    known = {renamed[v.name]: values[v.name] for v in alignment.values if v.name in values}
    nodes = {b.name: a for a, b in alignment.nodes.items() if a.output.type.shape == b.output.type.shape}
    return Reference(graph, inputs, known, nodes, outputs, renamed)


def is_reimported(model: Model) -> bool:
    """Whether its constants went through another program's file, and with it through roundings of its own."""
    from bdnet_deploy.loading import LARQ, PROGRAMS

    source = model.source
    return source is not None and source.suffix.lower() in (*PROGRAMS, *LARQ) and not is_ours(source)


def _same_inputs(a: Graph, b: Graph) -> bool:
    return [v.type.shape for v in a.inputs] == [v.type.shape for v in b.inputs]
