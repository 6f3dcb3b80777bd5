"""A small ``.bdn`` file with one step of every kernel that the other seeds of the fuzzers leave out."""

from __future__ import annotations

from typing import Any

import numpy as np
from bdn_cases import CODES, LETTERS, Bdn, conv_weights, draw

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.graph import DType
from bdnet_deploy.plan.packings.forms3 import pack_forms3
from bdnet_deploy.plan.packings.lanes16 import lanes16, pack_lanes16
from bdnet_deploy.plan.packings.lut7 import pack_lut7
from bdnet_deploy.plan.packings.planes import pack_planes
from bdnet_deploy.plan.packings.records import QUAD, WORD
from bdnet_deploy.plan.packings.tile16 import pack_tile16
from bdnet_deploy.plan.plan import Epilogue, PlanStep, PlanTensor

_NAMES = {"f": "f32", "u": "u8", "q": "i8", "h": "i16", "i": "i32"}
_TYPES = {**LETTERS, "i": DType.I32}
_FUNCTIONS = (
    "abs erf exp gelu gelu_tanh hard_sigmoid hard_swish log mish rsqrt sigmoid silu softplus sqrt square tanh"
).split()


class _Steps:
    """Steps from arena to arena; maps of one shape and type are shared."""

    def __init__(self) -> None:
        self.b = Bdn()
        self.maps: dict[tuple[tuple[int, int, int], int, str], int] = {}
        source = self.b.tensor((1, 1, 1), bdn.DType.I8, bdn.Place.INPUT)
        target = self.b.tensor((1, 1, 1), bdn.DType.I8, bdn.Place.OUTPUT)
        self.b.step("bd_repeat_i8", [source], [target], (1, 1, 1), acc_dtype=bdn.DType.I8)

    def map(self, shape: tuple[int, int, int], dtype: DType, role: str) -> int:
        key = (shape, CODES[dtype], role)
        if key not in self.maps:
            self.maps[key] = self.b.tensor(shape, CODES[dtype])
        return self.maps[key]

    def add(
        self,
        kernel: str,
        inputs: list[tuple[tuple[int, int, int], DType]],
        shape: tuple[int, int, int],
        out: DType,
        **fields: Any,
    ) -> None:
        xs = [self.map(s, d, f"in{i}") for i, (s, d) in enumerate(inputs)]
        packed = out in (DType.BIT, DType.TRIT, DType.UBIT)
        acc = bdn.DType.I8 if packed else CODES[out]
        self.b.step(kernel, xs, [self.map(shape, out, "out")], shape, acc_dtype=acc, **fields)


def _products(s: _Steps, rng: np.random.Generator) -> None:
    window = {"kernel_h": 2, "kernel_w": 2, "pad_top": 1, "pad_left": 1}
    for pair, out in (("zf", DType.F32), ("zq", DType.I32)):
        name = f"bd_conv_{pair}_{out.value}"
        weights = conv_weights(name, draw(rng, (2, 2, 2, 33), LETTERS[pair[1]]))
        s.add(name, [((3, 3, 33), DType.UBIT)], (3, 3, 2), out, weights=weights, **window)
    blob = np.array([2, 1], np.uint16).tobytes() + rng.integers(-99, 99, 4, dtype=np.int32).tobytes()
    blob += bytes([0, 1, 0]) + bytes(2) + rng.integers(-128, 128, 2 * 2 * 2 * 3, dtype=np.int8).tobytes()
    border = np.frombuffer(blob, np.uint8)
    s.add("bd_conv_uq_i32__border", [((3, 2, 3), DType.U8)], (3, 2, 2), DType.I32, weights=border, **window)
    pairs = [(x + w, out) for x in "btz" for w in "btz" for out in (DType.I16, DType.I32)]
    pairs += [(p, DType.F32) for p in ("ff", "fb", "ft", "fz", "bf", "tf", "zf")]
    pairs += [(p, DType.I32) for p in ("qq", "hq", "qh")]
    pairs += [(p, DType.I32) for e in "qh" for z in "btz" for p in (e + z, z + e)]
    for pair, out in pairs:
        maps = [((2, 2, 33), LETTERS[pair[0]]), ((2, 3, 33), LETTERS[pair[1]])]
        s.add(f"bd_matmul_{pair}_{out.value}", maps, (2, 2, 3), out)


