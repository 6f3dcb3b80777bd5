"""Depth-wise layers with thresholds in bit planes: the plain kernel against the reference, what is refused, and when a plan picks it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bdn_cases import CODES, LETTERS, Array, Bdn, draw

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.errors import ModelFileError
from bdnet_deploy.graph import Affine, Conv2d, DType, Graph, Quant, Sign, TensorType, Ternarize, Value
from bdnet_deploy.host import HostModel, inspect
from bdnet_deploy.plan import make_plan
from bdnet_deploy.plan.packings.planes import pack_planes, unpack_planes


def step(pair: str, x: Array, shape: tuple[int, ...], weights: Array, low: Array, **fields: Any) -> bytes:
    b = Bdn()
    source = b.tensor(x.shape[1:], CODES[LETTERS[pair[0]]], bdn.Place.INPUT)
    target = b.tensor(shape, bdn.DType.BIT, bdn.Place.OUTPUT)
    window = {"kernel_h": 3, "kernel_w": 3, "pad_top": 1, "pad_left": 1, "groups": x.shape[3], "weight_planes": 1}
    blob = pack_planes(weights, low, trits=pair[0] == "t")
    if "blob" in fields:
        blob = fields.pop("blob")(blob)
    b.step(
        f"bd_dw_{pair}_bit__planes", [source], [target], shape, weights=blob, acc_dtype=bdn.DType.I8, **window | fields
    )
    return b.write()


@pytest.mark.parametrize("pair", ["bb", "tb"])
@pytest.mark.parametrize("channels", [2, 31, 32, 33, 128, 160])
def test_plain_kernel_against_the_reference(pair: str, channels: int) -> None:
    """Every border, both strides, and every threshold from below all sums to above them."""
    rng = np.random.default_rng([channels, *pair.encode()])
    for how, height, width, strides in (
        ("random", 4, 5, (1, 1)), ("random", 2, 2, (1, 1)), ("random", 5, 6, (2, 2)), ("high", 3, 4, (1, 2)), ("low", 4, 3, (2, 1)),
    ):  # fmt: skip
        x = draw(rng, (1, height, width, channels), LETTERS[pair[0]], how)
        w = draw(rng, (channels, 3, 3, 1), DType.BIT, str(rng.choice([how, "random"])))
        op = Conv2d(padding=(1, 1, 1, 1), groups=channels, strides=strides)
        types = [TensorType(x.shape, LETTERS[pair[0]]), TensorType(w.shape, DType.BIT)]
        sums = op.reference(types, [x, w], op.infer(types))
        low = rng.permutation(np.resize(np.arange(-11, 13), channels)).astype(np.int32)
        low[0] = rng.choice([-(2**31), 2**31 - 1])
        types = [TensorType(sums.shape, DType.I32), TensorType(low.shape, DType.I32)]
        expected = Sign().reference(types, [sums, low], Sign().infer(types))
        file = step(pair, x, expected.shape[1:], w, low, stride_h=strides[0], stride_w=strides[1])
        np.testing.assert_array_equal(HostModel(file).run(x)[0], expected)
        blob = pack_planes(w, low, trits=pair[0] == "t")
        np.testing.assert_array_equal(unpack_planes(blob.tobytes(), w.shape), w)


@pytest.mark.parametrize(
    "fields",
    [
        {"pad_top": 2}, {"pad_left": 2}, {"pad_value": -1}, {"pad_value": 1}, {"dilation_h": 2}, {"dilation_w": 2}, {"kernel_h": 2},
        {"kernel_w": 1}, {"stride_h": 2}, {"stride_w": 2}, {"groups": 1}, {"weight_planes": 2}, {"pad_top": 0}, {"pad_left": 0},
        {"blob": lambda b: b[:-1]}, {"blob": lambda b: np.append(b, b[:1])},
    ],
)  # fmt: skip
def test_windows_without_limits_are_refused(fields: dict[str, Any]) -> None:
    """A file may not make the kernel read rows, columns or limits that are not there."""
    rng = np.random.default_rng(3)
    x, w, low = draw(rng, (1, 4, 4, 40), DType.BIT), draw(rng, (40, 3, 3, 1), DType.BIT), np.zeros(40, np.int32)
    inspect(step("bb", x, (4, 4, 40), w, low))
    with pytest.raises(ModelFileError, match="refuses") as caught:
        inspect(step("bb", x, (4, 4, 40), w, low, **fields))
    assert "BD_ERROR_STEP" in str(caught.value.why)


@pytest.mark.parametrize("shape", [(1, 4, 40), (4, 1, 40)])
def test_maps_of_one_row_or_column_are_refused(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(4)
    x, w, low = draw(rng, (1, *shape), DType.BIT), draw(rng, (40, 3, 3, 1), DType.BIT), np.zeros(40, np.int32)
    with pytest.raises(ModelFileError, match="refuses"):
        inspect(step("bb", x, shape, w, low))


def graph_of(x_type: DType, channels: int, *, scaled: bool = False, padding: int = 1) -> Graph:
    graph = Graph("layer", "fixed16")
    x = graph.input("x", (1, 6, 6, channels), DType.I16, Quant.of(1.0))

    def numbers(name: str, value: int) -> Value:
        return graph.constant(name, np.full(channels, value), DType.I32)

    if x_type is DType.TRIT:
        levels = graph.add(Ternarize(), [x, numbers("l", -9), numbers("h", 9)], "levels")
    else:
        levels = graph.add(Sign(), [x, numbers("l", 0)], "levels")
    w = graph.constant("w", np.random.default_rng(1).choice([-1, 1], (channels, 3, 3, 1)), DType.BIT)
    op = Conv2d(padding=(padding,) * 4, groups=channels)
    y = graph.add(op, [levels, w], "sums")
    if scaled:
        y = graph.add(Affine(terms=1, shifts=(4,), out=DType.I16), [y, numbers("m", 9), numbers("a", 1)], "y")
    bits = graph.add(Sign(), [y, numbers("low", 1)], "bits")
    last = Affine(terms=1, shifts=(2,), out=DType.I8)
    graph.outputs = [graph.add(last, [bits, numbers("one", 16384), numbers("no", 0)], "out", quant=Quant.of(1.0))]
    return graph


def test_a_plan_picks_it_where_only_a_sign_reads_the_sums() -> None:
    def kernel(graph: Graph, sets: tuple[str, ...] = ("neon64",)) -> str | None:
        return next(s.kernel for s in make_plan(graph, sets=sets).steps if s.nodes[0].output.name == "sums")

    assert kernel(graph_of(DType.BIT, 128)) == "bd_dw_bb_bit__planes"
    assert kernel(graph_of(DType.TRIT, 256)) == "bd_dw_tb_bit__planes"
    assert kernel(graph_of(DType.TRIT, 256), ()) == "bd_dw_tb_i8"
    assert kernel(graph_of(DType.BIT, 96)) == "bd_dw_bb_i8"
    assert kernel(graph_of(DType.BIT, 128, scaled=True)) == "bd_dw_bb_i8"
    assert kernel(graph_of(DType.BIT, 128, padding=2)) == "bd_dw_bb_i8"
