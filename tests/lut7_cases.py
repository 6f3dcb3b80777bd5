"""Random steps for kernels that read weights in the packing ``lut7``."""

from __future__ import annotations

from typing import Any

import numpy as np
from bdn_cases import Array, Bdn, draw

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.graph import DType
from bdnet_deploy.plan.packings.lut7 import pack_lut7

INPUT, OUTPUT = bdn.Place.INPUT, bdn.Place.OUTPUT
#: Every division into slabs, with and without tails; from 320 on more than four slabs of 64.
CHANNELS = (
    1,
    3,
    8,
    9,
    16,
    17,
    24,
    32,
    33,
    40,
    48,
    49,
    57,
    64,
    65,
    72,
    80,
    96,
    100,
    112,
    128,
    144,
    192,
    200,
    256,
    320,
    328,
)
LARGE = (384, 512, 560, 640, 1024)


def lut7_step(
    kernel: str, rng: np.random.Generator, *, channels: int = 0, ends: bool = False
) -> tuple[str, bytes, list[Array]]:
    """A point-wise convolution; with ``ends`` all signs differ, or none."""
    packed = "_bit__" in kernel
    channels = channels or int(rng.choice(LARGE if rng.random() < 0.05 else CHANNELS))
    outputs = 32 * int(rng.integers(1, 3)) if packed else 2 * int(rng.integers(1, 24 if channels < 200 else 8))
    stride_h, stride_w = (int(s) for s in rng.choice([1, 1, 1, 2, 3], 2))
    height, width = int(rng.integers(1, 5)), int(rng.choice([rng.integers(1, 17), 7, 8, 14]))
    shape = []
    for size, stride in ((height, stride_h), (width, stride_w)):
        most = (size - 1) // stride + 1
        shape.append(most if rng.random() < 0.8 else int(rng.integers(1, most + 1)))
    shape.append(outputs)
    draws = ["low", "high"] if ends else ["random"]
    x = draw(rng, (1, height, width, channels), DType.BIT, str(rng.choice(draws)))
    weights = draw(rng, (outputs, 1, 1, channels), DType.BIT, str(rng.choice(draws)))
    spread = int(rng.choice([channels + 2, 40000]))
    limits = rng.integers(-spread // 4, spread, outputs, endpoint=True) if packed else None
    fields: dict[str, Any] = {
        "stride_h": stride_h,
        "stride_w": stride_w,
        "rows_per_call": int(rng.integers(1, 5)),
        "acc_dtype": bdn.DType.I8 if packed else bdn.DType.I16,
    }
    b = Bdn()
    source = b.tensor(x.shape[1:], bdn.DType.BIT, INPUT)
    target = b.tensor(tuple(shape), bdn.DType.BIT if packed else bdn.DType.I16, OUTPUT)
    b.step(kernel, [source], [target], tuple(shape), weights=pack_lut7(weights, limits), weight_planes=1, **fields)
    return f"{kernel} {x.shape} -> {shape} {fields}", b.write(), [x]
