"""The process in which LCE's interpreter runs; started by :mod:`bdnet_deploy.peers.lce` with the folder of its jobs.

Uses numpy and the standard library only, so it starts quickly and needs no installation of this package.
"""

from __future__ import annotations

import json
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import numpy as np


def main(folder: Path) -> None:
    jobs = json.loads((folder / "jobs.json").read_text(encoding="utf-8"))
    wrapper = load(jobs["extension"])
    flags = (jobs["mode"] == "reference", jobs["mode"] == "indirect", False)  # the last: XNNPACK
    for i, count in enumerate(jobs["inputs"]):
        interpreter = wrapper.LiteInterpreter((folder / f"{i}.tflite").read_bytes(), 1, *flags)
        inputs = [np.load(folder / f"{i}.in{k}.npy", allow_pickle=False) for k in range(count)]
        samples = [interpreter.predict([x[n : n + 1] for x in inputs]) for n in range(len(inputs[0]))]
        outputs = [np.concatenate(rows) for rows in zip(*samples)]
        for k, output in enumerate(outputs):
            np.save(folder / f"{i}.out{k}.npy", output, allow_pickle=False)
        (folder / f"{i}.json").write_text(json.dumps(len(outputs)), encoding="utf-8")


def load(extension: str) -> Any:
    """The extension module, by path."""
    loader = ExtensionFileLoader("interpreter_wrapper_lite", extension)
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(Path(sys.argv[1]))
