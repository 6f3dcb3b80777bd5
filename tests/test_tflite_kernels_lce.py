"""The runtime's operators for TensorFlow Lite against the stock Larq Compute Engine, operator by operator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from flatbuffers import flexbuffers
from test_tflite_kernels import bconv_case, bconv_expected, conv, padding, pool_case, signs
from tflite_kernels import In, Out, RefusedError, run

from bdnet_deploy.errors import MissingPackageError
from bdnet_deploy.export.tflite.flatbuffer import to_bytes
from bdnet_deploy.export.tflite.packing import pack
from bdnet_deploy.export.tflite.schema import ABSENT, Model, Operator, Tensor, TensorKind
from bdnet_deploy.peers import PeerError, lce


def _available() -> bool:
    try:
        lce.find_interpreter()
    except MissingPackageError:
        return False
    return True


pytestmark = pytest.mark.skipif(not _available(), reason="larq-compute-engine cannot run here")
KINDS = {"f4": TensorKind.FLOAT32, "i4": TensorKind.INT32, "i1": TensorKind.INT8, "b1": TensorKind.BOOL}


@dataclass
class Case:
    """One operator: the first input is the model's, the others are constants."""

    name: str
    inputs: list[np.ndarray | In | None]
    out: Out
    options: dict[str, int]

    def ours(self) -> np.ndarray:
        return run(self.name, self.inputs, [self.out], self.options)[0]

    def file(self, shape: tuple[int, ...]) -> bytes:
        model, indices = Model(), []
        for i, given in enumerate(self.inputs):
            if given is None:
                indices.append(ABSENT)
                continue
            item = given if isinstance(given, In) else In(given)
            kind = KINDS[item.data.dtype.str[1:]]
            scale = np.array([item.scale], np.float32) if item.scale else None
            zero = np.array([item.zero_point]) if item.scale else None
            data = item.data if i else None
            model.tensors.append(Tensor(f"t{i}", item.data.shape, kind, data, scale, zero_point=zero))
            indices.append(len(model.tensors) - 1)
        scale = np.array([self.out.scale], np.float32) if self.out.scale else None
        zero = np.array([self.out.zero_point]) if self.out.scale else None
        model.tensors.append(Tensor("y", shape, KINDS[str(self.out.dtype)], None, scale, zero_point=zero))
        y = len(model.tensors) - 1
        custom = bytes(flexbuffers.Dumps(self.options)) if self.options else b""
        model.operators = [Operator(self.name, tuple(indices), (y,), custom_options=custom)]
        model.inputs, model.outputs = [0], [y]
        return to_bytes(model)

    def sample(self) -> np.ndarray:
        first = self.inputs[0]
        assert first is not None
        return first.data if isinstance(first, In) else first


def check(cases: list[Case], mode: str) -> None:
    ours = [case.ours() for case in cases]
    theirs = lce.run_many([(c.file(y.shape), c.sample()) for c, y in zip(cases, ours, strict=True)], mode=mode)
    for case, a, (b,) in zip(cases, ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=f"{case.name} {case.options} {case.out}")


def lce_takes(inputs: list[np.ndarray | None], out: Out, o: dict[str, int], mode: str) -> bool:
    """Whether Larq's kernels of that mode are right: the list of what they are not."""
    x, w = inputs[:2]
    assert x is not None and w is not None
    grouped = w.shape[3] != x.shape[3]
    zeros = o["padding"] == 0 and o["pad_values"] == 0
    if x.shape[0] != 1 or (grouped and mode == "default"):
        return False  # its Python interpreter runs batches of one
    if not zeros:
        return True
    # Optimized: float without activation only, and another order of float additions. Reference: halves are rounded.
    return mode == "reference" and o["channels_in"] % 2 == 0 and out.dtype != "i4"


def bconv_cases(seeds: range, mode: str) -> list[Case]:
    cases = []
    for seed in seeds:
        inputs, out, o, _ = bconv_case(seed)
        if lce_takes(inputs, out, o, mode):
            cases.append(Case("LceBconv2d", list(inputs), out, o))
    return cases


