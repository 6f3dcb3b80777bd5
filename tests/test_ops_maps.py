"""Sums and products with a constant map: references, kernels, fixed point, streaming, damaged files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import test_ops_elementwise
from bdn_cases import CODES, LETTERS, Bdn, draw
from test_ops_elementwise import check_core

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.errors import ModelFileError, UnsupportedError
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.graph import (
    NUMERICS,
    AddMap,
    Affine,
    Array,
    Concat,
    Conv2d,
    DType,
    GraphError,
    MaxPool,
    Mul,
    MulMap,
    Op,
    Quant,
    Sign,
    TensorType,
    Ternarize,
    TwoSlope,
    Value,
    evaluate,
)
from bdnet_deploy.host import HostModel
from bdnet_deploy.lowering import Lowered, lower
from bdnet_deploy.plan import make_plan

INPUT, OUTPUT = bdn.Place.INPUT, bdn.Place.OUTPUT
#: Kernel letters of x and of each operator that takes it.
KERNELS = [(AddMap(), x) for x in "fuqh"] + [(MulMap(), x) for x in "fqh"]
SHAPES = [(4, 5, 7), (1, 1, 33), (6, 1, 3), (1, 8, 2), (3, 2, 64), (1, 1, 1)]
#: Largest distance from the real graph of the same inputs, as a share of the largest value.
CLOSE = {"float": 1e-6, "fixed16": 3e-3, "fixed8": 0.02}


class Net(test_ops_elementwise.Net):
    """A graph of one real map."""

    def affine(self, *xs: Value, rng: np.random.Generator) -> Value:
        vectors = rng.normal(1.0, 0.3, (len(xs) + 1, xs[0].type.channels))
        return self.add(Affine(len(xs)), *xs, *self.vector(*vectors))


def check_host(lowered: Lowered, x: Array) -> Array:
    """The host library gives the reference's bytes; the real numbers that these stand for."""
    q = lowered.encode(x)
    expected = evaluate(lowered.graph, [q])[lowered.graph.outputs[0].name]
    assert np.array_equal(HostModel(write_bdn(lowered.plan)).run(q)[0].reshape(expected.shape), expected)
    return lowered.decode(expected)


def map_file(op: Op, letter: str, shape: tuple[int, int, int], constant: Array) -> Bdn:
    """One step, from input to output."""
    b = Bdn()
    out = bdn.DType.F32 if letter == "f" else bdn.DType.I32
    x, y = b.tensor(shape, CODES[LETTERS[letter]], INPUT), b.tensor(shape, out, OUTPUT)
    kernel = f"bd_{op.name}_{letter}_{out.name.lower()}"
    b.step(kernel, [x], [y], shape, acc_dtype=out, weights=constant, rows_per_call=2)
    return b


@pytest.mark.parametrize(("op", "letter"), KERNELS, ids=str)
@pytest.mark.parametrize("how", ["random", "low", "high"])
def test_kernels(op: Op, letter: str, how: str) -> None:
    """The kernel is the reference, and the reference is plain arithmetic, also at the ends of the ranges."""
    rng, dtype = np.random.default_rng(1), LETTERS[letter]
    for shape in SHAPES:
        x = draw(rng, (2, *shape), dtype, how)
        constant = draw(rng, (1, *shape), DType.F32 if letter == "f" else DType.I16, how)
        if letter == "f" and how == "random":
            x.reshape(-1)[::5] = rng.choice([np.inf, -np.inf, np.nan, -0.0, 3e38], len(x.reshape(-1)[::5]))
        types = [TensorType((1, *shape), dtype), TensorType((1, *shape), DType.F32 if letter == "f" else DType.I16)]
        with np.errstate(all="ignore"):
            y = op.reference(types, [x, constant], op.infer(types))
            wide = x.astype(np.float64) * (16 if isinstance(op, AddMap) and letter in "uq" else 1)
            wide = wide + constant if isinstance(op, AddMap) else wide * constant
            assert np.array_equal(y, wide.astype(np.float32) if letter == "f" else wide, equal_nan=True)
        found = HostModel(map_file(op, letter, shape, constant).write()).run(x)[0]
        assert np.array_equal(found, y, equal_nan=True) and found.dtype == y.dtype


