"""The same model gives the same bytes, whatever order sets and hashes have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

for _package in ("torch", "onnx"):
    pytest.importorskip(_package)

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits"

#: Exports digits and two networks of the zoo in every form; prints the digests.
PROGRAM = f"""
import hashlib, json, sys, tempfile
from pathlib import Path

import numpy as np
import torch

import bdnet_deploy
from bdnet_deploy.formats import PROFILES
from bdnet_deploy.models.small import SMALL

digests = {{}}
with tempfile.TemporaryDirectory() as folder:
    for name in ("digits", "reactnet_a", "es_resnet20"):
        if name == "digits":
            model, samples = bdnet_deploy.load({str(DIGITS / "model.pt")!r}), {str(DIGITS / "calibration.npz")!r}
        else:
            torch.manual_seed(1)
            model = bdnet_deploy.load(arch=name, settings=SMALL[name])
            shape = model.graph.inputs[0].type.shape[1:]
            samples = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
        forms = [(t, p, False) for t, profiles in PROFILES.items() for p in profiles]
        forms += [("tflite", p, True) for p in PROFILES["tflite"]] + [("bdn", None, False), ("c", None, False)]
        for target, profile, int8 in forms:
            numerics = "float" if target in ("bdn", "c") else None
            more = dict(profile=profile, int8=int8, calibrate=samples if int8 else None, numerics=numerics)
            made = model.export(target, Path(folder) / f"net.{{target}}", **more)
            for path in made.paths:
                digests[f"{{name}} {{target}} {{profile}} {{int8}} {{path.name}}"] = hashlib.sha256(path.read_bytes()).hexdigest()
print(json.dumps(digests))
"""


def digests(seed: int) -> dict[str, str]:
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_every_target_and_profile() -> None:
    first = digests(1)
    assert len(first) == 3 * (4 + 2 + 1 + 3)
    assert digests(2) == first
