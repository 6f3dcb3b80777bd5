"""Run by a Python that has qonnx: ``python qonnx_executor.py FOLDER`` runs each ``<name>.onnx`` there on ``x`` of
``<name>.npz`` and writes the outputs, in order, to ``<name>.out.npz``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes


def main(folder: Path) -> None:
    for path in sorted(folder.glob("*.onnx")):
        model = ModelWrapper(str(path)).transform(InferShapes())
        with np.load(path.with_suffix(".npz")) as arrays:
            x = arrays["x"]
        name = model.graph.input[0].name
        rows = [execute_onnx(model, {name: x[n : n + 1]}) for n in range(len(x))]
        found = [np.concatenate([row[output.name] for row in rows]) for output in model.graph.output]
        np.savez(path.with_suffix(".out.npz"), **{f"y{i}": y for i, y in enumerate(found)})


main(Path(sys.argv[1]))
