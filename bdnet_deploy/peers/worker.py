"""The process in which a foreign runtime runs; started by :mod:`bdnet_deploy.peers.jobs` with the folder of its jobs.

Uses numpy, the standard library and the runtime only, so it starts quickly and needs no installation of this package
(but for the interpreters with our own operators, which are part of it).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Beside this file lies an onnxruntime.py that is not onnxruntime.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

import numpy as np  # noqa: E402

#: Inputs of one batch -> outputs.
Predict = Callable[[list[Any]], list[Any]]


def main(folder: Path) -> None:
    """Run the jobs in order; an input is an array of a file, or an output of an earlier job."""
    jobs = json.loads((folder / "jobs.json").read_text(encoding="utf-8"))
    open_model = {"lce": _lce, "onnxruntime": _onnxruntime, "tflite": _tflite}[jobs["runtime"]]
    for i, job in enumerate(jobs["jobs"]):
        predict, batched = open_model(Path(job["model"]), jobs["options"])
        inputs = [_array(folder, source) for source in job["inputs"]]
        if batched:
            outputs = predict(inputs)
        else:
            rows = [predict([x[n : n + 1] for x in inputs]) for n in range(len(inputs[0]))]
            outputs = [np.concatenate(parts) for parts in zip(*rows)]
        for k, output in enumerate(outputs):
            np.save(folder / f"{i}.out{k}.npy", output, allow_pickle=False)
        (folder / f"{i}.json").write_text(json.dumps(len(outputs)), encoding="utf-8")


def _array(folder: Path, source: dict[str, Any]) -> Any:
    array = np.load(folder / f"{source['file']}.npy", allow_pickle=False)
    return array if source["shape"] is None else array.reshape(len(array), *source["shape"])


# -- runtimes: the model file and options -> how to run it, and whether it takes all samples at once --------------------


def _lce(model: Path, options: dict[str, Any]) -> tuple[Predict, bool]:
    from importlib.machinery import ExtensionFileLoader
    from importlib.util import module_from_spec, spec_from_loader

    loader = ExtensionFileLoader("interpreter_wrapper_lite", options["extension"])
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    flags = (options["mode"] == "reference", options["mode"] == "indirect", False)  # the last: XNNPACK
    interpreter = module.LiteInterpreter(model.read_bytes(), 1, *flags)
    return lambda inputs: list(interpreter.predict(inputs)), False


def _onnxruntime(model: Path, options: dict[str, Any]) -> tuple[Predict, bool]:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 3  # errors only
    levels = ort.GraphOptimizationLevel
    settings.graph_optimization_level = levels.ORT_ENABLE_ALL if options["optimize"] else levels.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
    ports = session.get_inputs()

    def predict(inputs: list[Any]) -> list[Any]:
        if len(ports) != len(inputs):
            raise ValueError(f"the model has {len(ports)} inputs, {len(inputs)} were given")
        feed = {port.name: x for port, x in zip(ports, inputs)}
        return [np.asarray(y) for y in session.run(None, feed)]

    return predict, bool(ports) and ports[0].shape[:1] != [1]


def _tflite(model: Path, options: dict[str, Any]) -> tuple[Predict, bool]:
    from bdnet_deploy import tflite_interpreter

    interpreter = tflite_interpreter(model.read_bytes(), runtime=options["runtime"], xnnpack=options["xnnpack"])
    interpreter.allocate_tensors()

    def predict(inputs: list[Any]) -> list[Any]:
        for port, x in zip(interpreter.get_input_details(), inputs):
            interpreter.set_tensor(port["index"], x)
        interpreter.invoke()
        return [np.array(interpreter.get_tensor(port["index"])) for port in interpreter.get_output_details()]

    return predict, False


if __name__ == "__main__":
    main(Path(sys.argv[1]))
