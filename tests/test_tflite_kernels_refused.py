"""Hostile nodes for the runtime's TensorFlow Lite operators: prepare refuses them with a message, nothing crashes.

``test_with_sanitizers`` runs all of this again in a build that aborts at the first wrong access.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flatbuffers import flexbuffers
from sanitized import sanitized_environment
from test_tflite_kernels import bconv_case, depthwise_case
from tflite_kernels import NAMES, In, Out, RefusedError, run

from bdnet_deploy.export.tflite.extended import NAME, Options
from bdnet_deploy.export.tflite.packing import pack

ONES = np.ones(8, np.float32)
BCONV = {
    "channels_in": 32,
    "padding": 0,
    "pad_values": 1,
    "fused_activation_function": 0,
    "stride_height": 1,
    "stride_width": 1,
    "dilation_height_factor": 1,
    "dilation_width_factor": 1,
}
POOL = {"filter_height": 2, "filter_width": 2, "stride_height": 2, "stride_width": 2, "padding": 1}


def words(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.int32)


def bconv(x: Any = None, w: Any = None, m: Any = ONES, b: Any = ONES, t: Any = None, out: Any = None, **o: int) -> Any:
    inputs = [words(1, 4, 4, 1) if x is None else x, words(8, 3, 3, 1) if w is None else w, m, b, t]
    return run("LceBconv2d", inputs, [out or Out("f4")], BCONV | o)


def depthwise(outs: Any = None, inputs: dict[int, Any] | None = None, **o: int) -> Any:
    given: list[Any] = [words(1, 4, 4, 1), None, words(3, 3, 1), *[None] * 5]
    for i, data in (inputs or {}).items():
        given[i] = data
    options = {**Options(32, 32, pad_top=1, pad_left=1).__dict__, **o}
    return run(NAME, given, outs or [Out("f4")], options, constants=range(2, 8))


BAD: dict[str, tuple[str, Callable[[], Any]]] = {
    "stride 0": ("stride_height is 0", lambda: bconv(stride_height=0)),
    "stride below 0": ("stride_width is -1", lambda: bconv(stride_width=-1)),
    "dilation": ("dilation_width_factor is 0", lambda: bconv(dilation_width_factor=0)),
    "pad_values": ("pad_values is 2", lambda: bconv(pad_values=2)),
    "activation": ("fused_activation_function is 4", lambda: bconv(fused_activation_function=4)),
    "channels": ("33 channels are not 1 words", lambda: bconv(channels_in=33)),
    "many channels": ("are not 1 words", lambda: bconv(channels_in=2**31 - 40)),
    "no channels": ("channels_in is 0", lambda: bconv(channels_in=0)),
    "filters": ("do not make groups", lambda: bconv(w=words(8, 3, 3, 2))),
    "rank": ("four axes", lambda: bconv(x=words(4, 4, 1))),
    "no filters": ("four axes", lambda: bconv(w=words(0, 3, 3, 1))),
    "float map": ("int32 words", lambda: bconv(x=np.zeros((1, 4, 4, 1), np.float32))),
    "multiplier": ("multiplier and bias", lambda: bconv(m=np.ones(7, np.float32))),
    "no bias": ("multiplier and bias", lambda: bconv(b=None)),
    "no threshold": ("constant threshold", lambda: bconv(out=Out("i4"))),
    "threshold": ("constant threshold", lambda: bconv(out=Out("i4"), t=np.zeros(9, np.int32))),
    "scale": ("no scale", lambda: bconv(out=Out("i1"))),
    "bool out": ("its output is", lambda: bconv(out=Out("b1"))),
    "window": ("window is bigger", lambda: bconv(w=words(8, 5, 5, 1), padding=1)),
    "reach": ("window is bigger", lambda: bconv(w=words(8, 3, 3, 1), dilation_height_factor=2**20, padding=1)),
    "computed": ("constant", lambda: run("LceBconv2d", [words(1, 4, 4, 1), words(8, 3, 3, 1), ONES, ONES, None],
                                         [Out("f4")], BCONV, constants=[2, 3])),
    "few inputs": ("five inputs", lambda: run("LceBconv2d", [words(1, 4, 4, 1), words(8, 3, 3, 1)], [Out("f4")], BCONV)),
    "option missing": ("padding is missing", lambda: run("LceBMaxPool2d", [words(1, 4, 4, 1)], [Out("i4")], {
        k: v for k, v in POOL.items() if k != "padding"})),
    "pool window": ("window is bigger", lambda: run("LceBMaxPool2d", [words(1, 1, 4, 1)], [Out("i4")], POOL)),
    "pool of floats": ("one int32 tensor", lambda: run("LceBMaxPool2d", [ONES.reshape(1, 2, 4, 1)], [Out("i4")], POOL)),
    "pool option": ("no integer", lambda: run("LceBMaxPool2d", [words(1, 4, 4, 1)], [Out("i4")], bytes(
        flexbuffers.Dumps({**POOL, "stride_height": 1.5})))),
    "big option": ("no integer", lambda: run("LceBMaxPool2d", [words(1, 4, 4, 1)], [Out("i4")], bytes(
        flexbuffers.Dumps({**POOL, "stride_height": 2**40})))),
    "no options": ("no FlexBuffer map", lambda: run("LceBconv2d", [words(1, 1, 1, 1)], [Out("f4")], b"")),
    "list": ("no FlexBuffer map", lambda: run("LceBconv2d", [words(1, 1, 1, 1)], [Out("f4")], bytes(
        flexbuffers.Dumps([1, 2])))),
    "quantize words": ("float32, int8 or bool", lambda: run("LceQuantize", [words(1, 4)], [Out("i4")])),
    "quantize to float": ("words of int32", lambda: run("LceQuantize", [ONES], [Out("f4")])),
    "quantize nine axes": ("1 to 8 axes", lambda: run("LceQuantize", [np.ones([1] * 9, np.float32)], [Out("i4")])),
    "quantize nothing": ("float32, int8 or bool", lambda: run("LceQuantize", [np.zeros((2, 0), np.float32)], [Out("i4")])),
    "dequantize words": ("do not hold", lambda: run("LceDequantize", [words(1, 1)], [Out("f4", shape=(1, 33))])),
    "dequantize rows": ("size 0 is", lambda: run("LceDequantize", [words(2, 1)], [Out("f4", shape=(1, 32))])),
    "dequantize rank": ("as many axes", lambda: run("LceDequantize", [words(2, 1)], [Out("f4", shape=(2, 1, 32))])),
    "dequantize scale": ("no scale", lambda: run("LceDequantize", [words(1, 1)], [Out("i1", shape=(1, 32))])),
    "constant output": ("output 0 is a constant", lambda: run("LceDequantize", [words(1, 1)], [
        Out("f4", shape=(1, 32), constant=True)])),
    "repeated channels": ("a row of its output is too long", lambda: run(NAME, [
        words(1, 1, 2**15, 1), None, words(1, 1, 2**15)], [Out("i4")], {
            **Options(1, 2**20).__dict__}, constants=range(2, 8))),
    "planes": ("planes of its map", lambda: depthwise(inputs={1: words(1, 4, 5, 1)})),
    "weight planes": ("planes of its weights", lambda: depthwise(inputs={3: words(3, 2, 1)})),
    "weights": ("its weights are not", lambda: depthwise(inputs={2: words(3, 3, 2)})),
    "taps": ("12 x 11 taps", lambda: depthwise(inputs={2: words(12, 11, 1)})),
    "multiple": ("no multiple", lambda: depthwise(channels_in=31)),
    "pad_value": ("pad_value is 2", lambda: depthwise(pad_value=2)),
    "padding": ("pad_top is -1", lambda: depthwise(pad_top=-1)),
    "huge padding": ("empty or too big", lambda: depthwise(pad_bottom=2**20, pad_right=2**20)),
    "depthwise window": ("bigger than the padded map", lambda: depthwise(dilation_height=3)),
    "second threshold": ("no first", lambda: depthwise(inputs={7: np.zeros(32, np.int32)})),
    "outputs": ("two outputs", lambda: depthwise([Out("i4")], {6: np.zeros(32, np.int32), 7: np.zeros(32, np.int32)})),
    "float threshold": ("threshold 0", lambda: depthwise([Out("i4")], {6: np.zeros(32, np.float32)})),
    "bits in float": ("threshold 0", lambda: depthwise(inputs={6: np.zeros(32, np.int32)})),
    "factor of integers": ("multiplier and bias", lambda: depthwise([Out("i4")], {4: np.ones(32, np.float32)})),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_refused(case: str) -> None:
    message, call = BAD[case]
    with pytest.raises(RefusedError, match=message):
        call()


@pytest.mark.parametrize("indices", [([0, 1, 2, 3, 99], [4]), ([-5, 1, 2, 3, -1], [4]), ([0, 1, 2, 3, -1], [0]),
                                     ([], [4]), ([0] * 30, [4]), ([0, 1, 2, 3, -1], [99]), ([0, 1, 2, 3, -1], [])])  # fmt: skip
def test_tensors_that_are_not_there(indices: tuple[list[int], list[int]]) -> None:
    inputs = [words(1, 4, 4, 1), words(8, 3, 3, 1), ONES, ONES]
    if indices[0][-1:] == [99]:
        assert run("LceBconv2d", inputs, [Out("f4")], BCONV, indices=indices)  # nobody reads the fifth
        return
    with pytest.raises(RefusedError):
        run("LceBconv2d", inputs, [Out("f4")], BCONV, indices=indices)


@pytest.mark.parametrize("name", NAMES[2:])
def test_damaged_options(name: str) -> None:
    """Every byte of the options replaced, and the options cut: refused, or run with the options that are left."""
    options = BCONV if name == "LceBconv2d" else POOL if name == "LceBMaxPool2d" else Options(32, 32).__dict__
    whole = bytes(flexbuffers.Dumps(options))
    rng = np.random.default_rng(1)
    damaged = [whole[:n] for n in range(len(whole))] + [whole[n:] for n in range(1, len(whole))]
    for i in range(len(whole)):
        damaged += [whole[:i] + bytes([v]) + whole[i + 1 :] for v in (0, 1, 0x7F, 0xFF, int(rng.integers(256)))]
    inputs: dict[str, list[Any]] = {
        "LceBconv2d": [words(1, 4, 4, 1), words(8, 1, 1, 1), ONES, ONES, None],
        "LceBMaxPool2d": [words(1, 4, 4, 1)],
        NAME: [words(1, 4, 4, 1), None, words(1, 1, 1)],
    }
    refused = 0
    for data in damaged:
        try:
            run(name, inputs[name], [Out("i4" if name == "LceBMaxPool2d" else "f4")], data, constants=range(1, 8))
        except RefusedError:
            refused += 1
    assert refused > len(damaged) // 2


def test_random_nodes() -> None:
    """Right nodes with one thing changed."""
    refused = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        if seed % 2:
            inputs, out, options, _ = bconv_case(seed)
            name, outs = "LceBconv2d", [out]
            constants: Any = None
        else:
            inputs, choice, outs = depthwise_case(seed)
            name, options, constants = NAME, dict(choice.__dict__), range(2, 8)
        changed: list[Any] = [None if i is None else i.copy() for i in inputs]
        which = int(rng.integers(4))
        i = int(rng.choice([k for k, v in enumerate(changed) if v is not None]))
        if which == 0:
            key = sorted(options)[int(rng.integers(len(options)))]
            options = {**options, key: int(rng.choice([-(2**31), -1, 0, 1, 2, 7, 2**20, 2**31 - 1]))}
        elif which == 1:
            changed[i] = changed[i][: len(changed[i]) // 2] if rng.random() < 0.5 else changed[i][..., :-1]
        elif which == 2:
            changed[i] = None
        else:
            changed[i] = In(changed[i].astype(rng.choice(["f4", "i1", "i4"])))
        if sum(np.prod(c.shape) for c in changed if isinstance(c, np.ndarray)) > 1e7:
            continue
        if name == NAME and max(options[k] for k in options if k.startswith("pad_")) > 1000:
            continue  # a right request for a map of millions of pixels
        try:
            run(name, changed, outs, options, constants=constants)
        except RefusedError as error:
            assert str(error) != "without a message"
            refused += 1
    assert refused > 100


@pytest.mark.slow
def test_with_sanitizers(root: Path, tmp_path: Path) -> None:
    environment = sanitized_environment(root, tmp_path)
    files = [__file__, str(Path(__file__).with_name("test_tflite_kernels.py"))]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not slow", *files]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, cwd=root)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def test_pack_of_the_tests() -> None:
    assert pack(np.array([[-1, 1, -1]])).tolist() == [[5]]
