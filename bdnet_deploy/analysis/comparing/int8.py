"""An int8 ``.tflite`` of ours: its operators bit for bit against their numpy reference, and predictions against the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.analysis.comparing.decoded import compare_io
from bdnet_deploy.analysis.comparing.files import runtimes, tflite_kind
from bdnet_deploy.analysis.comparing.foreign import make_reference
from bdnet_deploy.analysis.comparing.graphs import equal_elements
from bdnet_deploy.analysis.comparing.layers import TOLERANCE
from bdnet_deploy.analysis.comparing.runtimes import Runner
from bdnet_deploy.analysis.comparing.settings import Settings
from bdnet_deploy.analysis.comparing.verdicts import Verdicts
from bdnet_deploy.export.tflite.flatbuffer import from_bytes, to_bytes
from bdnet_deploy.graph import Array
from bdnet_deploy.importers.artifact import load_bytes, load_io
from bdnet_deploy.importers.tflite import own
from bdnet_deploy.peers import PeerError
from bdnet_deploy.peers.jobs import Job
from bdnet_deploy.report import Value
from bdnet_deploy.tflite_reference import evaluate, split

if TYPE_CHECKING:
    from bdnet_deploy.model import Model

#: Samples on which every operator is looked at.
_SAMPLES = 2


def verify_int8(
    model: Model, artifact: Path, inputs: list[Array], verdicts: Verdicts, settings: Settings
) -> dict[str, Value]:
    """Compare; returns facts for the report.

    Its integers were rounded from the model's numbers, which are not in it: no layer can be compared with the model's.
    """
    data = load_bytes(artifact)
    content = from_bytes(data)
    compare_io(load_io(own.read_description(data)), model.io, verdicts)
    facts: dict[str, Value] = {"file": "int8", "layers": "its operators alone against their numpy reference"}
    few = [a[:_SAMPLES].astype(np.float32) for a in inputs]
    values = evaluate(content, few, keep=True)
    slices = split(content)
    jobs: list[Job] = [(to_bytes(part.model), [values[name] for name in part.inputs]) for part in slices]
    reference = make_reference(model.float_graph(), inputs)
    for name, runtime in runtimes(tflite_kind(data)).items():
        try:
            results = runtime.run(jobs, timeout=settings.timeout)
        except PeerError as error:
            at = slices[error.job] if error.job is not None and error.job < len(slices) else None
            verdicts.fail(f"{name} operator", "" if at is None else f"{at.index}: {at.operator}", error)
            results = []
        for part, outputs in zip(slices, results):
            for tensor, found in zip(part.outputs, outputs):
                _compare(f"{name} operator", f"{part.index}: {part.operator}", found, values[tensor], verdicts)
        runner = Runner(runtime, name, verdicts, settings)
        runner.compare_whole(data, reference, model.io, integers=True)
        facts |= runner.facts
    return facts


def _compare(check: str, layer: str, found: Array, expected: Array, verdicts: Verdicts) -> None:
    """Integers bit for bit; real values within 1e-5 of the largest."""
    found = found.reshape(expected.shape)
    if expected.dtype.kind == "f":
        distance = np.abs(found.astype(np.float64) - expected)
        largest = max(float(np.abs(expected).max(initial=0.0)), 1e-30)
        wrong = ~(distance <= TOLERANCE * largest)
        far: float | None = float(distance.max(initial=0.0))
    else:
        wrong, far = ~equal_elements(found, expected), None
    why = ""
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        why = f"at {place} it is {found[place]}, the reference has {expected[place]}; {int(wrong.sum())} of {wrong.size} differ"
    verdicts.add(check, layer, compared=expected.size, different=int(wrong.sum()), distance=far, why=why)
