"""One contestant of ``host.py`` in a process of its own: for every line on standard input some inferences, then the seconds of each,
by the clock and of the processor."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[Any], Any]


def contestant(job: dict[str, Any]) -> Run:
    """One inference of a batch of one sample."""
    data = Path(job["model"]).read_bytes()
    if job["runtime"] == "bdnet":
        from bdnet_deploy.host import HostModel

        model = HostModel(data)
        return lambda x: model.run(x)[0]
    if job["runtime"] == "lce":
        from bdnet_deploy.peers import lce, lce_worker

        wrapper = lce_worker.load(str(lce.find_interpreter()))
        interpreter = wrapper.LiteInterpreter(data, 1, False, job["mode"] == "indirect", False)
        return lambda x: interpreter.predict([x])[0]
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def main(job: dict[str, Any]) -> None:
    run, x = contestant(job), np.load(job["input"], allow_pickle=False)
    np.save(job["output"], np.asarray(run(x)), allow_pickle=False)
    print("ready", flush=True)
    for _ in sys.stdin:
        seconds = []
        for _ in range(job["inferences"]):
            wall, cpu = time.perf_counter(), time.process_time()
            run(x)
            seconds.append((time.perf_counter() - wall, time.process_time() - cpu))
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