def _tile16(s: _Steps, rng: np.random.Generator) -> None:
    for size, channels, shape in ((1, 64, (3, 4, 32)), (1, 16, (3, 4, 32)), (3, 64, (1, 2, 32))):
        weights = draw(rng, (32, size, size, channels), DType.BIT)
        window = {"kernel_h": size, "kernel_w": size, "weight_planes": 1}
        for out, low in ((DType.I16, None), (DType.BIT, np.arange(32))):
            blob = pack_tile16(weights, low)
            s.add(
                f"bd_conv_bb_{out.value}__tile16", [((3, 4, channels), DType.BIT)], shape, out, weights=blob, **window
            )


def _planes(s: _Steps, rng: np.random.Generator) -> None:
    window = {"kernel_h": 3, "kernel_w": 3, "pad_top": 1, "pad_left": 1, "weight_planes": 1, "groups": 33}
    for pair, x in (("bb", DType.BIT), ("tb", DType.TRIT)):
        blob = pack_planes(draw(rng, (33, 3, 3, 1), DType.BIT), np.arange(33) - 16, trits=x is DType.TRIT)
        s.add(f"bd_dw_{pair}_bit__planes", [((2, 3, 33), x)], (2, 3, 33), DType.BIT, weights=blob, **window)


def _lut7(s: _Steps, rng: np.random.Generator) -> None:
    weights = draw(rng, (32, 1, 1, 110), DType.BIT)
    for out, limits in ((DType.I16, None), (DType.BIT, np.arange(32))):
        blob = pack_lut7(weights, limits)
        s.add(
            f"bd_conv_bb_{out.value}__lut7", [((3, 4, 110), DType.BIT)], (3, 2, 32), out, weights=blob, stride_w=2,
            weight_planes=1,
        )  # fmt: skip


def _lanes16(s: _Steps, rng: np.random.Generator) -> None:
    for acc, shift, residual, levels in (
        ("q", 8, (2, 3, 24), DType.TRIT),
        ("h", 2, (2, 3, 8), DType.BIT),
        ("i", -4, None, None),
    ):
        shape = (2, 3, residual[2] * (2 if levels is DType.BIT else 1)) if residual else (2, 3, 20)
        e = Epilogue(DType.I16, mul=np.full(shape[2], 300), add=np.arange(shape[2]) << 16)
        xs = [s.map(shape, _TYPES[acc], "in0")]
        if residual:
            e.residual_mul, e.residual_channels = rng.integers(0, 98301, shape[2]), residual[2]
            e.positive, e.negative = np.full(shape[2], 65536), rng.integers(-9000, 60000, shape[2])
            xs.append(s.map(residual, DType.I16, "in1"))
        if levels:
            e.low = np.full(shape[2], -5)
        if levels is DType.TRIT:
            e.high = np.full(shape[2], 5)
        form = lanes16(e, 0x7FFF, e.residual_channels)
        assert form is not None
        at = s.b.epilogue(
            bdn.DType.I16,
            shift=shift,
            residual_channels=e.residual_channels,
            mul=np.frombuffer(pack_lanes16(form), np.uint8),
        )
        outs = [s.map(shape, DType.I16, "out"), s.map(shape, levels, "out") if levels else None]
        s.b.step(
            None, xs, outs, shape, epilogue="bd_epilogue_i16__lanes16", epilogue_at=at, acc_dtype=CODES[_TYPES[acc]]
        )  # fmt: skip


def _forms3(s: _Steps, rng: np.random.Generator) -> None:
    weights, low = draw(rng, (32, 3, 3, 1), DType.BIT), rng.integers(-9, 10, 32)
    shape = (3, 4, 32)
    window = {"kernel_h": 3, "kernel_w": 3, "pad_top": 1, "pad_left": 1, "weight_planes": 1, "groups": 32}
    for letter, x in (("b", DType.BIT), ("t", DType.TRIT)):
        for out, suffix in ((DType.BIT, "forms3"), (DType.I8, "forms3"), (DType.U8, "forms3"), (DType.I8, "forms3n")):
            blob = pack_forms3(weights, low if out is DType.BIT else None, trits=x is DType.TRIT)
            y = s.map(shape, out, suffix if out is not DType.BIT else "out")
            s.b.tensors[y]["order"] = int(out is not DType.BIT and suffix == "forms3")
            acc = bdn.DType.U8 if out is DType.U8 else bdn.DType.I8
            kernel = f"bd_dw_{letter}b_{out.value}__{suffix}"
            s.b.step(kernel, [s.map(shape, x, "in0")], [y], shape, weights=blob, acc_dtype=acc, **window)


