"""A small ``.bdn`` file with pools, limits, gates, reductions and sums of bits: a seed for the fuzzers."""

from __future__ import annotations

import numpy as np
from bdn_cases import Bdn

from bdnet_deploy import bdn_format as bdn

_LETTERS = {bdn.DType.BIT: "b", bdn.DType.TRIT: "t", bdn.DType.UBIT: "z"}


def elementwise() -> Bdn:
    """One step of each kind, from arena to arena."""
    b = Bdn()
    source = b.tensor((1, 1, 1), bdn.DType.I8, bdn.Place.INPUT)
    target = b.tensor((1, 1, 1), bdn.DType.I8, bdn.Place.OUTPUT)
    b.step("bd_repeat_i8", [source], [target], (1, 1, 1), acc_dtype=bdn.DType.I8)
    pool = {"kernel_h": 2, "kernel_w": 3, "stride_w": 2, "pad_top": 1, "pad_left": 1, "dilation_h": 2}
    for dtype in bdn.DType:
        x, y = b.tensor((4, 5, 35), dtype), b.tensor((3, 3, 35), dtype)
        acc = bdn.DType.I8 if dtype in _LETTERS else dtype
        b.step(f"bd_max_pool_{dtype.name.lower()}", [x], [y], (3, 3, 35), acc_dtype=acc, **pool)
        if dtype in _LETTERS:
            for code in (bdn.DType.I16, bdn.DType.I32):
                sums = b.tensor((3, 3, 5), code)
                name = f"bd_box_sum_{_LETTERS[dtype]}_{code.name.lower()}"
                b.step(name, [x], [sums], (3, 3, 5), acc_dtype=code, groups=5, pad_value=int(code) % 3, **pool)
        if dtype in (bdn.DType.BIT, bdn.DType.UBIT):
            bits = b.tensor((4, 5, 35), dtype)
            table = np.array([6], np.uint32)
            b.step(f"bd_logic_{dtype.name.lower()}", [x, x], [bits], (4, 5, 35), weights=table, acc_dtype=acc)
    x, gate = b.tensor((4, 5, 6), bdn.DType.I8), b.tensor((1, 1, 6), bdn.DType.I16)
    product, limited = b.tensor((4, 5, 6), bdn.DType.I32), b.tensor((4, 5, 6), bdn.DType.I8)
    best, one = b.tensor((1, 1, 6), bdn.DType.I8), b.tensor((4, 5, 1), bdn.DType.I32)
    b.step("bd_mul_qh_i32", [x, gate], [product], (4, 5, 6), acc_dtype=bdn.DType.I32)
    b.step("bd_clamp_i8", [x], [limited], (4, 5, 6), acc_dtype=bdn.DType.I8, weights=np.arange(12, dtype=np.int8))
    b.step("bd_map_max_i8", [x], [best], (1, 1, 6), acc_dtype=bdn.DType.I8, kind=bdn.Kind.ACCUMULATE)
    b.step("bd_channel_sum_q_i32", [x], [one], (4, 5, 1), acc_dtype=bdn.DType.I32)
    ones = {"mul": np.ones(6, np.int32), "add": np.zeros(6, np.int32), "residual_mul": np.ones(6, np.int32)}
    b.step(
        None, [x, gate], [limited], (4, 5, 6), epilogue="bd_epilogue_i8", acc_dtype=bdn.DType.I8,
        epilogue_at=b.epilogue(bdn.DType.I8, residual_channels=6, **ones),
    )  # fmt: skip
    return b
