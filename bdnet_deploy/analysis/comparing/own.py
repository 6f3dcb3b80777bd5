"""A ``.bdn``, or the bytes in a ``.c``, in the host library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.analysis.comparing import causes
from bdnet_deploy.analysis.comparing.decoded import compare_io, compare_weights
from bdnet_deploy.analysis.comparing.foreign import UNMATCHED, is_reimported
from bdnet_deploy.analysis.comparing.graphs import equal_elements
from bdnet_deploy.analysis.comparing.layers import compare_top1, compare_with_torch
from bdnet_deploy.analysis.comparing.settings import Settings
from bdnet_deploy.analysis.comparing.verdicts import Verdicts
from bdnet_deploy.graph import Array, evaluate
from bdnet_deploy.lowering import Lowered
from bdnet_deploy.report import Value

if TYPE_CHECKING:
    from bdnet_deploy.bdn_reader import BdnReader
    from bdnet_deploy.model import Model, PathLike
    from bdnet_deploy.samples import Samples


def verify_own(
    model: Model,
    artifact: Path,
    x: Array,
    verdicts: Verdicts,
    *,
    calibrate: PathLike | Array | Samples | None,
    settings: Settings,
) -> dict[str, Value]:
    """Compare; returns facts for the report."""
    from bdnet_deploy.bdn_reader import BdnReader

    file = BdnReader.open(artifact)
    facts: dict[str, Value] = {"numerics": file.numerics}
    if is_reimported(model) and file.meta.get("source_sha256") != model.source_sha256:
        facts["compared"] = UNMATCHED
        lowered, found = model.lowered(file.numerics), Verdicts()
        if _compare_steps(file, lowered, found):
            compare_weights(lowered.graph, file.weights(lowered.plan), found)
        verdicts.include(found, judged=False)
        compare_io(file.io, model.io, verdicts)
        _compare_predictions(model, file, x, verdicts, settings)
        return facts
    if file.numerics == "float" or calibrate is not None:
        facts["compared"] = "every byte"
        lowered = model.lowered(file.numerics, calibrate).replanned(sets=file.sets)
        if _compare_stored(file, lowered, model, verdicts):
            _compare_values(model, file, lowered, x, verdicts)
        return facts
    # The ranges of fixed point came from samples that are not here: weights are compared exactly, behaviour by top-1.
    facts["compared"] = "weights and predictions; every byte with --calibrate and the samples of the export"
    lowered = model.lowered(file.numerics).replanned(sets=file.sets)
    if _compare_steps(file, lowered, verdicts):
        compare_weights(lowered.graph, file.weights(lowered.plan), verdicts)
        compare_io(file.io, model.io, verdicts)
        _compare_predictions(model, file, x, verdicts, settings)
        passed = file.self_test()
        verdicts.add("self-test", "", compared=1, different=0 if passed else 1, why="the recorded test vector fails")
    return facts


def _compare_predictions(model: Model, file: BdnReader, x: Array, verdicts: Verdicts, settings: Settings) -> None:
    """Top-1 against the model in float."""
    graph = model.lowered("float").graph
    reference = evaluate(graph, [x.astype(np.float32)])[graph.outputs[0].name]
    integers = file.numerics != "float"
    compare_top1(
        f"{file.numerics} against float" if integers else "host library",
        file.predict(x),
        reference,
        verdicts,
        least=settings.agreement(integers=integers),
        judged=not integers or settings.judge_integers,
    )


def _compare_steps(file: BdnReader, lowered: Lowered, verdicts: Verdicts) -> bool:
    """Whether the file's steps are the model's: kernels, shapes, weights' sizes."""
    different = file.other_steps(lowered.plan)
    layer, why = different[0] if different else ("", "")
    why += "; it is an export of another network" if why else ""
    verdicts.add("structure", layer, compared=len(lowered.plan.steps), different=len(different), why=why)
    return not different


def _compare_stored(file: BdnReader, lowered: Lowered, model: Model, verdicts: Verdicts) -> bool:
    """Steps, weights and epilogues as they are stored; False when the steps are other ones."""
    if not _compare_steps(file, lowered, verdicts):
        return False
    compare_weights(lowered.graph, file.weights(lowered.plan), verdicts)
    for name, compared, different in file.epilogues(lowered.plan):
        why = f"{', '.join(different)}: stored values differ from the model's"
        cause = causes.EDITED if 0 < len(different) <= min(causes.FEW, compared // 8) else ""
        verdicts.add("parameters", name, compared=compared, different=len(different), why=why, cause=cause)
    compare_io(file.io, model.io, verdicts)
    return True


def _compare_values(model: Model, file: BdnReader, lowered: Lowered, x: Array, verdicts: Verdicts) -> None:
    """Layer by layer and end to end, byte for byte against the numpy reference."""
    encoded = lowered.encode(x)
    values = evaluate(lowered.graph, [encoded], keep=True)
    for name, node, found, expected in file.layers(lowered, encoded, values):
        verdicts.add(
            "host library layer",
            f"{name}: {node.op.name}",
            compared=expected.size,
            different=different_elements(found, expected),
            why=_first(found, expected),
        )
    expected = values[lowered.graph.outputs[0].name]
    verdicts.add(
        "end to end",
        "host library",
        compared=expected.size,
        different=different_elements(file.raw(encoded).reshape(expected.shape), expected),
        why="the output's bytes differ",
    )
    if lowered.graph.numerics == "float":
        compare_with_torch(model, x, lowered.decode(expected), verdicts)


def _first(found: Array, expected: Array) -> str:
    """The first element that differs, and how many do."""
    count = different_elements(found, expected)
    if not count:
        return ""
    places = np.argwhere(~equal_elements(found, expected))
    place = tuple(int(i) for i in places[0])
    return f"at {place} it is {found[place]:.9g}, the reference has {expected[place]:.9g}; {count} of {expected.size} differ"


def different_elements(found: Array, expected: Array) -> int:
    """Elements whose bytes differ: -0.0 and 0.0 do, equal NaN do not."""
    return int((~equal_elements(found, expected)).sum())
