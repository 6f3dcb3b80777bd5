"""Small ``.tflite`` files for the tests of the importer, and their comparison with Larq Compute Engine's interpreter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from flatbuffers import flexbuffers

from bdnet_deploy.errors import MissingPackageError
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.export.tflite.builder import F32, I32, Builder
from bdnet_deploy.export.tflite.flatbuffer import to_bytes
from bdnet_deploy.export.tflite.packing import pack, words
from bdnet_deploy.export.tflite.schema import Model, Operator, TensorKind
from bdnet_deploy.host import HostModel
from bdnet_deploy.importers.tflite.reader import Imported, read
from bdnet_deploy.lowering import lower
from bdnet_deploy.peers import lce


class File:
    """A model that grows: one input ``x``, operators, outputs."""

    def __init__(self, *shape: int, seed: int = 0, kind: TensorKind = F32, scale: float | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        self.model = Model(description="test")
        self.b = Builder(self.model)
        self.x = self.b.tensor("x", shape, kind, scale)
        self.model.inputs.append(self.x)

    def shape(self, index: int) -> tuple[int, ...]:
        return self.b.shape(index)

    def floats(self, *shape: int) -> int:
        return self.b.constant("c", self.rng.normal(size=shape).astype(np.float32))

    def ints(self, *values: object) -> int:
        return self.b.constant("i", np.array(values[0] if len(values) == 1 else values, np.int32))

    def op(self, kind: str, inputs: Sequence[int], shape: Sequence[int], **options: object) -> int:
        """A built-in operator with one float output of that shape."""
        return self.b.op(kind, inputs, self.b.tensor(f"{kind.lower()}", shape), **options)  # type: ignore[arg-type]

    def bits(self, x: int) -> int:
        return self.b.lce_quantize(x, "bits")

    def signs(self, *shape: int) -> np.ndarray:
        return self.rng.choice(np.array([-1, 1], np.int8), shape)

    def bconv(
        self, x: int, channels: int, outputs: int, kernel: tuple[int, int] = (3, 3), *, groups: int = 1,
        threshold: np.ndarray | None = None, out: tuple[TensorKind, float] | None = None, **options: object,
    ) -> int:  # fmt: skip
        """LceBconv2d with random weights: float output, bits with ``threshold``, or ``out`` (int8, scale)."""
        b = self.b
        weights = b.constant("w", pack(self.signs(outputs, *kernel, channels // groups)))
        strides, dilation = options.get("strides", (1, 1)), options.get("dilation", (1, 1))
        _, h, w, _ = self.shape(x)
        size = []
        for n, k, s, d in zip((h, w), kernel, strides, dilation):  # type: ignore[call-overload]
            size.append(-(-n // s) if options.get("padding") == 0 else (n - (k - 1) * d - 1) // s + 1)
        if threshold is not None:
            y = b.tensor("y", (1, *size, words(outputs)), I32)
            given = {"threshold": b.constant("t", threshold.astype(np.int32))}
        else:
            y = b.tensor("y", (1, *size, outputs), *(out or (F32,)))
            given = {"multiplier": self.floats(outputs), "bias": self.floats(outputs)}
        return b.lce_bconv2d(x, weights, y, channels, **given, **options)  # type: ignore[arg-type]

    def bmax_pool(self, x: int, kernel: tuple[int, int], strides: tuple[int, int], padding: int) -> int:
        _, h, w, c = self.shape(x)
        size = [
            -(-n // s) if padding == 0 else (n - k) // s + 1 for n, k, s in zip((h, w), kernel, strides, strict=True)
        ]
        options = {"filter_height": kernel[0], "filter_width": kernel[1], "padding": padding}
        options |= {"stride_height": strides[0], "stride_width": strides[1]}
        y = self.b.tensor("pool", (1, *size, c), I32)
        custom = bytes(flexbuffers.Dumps(options))
        self.model.operators.append(Operator("LceBMaxPool2d", (x,), (y,), custom_options=custom))
        return y

    def unpacked(self, x: int, channels: int) -> int:
        return self.b.lce_dequantize(x, channels, F32, "unpacked")

    def done(self, *outputs: int) -> bytes:
        self.model.outputs = list(outputs)
        return to_bytes(self.model)


def samples(imported: Imported, n: int = 3, seed: int = 1) -> np.ndarray:
    """Inputs as the file takes them; many are exactly 0, which is where signs are decided."""
    port = imported.inputs[0]
    rng = np.random.default_rng(seed)
    if port.scale is not None:
        return rng.integers(-128, 128, (n, *port.shape[1:])).astype(port.dtype)
    x = rng.normal(size=(n, *port.shape[1:]))
    return np.where(rng.random(x.shape) < 0.1, 0.0, x).astype(np.float32)


def host(imported: Imported, x: np.ndarray) -> list[np.ndarray]:
    """The outputs of our float kernels, in the file's shapes and dtypes."""
    model = HostModel(write_bdn(lower(imported.graph, "float").plan))
    port = model.inputs[0]
    results = model.run(imported.inputs[0].decode(x).reshape(len(x), *port.shape))
    return [o.encode(r) for o, r in zip(imported.outputs, results, strict=True)]


def theirs(data: bytes, x: np.ndarray, mode: str = "default") -> list[np.ndarray]:
    """The outputs of Larq Compute Engine."""
    try:
        lce.find_interpreter()
    except MissingPackageError as error:
        pytest.skip(str(error))
    return lce.run(data, x, mode=mode)


def check(data: bytes, *, exact: bool = False, mode: str = "default", steps: int = 0) -> Imported:
    """Import, run and compare: equal, or within 1e-5 of the largest value, or ``steps`` units of integers."""
    imported = read(data, rounding=True)
    x = samples(imported)
    for got, expected in zip(host(imported, x), theirs(data, x, mode), strict=True):
        assert got.shape == expected.shape and got.dtype == expected.dtype
        assert np.ptp(expected.astype(np.float64)) > 0, "an output that is constant shows nothing"
        if got.dtype != np.float32:
            assert np.abs(got.astype(int) - expected.astype(int)).max() <= steps
        elif exact:
            assert np.array_equal(got, expected)
        else:
            assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
    return imported
