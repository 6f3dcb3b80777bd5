"""Data, packing and judges of the kernels in ``runtime/bench``; the judges are the references of ``bdnet_deploy.graph``.

A case is one layer with random or extreme data. It lays out weights and parameters as the kernel's packing wants them, makes
the calls, and compares what the rows hold afterwards with the reference, byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from row_build import Call, Program, Result
from row_memory import ABSENT, BIT, I8, I16, TRIT, U8, Bytes, Map, Memory, bd_epilogue, bd_step, pack_planes

from bdnet_deploy.graph.dtypes import Array, DType, TensorType
from bdnet_deploy.graph.op import Op
from bdnet_deploy.graph.ops.binarize import Ternarize
from bdnet_deploy.graph.ops.convolution import Conv2d
from bdnet_deploy.graph.ops.pointwise import Affine, TwoSlope

Ints = npt.NDArray[np.int64]

CHANNEL = np.arange(32)
#: Order of channels in a word: channel c % 32 is bit ORDERS[order][c % 32].
ORDERS = {0: CHANNEL, 1: 8 * np.array([0, 2, 1, 3])[CHANNEL % 4] + CHANNEL // 4}


def byte_order(order: int) -> Ints:
    """Where a bit-sliced kernel leaves channel c of 32: bit 8j + q becomes byte 4q + j."""
    bit = ORDERS[order]
    return np.asarray(4 * (bit % 8) + bit // 8)


def reference(op: Op, types: list[TensorType], arrays: list[Array]) -> Array:
    return op.reference(types, arrays, op.infer(types))


def trit_planes(x: Array) -> npt.NDArray[np.bool_]:
    """(H, W, C) trits to planes (H, 2, W, C): a is x < 0, b is x < 1."""
    return np.stack([x < 0, x < 1], axis=1)


@dataclass(frozen=True)
class Outcome:
    """``bad``: bytes that differ from the reference, or were written outside of what the kernel may write, of ``compared``."""

    bad: int
    compared: int
    instructions: int
    stack: int


@dataclass
class Case:
    """A kernel's call with everything laid out; ``outputs`` are maps and the bytes that some rows must hold afterwards."""

    kernel: str
    memory: Memory
    arguments: tuple[int, ...]
    check_arguments: tuple[int, ...]
    outputs: list[tuple[Map, dict[int, Bytes]]]

    def judge(self, result: Result) -> Outcome:
        bad = self.memory.stray_writes(result.memory) + (result.returned != 0)
        compared = 0
        for made, rows in self.outputs:
            for y, want in rows.items():
                bad += int(np.count_nonzero(made.row(result.memory, y) != want))
                compared += want.size
        return Outcome(bad, compared, result.instructions, result.stack)


def run_all(program: Program, cases: Sequence[Case]) -> list[Outcome]:
    """Outcomes of several cases in one emulator process."""
    results = program.call([Call(c.kernel, c.arguments, c.memory.content) for c in cases])
    return [case.judge(result) for case, result in zip(cases, results, strict=True)]


def check_all(program: Program, cases: Sequence[Case], constants_size: int | None = None) -> list[int]:
    """What the kernels' own checks return, for constants of another size where one is given."""
    calls = []
    for case in cases:
        step, constants, size, *rest = case.check_arguments
        size = size if constants_size is None else constants_size
        calls.append(Call(case.kernel, (step, constants, size, *rest), case.memory.content, check=True))
    return [result.returned for result in program.call(calls)]


@dataclass(frozen=True)
class Rows:
    """Which rows a call makes, of a map of how many, and how many are held (all, or a ring)."""

    height: int = 5
    y0: int = 2
    rows: int = 1
    ring: bool = False

    @property
    def made(self) -> range:
        return range(self.y0, self.y0 + self.rows)

    def needed(self, border: int = 0) -> range:
        return range(max(0, self.y0 - border), min(self.height, self.y0 + self.rows + border))

    def held(self, border: int = 0) -> int:
        return min(self.height, self.rows + 2 * border) if self.ring else self.height


MIDDLE = Rows()


def _case(
    kernel: str,
    memory: Memory,
    step: bytes,
    constants: bytes,
    ins: list[Map],
    outs: list[Map],
    rows: Rows,
    scratch: int,
    wanted: list[Bytes],
) -> Case:
    places = [memory.place(step), memory.place(constants)]
    views = [memory.place(b"".join(m.view for m in maps)) for maps in (ins, outs)]
    arguments = (*places, *views, rows.y0, rows.rows, memory.place(scratch, writable=True))
    checked = (*places, len(constants), *views, memory.place(4, writable=True))
    outputs = [(made, {y: want[y] for y in rows.made}) for made, want in zip(outs, wanted, strict=True)]
    return Case(kernel, memory, arguments, checked, outputs)


