"""What int8 costs and saves: ``python benchmarks/tflite_int8.py [--format json]``.

The digits example in the stock Larq Compute Engine interpreter, float and int8, and the bytes of an ImageNet-size BD-Net
MobileNet V1 (untrained). Prints counts and bytes, no times.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bdnet_deploy
from bdnet_deploy import models
from bdnet_deploy.export import tflite
from bdnet_deploy.importers.torch import import_module
from bdnet_deploy.lowering import float_graph
from bdnet_deploy.peers import lce

DIGITS = Path(__file__).parents[1] / "examples" / "digits"


def digits() -> dict[str, Any]:
    """Accuracy and logits on all test images."""
    model = bdnet_deploy.load(DIGITS / "model.pt")
    calibration = model.samples(DIGITS / "calibration.npz").x.astype(np.float32)
    test = model.samples(DIGITS / "test.npz")
    files = [tflite.write(model.float_graph(), samples=s).data for s in (None, calibration)]
    real, int8 = (lce.run(data, test.x.astype(np.float32))[0] for data in files)
    return {
        "images": len(real),
        "float_correct": float((real.argmax(1) == test.y).mean()),
        "int8_correct": float((int8.argmax(1) == test.y).mean()),
        "same_prediction": float((real.argmax(1) == int8.argmax(1)).mean()),
        "mean_logit_distance": float(np.abs(real - int8).mean()),
        "largest_logit": float(np.abs(real).max()),
        "float_bytes": len(files[0]),
        "int8_bytes": len(files[1]),
    }


def mobilenet() -> dict[str, Any]:
    """Bytes by kind."""
    torch.manual_seed(0)
    module = models.create("bdnet_mobilenet_v1").eval()
    height, width, channels = module.input_shape
    graph, _ = float_graph(import_module(module, (1, channels, height, width), name="mobilenet"))
    samples = np.random.default_rng(0).standard_normal((2, height, width, channels)).astype(np.float32)
    int8 = tflite.write(graph, samples=samples)
    return {"float_bytes": len(tflite.write(graph).data), "int8_bytes": len(int8.data), **int8.sizes}


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    arguments = parser.parse_args()
    results = {"digits": digits(), "mobilenet": mobilenet()}
    if arguments.format == "json":
        print(json.dumps(results, indent=2))
        return
    for name, numbers in results.items():
        print(name)
        for key, value in numbers.items():
            print(f"  {key:20} {value:,}" if isinstance(value, int) else f"  {key:20} {value:.4g}")


if __name__ == "__main__":
    main()
