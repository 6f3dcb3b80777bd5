"""Small ``.bdn`` files, step by step, for the tests of the runtime and of the format."""

from __future__ import annotations

from typing import Any

import numpy as np

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.bitplanes import pack
from bdnet_deploy.graph import DType
from bdnet_deploy.plan.tables import fill_word, gather_blob, permute_blob

Array = np.ndarray[Any, np.dtype[Any]]

CODES = {
    DType.F32: bdn.DType.F32,
    DType.U8: bdn.DType.U8,
    DType.I8: bdn.DType.I8,
    DType.I16: bdn.DType.I16,
    DType.I32: bdn.DType.I32,
    DType.BIT: bdn.DType.BIT,
    DType.TRIT: bdn.DType.TRIT,
    DType.UBIT: bdn.DType.UBIT,
}
LETTERS = {
    "f": DType.F32,
    "u": DType.U8,
    "q": DType.I8,
    "h": DType.I16,
    "b": DType.BIT,
    "t": DType.TRIT,
    "z": DType.UBIT,
}


class Bdn:
    """A file that grows by tensors, constants and steps."""

    def __init__(self) -> None:
        self.tensors: list[np.void] = []
        self.steps: list[np.void] = []
        self.kernels: list[str] = []
        self.constants = bytearray()
        self.tensor_bytes = 0
        self.scratch_bytes = 0
        self.ports = {bdn.Place.INPUT: 0, bdn.Place.OUTPUT: 0}
        self.records: dict[int, bytes] = {}

    def tensor(self, shape: tuple[int, int, int], dtype: int, place: bdn.Place = bdn.Place.ARENA) -> int:
        """A new tensor (H, W, C); its index."""
        record = np.zeros((), bdn.TENSOR)
        record["height"], record["width"], record["channels"] = shape
        record["rows_held"], record["dtype"], record["place"] = shape[0], dtype, place
        row = bdn.row_bytes(shape[1], shape[2], dtype)
        if place == bdn.Place.ARENA:
            record["row_stride"], record["offset"] = bdn.align(row, 4), self.tensor_bytes
            self.tensor_bytes += bdn.align(shape[0] * bdn.align(row, 4))
        else:
            record["row_stride"], record["offset"] = row, self.ports[place]
            self.ports[place] += 1
        self.tensors.append(record)
        return len(self.tensors) - 1

    def constant(self, array: Array) -> int:
        """Offset of a new constant."""
        self.constants += bytes(-len(self.constants) % 16)
        at = len(self.constants)
        self.constants += np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        return at

    def kernel(self, name: str | None) -> int:
        if name is None:
            return bdn.NONE
        if name not in self.kernels:
            self.kernels.append(name)
        return self.kernels.index(name)

    def epilogue(
        self,
        dtype: int,
        *,
        shift: int = 0,
        residual_shift: int = 0,
        residual_channels: int = 0,
        repeats: int = 0,
        **arrays: Any,
    ) -> int:
        """Offset of a new ``bd_epilogue``; arrays by the names of its fields."""
        record = np.zeros((), bdn.EPILOGUE)
        for name in ("mul", "add", "residual_mul", "positive", "negative", "bias", "low", "high"):
            array = arrays.pop(name, None)
            record[name] = bdn.ABSENT if array is None else self.constant(array)
        assert not arrays
        record["dtype"], record["shift"], record["residual_shift"] = dtype, shift, residual_shift
        record["residual_channels"] = residual_channels
        record["repeats"] = repeats
        return self.constant(record.reshape(1))

    def step(
        self,
        kernel: str | None,
        inputs: list[int],
        outputs: list[int | None],
        shape: tuple[int, int, int],
        *,
        epilogue: str | None = None,
        weights: Array | None = None,
        **fields: Any,
    ) -> np.void:
        """A new step whose accumulators have ``shape``; ``fields`` are those of :data:`bdn.STEP`."""
        record = np.zeros((), bdn.STEP)
        record["kernel"], record["epilogue"] = self.kernel(kernel), self.kernel(epilogue)
        record["in"] = [*inputs, bdn.NONE][:2]
        record["out"] = [bdn.NONE if t is None else t for t in [*outputs, None][:2]]
        record["out_height"], record["out_width"], record["out_channels"] = shape
        for name in ("groups", "kernel_h", "kernel_w", "stride_h", "stride_w", "dilation_h", "dilation_w"):
            record[name] = 1
        record["rows_per_call"] = 1
        record["weights"], record["epilogue_at"] = bdn.ABSENT, bdn.ABSENT
        if weights is not None:
            record["weights"], record["weights_size"] = self.constant(weights), weights.nbytes
        for name, value in fields.items():
            record[name] = value
        scratch = 0
        if kernel is not None:
            channels = int(self.tensors[inputs[0]]["channels"])
            window = (int(record["kernel_h"]), int(record["kernel_w"]))
            scratch = bdn.kernel_scratch(
                kernel,
                channels=channels,
                groups=int(record["groups"]),
                window=window,
                width=shape[1],
                outputs=shape[2],
                stride=int(record["stride_w"]),
            )
            if epilogue is not None:
                rows = 1 if record["kind"] == bdn.Kind.ACCUMULATE else min(int(record["rows_per_call"]), shape[0])
                scratch += bdn.accumulator_bytes(shape[1], shape[2], int(record["acc_dtype"]), rows)
        record["scratch"] = scratch
        self.scratch_bytes = max(self.scratch_bytes, bdn.align(scratch))
        self.steps.append(record)
        return record

    def write(self) -> bytes:
        return bdn.write(
            kernels=self.kernels,
            tensors=np.array(self.tensors, bdn.TENSOR),
            steps=np.array(self.steps, bdn.STEP),
            constants=bytes(self.constants),
            tensor_bytes=self.tensor_bytes,
            scratch_bytes=self.scratch_bytes,
            inputs=self.ports[bdn.Place.INPUT],
            outputs=self.ports[bdn.Place.OUTPUT],
            records=self.records,
        )


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: DType, how: str = "random") -> Array:
    """Values of a dtype: random, or all the smallest or largest."""
    if how != "random":
        low, high = (-1.0, 1.0) if dtype is DType.F32 else dtype.range
        return np.full(shape, low if how == "low" else high, dtype.numpy)
    if dtype is DType.F32:
        return rng.standard_normal(shape).astype(np.float32)
    if dtype is DType.BIT:
        return rng.choice(np.array([-1, 1], np.int8), shape)
    low, high = dtype.range
    return rng.integers(low, high, shape, endpoint=True).astype(dtype.numpy)


