"""Keras models trained with Larq: Larq's own converter makes a ``.tflite`` of them, in a process of its own.

TensorFlow is slow to import, wants Keras 2 and numpy 1, and may live in another environment than this one: the
variable ``BDNET_KERAS_PYTHON`` names its interpreter.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bdnet_deploy.errors import MissingPackageError, ModelFileError, UnsupportedError

#: Names the Python that has the packages, where it is not this one.
PYTHON = "BDNET_KERAS_PYTHON"
PACKAGES = {"tensorflow": "tensorflow==2.19.1", "tf_keras": "tf-keras==2.19.0", "larq": "larq==0.13.3"}
PACKAGES["larq_compute_engine"] = "larq-compute-engine==0.16.0"
_WORKER = Path(__file__).with_name("keras_worker.py")


def convert(path: Path, *, timeout: float = 900.0) -> bytes:
    """The ``.tflite`` of a Keras model (``.h5``, ``.keras``), by ``larq_compute_engine.convert_keras_model``.

    Code in the file never runs: models with Lambda layers are refused.

    Raises:
        MissingPackageError: TensorFlow, tf-keras, larq or larq-compute-engine is missing.
        ModelFileError: Keras cannot read the file.
        UnsupportedError: layers that the converter gets wrong without saying so, or refuses.
    """
    python = os.environ.get(PYTHON) or sys.executable
    if python == sys.executable:
        missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise MissingPackageError(
                f"converting a {path.suffix} file needs {', '.join(missing)}", where=str(path), fix=by_hand(path)
            )
    with tempfile.TemporaryDirectory(prefix="bdnet-keras-") as name:
        out = Path(name) / "model.tflite"
        answer = _run([python, str(_WORKER), str(path.resolve()), str(out)], path, timeout)
        if "data" in answer and out.exists():
            return out.read_bytes()
    where, why = str(path), str(answer.get("why", "no answer"))
    if answer.get("kind") == "missing":
        raise MissingPackageError(f"converting a {path.suffix} file failed", where=where, why=why, fix=by_hand(path))
    if answer.get("kind") == "unsupported":
        raise UnsupportedError(str(answer["what"]), where=where, why=why, fix=str(answer["fix"]))
    fix = "build the model in your own code, load its weights, and convert it there by larq_compute_engine.convert_keras_model"
    raise ModelFileError(str(answer.get("what", "the conversion failed")), where=where, why=why, fix=fix)


def by_hand(path: Path) -> str:
    """The lines that convert the model without us."""
    packages = " ".join(PACKAGES.values())
    return (
        "pip install 'bdnet-deploy[keras,larq]', or convert it in an environment of its own:\n"
        f'  python3.11 -m venv keras && keras/bin/pip install {packages} "numpy<2"\n'
        f'  TF_USE_LEGACY_KERAS=1 keras/bin/python -c "import larq, tf_keras, larq_compute_engine as lce; '
        f"open('{path.stem}.tflite', 'wb').write(lce.convert_keras_model(tf_keras.models.load_model('{path}')))\"\n"
        f"  bdnet-deploy inspect {path.stem}.tflite"
    )


def _run(command: list[str], path: Path, timeout: float) -> dict[str, object]:
    quiet = {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")} | quiet
    try:
        result = subprocess.run(command, capture_output=True, timeout=timeout, check=False, env=environment)
    except subprocess.TimeoutExpired:
        raise UnsupportedError(f"the conversion did not finish within {timeout:g} s", where=str(path)) from None
    except OSError as error:
        raise MissingPackageError(
            "the Python that should convert the model cannot be started",
            where=f"{PYTHON}={command[0]}",
            why=error.strerror or str(error),
        ) from error
    lines = result.stdout.decode("utf-8", "replace").strip().splitlines()
    try:
        answer = json.loads(lines[-1])
        if isinstance(answer, dict):
            return answer
    except (ValueError, IndexError):
        pass
    text = result.stderr.decode("utf-8", "replace").strip().splitlines()
    return {"what": "the converter crashed", "why": text[-1] if text else f"exit code {result.returncode}"}
