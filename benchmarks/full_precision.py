"""MobileNet V1 with ordinary weights, in 8 bits for onnxruntime: what a full-precision network of that shape costs there.

Random weights, batch normalization folded. It computes another function than a binary network of its shape.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bdnet_deploy import errors

#: Outputs and stride of each separable convolution (Howard et al., https://arxiv.org/abs/1704.04861, table 1).
BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *[(512, 1)] * 5,
    *((1024, 2), (1024, 1)),
)


def mobilenet_v1(classes: int = 1000) -> Any:
    """The network as ``torch.nn.Sequential``, with random weights of a fixed seed."""
    torch = errors.require("torch", extra="torch")
    nn = torch.nn
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        channels, layers = 32, [nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU6()]
        for outputs, stride in BLOCKS:
            layers += [nn.Conv2d(channels, channels, 3, stride, 1, groups=channels), nn.ReLU6()]
            layers += [nn.Conv2d(channels, outputs, 1), nn.ReLU6()]
            channels = outputs
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
        return nn.Sequential(*layers).eval()


def write_int8(path: Path, side: int = 224) -> None:
    """The network as ONNX with 8-bit weights per channel and 8-bit maps, calibrated on random images.

    Args:
        path: of the file.
        side: height and width of the image, N x 3 x side x side as float.

    Raises:
        MissingPackageError: torch, onnx or onnxruntime is not installed.
    """
    torch = errors.require("torch", extra="torch")
    quantization = errors.require("onnxruntime.quantization", extra="onnx")
    rng = np.random.default_rng(1)
    images = [{"x": rng.standard_normal((1, 3, side, side), dtype=np.float32)} for _ in range(4)]

    class Images(quantization.CalibrationDataReader):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

    real, prepared = path.with_suffix(".float.onnx"), path.with_suffix(".prepared.onnx")
    sample = torch.from_numpy(images[0]["x"])
    torch.onnx.export(mobilenet_v1(), (sample,), str(real), input_names=["x"], opset_version=17, dynamo=False)
    errors.require("onnxruntime.quantization.shape_inference", extra="onnx").quant_pre_process(str(real), str(prepared))
    quantization.quantize_static(
        str(prepared),
        str(path),
        Images(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    real.unlink()
    prepared.unlink()
