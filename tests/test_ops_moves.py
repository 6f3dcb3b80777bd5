"""Moves of elements, concatenation, permutations and quantization: references, kernels, rules, damaged files."""

from __future__ import annotations

import numpy as np
import pytest

from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.graph import (
    NUMERICS,
    Array,
    Concat,
    Conv2d,
    DType,
    Flip,
    Gather,
    Graph,
    Move,
    Op,
    Pad,
    Permutation,
    PixelShuffle,
    PixelUnshuffle,
    Repeat,
    Reshape,
    Shuffle,
    Sign,
    Slice,
    TensorType,
    Transpose,
    TwoSlope,
    Upsample,
    evaluate,
)
from bdnet_deploy.host import HostModel
from bdnet_deploy.iodesc import InputDescription, IODescription
from bdnet_deploy.lowering import lower
from bdnet_deploy.passes import prune_channels
from bdnet_deploy.plan import make_plan

ELEMENTS = [DType.F32, DType.I32, DType.I16, DType.I8, DType.U8]
ALL = [*ELEMENTS, DType.BIT, DType.TRIT, DType.UBIT]
CHANNELS = [1, 2, 3, 5, 31, 32, 33, 40, 64, 65]


def same(actual: Array, expected: Array) -> None:
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    assert actual.tobytes() == np.ascontiguousarray(expected).tobytes()


def reference(op: Op, *xs: Array, types: list[TensorType] | None = None) -> Array:
    types = types or [TensorType((1, *x.shape[1:]), _dtype(x)) for x in xs]
    out = op.infer(types)
    y = op.reference(types, list(xs), out)
    assert y.shape[1:] == out.shape[1:]
    return y


def _dtype(x: Array) -> DType:
    return next(d for d in (DType.F64, *ELEMENTS) if d.numpy == x.dtype)


def random_shape(rng: np.random.Generator) -> tuple[int, int, int]:
    return int(rng.integers(1, 8)), int(rng.integers(1, 8)), int(rng.choice(CHANNELS))


def random_move(rng: np.random.Generator, shape: tuple[int, int, int], dtype: DType) -> Move:
    kind = rng.integers(6)
    if kind == 0:
        begin = [int(rng.integers(0, n)) for n in shape]
        end = [int(rng.integers(b + 1, n + 1)) for b, n in zip(begin, shape, strict=True)]
        return Slice(tuple(begin), tuple(end), tuple(int(s) for s in rng.integers(1, 4, 3)))  # type: ignore[arg-type]
    if kind == 1:
        mode = str(rng.choice(["constant", "replicate", "reflect"]))
        padding = [int(p) for n in shape for p in rng.integers(0, min(n, 4) if mode == "reflect" else 4, 2)]
        low, high = (
            (-9, 9) if not dtype.is_packed and dtype is not DType.U8 else (0, 9) if dtype is DType.U8 else (-1, 1)
        )
        low = max(low, dtype.range[0]) if dtype is not DType.F32 else low
        value = int(rng.choice([-1, 1])) if dtype is DType.BIT else int(rng.integers(low, high, endpoint=True))
        return Pad(tuple(padding), mode, value)  # type: ignore[arg-type]
    if kind == 2:
        return Shuffle(int(rng.choice([g for g in range(1, shape[2] + 1) if shape[2] % g == 0])))
    if kind == 3:
        return Gather(
            *(tuple(rng.integers(0, shape[a], rng.integers(a == 2, 70 if a == 2 else 9)).tolist()) for a in (2, 0, 1))
        )
    if kind == 4:
        return Upsample((int(rng.integers(1, 4)), int(rng.integers(1, 4))))
    return Flip(tuple(int(a) for a in range(3) if rng.random() < 0.5))


def random_permutation(rng: np.random.Generator, block: int) -> tuple[tuple[int, int, int], Permutation]:
    """A shape and an operator that takes it."""
    h, w, c = random_shape(rng)
    order = str(rng.choice(["crd", "dcr"]))
    kind = rng.integers(4)
    if kind == 0:
        return (h, w, c), Transpose(tuple(int(a) for a in rng.permutation(3)))  # type: ignore[arg-type]
    if kind == 1:
        return (h, w, c * block**2), PixelShuffle(block, order)
    if kind == 2:
        return (h * block, w * block, c), PixelUnshuffle(block, order)
    sizes = [(1, h * w * c), (1, w, c, h), (1, h * w, 1, c), (1, 1, h, w * c), (1, c, h, w), (1, h, w * c, 1)]
    return (h, w, c), Reshape(sizes[int(rng.integers(len(sizes)))])


# -- references ---------------------------------------------------------------------------------------------------


# -- dead channels ------------------------------------------------------------------------------------------------


