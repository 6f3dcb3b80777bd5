"""One interpreter that :mod:`tflite_runtimes` times; a process of its own, so that each may have its own environment.

``python tflite_runtimes_worker.py lce <extension>`` or ``... litert|tensorflow <library>``. Reads one JSON object a line from
stdin: ``{"load": path, "name": ..., "mode": ...}`` or ``{"time": name, "runs": n}``; answers each with one line. Needs numpy only.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[], np.ndarray]


def lce(extension: str, content: bytes, mode: str, x: np.ndarray) -> Run:
    loader = ExtensionFileLoader("interpreter_wrapper_lite", extension)
    module = sys.modules.get(loader.name)
    if module is None:
        spec = spec_from_loader(loader.name, loader)
        assert spec is not None
        module = module_from_spec(spec)
        loader.exec_module(module)
        sys.modules[loader.name] = module
    interpreter: Any = module.LiteInterpreter(content, 1, False, mode == "indirect", mode == "xnnpack")
    return lambda: interpreter.predict([x])[0]


def delegated(runtime: str, library: str, content: bytes, mode: str, x: np.ndarray) -> Run:
    if runtime == "tensorflow":
        from tensorflow.lite.python.interpreter import Interpreter, OpResolverType, load_delegate
    else:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType, load_delegate
    kind = OpResolverType.AUTO if mode == "xnnpack" else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    delegates = [load_delegate(library)]
    interpreter = Interpreter(
        model_content=content, num_threads=1, experimental_op_resolver_type=kind, experimental_delegates=delegates
    )
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run() -> np.ndarray:
        interpreter.set_tensor(source, x)
        interpreter.invoke()
        return interpreter.get_tensor(target)  # type: ignore[no-any-return]

    return run


def main(runtime: str, library: str) -> None:
    runs: dict[str, Run] = {}
    for line in sys.stdin:
        job = json.loads(line)
        if "load" in job:
            content = Path(job["load"]).read_bytes()
            x = np.random.default_rng(0).normal(size=job["shape"]).astype(np.float32)
            if runtime == "lce":
                runs[job["name"]] = lce(library, content, job["mode"], x)
            else:
                runs[job["name"]] = delegated(runtime, library, content, job["mode"], x)
            y = runs[job["name"]]()
            answer: Any = {"output": np.asarray(y, np.float32).ravel().tolist()}
        else:
            times = []
            for _ in range(job["runs"]):
                start = time.perf_counter()
                runs[job["time"]]()
                times.append(time.perf_counter() - start)
            answer = {"seconds": times}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:3])
