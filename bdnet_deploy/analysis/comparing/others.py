"""A ``.tflite`` or ``.onnx`` that another program wrote: recognised layers as far as they go, then end to end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bdnet_deploy.analysis.comparing.ends import OnnxEnds, TfliteEnds
from bdnet_deploy.analysis.comparing.files import runtimes
from bdnet_deploy.analysis.comparing.foreign import make_reference
from bdnet_deploy.analysis.comparing.graphs import compare_graphs
from bdnet_deploy.analysis.comparing.layers import compare_top1
from bdnet_deploy.analysis.comparing.runtimes import Runner
from bdnet_deploy.analysis.comparing.settings import Settings
from bdnet_deploy.analysis.comparing.verdicts import Verdicts
from bdnet_deploy.errors import BdnetError, ModelFileError
from bdnet_deploy.graph import Array
from bdnet_deploy.importers.artifact import load_bytes
from bdnet_deploy.report import Value

if TYPE_CHECKING:
    from bdnet_deploy.model import Model


def verify_other(
    model: Model, artifact: Path, inputs: list[Array], verdicts: Verdicts, settings: Settings
) -> dict[str, Value]:
    """Compare; returns facts for the report.

    Its layers are those that the importer recognises. They are reported: another program may have merged factors, and with them
    weights, in another way. What the whole file computes is judged.
    """
    from bdnet_deploy.loading import load

    graph = model.float_graph()
    facts: dict[str, Value] = {"file": "of another program; no runtime ran its layers alone"}
    other: Model | None = None
    try:
        other = load(artifact)
    except ModelFileError:
        raise  # damaged
    except BdnetError as error:
        facts["layers"] = f"not compared, the file cannot be imported: {error.what}"
    if other is not None:
        compared = Verdicts()
        alignment = compare_graphs(graph, other.float_graph(), compared, exact=False, module=model._module)
        verdicts.include(compared, judged=False)
        known, count = len(alignment.nodes), len(graph.nodes)
        facts["layers"] = f"{known} of {count} recognised; differences are reported, not judged"
        if compared.first is not None:
            first = compared.first
            facts["first layer unlike"] = "; ".join(t for t in (first.layer, first.check, first.why, first.cause) if t)
    reference = make_reference(graph, inputs)
    ends: TfliteEnds | OnnxEnds = (
        TfliteEnds(load_bytes(artifact)) if artifact.suffix.lower() == ".tflite" else OnnxEnds(artifact, other)
    )
    domain = ends.foreign_domain() if isinstance(ends, OnnxEnds) else None
    if domain is not None and other is not None:
        facts["runtime"] = (
            f"none: onnxruntime has no operators of {domain}; the graph as imported ran in the numpy reference"
        )
        outputs = make_reference(other.float_graph(), inputs).outputs
        for found, expected in zip(outputs, reference.outputs):
            compare_top1("as imported", found, expected, verdicts, least=settings.agreement())
        return facts
    for name, runtime in runtimes(ends.kind).items():
        runner = Runner(runtime, name, verdicts, settings)
        runner.compare_whole(ends.content, reference, model.io, integers=ends.integers, ends=ends)
        facts |= runner.facts
    return facts