@pytest.mark.parametrize("mode", lce.MODES)
def test_bconv2d(mode: str) -> None:
    cases = bconv_cases(range(1000, 1500), mode)
    assert len(cases) > 60
    check(cases, mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", lce.MODES)
def test_thousands_of_bconv2d(mode: str) -> None:
    for start in range(10000, 20000, 1000):
        check(bconv_cases(range(start, start + 1000), mode), mode)


def test_zero_padding_where_larq_is_right() -> None:
    """The map is no smaller than the filter; factors are powers of two, so that any order of additions is exact."""
    rng, cases = np.random.default_rng(3), []
    for _ in range(40):
        channels, outputs, k = int(rng.choice([2, 32, 34, 64])), int(rng.integers(1, 40)), int(rng.choice([1, 3, 5]))
        o = {"channels_in": channels, "padding": 0, "pad_values": 0, "fused_activation_function": 0}
        o |= {"stride_height": int(rng.integers(1, 3)), "stride_width": int(rng.integers(1, 3))}
        o |= {"dilation_height_factor": 1, "dilation_width_factor": 1}
        x, w = signs(rng, 1, *rng.integers(k + 1, k + 6, 2), channels), signs(rng, outputs, k, k, channels)
        m = np.float32(2.0) ** rng.integers(-3, 3, outputs)
        factors = [m.astype(np.float32), np.zeros(outputs, np.float32)]
        cases.append(Case("LceBconv2d", [pack(x), pack(w), *factors, None], Out("f4"), o))
    check(cases, "default")
    check(cases, "indirect")


def test_zero_padding_where_larq_is_wrong() -> None:
    """A 3 x 3 filter on one pixel: Larq's optimized kernels give other sums, silently; ours are numpy's."""
    rng = np.random.default_rng(5)
    x, w = signs(rng, 1, 1, 1, 32), signs(rng, 8, 3, 3, 32)
    o = {"channels_in": 32, "padding": 0, "pad_values": 0, "fused_activation_function": 0, "stride_height": 1}
    o |= {"stride_width": 1, "dilation_height_factor": 1, "dilation_width_factor": 1}
    factors = [np.ones(8, np.float32), np.zeros(8, np.float32)]
    case = Case("LceBconv2d", [pack(x), pack(w), *factors, None], Out("f4"), o)
    expected = conv(x, w, 1, o)
    np.testing.assert_array_equal(case.ours(), expected.astype(np.float32))
    ((theirs,),) = lce.run_many([(case.file((1, 1, 1, 8)), case.sample())])
    assert not np.array_equal(theirs, expected)


def test_packed_output_with_zero_padding() -> None:
    """Larq's optimized kernels refuse it; ours compare exact sums."""
    rng = np.random.default_rng(6)
    x, w = signs(rng, 1, 5, 4, 33), signs(rng, 40, 3, 3, 33)
    o = {"channels_in": 33, "padding": 0, "pad_values": 0, "fused_activation_function": 0, "stride_height": 2}
    o |= {"stride_width": 1, "dilation_height_factor": 1, "dilation_width_factor": 1}
    case = Case("LceBconv2d", [pack(x), pack(w), None, None, rng.integers(130, 165, 40).astype(np.int32)], Out("i4"), o)
    acc = conv(x, w, 1, o)
    np.testing.assert_array_equal(case.ours(), bconv_expected(case.inputs, case.out, o, acc))  # type: ignore[arg-type]
    with pytest.raises(PeerError):
        lce.run_many([(case.file((1, 3, 4, 2)), case.sample())])


def test_groups_that_share_a_word_are_refused() -> None:
    """Of 48 channels, groups of 16: Larq's kernels refuse these too, but read 64 channels so as groups of 32."""
    rng = np.random.default_rng(8)
    o = {"channels_in": 48, "padding": 1, "pad_values": 1, "fused_activation_function": 0, "stride_height": 1}
    o |= {"stride_width": 1, "dilation_height_factor": 1, "dilation_width_factor": 1}
    inputs = [pack(signs(rng, 1, 3, 3, 48)), pack(signs(rng, 6, 1, 1, 16)), *[np.ones(6, np.float32)] * 2, None]
    with pytest.raises(RefusedError, match="do not make groups of 48 channels"):
        run("LceBconv2d", inputs, [Out("f4")], o)


def test_max_pool() -> None:
    drawn = [pool_case(seed) for seed in range(500, 600)]
    cases = [Case("LceBMaxPool2d", [pack(x)], Out("i4"), o) for x, o, _ in drawn if len(x) == 1]
    check(cases, "default")


@pytest.mark.parametrize("kind", ["f4", "i1", "b1"])
def test_levels(kind: str) -> None:
    rng, cases = np.random.default_rng(9), []
    for channels in (1, 31, 32, 33, 128, 160):
        shape = (1, 3, 5, channels)
        x = {
            "f4": lambda s=shape: rng.normal(size=s).astype(np.float32),
            "i1": lambda s=shape: rng.integers(-128, 128, s).astype(np.int8),
            "b1": lambda s=shape: rng.random(s) < 0.5,
        }[kind]()
        zero = int(rng.integers(-128, 128)) if kind == "i1" else 0
        cases.append(Case("LceQuantize", [In(x, 0.5 if kind == "i1" else 0.0, zero)], Out("i4"), {}))
        for scale in (1.0, 0.5, 0.03, 0.004):
            out = Out(kind, scale if kind == "i1" else 0.0, zero, shape)
            cases.append(Case("LceDequantize", [pack(signs(rng, *shape))], out, {}))
    check(cases, "default")


def test_the_padding_of_the_tests() -> None:
    """TensorFlow's: more behind than in front."""
    assert padding(4, 3, 2, 1, True) == (0, 1)
    assert padding(5, 3, 1, 2, True) == (2, 2)
    assert padding(5, 3, 1, 2, False) == (0, 0)
