"""The process that converts a Keras model; started by :mod:`bdnet_deploy.importers.keras` with the model and the output.

Needs TensorFlow, tf-keras, larq and larq-compute-engine, and nothing of this package. The last line that it prints is the
answer, as JSON.
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any


def main(source: Path, target: Path) -> dict[str, Any]:
    try:
        import larq
        import larq_compute_engine
        import tf_keras
    except Exception as error:  # whatever such an import meets: a missing package, or versions that do not fit
        return {"kind": "missing", "why": f"{type(error).__name__}: {error}"}
    try:
        if _has_code(source):
            return {
                "kind": "unsupported",
                "what": "the model has a Lambda layer",
                "why": "it is Python code, and code in a model file is not run",
                "fix": "write it as a layer class, or convert the model yourself",
            }
        model = tf_keras.models.load_model(str(source), compile=False)
    except Exception as error:  # Keras raises whatever it meets in a file
        return {"what": "Keras cannot read the model", "why": _first_line(error)}
    ternary = [layer for layer in _layers(model) if _is_ternary(layer, larq)]
    if ternary:
        return {
            "kind": "unsupported",
            "what": f"ternary activations in {', '.join(sorted({layer.name for layer in ternary})[:5])}",
            "why": "Larq's converter makes plain signs of SteTern inputs without saying so, and the results are wrong",
            "fix": "train with ste_sign, or write the model in PyTorch, whose importer takes ternary activations",
        }
    try:
        target.write_bytes(larq_compute_engine.convert_keras_model(model))
    except Exception as error:  # the converter raises whatever it meets in a model
        return {
            "kind": "unsupported",
            "what": "Larq's converter refuses the model",
            "why": _first_line(error),
            "fix": "see https://docs.larq.dev/compute-engine/converter/",
        }
    return {"data": target.stat().st_size}


def _has_code(source: Path) -> bool:
    """Whether the model's configuration names a Lambda layer."""
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            config = archive.read("config.json").decode("utf-8")
    else:
        import h5py

        with h5py.File(source, "r") as file:
            found = file.attrs.get("model_config", "")
        config = found.decode("utf-8") if isinstance(found, bytes) else str(found)
    return re.search(r'"class_name":\s*"Lambda"', config) is not None


def _layers(model: Any) -> list[Any]:
    return [part for part in model.submodules if hasattr(part, "get_config")]


def _is_ternary(layer: Any, larq: Any) -> bool:
    used = [getattr(layer, "input_quantizer", None), getattr(layer, "activation", None)]
    return any(isinstance(part, larq.quantizers.SteTern) for part in used)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:500]


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))) + "\n")