def tall(constant: str, channels: int = 5) -> tuple[Net, Array]:
    """A map, and constants for it: small, large beside the values, or 0 in some channels."""
    rng = np.random.default_rng(len(constant))
    net = Net(6, 7, channels)
    data = rng.normal(size=(1, 6, 7, channels)) * {"small": 0.3, "large": 500.0, "none": 1.0}[constant]
    if constant == "none":
        data[..., 1:3] = 0.0
    return net, data


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("op", [AddMap(), MulMap()], ids=str)
@pytest.mark.parametrize("constant", ["small", "large", "none"])
@pytest.mark.parametrize("around", ["input", "affine", "two affines", "residual", "slopes", "product", "concat"])
def test_in_every_numerics(op: Op, constant: str, around: str, numerics: str) -> None:
    """Between whatever may stand around it; near the real graph, and on the host the reference's bytes."""
    rng = np.random.default_rng(2)
    net, data = tall(constant)
    x = net.x
    if around in ("two affines", "residual"):
        x = net.affine(x, rng=rng)
    elif around == "slopes":  # a zero point that is not 0
        x = net.add(TwoSlope(), x, *net.vector(np.ones(5), np.full(5, 0.25), rng.normal(size=5)))
    elif around == "product":  # 32 bits
        x = net.add(Mul(), x, x)
    y = net.add(op, x, *net.vector(data))
    if around in ("affine", "two affines"):
        y = net.affine(y, rng=rng)
    elif around == "residual":
        y = net.affine(y, net.x, rng=rng)
    elif around == "concat":  # two readers
        y = net.add(Concat(), y, net.add(MaxPool((1, 1), (1, 1)), y))
    samples = rng.normal(size=(10, 6, 7, 5))
    lowered = net.lowered(y, numerics, samples)
    found = check_host(lowered, samples)
    x, quant = lowered.encode(samples), lowered.graph.inputs[0].type.quant
    real = evaluate(net.graph, [samples if quant is None else quant.dequantize(x)])[y.name]
    assert np.abs(found - real).max() <= CLOSE[numerics] * np.abs(real).max()
    if around in ("affine", "two affines", "residual"):
        assert len([s for s in lowered.plan.steps if op.name in (s.kernel or "")]) == 1
        step = next(s for s in lowered.plan.steps if op.name in (s.kernel or ""))
        assert [n.op.name for n in step.nodes][-1] == "affine" and step.epilogue_kernel is not None


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("ternary", [False, True])
def test_thresholds_per_pixel_are_fused_and_need_no_trunk(numerics: str, ternary: bool) -> None:
    """sign(x - m): the comparison is on the sum's own integers."""
    rng = np.random.default_rng(3)
    net, data = tall("small", 33)
    s = net.add(AddMap(), net.x, *net.vector(-data))
    limits = net.vector(np.full(33, -0.5), np.full(33, 0.5)) if ternary else net.vector(np.zeros(33))
    t = net.add(Ternarize() if ternary else Sign(), s, *limits)
    weight = net.graph.constant("w", rng.choice([-1, 1], (4, 1, 1, 33)), DType.BIT)
    y = net.affine(net.add(Conv2d(), t, weight), rng=rng)
    samples = rng.normal(size=(4, 6, 7, 33))
    lowered = net.lowered(y, numerics, samples)
    check_host(lowered, samples)
    assert [len(step.nodes) for step in lowered.plan.steps] == [2, 2]
    x = lowered.encode(samples)
    found = evaluate(lowered.graph, [x], keep=True)[t.name]
    quant = lowered.graph.inputs[0].type.quant
    exact = (x if quant is None else quant.dequantize(x)) - data
    expected = np.where(exact < -0.5, -1, 0) + np.where(exact >= 0.5, 1, 0) if ternary else np.where(exact < 0, -1, 1)
    # beyond the rounding of the map to a 32nd of an int8's unit
    rounding = 1e-6 if quant is None else float(quant.scale) / 32
    clear = np.min(np.abs(exact[..., None] - ([-0.5, 0.5] if ternary else [0.0])), -1) > rounding
    assert clear.mean() > 0.9 and np.array_equal(found[clear], expected[clear])


@pytest.mark.parametrize("numerics", NUMERICS)
def test_row_by_row(numerics: str) -> None:
    """Row y of the map goes with row y of the ring."""
    rng = np.random.default_rng(4)
    net = Net(12, 3, 6)
    t = net.add(Sign(), net.x, *net.vector(np.zeros(6)))
    weight = net.graph.constant("w", rng.choice([-1, 1], (6, 3, 3, 6)), DType.BIT)
    y = net.affine(net.add(Conv2d((1, 1), (1, 1, 1, 1)), t, weight), rng=rng)
    y = net.affine(net.add(AddMap(), y, *net.vector(rng.normal(size=(1, 12, 3, 6)))), rng=rng)
    y = net.add(MulMap(), y, *net.vector(rng.normal(size=(1, 12, 3, 6))))
    samples = rng.normal(size=(3, 12, 3, 6))
    lowered = net.lowered(y, numerics, samples)
    check_host(lowered, samples)
    x = lowered.encode(samples)
    expected = evaluate(lowered.graph, [x])[lowered.graph.outputs[0].name]
    count = len(lowered.plan.steps)
    for push in (False, True):
        plan = make_plan(lowered.graph, segments=[(0, count)], push_rows=push)
        assert any(t.rows_held < t.height for t in plan.tensors)
        model = HostModel(write_bdn(plan))
        assert np.array_equal(model.run(x)[0], expected)
        assert np.array_equal(model.run_rows(x[0])[0][0], expected[0])


