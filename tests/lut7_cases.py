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
    """A convolution, mostly point-wise; with ``ends`` all signs differ, or none."""
    packed = "_bit__" in kernel
    kernel_h, kernel_w = (1, 1) if rng.random() < 0.6 else ((3, 3), (3, 3), (1, 2), (2, 3), (5, 1))[rng.integers(5)]
    channels = channels or int(rng.choice(LARGE if rng.random() < 0.05 else CHANNELS))
    taps = kernel_h * kernel_w
    if taps > 1 and channels > 200:
        kernel_h = kernel_w = taps = 1
    outputs = (32 if rng.random() < 0.8 else 64) if packed else 2 * int(rng.integers(1, 9))
    if taps > 1:
        outputs = -(-outputs // 4) * 4
    stride_h, stride_w = (int(s) for s in rng.choice([1, 1, 1, 2, 3], 2))
    dilation_h, dilation_w = (int(d) for d in rng.choice([1, 1, 1, 2], 2))
    pad_top, pad_left = (int(rng.integers(0, k)) for k in (kernel_h, kernel_w))
    height, width = int(rng.integers(1, 4)), int(rng.choice([rng.integers(1, 17), 7, 8, 14]))
    shape = []
    for size, stride in ((height, stride_h), (width, stride_w)):
        most = (size - 1) // stride + 1  # a window may reach far out of the map
        shape.append(most if rng.random() < 0.8 else int(rng.integers(1, most + 1)))
    shape.append(outputs)
    draws = ["low", "high"] if ends else ["random"]
    x = draw(rng, (1, height, width, channels), DType.BIT, str(rng.choice(draws)))
    weights = draw(rng, (outputs, kernel_h, kernel_w, channels), DType.BIT, str(rng.choice(draws)))
    spread = int(rng.choice([taps * channels + 2, 40000]))
    limits = rng.integers(-spread // 4, spread, outputs, endpoint=True) if packed else None
    fields: dict[str, Any] = {
        "kernel_h": kernel_h,
        "kernel_w": kernel_w,
        "dilation_h": dilation_h,
        "dilation_w": dilation_w,
        "pad_top": pad_top,
        "pad_left": pad_left,
        "pad_value": int(rng.choice([0, 0, 1, -1, 2])),
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