def conv_weights(kernel: str, weights: Array) -> Array:
    """OHWI weights as the kernel's canonical packing."""
    pair = kernel.split("_")[2]
    if kernel.startswith("bd_dw_"):
        return pack(weights[..., 0].transpose(1, 2, 0), planes=2 if pair[1] == "t" else 1)
    if pair[1] in "bt":
        return pack(weights, planes=2 if pair[1] == "t" else 1)
    return weights


def digits_like(seed: int = 0) -> Bdn:
    """A little network of every kind of step: packed, depth-wise, residual, pooled, with a test vector to come."""
    rng = np.random.default_rng(seed)
    b = Bdn()
    x = b.tensor((6, 6, 8), bdn.DType.BIT, bdn.Place.INPUT)
    bits = b.tensor((6, 6, 40), bdn.DType.TRIT)
    trunk = b.tensor((6, 6, 40), bdn.DType.I16)
    out = b.tensor((1, 1, 40), bdn.DType.I32, bdn.Place.OUTPUT)
    w = draw(rng, (40, 3, 3, 8), DType.BIT)
    affine = {
        "mul": rng.integers(-(2**16), 2**16, 40, dtype=np.int32),
        "add": rng.integers(-99, 99, 40, dtype=np.int32),
    }
    limits = {"low": np.full(40, -3, np.int32), "high": np.full(40, 4, np.int32)}
    b.step(
        "bd_conv_bb_i16", [x], [trunk, bits], (6, 6, 40), epilogue="bd_epilogue_i16", weights=conv_weights("bd_conv_bb_", w),
        kernel_h=3, kernel_w=3, pad_top=1, pad_left=1, acc_dtype=bdn.DType.I16, weight_planes=1, rows_per_call=2,
        epilogue_at=b.epilogue(bdn.DType.I16, shift=4, **affine, **limits),
    )  # fmt: skip
    dw = b.tensor((6, 6, 40), bdn.DType.I16)
    w = draw(rng, (40, 3, 3, 1), DType.BIT)
    slopes = {"positive": np.full(40, 65536, np.int32), "negative": np.full(40, 16384, np.int32)}
    residual = {"residual_mul": np.full(40, 32768, np.int32), "residual_channels": 40}
    b.step(
        "bd_dw_tb_i8", [bits, trunk], [dw], (6, 6, 40), epilogue="bd_epilogue_i16", weights=conv_weights("bd_dw_tb_", w),
        kernel_h=3, kernel_w=3, pad_top=1, pad_left=1, groups=40, acc_dtype=bdn.DType.I8, weight_planes=1,
        epilogue_at=b.epilogue(bdn.DType.I16, shift=4, **affine, **slopes, **residual),
    )  # fmt: skip
    b.step(
        "bd_gap_h_i32",
        [dw],
        [out],
        (1, 1, 40),
        kind=bdn.Kind.ACCUMULATE,
        acc_dtype=bdn.DType.I32,
        rows_per_call=4,
    )
    return b


