"""Files whose reader gives weights, parameters and thresholds one by one, and no graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bdnet_deploy.analysis.comparing.alignment import Alignment, align
from bdnet_deploy.analysis.comparing.decoded import (
    compare_parameters,
    compare_thresholds,
    compare_weights,
    layer_of,
)
from bdnet_deploy.analysis.comparing.verdicts import Verdicts
from bdnet_deploy.graph import Graph, Node
from bdnet_deploy.importers.artifact import damage_reported

if TYPE_CHECKING:
    from bdnet_deploy.analysis.comparing.files import ForeignFile


def compare_parts(graph: Graph, file: ForeignFile, verdicts: Verdicts) -> Alignment | None:
    """The decoded parts; None where the file is one of another network."""
    reader, data = file.reader, file.data
    complete = compare_weights(graph, reader.read_weights(data), verdicts)
    if not complete or not _same_structure(graph, file, verdicts):
        return None
    folded: set[Node] = set()
    if hasattr(reader, "read_thresholds"):
        from bdnet_deploy.export.tflite.folding import fold_signs

        folds = fold_signs(graph)
        folded = {node for fold in folds.values() for node in fold.nodes}
        compare_thresholds(folds, reader.read_thresholds(data), verdicts)
    compare_parameters(graph, reader.read_parameters(data), verdicts, folded=folded)
    return align(graph, graph.copy())


def _same_structure(graph: Graph, file: ForeignFile, verdicts: Verdicts) -> bool:
    """Whether the file computes values of the model only, in the model's shapes."""
    types = {value.name: value.type for value in graph.inputs}
    types |= {node.output.name: node.output.type for node in graph.nodes}
    sources = {node.output.name: layer_of(node) for node in graph.nodes}
    compared, different = 0, []
    with damage_reported("model"):
        for value in file.reader.read_description(file.data)["values"]:
            name, shape = str(value["name"]), tuple(int(n) for n in value["shape"][1:])
            compared += 1
            if name not in types:
                different.append((str(value["source"]) or name, f"the model has no value '{name}'"))
            elif shape != types[name].shape[1:]:
                model_shape = "x".join(map(str, types[name].shape[1:]))
                why = f"'{name}' has shape {'x'.join(map(str, shape))}, in the model {model_shape}"
                different.append((sources.get(name, name), why))
    layer, why = different[0] if different else ("", "")
    why += "; it is an export of another network" if why else ""
    verdicts.add("structure", layer, compared=compared, different=len(different), why=why)
    return not different