def head(times: int, begin: int, end: int, *, depthwise: bool = False) -> Graph:
    """A wide head of which only some channels are read."""
    net = Net((5, 4, 6), seed=times)
    y = net.affine(net.x)
    acc = net.conv(net.sign(y), 6, groups=6) if depthwise else net.conv(net.sign(y), 6)

    wide = net.add(Repeat(times), acc)
    wide = net.affine(wide, net.add(Repeat(times), y))
    c = wide.type.channels
    wide = net.add(TwoSlope(), wide, *(net.graph.parameter("s", net.rng.normal(0.5, 0.5, c)) for _ in range(3)))
    return net.finish(net.affine(net.add(Slice.channels(wide.type, begin, end), wide)))


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize(
    ("times", "begin", "end", "depthwise"),
    [(3, 0, 12, False), (3, 6, 12, True), (3, 7, 11, False), (2, 2, 5, True), (3, 4, 14, False), (1, 0, 4, True)],
)
def test_pruned_channels_are_the_same(times: int, begin: int, end: int, depthwise: bool, numerics: str) -> None:
    graph = head(times, begin, end, depthwise=depthwise)
    samples = np.random.default_rng(1).standard_normal((4, 5, 4, 6))
    from bdnet_deploy.passes import calibrate, merge_affine, quantize, to_float

    real = merge_affine(graph)
    chosen = to_float(real) if numerics == "float" else quantize(real, numerics, calibrate(real, [samples]))[0]
    reasons: list[str] = []
    pruned = prune_channels(chosen, report=reasons.append)
    x = lower(graph, numerics, samples=samples).encode(samples)
    before, after = (evaluate(g, [x])[g.outputs[0].name] for g in (chosen, pruned))
    same(after, before)

    def computed(g: Graph) -> int:
        return sum(n.output.type.size for n in g.nodes if not isinstance(n.op, Slice))

    assert computed(pruned) < computed(chosen)
    crosses = begin // 6 != (end - 1) // 6 and (begin % 6 or end % 6)
    assert any("within one of the repetitions" in r for r in reasons) == bool(crosses)
    check_graph(graph, numerics)


def test_why_channels_are_not_pruned() -> None:
    net = Net((4, 4, 6))
    y = net.affine(net.conv(net.sign(net.affine(net.x)), 12, groups=2))
    part = net.affine(net.add(Slice.channels(y.type, 0, 6), y))
    graph = net.finish(part)
    samples = np.random.default_rng(1).standard_normal((4, 4, 4, 6))
    assert any("grouped convolution" in note for note in lower(graph, "float", samples=samples).notes)
    other = net.affine(net.add(Slice.channels(y.type, 6, 12), y))
    graph = net.finish(net.affine(part, other))
    notes = lower(graph, "float", samples=samples).notes
    assert sum("has another reader" in note for note in notes) == 2
    check_graph(graph, "float")


def test_concat_of_many_is_a_chain() -> None:
    net = Net((3, 3, 5))
    y = net.affine(net.x)
    parts = [net.conv(net.sign(y), c) for c in (3, 32, 7)]
    graph = net.finish(net.affine(net.add(Concat(), *parts, net.conv(net.ternarize(y), 5, groups=5))))
    for numerics in NUMERICS:
        check_graph(graph, numerics)
    lowered = lower(graph, "fixed16")
    assert [s.kernel for s in lowered.plan.steps].count("bd_concat_i16") == 3  # accumulators as they lie in memory
    with pytest.raises(UnsupportedError, match="split_concat"):
        from bdnet_deploy.passes import to_float

        make_plan(to_float(graph))


@pytest.mark.parametrize("out", [DType.BIT, DType.UBIT, None])
def test_repeated_bits(out: DType | None) -> None:
    """Packed maps have no repeat of their own: the channels are gathered."""
    net = Net((3, 4, 5))
    y = net.affine(net.x)
    if out is None:
        bits = net.ternarize(y)
    else:
        bits = net.add(Sign(out), y, net.graph.parameter("t", np.zeros(5)))
    graph = net.finish(net.affine(net.conv(net.add(Repeat(9), bits), 4)))
    check_graph(graph, "fixed8")
    assert f"bd_gather_{(out or DType.TRIT).value}" in lower(graph, "fixed8").plan.kernels


@pytest.mark.parametrize("groups", [1, 3])
def test_pruned_filters_of_raw_pixels(groups: int) -> None:
    """The corrections of the border are those of the filters that are left."""
    net = Net((5, 6, 3), seed=groups)
    w = net.graph.constant("w", net.rng.standard_normal((3, 3, 3, 3 // groups)), DType.F64)
    y = net.add(Conv2d(padding=(1, 1, 1, 1), groups=groups), net.x, w)
    y = net.affine(net.add(Slice.channels(y.type, 1, 3), net.affine(y)))
    graph = net.finish(y)
    io = IODescription((InputDescription(shape=(5, 6, 3), dtype="u8", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25)),))
    raw = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    lowered = lower(graph, "fixed16", io=io, samples=io.preprocess(raw))
    conv = next(n for n in lowered.graph.nodes if isinstance(n.op, Conv2d))
    assert conv.output.type.channels == 2 and len(conv.inputs) == 3
    real = evaluate(graph, [io.preprocess(raw).astype(np.float64)])[graph.outputs[0].name]
    found = evaluate(lowered.graph, [raw])[lowered.graph.outputs[0].name]
    assert np.abs(lowered.decode(found) - real).max() < 0.02 * np.abs(real).max()
    same(HostModel(write_bdn(lowered.plan)).run(raw)[0].reshape(found.shape), found)