def pooled() -> Bdn:
    """The other kernels in one file: float, 8-bit, pooling, channels; several inputs and outputs."""
    rng = np.random.default_rng(1)
    b = Bdn()
    image = b.tensor((8, 8, 3), bdn.DType.U8, bdn.Place.INPUT)
    real = b.tensor((4, 4, 6), bdn.DType.F32, bdn.Place.INPUT)
    small = b.tensor((4, 4, 6), bdn.DType.I16)
    pool = b.tensor((2, 2, 6), bdn.DType.I16)
    mean = b.tensor((2, 2, 3), bdn.DType.I16)
    wide = b.tensor((2, 2, 9), bdn.DType.I16, bdn.Place.OUTPUT)
    signs = b.tensor((4, 4, 5), bdn.DType.BIT)
    logits = b.tensor((4, 4, 2), bdn.DType.F32, bdn.Place.OUTPUT)
    affine = {"mul": np.full(6, 300, np.int32), "add": np.full(6, 32768, np.int32)}
    b.step(
        "bd_conv_uq_i32",
        [image],
        [small],
        (4, 4, 6),
        epilogue="bd_epilogue_i16",
        weights=draw(rng, (6, 3, 3, 3), DType.I8),
        kernel_h=3,
        kernel_w=3,
        stride_h=2,
        stride_w=2,
        pad_top=1,
        pad_left=1,
        zero_point=128,
        acc_dtype=bdn.DType.I32,
        epilogue_at=b.epilogue(bdn.DType.I16, shift=-4, **affine),
    )
    window = {"kernel_h": 2, "kernel_w": 2, "stride_h": 2, "stride_w": 2}
    b.step("bd_avgpool_i16", [small], [pool], (2, 2, 6), acc_dtype=bdn.DType.I16, **window)
    b.step("bd_group_mean_i16", [pool], [mean], (2, 2, 3), acc_dtype=bdn.DType.I16)
    b.step("bd_repeat_i16", [mean], [wide], (2, 2, 9), acc_dtype=bdn.DType.I16)
    b.step(
        "bd_conv_ff_f32",
        [real],
        [None, signs],
        (4, 4, 5),
        epilogue="bd_epilogue_f32",
        weights=draw(rng, (5, 1, 1, 6), DType.F32),
        acc_dtype=bdn.DType.F32,
        epilogue_at=b.epilogue(bdn.DType.F32, low=np.zeros(5, np.float32)),
    )
    weights = draw(rng, (2, 1, 1, 5), DType.F32)
    b.step("bd_conv_bf_f32", [signs], [logits], (4, 4, 2), weights=weights, acc_dtype=bdn.DType.F32)
    return b