def _pointwise(s: _Steps, rng: np.random.Generator) -> None:
    shape = (2, 3, 6)
    for name in _FUNCTIONS:
        s.add(f"bd_{name}_f32", [(shape, DType.F32)], shape, DType.F32)
    for name, x, out, count in (
        ("q_i8", "q", DType.I8, 256),
        ("q_i16", "q", DType.I16, 256),
        ("h_i16", "h", DType.I16, 257),
    ):
        s.add(f"bd_lut_{name}", [(shape, LETTERS[x])], shape, out, weights=draw(rng, (count,), out))
    s.add("bd_softmax_f32", [(shape, DType.F32)], shape, DType.F32)
    scale = np.array([0, 1 << 15, 1 << 15, 14], np.uint32).tobytes()
    table = (32767 * 2.0 ** -(np.arange(257) / 256)).astype(np.int16).tobytes() + bytes(2)
    for x in "qhi":
        for out in (DType.I16, DType.I8):
            weights = np.frombuffer(scale + table, np.uint8)
            s.add(f"bd_softmax_{x}_{out.value}", [(shape, _TYPES[x])], shape, out, weights=weights)
    for kind, more in (("layer", {}), ("group", {"groups": 2, "kind": bdn.Kind.WHOLE, "rows_per_call": 2})):
        for name, x, out in (("f32", "f", DType.F32), ("h_i16", "h", DType.I16), ("q_i16", "q", DType.I16)):
            parameters = np.array([1e-5], np.float32) if x == "f" else np.array([12, 1, 0], np.uint32)
            s.add(
                f"bd_{kind}_norm_{name}", [(shape, LETTERS[x])], shape, out, weights=parameters.view(np.uint8), **more
            )
    for x in "fhq":
        limits = draw(rng, (2, 6), LETTERS[x])
        s.add(f"bd_clamp_{_NAMES[x]}", [(shape, LETTERS[x])], shape, LETTERS[x], weights=limits)
    for pair in ("ff", "hh", "hq", "qh", "qq"):
        out = DType.F32 if pair == "ff" else DType.I32
        for second in (shape, (1, 1, 6)):
            maps = [(shape, LETTERS[pair[0]]), (second, LETTERS[pair[1]])]
            s.add(f"bd_mul_{pair}_{out.value}", maps, shape, out)
    for x in "fuqh":
        out = DType.F32 if x == "f" else DType.I32
        constant = draw(rng, shape, DType.F32 if x == "f" else DType.I16)
        s.add(f"bd_add_map_{x}_{out.value}", [(shape, LETTERS[x])], shape, out, weights=constant)
        if x != "u":
            s.add(f"bd_mul_map_{x}_{out.value}", [(shape, LETTERS[x])], shape, out, weights=constant)


def _reductions(s: _Steps) -> None:
    shape = (2, 4, 6)
    over_map = {"kind": bdn.Kind.ACCUMULATE}
    for x in "fhqu":
        dtype, wide = LETTERS[x], DType.F32 if x == "f" else DType.I32
        s.add(f"bd_gap_{x}_{wide.value}", [(shape, dtype)], (1, 1, 6), wide, **over_map)
        s.add(f"bd_map_max_{dtype.value}", [(shape, dtype)], (1, 1, 6), dtype, **over_map)
        s.add(f"bd_channel_max_{dtype.value}", [(shape, dtype)], (2, 4, 1), dtype)
        s.add(f"bd_channel_sum_{x}_{wide.value}", [(shape, dtype)], (2, 4, 1), wide)
    s.add("bd_map_sum_f_f32", [(shape, DType.F32)], (1, 1, 6), DType.F32, **over_map)
    for x in "fhq":
        dtype = LETTERS[x]
        s.add(f"bd_avgpool_{dtype.value}", [(shape, dtype)], (1, 2, 6), dtype, kernel_h=2, kernel_w=3)
        s.add(f"bd_group_mean_{dtype.value}", [(shape, dtype)], (2, 4, 3), dtype)
    for x in "fihq":
        s.add(f"bd_repeat_{_TYPES[x].value}", [(shape, _TYPES[x])], (2, 4, 18), _TYPES[x])


