"""An int8 ``.tflite``: every operator of the file, bit for bit between its runtime and the numpy reference of TensorFlow Lite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy import tflite_reference
from bdnet_deploy.analysis.comparing.graphs import equal_elements
from bdnet_deploy.analysis.comparing.layers import TOLERANCE
from bdnet_deploy.analysis.comparing.verdicts import Verdicts
from bdnet_deploy.export.tflite.flatbuffer import from_bytes, to_bytes
from bdnet_deploy.graph import Array
from bdnet_deploy.peers import PeerError
from bdnet_deploy.peers.jobs import Runtime

if TYPE_CHECKING:
    from bdnet_deploy.analysis.comparing.files import ForeignFile
    from bdnet_deploy.analysis.comparing.runtimes import Reference
    from bdnet_deploy.analysis.comparing.settings import Settings

#: Samples that every operator runs on.
_SAMPLES = 4


def compare_int8(file: ForeignFile, reference: Reference, verdicts: Verdicts, settings: Settings) -> str:
    """Compare operator by operator, fed the reference's own values; returns what was done, for the report."""
    model = from_bytes(file.data)
    inputs = [a[:_SAMPLES].astype(np.float32) for a in reference.inputs]
    values = tflite_reference.evaluate(model, inputs, keep=True)
    for name, runtime in file.runtimes().items():
        try:
            _compare(name, runtime, tflite_reference.split(model), values, verdicts, settings)
        except PeerError as error:
            verdicts.fail(f"{name} operator", name, error)
    return f"each operator alone, on {len(inputs[0])} inputs, against the numpy reference of the file's operators"


def _compare(
    name: str,
    runtime: Runtime,
    slices: list[tflite_reference.Slice],
    values: dict[str, Array],
    verdicts: Verdicts,
    settings: Settings,
) -> None:
    jobs = [(to_bytes(one.model), [values[i] for i in one.inputs]) for one in slices]
    for one, outputs in zip(slices, runtime.run(jobs, timeout=settings.timeout)):
        for output, found in zip(one.outputs, outputs):
            expected = values[output]
            found = found.reshape(expected.shape)
            if expected.dtype.kind != "f":
                wrong, distance = int((~equal_elements(found, expected)).sum()), None
            else:
                distances = np.abs(found.astype(np.float64) - expected)
                distance = float(distances.max(initial=0.0))
                wrong = int((~(distances <= TOLERANCE * max(float(np.abs(expected).max(initial=0.0)), 1e-30))).sum())
            verdicts.add(
                f"{name} operator",
                f"{output}: {one.operator}",
                compared=expected.size,
                different=wrong,
                distance=distance,
                why="the runtime gives other values than the reference of this operator",
            )