def every_product() -> Bdn:
    """One small step of every convolution, linear and depth-wise kernel, from arena to arena."""
    rng = np.random.default_rng(2)
    b = Bdn()
    source = b.tensor((1, 1, 1), bdn.DType.I8, bdn.Place.INPUT)
    target = b.tensor((1, 1, 1), bdn.DType.I8, bdn.Place.OUTPUT)
    b.step("bd_repeat_i8", [source], [target], (1, 1, 1), acc_dtype=bdn.DType.I8)
    names = [f"bd_conv_{pair}_{out}" for pair in ("bb", "tb", "zb", "bt", "tt", "zt") for out in ("i16", "i32")]
    names += [f"bd_conv_{pair}_f32" for pair in ("ff", "bf", "tf")]
    names += [f"bd_conv_{pair}_i32" for pair in ("uq", "qq", "hq", "bq", "tq")]
    names += [f"bd_dw_{pair}_i8" for pair in ("bb", "tb", "bt", "tt")]
    for i, name in enumerate(names):
        pair, out = name.split("_")[2:]
        groups, per_in, per_out = (35, 1, 1) if "_dw_" in name else (1 + i % 3, 33, 2)
        x = b.tensor((3, 3, groups * per_in), CODES[LETTERS[pair[0]]])
        y = b.tensor((3, 3, groups * per_out), bdn.DType[out.upper()])
        weights = draw(rng, (groups * per_out, 3, 3, per_in), LETTERS[pair[1]])
        b.step(
            name,
            [x],
            [y],
            (3, 3, groups * per_out),
            weights=conv_weights(name, weights),
            groups=groups,
            kernel_h=3,
            kernel_w=3,
            pad_top=1,
            pad_left=1,
            pad_value=i % 3 - 1,
            acc_dtype=bdn.DType[out.upper()],
            weight_planes={"b": 1, "t": 2}.get(pair[1], 0),
        )
    return b


def every_move() -> Bdn:
    """One small step of every kernel that moves, joins, orders or quantizes elements."""
    rng = np.random.default_rng(3)
    b = Bdn()
    source = b.tensor((1, 1, 1), bdn.DType.I8, bdn.Place.INPUT)
    target = b.tensor((1, 1, 1), bdn.DType.I8, bdn.Place.OUTPUT)
    b.step("bd_repeat_i8", [source], [target], (1, 1, 1), acc_dtype=bdn.DType.I8)
    rows, columns = np.array([-1, 0, 2, 1]), np.array([1, 0, -1, 2])
    channels = np.concatenate([np.arange(3, 35), [-1], rng.integers(0, 35, 6)])
    unshuffled = [(3, 1, 0, 0), (3, 0, 1, 0), (5, 0, 0, 7), (7, 0, 0, 1)]
    for dtype, code in CODES.items():
        x, y = b.tensor((3, 3, 35), code), b.tensor((3, 3, 35), code)
        moved, joined = b.tensor((4, 4, 39), code), b.tensor((3, 3, 70), code)
        blob = gather_blob(rows, columns, channels, fill_word(1, dtype))
        acc = {"acc_dtype": bdn.DType.I8}
        b.step(f"bd_gather_{dtype.value}", [x], [moved], (4, 4, 39), weights=blob, pad_top=2, kernel_h=3, **acc)
        whole = {"kind": bdn.Kind.WHOLE, "rows_per_call": 3, **acc}
        b.step(f"bd_permute_{dtype.value}", [x], [y], (3, 3, 35), weights=permute_blob(unshuffled), **whole)
        b.step(f"bd_concat_{dtype.value}", [x, y], [joined], (3, 3, 70), **acc)
    real = b.tensor((2, 3, 5), bdn.DType.F32)
    for letter, dtype in (("u", DType.U8), ("q", DType.I8), ("h", DType.I16), ("i", DType.I32)):
        x = b.tensor((2, 3, 5), CODES[dtype])
        if dtype is not DType.I32:
            scale = np.array([0.5, 0.0], np.float32).view(np.uint8)
            b.step(f"bd_quantize_f_{dtype.value}", [real], [x], (2, 3, 5), weights=scale, acc_dtype=CODES[dtype])
        both = np.ones((2, 5), np.float32)
        b.step(f"bd_dequantize_{letter}_f32", [x], [real], (2, 3, 5), weights=both, acc_dtype=bdn.DType.F32)
    return b
