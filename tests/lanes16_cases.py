"""Random epilogues that the packing ``lanes16`` takes, as files with that packing and with the general arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from bdn_cases import CODES, Array, Bdn, draw

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.graph import DType
from bdnet_deploy.passes.fixed_point import low_part
from bdnet_deploy.plan.packings.lanes16 import Lanes16, lanes16, pack_lanes16
from bdnet_deploy.plan.plan import Epilogue

INPUT, OUTPUT = bdn.Place.INPUT, bdn.Place.OUTPUT


@dataclass(frozen=True)
class Lanes16Case:
    """``shape`` of the accumulators; ``residual`` of the residual's map; ``packed`` output; ``trunk``: whether y is stored."""

    epilogue: Epilogue
    form: Lanes16
    shape: tuple[int, int, int]
    acc: DType
    residual: tuple[int, int, int] | None
    packed: DType | None
    trunk: bool
    rows: int
    inputs: list[Array]

    @property
    def what(self) -> str:
        e = self.epilogue
        return f"{self.form.residual!r} {self.form.slopes!r} {self.shape} {self.acc} {self.residual} {self.packed} {e.shift}"

    def file(self, packing: bool) -> bytes:
        """A file of this one step, with or without the packing."""
        b, e = Bdn(), self.epilogue
        xs = [b.tensor(self.shape, CODES[self.acc], INPUT)]
        if self.residual is not None:
            xs.append(b.tensor(self.residual, bdn.DType.I16, INPUT))
        trunk = b.tensor(self.shape, bdn.DType.I16, OUTPUT) if self.trunk else None
        packed = None if self.packed is None else b.tensor(self.shape, CODES[self.packed], OUTPUT)
        if packing:
            arrays = {"mul": np.frombuffer(pack_lanes16(self.form), np.uint8)}
        else:
            names = ("mul", "add", "residual_mul", "positive", "negative", "low", "high")
            arrays = {n: np.asarray(getattr(e, n), np.int32) for n in names if getattr(e, n) is not None}
        of = self.residual[2] if self.residual else 0
        at = b.epilogue(bdn.DType.I16, shift=e.shift, residual_channels=of, **arrays)
        name = "bd_epilogue_i16" + "__lanes16" * packing
        b.step(None, xs, [trunk, packed], self.shape, epilogue=name, epilogue_at=at, acc_dtype=CODES[self.acc],
               rows_per_call=self.rows)  # fmt: skip
        return b.write()


def _epilogue(rng: np.random.Generator, channels: int, residual: int, planes: int) -> Epilogue:
    def numbers(low: int, high: int) -> Array:
        ends = rng.random(channels) < 0.1
        some = rng.integers(low, high, channels, dtype=np.int64, endpoint=True)
        return np.where(ends, rng.choice([low, high], channels), some)

    steep = int(rng.choice([3000, 15000, 32767]))
    e = Epilogue(DType.I16, mul=numbers(-steep, steep), add=numbers(-(2**28), 2**28))
    if residual:
        kind = rng.integers(4)
        near = 65536 * rng.integers(-1, 2, channels) + numbers(-9000, 9000)
        e.residual_mul = (
            np.full(channels, 65536)
            if kind == 0
            else np.clip(near // 2 * 2, -65534, 65536)
            if kind == 1
            else numbers(-98301, 98301)
            if kind == 2
            else near
        )
        e.residual_channels = residual
    kind = rng.integers(5)
    if kind:
        e.positive = np.full(channels, 65536)
        e.negative = [None, numbers(-32768, 32768) * 2, numbers(-32767, 32767), numbers(0, 65535), None][kind]
    if kind == 4:
        e.positive = 65536 << rng.integers(0, 4, channels)
        whole = np.choose(rng.integers(0, 4, channels), [0, 1, 2, 4])
        whole = np.minimum(whole, e.positive // 65536 - 1)
        whole = np.where(whole == 3, 2, whole)
        e.negative = np.where(rng.random(channels) < 0.2, numbers(-32768, -1), whole * 65536 + numbers(0, 65535))
    if planes:
        e.low = numbers(-40000, 32767)
    if planes == 2:
        e.high = numbers(-32768, 32767)
    return e


def _wraps(e: Epilogue, most: int) -> bool:
    """Whether the general epilogue's sums could leave 32 bits: the exporter makes no such factors."""
    assert e.mul is not None and e.add is not None
    sums = np.abs(e.add) + most * np.abs(e.mul)
    if e.residual_mul is not None:
        sums = sums + 0x8000 * np.abs(low_part(e.residual_mul))
    return bool((sums >= 2**31).any())


def lanes16_case(rng: np.random.Generator) -> Lanes16Case:
    """Every form and dtype of accumulators, channels that fill blocks or not, values at their ends."""
    acc = [DType.I8, DType.I16, DType.I16, DType.I32][rng.integers(4)]
    channels = int(rng.choice([8, 8, 16, 16, 32, 48, 64, 80, 128, rng.integers(1, 41)]))
    height, width = int(rng.integers(1, 5)), int(rng.integers(1, 12)) if rng.random() < 0.9 else 70
    residual: tuple[int, int, int] | None = None
    if acc is not DType.I32 and rng.random() < 0.8:
        of = channels
        if channels % 16 == 0 and rng.random() < 0.3:
            of = int(rng.choice([8, 16, channels // 2 if channels % 32 == 0 else channels]))
        residual = (1, 1, of) if rng.random() < 0.15 else (height, width, of)
    planes = int(rng.integers(0, 3))
    shift = int(
        rng.integers(8, 15) if acc is DType.I8 else rng.integers(-3, 12) if acc is DType.I16 else -rng.integers(0, 20)
    )
    most = 0x8000 if acc is DType.I32 else min(0x7FFF >> max(shift, 0), 127 if acc is DType.I8 else 0x7FFF)
    form = None
    while form is None:
        e = _epilogue(rng, channels, residual[2] if residual else 0, planes)
        e.shift = shift
        if _wraps(e, most << max(shift, 0)):
            continue
        form = lanes16(e, most << max(shift, 0), residual[2] if residual else 0)
    packed = [None, [DType.BIT, DType.UBIT][rng.integers(2)], DType.TRIT][planes]
    how = str(rng.choice(["random", "random", "low", "high"]))
    x = draw(rng, (1, height, width, channels), acc, how)
    if acc is not DType.I32:
        x = np.clip(x, -most, most)
    inputs = [x]
    if residual is not None:
        inputs.append(draw(rng, (1, *residual), DType.I16, str(rng.choice(["random", how]))))
    trunk = packed is None or bool(rng.random() < 0.8)
    return Lanes16Case(
        e, form, (height, width, channels), acc, residual, packed, trunk, int(rng.integers(1, 5)), inputs
    )


def lanes16_step(kernel: str, rng: np.random.Generator) -> tuple[str, bytes, list[Array]]:
    """One case with the packing, for a comparison with its plain kernel."""
    case = lanes16_case(rng)
    return case.what, case.file(True), case.inputs