@pytest.mark.parametrize("op", [AddMap(), MulMap()], ids=str)
@pytest.mark.parametrize("shared", [False, True])
def test_maps_of_maps_are_one(op: Op, shared: bool) -> None:
    """Where nothing else reads what lies between."""
    rng = np.random.default_rng(8)
    net, data = tall("small")
    inner = net.add(op, net.x, *net.vector(data))
    y = net.add(op, inner, *net.vector(rng.normal(size=data.shape)))
    if shared:
        y = net.affine(y, inner, rng=rng)
    samples = rng.normal(size=(5, 6, 7, 5))
    lowered = net.lowered(y, "float", samples)
    assert sum(node.op == op for node in lowered.graph.nodes) == (2 if shared else 1)
    real = evaluate(net.graph, [samples])[y.name]
    assert np.abs(check_host(lowered, samples) - real).max() <= 1e-5 * np.abs(real).max()


def test_imported_embeddings() -> None:
    """Position embedding, a threshold and a factor per pixel: the import is PyTorch's, and runs in every numerics."""
    torch = pytest.importorskip("torch")
    from bdnet_deploy.analysis.comparing.imported import compare_import
    from bdnet_deploy.analysis.comparing.verdicts import Verdicts
    from bdnet_deploy.importers.torch import import_module, import_recorded

    class Patches(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.patch, self.mix = torch.nn.Conv2d(3, 16, 2, stride=2), torch.nn.Conv2d(16, 16, 3, padding=1)
            self.position, self.limit = torch.randn(1, 16, 5, 5), torch.randn(1, 1, 5, 5)
            self.gain = torch.rand(1, 16, 5, 5) + 0.5
            self.head = torch.nn.Linear(16, 4)

        def forward(self, x: Any) -> Any:
            x = self.patch(x) + self.position
            t = torch.where(x - self.limit >= 0, 1.0, -1.0)
            w = torch.where(self.mix.weight >= 0, 0.1, -0.1)
            x = x + torch.nn.functional.conv2d(t, w, padding=1) * self.gain
            return self.head(x.mean((2, 3)))

    rng = np.random.default_rng(9)
    samples = rng.normal(size=(12, 10, 10, 3))
    verdicts = Verdicts()
    compare_import(import_recorded(Patches().eval(), (1, 3, 10, 10)), samples, verdicts)
    assert verdicts.first is None, verdicts.first
    graph = import_module(Patches().eval(), (1, 3, 10, 10))
    assert [n.op.name for n in graph.nodes].count("add_map") == 2
    for numerics in NUMERICS:
        check_host(lower(graph, numerics, samples=samples), samples)


@pytest.mark.parametrize(
    ("core", "numerics"), [("cortex-m0plus", "fixed8"), ("cortex-m4", "fixed16"), ("cortex-a72", "float")]
)
def test_emulated(core: str, numerics: str) -> None:
    """The same bytes on cores; in fixed point every input costs the same instructions."""
    rng = np.random.default_rng(5)
    net = Net(5, 4, 35)
    y = net.affine(net.add(AddMap(), net.x, *net.vector(rng.normal(size=(1, 5, 4, 35)))), rng=rng)
    y = net.affine(net.add(MulMap(), y, *net.vector(rng.normal(size=(1, 5, 4, 35)))), rng=rng)
    samples = rng.normal(size=(6, 5, 4, 35))
    lowered = net.lowered(y, numerics, samples)
    check_core(core, lowered, np.concatenate([samples[:2], np.full((1, 5, 4, 35), 50.0)]))


# -- refusals ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "types", "message"),
    [
        (AddMap(), [((1, 2, 2, 3), DType.F32), ((1, 1, 2, 3), DType.F32)], "constant map of shape"),
        (AddMap(), [((1, 2, 2, 3), DType.F32), ((1, 2, 2, 3), DType.F64)], "constant map of f64"),
        (AddMap(), [((1, 2, 2, 3), DType.I8), ((1, 2, 2, 3), DType.I8)], "expected i16"),
        (AddMap(), [((1, 2, 2, 3), DType.I32), ((1, 2, 2, 3), DType.I16)], "no constant map for i32"),
        (AddMap(), [((1, 2, 2, 3), DType.BIT), ((1, 2, 2, 3), DType.F64)], "no constant map for bit"),
        (AddMap(), [((1, 3), DType.F32), ((1, 3), DType.F32)], "needs NHWC"),
        (MulMap(), [((1, 2, 2, 3), DType.U8), ((1, 2, 2, 3), DType.I16)], "no constant map for u8"),
    ],
)  # fmt: skip
def test_what_the_graph_refuses(op: Op, types: list[tuple[tuple[int, ...], DType]], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        op.infer([TensorType(*t) for t in types])


def test_factors_need_zero_points_of_0() -> None:
    x = TensorType((1, 2, 2, 3), DType.I16, Quant.of(0.5, [0.0, 1.0, 0.0]))
    with pytest.raises(GraphError, match="zero points"):
        MulMap().infer([x, TensorType((1, 2, 2, 3), DType.I16)])


@pytest.mark.parametrize("numerics", ["fixed16", "fixed8"])
def test_a_map_that_is_not_finite_is_refused(numerics: str) -> None:
    net, data = tall("small")
    data[0, 1, 2, 3] = np.inf
    y = net.add(AddMap(), net.x, *net.vector(data), source="the layer")
    with pytest.raises(UnsupportedError, match="NaN or infinite") as error:
        net.lowered(y, numerics, np.ones((1, 6, 7, 5)))
    assert error.value.where == "the layer"


@pytest.mark.parametrize(
    "change",
    [{"weights_size": 4 * 4 * 5 * 2 - 2}, {"weights_size": 4 * 4 * 5 * 2 + 2}, {"weights": bdn.ABSENT, "weights_size": 0},
     {"in": (2, bdn.NONE)}, {"in": (0, 0)}, {"out": (2, bdn.NONE)}, {"out_width": 3}, {"out_height": 3},
     {"kind": bdn.Kind.ACCUMULATE}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("op", [AddMap(), MulMap()], ids=str)
def test_damaged_steps_are_refused(op: Op, change: dict[str, Any]) -> None:
    b = map_file(op, "h", (4, 4, 5), np.ones((4, 4, 5), np.int16))
    b.tensor((4, 4, 5), bdn.DType.I8)
    HostModel(b.write())
    for name, value in change.items():
        b.steps[0][name] = value
    with pytest.raises(ModelFileError, match="STEP"):
        HostModel(b.write())


@pytest.mark.parametrize(("op", "letter"), KERNELS, ids=str)
def test_sizes_of_maps_do_not_wrap(op: Op, letter: str) -> None:
    """Of 2**31 elements in rings of one row: as many bytes as 0 in 32 bits."""
    out = bdn.DType.F32 if letter == "f" else bdn.DType.I32
    for shape, fits in (((4, 3, 2), True), ((32768, 32768, 2), False)):
        b = Bdn()
        source, target = b.tensor((1, 1, 1), bdn.DType.I8, INPUT), b.tensor((1, 1, 1), bdn.DType.I8, OUTPUT)
        b.step("bd_repeat_i8", [source], [target], (1, 1, 1), acc_dtype=bdn.DType.I8)
        xs = [b.tensor((1, *shape[1:]), code) for code in (CODES[LETTERS[letter]], out)]
        for x in xs:
            b.tensors[x]["height"] = shape[0]
        constant = np.ones(24 if fits else 0, np.float32 if letter == "f" else np.int16)
        kernel = f"bd_{op.name}_{letter}_{out.name.lower()}"
        b.step(kernel, xs[:1], xs[1:], shape, acc_dtype=out, weights=constant, segment=1)
        if fits:
            HostModel(b.write())
            continue
        with pytest.raises(ModelFileError, match="STEP"):
            HostModel(b.write())


def test_a_changed_map_is_noticed() -> None:
    """What ``verify`` compares: the map in the file against the model's."""
    from bdnet_deploy.bdn_reader import BdnReader

    net = Net(3, 3, 2)
    data = np.full((1, 3, 3, 2), 0.25)
    data[0, 2, 1, 1] = 0.75
    lowered = net.lowered(net.add(AddMap(), net.x, *net.vector(data)), "float", np.zeros((1, 3, 3, 2)))
    stored = write_bdn(lowered.plan)
    assert list(BdnReader(stored).epilogues(lowered.plan)) == [("add_map", 18, [])]
    changed = bdn.seal(stored.replace(np.float32(0.75).tobytes(), np.float32(0.5).tobytes()))
    assert list(BdnReader(changed).epilogues(lowered.plan)) == [("add_map", 18, ["weights"])]
