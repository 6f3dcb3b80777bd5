"""Random steps of depth-wise 3x3 convolutions in the packing ``forms3``."""

from __future__ import annotations

from typing import Any

import numpy as np
from bdn_cases import CODES, LETTERS, Array, Bdn, draw

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.graph import DType
from bdnet_deploy.plan.packings.forms3 import pack_forms3

INPUT, OUTPUT = bdn.Place.INPUT, bdn.Place.OUTPUT


def forms3_step(kernel: str, rng: np.random.Generator, *, ends: bool = False) -> tuple[str, bytes, list[Array]]:
    """One convolution, its accumulators read by an epilogue's order only in natural order; ``ends``: all bits differ, or none."""
    trits, out_type = kernel.split("_")[2][0] == "t", kernel.split("_")[3]
    channels = 32 * int(rng.integers(1, 5)) if kernel.endswith("__forms3") and out_type != "bit" else None
    channels = channels or int(rng.choice([8, 16, 24, 32, 40, 64, 96, 128, rng.integers(2, 150)]))
    height, width = int(rng.integers(2, 9)), int(rng.integers(2, 13))
    pad_top, pad_left = (int(p) for p in rng.integers(0, 2, 2))
    stride_h, stride_w = (int(s) for s in rng.choice([1, 1, 2], 2))
    shape = [1, 1, channels]
    for i, (side, stride, pad) in enumerate(((height, stride_h, pad_top), (width, stride_w, pad_left))):
        most = (side + pad + 1 - 3) // stride + 1
        shape[i] = int(rng.integers(max(1, most - 2), most + 1))
    pad_value = int(rng.choice([0, 0, 1, -1]))
    draws = ["low", "high"] if ends else ["random", "random", "low", "high"]
    x = draw(rng, (1, height, width, channels), LETTERS["t" if trits else "b"], str(rng.choice(draws)))
    weights = draw(rng, (channels, 3, 3, 1), DType.BIT, str(rng.choice(draws)))
    low = None
    if out_type == "bit":
        low = rng.integers(-int(rng.choice([4, 12, 2**31 - 1])), 12, channels, dtype=np.int64).astype(np.int32)
    b = Bdn()
    source = b.tensor(x.shape[1:], CODES[LETTERS["t" if trits else "b"]], INPUT)
    code = {"bit": bdn.DType.BIT, "i8": bdn.DType.I8, "u8": bdn.DType.U8}[out_type]
    target = b.tensor((shape[0], shape[1], channels), code, OUTPUT)
    if out_type != "bit" and kernel.endswith("__forms3"):
        b.tensors[target]["order"] = 1
    fields: dict[str, Any] = {
        "kernel_h": 3, "kernel_w": 3, "stride_h": stride_h, "stride_w": stride_w, "pad_top": pad_top, "pad_left": pad_left,
        "pad_value": pad_value, "weight_planes": 1, "rows_per_call": int(rng.integers(1, 5)),
        "acc_dtype": bdn.DType.U8 if out_type == "u8" else bdn.DType.I8, "groups": channels,
    }  # fmt: skip
    blob = pack_forms3(weights, low, trits=trits, pad_value=pad_value)
    b.step(kernel, [source], [target], (shape[0], shape[1], channels), weights=blob, **fields)
    return f"{kernel} {x.shape} -> {shape} {fields}", b.write(), [x]