def _rows_of(x: Array, dtype: str) -> Bytes:
    """(H, W, C) to rows of bytes."""
    return np.ascontiguousarray(x.astype(dtype)).view(np.uint8).reshape(x.shape[0], -1)


# --- point-wise ------------------------------------------------------------------------------------------------------

LUT_GROUPS = (7, 6, 6, 7, 6, 6, 7, 6, 6, 7)
LUT_STARTS = (0, 128, 192, 0, 128, 192, 0, 128, 192, 0)  # first entry in the block of 256


def pack_lut7(weights: Array, order: Ints) -> bytes:
    """Binary weights (O, C) in {-1, 1} to ``[C / 64][O][10]`` index bytes, for inputs packed in this order."""
    outputs, channels = weights.shape
    bits = np.zeros((outputs, channels), np.int64)
    at = np.arange(channels)
    bits[:, at // 32 * 32 + order[at % 32]] = weights < 0
    slabs = bits.reshape(outputs, channels // 64, 64).transpose(1, 0, 2)
    packed = np.zeros((channels // 64, outputs, len(LUT_GROUPS)), np.int64)
    first = 0
    for i, (size, start) in enumerate(zip(LUT_GROUPS, LUT_STARTS, strict=True)):
        packed[..., i] = (slabs[..., first : first + size] << np.arange(size)).sum(-1) + start
        first += size
    return packed.astype(np.uint8).tobytes()


def pointwise(
    rng: np.random.Generator,
    *,
    channels: int = 64,
    outputs: int = 128,
    width: int = 28,
    rows: Rows = MIDDLE,
    order: int = 0,
    extreme: str = "",
) -> Case:
    """``bd_conv_bb_i16__lut7``; extreme: "equal" or "different" makes every input equal to the weights or their opposite."""
    x = rng.choice(np.array([-1, 1], np.int8), (1, rows.height, width, channels))
    w = rng.choice(np.array([-1, 1], np.int8), (outputs, 1, 1, channels))
    if extreme:
        w[:] = w[0]
        x[:] = w[0, 0, 0] if extreme == "equal" else -w[0, 0, 0]
    types = [TensorType(x.shape, DType.BIT), TensorType(w.shape, DType.BIT)]
    counts = (channels - reference(Conv2d(), types, [x, w])[0]) // 2

    memory = Memory()
    bits = pack_planes((x[0] < 0)[:, None], ORDERS[order])
    packed = pack_lut7(w.reshape(outputs, channels), ORDERS[order])
    shape = (rows.height, width, outputs)
    step = bd_step(shape, groups=1, kernel=1, acc_dtype=I16, weights=(0, len(packed)), epilogue_at=ABSENT)
    source = Map(
        memory, (rows.height, width, channels), BIT, bits, held=rows.held(), present=rows.needed(), order=order
    )
    made = Map(memory, shape, I16, _rows_of(counts, "<i2"), held=rows.rows, writable=True)
    scratch = (896 + 64) * 4
    wanted = [_rows_of(counts, "<i2")]
    return _case("bd_conv_bb_i16__lut7", memory, step, packed, [source], [made], rows, scratch, wanted)


# --- depth-wise ------------------------------------------------------------------------------------------------------


def pack_forms3(weights: Array, order: Ints) -> bytes:
    """Binary weights (C, 3, 3) in {-1, 1} to ``[C / 32][column][3]`` words: w0 ^ w1, w0 ^ w2, w0 ^ w1 ^ w2 of a column."""
    planes = pack_planes((weights < 0).transpose(1, 2, 0)[None].reshape(1, 9, 1, -1), order).view("<u4")
    w = planes.reshape(3, 3, -1)
    forms = np.stack([w[0] ^ w[1], w[0] ^ w[2], w[0] ^ w[1] ^ w[2]], axis=1)  # column, form, word
    return forms.transpose(2, 0, 1).astype("<u4").tobytes()


def depthwise(
    rng: np.random.Generator,
    *,
    channels: int = 128,
    width: int = 28,
    rows: Rows = MIDDLE,
    order: int = 1,
    raw: bool = False,
    extreme: str = "",
) -> Case:
    """``bd_dw_tb_i8__forms3``, or with ``raw`` the counts of ``bd_dw_tb_u8__forms3``."""
    x = rng.integers(-1, 2, (1, rows.height, width, channels)).astype(np.int8)
    w = rng.choice(np.array([-1, 1], np.int8), (channels, 3, 3, 1))
    if extreme:
        x[:] = {"equal": 1, "different": -1, "zero": 0}[extreme]
        w[:] = 1
    conv = Conv2d(padding=(1, 1, 1, 1), groups=channels)
    acc = reference(conv, [TensorType(x.shape, DType.TRIT), TensorType(w.shape, DType.BIT)], [x, w])[0]

    memory = Memory()
    planes = pack_planes(trit_planes(x[0]), ORDERS[order])
    packed = pack_forms3(w[..., 0], ORDERS[order])
    shape, dtype = (rows.height, width, channels), U8 if raw else I8
    step = bd_step(shape, groups=channels, kernel=3, acc_dtype=dtype, weights=(0, len(packed)), epilogue_at=ABSENT)
    source = Map(memory, shape, TRIT, planes, held=rows.held(1), present=rows.needed(1), order=order)
    want = _rows_of(_permuted(9 - acc if raw else acc, order), "u1" if raw else "i1")
    made = Map(memory, shape, dtype, want, held=rows.rows, order=order, writable=True)
    kernel = f"bd_dw_tb_{'u8' if raw else 'i8'}__forms3"
    scratch = (width + 2) * 24 + planes.shape[1]
    return _case(kernel, memory, step, packed, [source], [made], rows, scratch, [want])


def _permuted(x: Array, order: int) -> Array:
    """Channels (..., C) in the order in which bit-sliced kernels leave them."""
    blocks = x.reshape(*x.shape[:-1], -1, 32)
    out = np.empty_like(blocks)
    out[..., byte_order(order)] = blocks
    return out.reshape(x.shape)


# --- epilogue --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """What a specialised epilogue relies on: whole parts of the residual's factor, slopes, and whether v may saturate."""

    keep: str = "mask"  # "none", "all" or "mask": k = 0, k = 1 or per channel
    slopes: str = "mask"  # "none": in [-1/2, 1/2); "unit": in [0, 1]; "mask": in [-1/2, 3/2)
    residual_factor: bool = True  # False: the factor is 1 exactly
    saturate: bool = True


FORMS = {
    "quad": Form(),
    "quad_k1": Form(keep="all", slopes="none"),
    "quad_k0": Form(keep="none", slopes="none", saturate=False),
    "quad_one": Form(keep="all", slopes="none", residual_factor=False),
    "word": Form(),
    "word_k1": Form(keep="all", slopes="unit"),
    "word_u8": Form(),
    "word_u8_k1": Form(keep="all", slopes="unit"),
    "word_u8_k1_fits": Form(keep="all", slopes="unit", saturate=False),
    "word_u8_k0": Form(keep="none", slopes="unit", saturate=False),
    "word_u8_one": Form(keep="all", slopes="unit", residual_factor=False),
    "word_u8_one_fits": Form(keep="all", slopes="unit", residual_factor=False, saturate=False),
}


@dataclass(frozen=True)
class Parameters:
    """Per-channel parameters; factors with 16 fractional bits, ``mul`` without the left shift."""

    mul: Ints
    residual_mul: Ints
    add: Ints
    slope: Ints
    low: Ints
    high: Ints


def parameters(rng: np.random.Generator, form: Form, channels: int) -> Parameters:
    """Random parameters within the form's conditions, with the extremes in the first channels."""

    def pick(low: int, high: int) -> Ints:
        values = rng.integers(low, high + 1, channels)
        values[:2] = low, high
        return values

    whole = {"none": 0, "all": 65536}.get(form.keep, 65536 * rng.integers(0, 2, channels))
    residual = pick(-32768, 32767) if form.residual_factor else np.zeros(channels, np.int64)
    # |acc << 11| <= 18432: these ranges keep every sum within 32 bits, the condition of the fixed form.
    slope = {
        "none": pick(-32768, 32767),
        "unit": pick(0, 65536),
        "mask": pick(-32768, 32767) + 65536 * rng.integers(0, 2, channels),
    }[form.slopes]
    thresholds = np.sort(rng.integers(-30000, 30000, (2, channels)), axis=0)
    thresholds[:, :3] = [[-32768, 32767, 0], [32767, 32767, 0]]
    add = rng.integers(-(1 << 28), 1 << 28, channels)
    return Parameters(pick(-32768, 32767), residual + whole, add, slope, thresholds[0], thresholds[1])


def pack_quad(p: Parameters, form: Form) -> bytes:
    """Records of two channels for packed SIMD, then the thresholds of four channels a record."""

    def pair(x: Ints) -> Ints:
        halves = x.reshape(-1, 2) & 0xFFFF
        return np.asarray(halves[:, 0] | halves[:, 1] << 16)

    def whole(x: Ints) -> tuple[Ints, Ints]:
        part = ((x & 0xFFFF) ^ 0x8000) - 0x8000
        return part, -((x - part) >> 16)

    (residual, keep), (negative, keep_negative) = whole(p.residual_mul), whole(p.slope)
    words = [pair(p.mul), p.add[::2], p.add[1::2]]
    words += [pair(residual)] if form.residual_factor else []
    words += [pair(negative)]
    words += [pair(keep)] if form.keep == "mask" else []
    words += [pair(keep_negative)] if form.slopes == "mask" else []
    limits = [pair(p.low).reshape(-1, 2), pair(p.high).reshape(-1, 2)]
    both = [np.stack(words, axis=1), np.concatenate(limits, axis=1)]
    return b"".join((part & 0xFFFFFFFF).astype("<u4").tobytes() for part in both)


def pack_word(p: Parameters, form: Form, shift: int, raw: bool) -> bytes:
    """Records of one channel, then thresholds in descending order within 32; counts n stand for 9 - n."""
    mul, add = p.mul << shift, p.add
    if raw:
        mul, add = -mul, add + 9 * mul
    residual = ((p.residual_mul & 0xFFFF) ^ 0x8000) - 0x8000
    negative = ((p.slope & 0xFFFF) ^ 0x8000) - 0x8000
    keep, keep_negative = (residual - p.residual_mul) >> 16, (negative - p.slope) >> 16
    if form.slopes == "unit":
        negative, keep_negative = p.slope - 65536, 0 * keep_negative
    words = [mul]
    words += [residual] if form.residual_factor else []
    words += [add]
    words += [keep] if form.keep == "mask" else []
    words += [negative]
    words += [keep_negative] if form.slopes == "mask" else []
    limits = np.stack([p.low, p.high], axis=1).reshape(-1, 32, 2)[:, ::-1] + 32768
    both = [np.stack(words, axis=1), limits]
    return b"".join((part & 0xFFFFFFFF).astype("<u4").tobytes() for part in both)


def epilogue(
    rng: np.random.Generator,
    variant: str,
    *,
    channels: int = 128,
    width: int = 28,
    rows: Rows = MIDDLE,
    shift: int = 11,
    extreme: str = "",
    in_place: bool = False,
) -> Case:
    """``bd_epilogue_i16__<variant>``: accumulators of -9 .. 9, residual and trunk int16."""
    form, order, raw = FORMS[variant], 1 if variant.startswith("quad") else 0, "u8" in variant
    p = parameters(rng, form, channels)
    shape = (rows.height, width, channels)
    acc = rng.integers(-9, 10, shape)
    limit = 32767 if form.saturate or form.keep == "none" else 16000
    residual = rng.integers(-limit - 1, limit + 1, shape)
    if extreme:
        sign = 1 if extreme == "high" else -1
        acc[:], residual[:] = 9 * sign, (limit if sign > 0 else -limit - 1)
    if not form.saturate and form.keep != "none":
        p = replace(p, mul=p.mul // 2, add=p.add // 8)
    value = _affine_slope(p, acc, residual, shift)

    memory = Memory()
    packed = pack_quad(p, form) if order else pack_word(p, form, shift, raw)
    constants = bd_epilogue(records=48, shift=shift, channels=channels).ljust(48, b"\0") + packed
    dtype = U8 if raw else I8
    step = bd_step(shape, groups=channels, kernel=3, acc_dtype=dtype, weights=(ABSENT, 0), epilogue_at=0)
    counts = _rows_of(_permuted(9 - acc if raw else acc, order), "u1" if raw else "i1")
    trunk, bits = _rows_of(value, "<i2"), pack_planes(trit_planes(_ternarize(value, p)), ORDERS[order])
    held = rows.held(1)
    source = Map(memory, shape, dtype, counts, held=rows.rows, present=rows.made, order=order)
    added = Map(memory, shape, I16, _rows_of(residual, "<i2"), held=held, present=rows.made, gap=4, writable=in_place)
    made = added if in_place else Map(memory, shape, I16, trunk, held=held, writable=True)
    planes = Map(memory, shape, TRIT, bits, held=held, order=order, writable=True)
    kernel = f"bd_epilogue_i16__{variant}"
    return _case(kernel, memory, step, constants, [source, added], [made, planes], rows, 16, [trunk, bits])


def _affine_slope(p: Parameters, acc: Ints, residual: Ints, shift: int) -> Array:
    shape = (1, *acc.shape)
    channels = TensorType((acc.shape[-1],), DType.I32)
    terms = [TensorType(shape, DType.I8), TensorType(shape, DType.I16)]
    factors = [p.mul.astype(np.int32), p.residual_mul.astype(np.int32), p.add.astype(np.int32)]
    affine = Affine(terms=2, out=DType.I16, shifts=(shift, 0))
    v = reference(affine, [*terms, *[channels] * 3], [acc[None], residual[None], *factors])
    ones = np.full_like(factors[0], 65536)
    slope = p.slope.astype(np.int32)
    return reference(TwoSlope(out=DType.I16), [TensorType(shape, DType.I16), channels, channels], [v, ones, slope])[0]


def _ternarize(value: Array, p: Parameters) -> Array:
    types = [TensorType((1, *value.shape), DType.I16), *[TensorType((value.shape[-1],), DType.I32)] * 2]
    return reference(Ternarize(), types, [value[None], p.low, p.high])[0]
