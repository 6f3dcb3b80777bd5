"""A stem that reads raw pixels: scale and mean of every channel folded in, exact where taps leave the map."""

from __future__ import annotations

import numpy as np
import pytest
from bdn_cases import Bdn

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.errors import ModelFileError
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.graph import Affine, Conv2d, DType, Graph, evaluate
from bdnet_deploy.graph.ops.convolution import border_classes
from bdnet_deploy.host import HostModel
from bdnet_deploy.iodesc import InputDescription, IODescription
from bdnet_deploy.lowering import lower


def stem(rng: np.random.Generator, *, exact: bool = False) -> tuple[Graph, IODescription]:
    """A random convolution of an image whose channels have means and deviations of their own.

    ``exact``: weights that eight bits hold without rounding, whatever the channel.
    """
    channels = int(rng.integers(2, 5))
    groups = channels if rng.random() < 0.3 else 1
    outputs = groups * int(rng.integers(1, 9))
    height, width = (int(n) for n in rng.integers(4, 12, 2))
    kernel = tuple(int(k) for k in rng.integers(1, 5, 2))
    op = Conv2d(
        tuple(int(s) for s in rng.integers(1, 3, 2)),  # type: ignore[arg-type]
        tuple(int(p) for p in rng.integers(1, 4, 4)),  # type: ignore[arg-type]
        0,
        tuple(int(d) for d in rng.integers(1, 3, 2)),  # type: ignore[arg-type]
        groups,
    )
    std = rng.uniform(30, 80, channels)
    mean = rng.uniform(60, 140, channels)
    weights = rng.standard_normal((outputs, *kernel, channels // groups))
    if exact:
        weights = rng.integers(-127, 128, weights.shape).astype(np.float64)
        weights[:, 0, 0, 0] = 127
        std[:] = std[0]
    graph = Graph()
    x = graph.input("x", (1, height, width, channels), DType.F64)
    y = graph.add(op, [x, graph.constant("w", weights, DType.F64)], "conv", source="stem")
    parameters = [
        graph.parameter("mul", rng.normal(1, 0.3, outputs)),
        graph.parameter("add", rng.normal(0, 9, outputs)),
    ]
    graph.outputs = [graph.add(Affine(), [y, *parameters], "bn", source="stem")]
    description = InputDescription(shape=(height, width, channels), dtype="u8", mean=tuple(mean), std=tuple(std))
    return graph, IODescription((description,))


@pytest.mark.parametrize("seed", range(40))
def test_the_normalization_is_folded_in(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph, io = stem(rng)
    raw = rng.integers(0, 256, (3, *io.inputs[0].shape)).astype(np.uint8)
    samples = io.preprocess(raw).astype(np.float64)
    expected = evaluate(graph, [samples])["bn"]
    for numerics in ("fixed16", "fixed8"):
        lowered = lower(graph, numerics, io=io, samples=samples)
        assert lowered.plan.kernels[0] == "bd_conv_uq_i32__border"
        assert np.array_equal(lowered.encode(samples), raw)
        output = evaluate(lowered.graph, [raw])[lowered.graph.outputs[0].name]
        assert np.array_equal(HostModel(write_bdn(lowered.plan, io=io)).run(raw)[0].reshape(output.shape), output)
        assert np.abs(lowered.decode(output) - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("seed", range(20))
def test_the_border_is_as_exact_as_the_inside(seed: int) -> None:
    """Accumulators are right to half of their unit everywhere, not only where no tap is padded."""
    rng = np.random.default_rng([seed, 1])
    graph, io = stem(rng, exact=True)
    raw = rng.integers(0, 256, (2, *io.inputs[0].shape)).astype(np.uint8)
    samples = io.preprocess(raw).astype(np.float64)
    _, factor = io.inputs[0].affine()
    expected = evaluate(graph, [samples], keep=True)["conv"] / factor[0]
    lowered = lower(graph, "fixed16", io=io, samples=samples)
    conv = lowered.graph.nodes[0].output
    assert conv.type.quant is not None
    found = evaluate(lowered.graph, [raw], keep=True)[conv.name] - conv.type.quant.zero_point
    assert np.abs(found - expected).max() <= 0.5 + 1e-6 * np.abs(expected).max()


def test_classes() -> None:
    """3x3, stride 2, one row of padding on top: the first row lacks a tap, the others none."""
    assert border_classes(8, 3, 2, 1, 1, 4).tolist() == [0, 1, 1, 1]
    assert border_classes(7, 3, 2, 1, 1, 4).tolist() == [0, 1, 1, 2]
    assert border_classes(2, 3, 1, 2, 2, 2).tolist() == [0, 0]


def blob(rows: int, columns: int, of_row: list[int], of_column: list[int]) -> np.ndarray:  # type: ignore[type-arg]
    return np.frombuffer(
        np.array([rows, columns], "<u2").tobytes()
        + np.zeros(rows * columns * 4, "<i4").tobytes()
        + bytes([*of_row, *of_column])
        + bytes(4 * 2),
        np.uint8,
    )


@pytest.mark.parametrize(
    ("data", "accepted"),
    [
        (blob(2, 2, [0, 1, 0], [1, 0]), True),
        (blob(2, 2, [0, 2, 0], [1, 0]), False),  # a class that is not there
        (blob(2, 2, [0, 1, 0], [1, 2]), False),
        (blob(2, 2, [0, 1], [1, 0]), False),  # too few rows
        (blob(2, 2, [0, 1, 0], [1, 0, 0]), False),  # too long
        (blob(0, 2, [0, 0, 0], [0, 0]), False),
        (blob(2, 2, [0, 1, 0], [1, 0])[:9], False),
        (np.frombuffer(b"\xff" * 53, np.uint8), False),  # sizes beyond 32 bits
    ],
)
def test_damaged_borders_are_refused(data: np.ndarray, accepted: bool) -> None:  # type: ignore[type-arg]
    b = Bdn()
    source = b.tensor((3, 2, 2), bdn.DType.U8, bdn.Place.INPUT)
    target = b.tensor((3, 2, 4), bdn.DType.I32, bdn.Place.OUTPUT)
    b.step("bd_conv_uq_i32__border", [source], [target], (3, 2, 4), weights=data, acc_dtype=bdn.DType.I32)
    if accepted:
        HostModel(b.write())
    else:
        with pytest.raises(ModelFileError, match="refuses"):
            HostModel(b.write())
