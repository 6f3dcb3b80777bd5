"""Random epilogues that the packings of Cortex-M take, in arrays and as records: geometry, tails, values at the ends of their ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from bdn_cases import CODES, Array, Bdn, draw

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.graph import DType
from bdnet_deploy.plan.packings.records import FITS, QUAD, WORD, Quad, Word
from bdnet_deploy.plan.plan import Epilogue, PlanStep, PlanTensor

PACKINGS: dict[str, Quad | Word] = {"quad": QUAD, "word": WORD}


@dataclass(frozen=True)
class Case:
    """The same step in arrays and as records, and the inputs of each."""

    what: str
    plain: bytes
    packed: bytes
    plain_inputs: list[Array]
    packed_inputs: list[Array]


def planes(values: Array) -> Array:
    """Accumulators (..., C) in order 1: channel c of 32 at 4 * (c % 8) + c / 8."""
    blocks = values.reshape(*values.shape[:-1], -1, 4, 8)
    return np.ascontiguousarray(blocks.swapaxes(-1, -2)).reshape(values.shape)


def _sums(e: Epilogue, acc: Array, residual: Array | None) -> Array:
    """v before it saturates."""
    assert e.mul is not None and e.add is not None
    x = acc.astype(np.int64)
    x = x << e.shift if e.shift >= 0 else np.clip(x >> -e.shift, -32768, 32767)
    total = x * e.mul + e.add
    if residual is not None and e.residual_mul is not None:
        repeated = np.tile(residual, -(-acc.shape[-1] // residual.shape[-1]))[..., : acc.shape[-1]]
        total = total + repeated.astype(np.int64) * e.residual_mul
    return total >> 16


def case(kernel: str, rng: np.random.Generator) -> Case:
    """One of ``bd_epilogue_i16__quad`` and the like."""
    produced = DType.I16 if "_i16_" in kernel else DType.I8
    packing = PACKINGS[kernel.partition("__")[2]]
    acc = [DType.I16, DType.I16, DType.I8, DType.I32, DType.U8][rng.integers(5)]
    width, height = int(rng.integers(1, 7)), int(rng.integers(1, 4))
    channels = int(rng.choice([8, 16, 24, 32, 64, 96, 40, 48, 56, 20, 12, 30, rng.integers(1, 100)]))
    if channels < 64 and rng.random() < 0.3:  # more pixels than one call of a loop has copies of residuals for
        width = int(rng.integers(7, 20))
    order = int(acc in (DType.I8, DType.U8) and channels % 32 == 0 and rng.random() < 0.7)
    shape = (height, width, channels)

    def numbers(low: int, high: int) -> Array:
        return rng.integers(low, high, channels, dtype=np.int64, endpoint=True)

    modest = rng.random() < 0.5  # so that v fits
    shift = -int(rng.integers(0, 20)) if acc is DType.I32 else int(rng.integers(0, 12 if acc is not DType.I16 else 5))
    e = Epilogue(produced, mul=numbers(-32768, 32767), add=numbers(-(2**29), 2**29), shift=shift)
    if modest:
        e.mul = numbers(-300, 300)
        e.shift = min(shift, 3)
    how = str(rng.choice(["random", "random", "random", "low", "high"]))
    values = [draw(rng, (1, *shape), acc, how)]
    residual = None
    if rng.random() < 0.75:
        factors = [np.full(channels, 65536), numbers(-32768, 32767), numbers(32768, 98303), numbers(-32768, 98303)]
        e.residual_mul = factors[rng.integers(4)]
        own = (
            channels
            if rng.random() < 0.5
            else int(rng.choice([rng.integers(1, channels + 1), max(1, channels // 2), 8 if channels > 8 else 1]))
        )
        halved = acc is DType.I16 and channels in (16, 32, 64, 96) and rng.random() < 0.6
        own = channels // 2 if halved else own  # what loops take in strips and in parts
        size = (1, 1) if rng.random() < 0.2 else (height, width)
        residual = draw(rng, (1, *size, own), produced, str(rng.choice(["random", "random", "low", "high"])))
        if modest and rng.random() < 0.8:
            residual = residual // 4
        values.append(residual)
        e.residual_channels = own
    if rng.random() < 0.8:
        steep = rng.random() < 0.3
        e.positive = np.full(channels, 65536)
        e.negative = numbers(-131071, 131071) if steep else numbers(-65535, 65536)
    packed_type = [None, DType.BIT, DType.TRIT, DType.UBIT][rng.integers(4)]
    if packed_type is not None:
        e.low = numbers(-32768, 32767)
    if packed_type is DType.TRIT:
        e.high = numbers(-32768, 32767)
    stored = packed_type is None or rng.random() < 0.8
    fits = produced is DType.I16 and bool(np.all(np.abs(_sums(e, values[0], residual) + 0.5) < 32768))

    def file(records: bool) -> bytes:
        b = Bdn()
        tensors = [
            b.tensor(v.shape[1:], CODES[d], bdn.Place.INPUT) for v, d in zip(values, (acc, produced), strict=False)
        ]
        if records and order:
            b.tensors[tensors[0]]["order"] = 1
        trunk = b.tensor(shape, CODES[produced], bdn.Place.OUTPUT) if stored else None
        bits = None if packed_type is None else b.tensor(shape, CODES[packed_type], bdn.Place.OUTPUT)
        common: dict[str, Any] = {"shift": e.shift, "residual_channels": e.residual_channels}
        if records:
            common["mul"] = np.frombuffer(blob, np.uint8)
        else:
            for name in bdn.EPILOGUE_ARRAYS:
                if getattr(e, name) is not None:
                    common[name] = getattr(e, name).astype(np.int32)
        at = b.epilogue(CODES[produced], **common)
        name = kernel if records else kernel.partition("__")[0]
        b.step(None, tensors, [trunk, bits], shape, epilogue=name, epilogue_at=at, acc_dtype=CODES[produced],
               rows_per_call=int(height))  # fmt: skip
        return b.write()

    maps = [
        PlanTensor([], v.shape[1], v.shape[2], v.shape[3], d) for v, d in zip(values, (acc, produced), strict=False)
    ]
    step = PlanStep(None, kernel.partition("__")[0], [], maps, None, None, shape, produced, epilogue=e)
    blob = packing.pack(step)
    form = int.from_bytes(blob[:4], "little")
    if fits and form & 7 in (1, 3) and rng.random() < 0.7:
        blob = bytes([blob[0] | FITS, *blob[1:]])
    packed_values = [planes(values[0]), *values[1:]] if order else values
    what = f"{kernel} {acc} order {order} {shape} residual {None if residual is None else residual.shape} form {form} {packed_type} {stored}"
    return Case(what, file(False), file(True), values, packed_values)
