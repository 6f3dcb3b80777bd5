"""An int8 ``.tflite``: every map of the file, bit for bit between its runtime and the numpy reference of its operators."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.analysis.comparing.graphs import equal_elements
from bdnet_deploy.analysis.comparing.verdicts import Verdicts

if TYPE_CHECKING:
    from bdnet_deploy.analysis.comparing.files import ForeignFile
    from bdnet_deploy.analysis.comparing.runtimes import Reference
    from bdnet_deploy.analysis.comparing.settings import Settings

_MODULE = "bdnet_deploy.tflite_reference"


def compare_int8(file: ForeignFile, reference: Reference, verdicts: Verdicts, settings: Settings) -> str:
    """Compare the outputs of the whole file; returns what was done, for the report."""
    if importlib.util.find_spec(_MODULE) is None:
        return "not run: this version has no reference of int8 files; end to end only"
    evaluate = importlib.import_module(_MODULE).evaluate
    inputs = [a.astype(np.float32) for a in reference.inputs]
    expected = list(evaluate(file.data, inputs).values())
    for name, runtime in file.runtimes().items():
        found = runtime.run([(file.content, inputs)], timeout=settings.timeout)[0]
        for i, (a, b) in enumerate(zip(found, expected)):
            verdicts.add(
                "int8 reference",
                name if len(expected) == 1 else f"{name}, output {i}",
                compared=b.size,
                different=int((~equal_elements(a.reshape(b.shape), b)).sum()),
                why="the file's runtime gives other bytes than the reference of its operators",
            )
    return "not compared with the float model's, which are real numbers; end to end by agreement and bit for bit"