def _epilogues(s: _Steps) -> None:
    """Alone, with repeats and with a residual that is one pixel; thresholds of 32 bits."""
    b, shape = s.b, (2, 3, 20)
    for dtype, number in ((DType.F32, np.float32), (DType.I16, np.int32), (DType.I8, np.int32)):
        arrays = {n: np.ones(40, number) for n in ("mul", "add", "residual_mul", "positive", "negative", "low", "high")}
        at = b.epilogue(CODES[dtype], residual_channels=7, repeats=1, **arrays)
        inputs = [s.map(shape, dtype, "in0"), s.map((1, 1, 7), dtype, "vector")]
        outputs: list[int | None] = [s.map((2, 3, 40), dtype, "out"), s.map((2, 3, 40), DType.TRIT, "out")]
        b.step(
            None, inputs, outputs, shape, epilogue=f"bd_epilogue_{dtype.value}", epilogue_at=at, acc_dtype=CODES[dtype]
        )
    for packed in (DType.BIT, DType.TRIT, DType.UBIT):  # as accumulators and as residual
        ones = {n: np.ones(40, np.int32) for n in ("mul", "add", "residual_mul")}
        at = b.epilogue(bdn.DType.I8, residual_channels=20, repeats=1, **ones)
        inputs = [s.map(shape, packed, "in0"), s.map(shape, packed, "in1")]
        b.step(
            None, inputs, [s.map((2, 3, 40), DType.I8, "out")], shape,
            epilogue="bd_epilogue_i8", epilogue_at=at, acc_dtype=bdn.DType.I8,
        )  # fmt: skip
    at = b.epilogue(bdn.DType.I32, low=np.ones(20, np.int32))
    outputs = [s.map(shape, DType.I32, "out"), s.map(shape, DType.UBIT, "out")]
    b.step(
        None, [s.map(shape, DType.I16, "in0")], outputs, shape,
        epilogue="bd_epilogue_i32", epilogue_at=at, acc_dtype=bdn.DType.I16,
    )  # fmt: skip


def _records(s: _Steps) -> None:
    """Epilogues as records: two outputs and a residual that is one pixel of fewer channels; a residual as a map."""
    shape, channels = (2, 3, 40), 40
    for dtype in (DType.I16, DType.I8):
        for packing in (QUAD, WORD):
            for own, size, packed in ((20, (1, 1), DType.TRIT), (40, (2, 3), DType.BIT)):
                maps = [PlanTensor([], 2, 3, channels, DType.I16), PlanTensor([], *size, own, dtype)]
                ones = {n: np.ones(channels, np.int64) for n in ("mul", "add", "low")}
                e = Epilogue(dtype, residual_mul=np.full(channels, 40000), residual_channels=own, **ones)
                e.high = ones["low"] if packed is DType.TRIT else None
                name = f"bd_epilogue_{dtype.value}"
                step = PlanStep(None, name, [], maps, None, None, shape, dtype, epilogue=e)
                blob = np.frombuffer(packing.pack(step), np.uint8)
                at = s.b.epilogue(CODES[dtype], residual_channels=own, mul=blob)
                outputs: list[int | None] = [s.map(shape, dtype, "out"), s.map(shape, packed, "out")]
                inputs = [
                    s.map(shape, DType.I16, "in0"),
                    s.map((*size, own), dtype, "in1" if size != (1, 1) else "vector"),
                ]
                s.b.step(
                    None, inputs, outputs, shape, epilogue=f"{name}__{packing.suffix}", epilogue_at=at,
                    acc_dtype=CODES[dtype],
                )  # fmt: skip


def rest_of_kernels() -> Bdn:
    """One step of every other kernel, from arena to arena."""
    rng = np.random.default_rng(4)
    steps = _Steps()
    _products(steps, rng)
    _tile16(steps, rng)
    _forms3(steps, rng)
    _planes(steps, rng)
    _lut7(steps, rng)
    _lanes16(steps, rng)
    _pointwise(steps, rng)
    _reductions(steps)
    _epilogues(steps)
    _records(steps)
    return steps.b
