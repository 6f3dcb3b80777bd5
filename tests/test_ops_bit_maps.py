"""Logic of bits, sums of bits over windows, and what they are for: weights that are not symmetric around 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bdn_cases import CODES, Bdn, draw
from test_ops_elementwise import Net, check_host
from test_ops_pooling import INPUT, OUTPUT, same

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.emulated import EmulatedModel
from bdnet_deploy.errors import ModelFileError, UnsupportedError
from bdnet_deploy.graph import (
    NUMERICS,
    REPLICATE,
    Affine,
    BitLogic,
    BoxSum,
    Conv2d,
    DType,
    GraphError,
    MaxPool,
    Op,
    Reduce,
    Repeat,
    Sign,
    TensorType,
    Ternarize,
    Value,
    evaluate,
)
from bdnet_deploy.host import HostModel
from bdnet_deploy.plan.lower_rules.elementwise import _TABLES

Array = np.ndarray[Any, np.dtype[Any]]

# -- bit_logic --------------------------------------------------------------------------------------------------------------

#: kind -> of (-1, -1), (-1, +1), (+1, -1), (+1, +1).
TRUTH = {"and": [-1, -1, -1, 1], "or": [-1, 1, 1, 1], "xor": [-1, 1, 1, -1], "xnor": [1, -1, -1, 1]}


def run_logic(kind: str, a: Array, b: Array, dtype: DType = DType.BIT) -> Array:
    f = Bdn()
    sources = [f.tensor(a.shape[1:], CODES[dtype], INPUT) for _ in range(2)]
    target = f.tensor(a.shape[1:], CODES[dtype], OUTPUT)
    table = np.array([_TABLES[kind]], np.uint32)
    f.step(
        f"bd_logic_{dtype.value}",
        sources,
        [target],
        a.shape[1:],
        weights=table,
        acc_dtype=bdn.DType.I8,
        rows_per_call=2,
    )
    return HostModel(f.write()).run([a, b])[0]


@pytest.mark.parametrize("kind", TRUTH)
def test_logic(kind: str) -> None:
    rng = np.random.default_rng(0)
    op, four = BitLogic(kind), TensorType((1, 1, 1, 4), DType.BIT)
    a, b = np.array([[-1, -1, 1, 1], [-1, 1, -1, 1]], np.int8).reshape(2, 1, 1, 1, 4)
    assert op.reference([four, four], [a, b], op.infer([four, four])).ravel().tolist() == TRUTH[kind]
    for shape in ((3, 5, 7), (1, 1, 32), (4, 1, 33), (1, 6, 64), (2, 2, 95)):
        a, b = draw(rng, (2, *shape), DType.BIT), draw(rng, (2, *shape), DType.BIT)
        bits, ubits = TensorType((1, *shape), DType.BIT), TensorType((1, *shape), DType.UBIT)
        expected = op.reference([bits, bits], [a, b], op.infer([bits, bits]))
        same(run_logic(kind, a, b), expected)
        a, b = (a + 1) // 2, (b + 1) // 2  # 0 and 1 the same
        assert np.array_equal(op.reference([ubits, ubits], [a, b], op.infer([ubits, ubits])), (expected + 1) // 2)
        same(run_logic(kind, a, b, DType.UBIT), (expected + 1) // 2)


def test_xnor_is_the_product() -> None:
    a, b = draw(np.random.default_rng(1), (2, 1, 4, 4, 40), DType.BIT)
    assert np.array_equal(run_logic("xnor", a, b), a * b)


@pytest.mark.parametrize("kind", TRUTH)
def test_tail_bits_stay_0(kind: str) -> None:
    """A convolution that reads the result counts its words as they are."""
    rng = np.random.default_rng(2)
    net = Net(5, 6, 35)
    signs = [net.add(Sign(), net.x, *net.vector(np.full(35, t))) for t in (-0.2, 0.3)]
    bits = net.add(BitLogic(kind), *signs)
    weight = net.graph.constant("w", rng.choice([-1, 1], (3, 2, 2, 35)), DType.BIT)
    y = net.add(Affine(), net.add(Conv2d(), bits, weight), *net.vector(np.ones(3), np.zeros(3)))
    samples = rng.normal(size=(3, 5, 6, 35))
    for numerics in NUMERICS:
        check_host(net.lowered(y, numerics, samples), samples)


@pytest.mark.parametrize("change", [{"weights_size": 8}, {"weights_size": 0, "weights": bdn.ABSENT}, {"in": (0, bdn.NONE)}, {"in": (0, 3)}, {"out_channels": 4}], ids=str)  # fmt: skip
def test_damaged_logic_is_refused(change: dict[str, Any]) -> None:
    def file(**fields: Any) -> bytes:
        b = Bdn()
        tensors = [b.tensor((2, 2, 5), bdn.DType.BIT, p) for p in (INPUT, INPUT, OUTPUT)]
        b.tensor((2, 2, 5), bdn.DType.TRIT)
        step = b.step("bd_logic_bit", tensors[:2], tensors[2:], (2, 2, 5), weights=np.array([6, 0], np.uint32)[:1])
        b.constant(np.zeros(4, np.uint32))
        for name, value in fields.items():
            step[name] = value
        return b.write()

    HostModel(file())
    with pytest.raises(ModelFileError, match="STEP"):
        HostModel(file(**change))


# -- box_sum ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [DType.BIT, DType.TRIT, DType.UBIT])
@pytest.mark.parametrize("acc", ["i16", "i32"])
@pytest.mark.parametrize("seed", range(15))
def test_box_sum_is_a_convolution_with_ones(dtype: DType, acc: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kernel, dilation = tuple(rng.integers(1, 5, 2).tolist()), tuple(rng.integers(1, 3, 2).tolist())
    padding = tuple(rng.integers(0, 4, 4).tolist())
    size = [
        int(rng.integers(1, 8)) + max(0, (kernel[i] - 1) * dilation[i] - padding[2 * i] - padding[2 * i + 1])
        for i in (0, 1)
    ]
    groups, per_group = int(rng.choice([1, 1, 2, 3, 5, 40])), int(rng.choice([1, 2, 13, 31, 32, 33, 64]))
    strides, values = tuple(rng.integers(1, 4, 2).tolist()), [0, 1, REPLICATE, 0 if dtype is DType.UBIT else -1]
    pad_value = int(rng.choice(values))
    op = BoxSum(kernel, strides, padding, pad_value, dilation, groups)  # type: ignore[arg-type]
    x = draw(rng, (2, *size, groups * per_group), dtype, ("random", "random", "low", "high")[seed % 4])
    types = [TensorType((1, *x.shape[1:]), dtype), TensorType((groups, *kernel, per_group), DType.BIT)]
    conv = Conv2d(strides, padding, pad_value, dilation, groups)  # type: ignore[arg-type]
    expected = conv.reference(types, [x, np.ones(types[1].shape, np.int8)], conv.infer(types))
    out = op.infer(types[:1])
    assert out.same(conv.infer(types)) and np.array_equal(op.reference(types[:1], [x], out), expected)
    b = Bdn()
    code = bdn.DType[acc.upper()]
    source, target = b.tensor(x.shape[1:], CODES[dtype], INPUT), b.tensor(out.shape[1:], code, OUTPUT)
    letter = {DType.BIT: "b", DType.TRIT: "t", DType.UBIT: "z"}[dtype]
    b.step(
        f"bd_box_sum_{letter}_{acc}", [source], [target], out.shape[1:], acc_dtype=code, groups=groups,
        kernel_h=kernel[0], kernel_w=kernel[1], stride_h=strides[0], stride_w=strides[1],
        dilation_h=dilation[0], dilation_w=dilation[1], pad_top=padding[0], pad_left=padding[2], pad_value=pad_value,
        rows_per_call=int(rng.integers(1, 4)),
    )  # fmt: skip
    assert np.array_equal(HostModel(b.write()).run(x)[0], expected)


def test_wide_sums_take_32_bits() -> None:
    """32767 is the last sum of 16 bits."""
    for channels, acc in ((32767, "i16"), (32768, "i32")):
        net = Net(1, 1, channels)
        bits = net.add(Sign(), net.x, *net.vector(np.zeros(channels)))
        y = net.add(Affine(), net.add(BoxSum((1, 1)), bits), *net.vector(np.ones(1), np.zeros(1)))
        lowered = net.lowered(y, "float", np.zeros((1, 1, 1, channels)))
        assert f"bd_box_sum_b_{acc}" in lowered.plan.kernels
        for sign in (-1.0, 1.0):
            assert check_host(lowered, np.full((1, 1, 1, channels), sign)).item() == sign * channels


@pytest.mark.parametrize("change", [{"groups": 0}, {"groups": 2}, {"groups": 3}, {"pad_value": 3}, {"kernel_w": 0}, {"kernel_h": 255, "kernel_w": 255}, {"kind": 1}, {"out_width": 3}], ids=str)  # fmt: skip
def test_damaged_sums_are_refused(change: dict[str, Any]) -> None:
    def file(**fields: Any) -> bytes:
        b = Bdn()
        x, y = b.tensor((4, 4, 6), bdn.DType.BIT, INPUT), b.tensor((4, 4, 1), bdn.DType.I16, OUTPUT)
        step = b.step("bd_box_sum_b_i16", [x], [y], (4, 4, 1), acc_dtype=bdn.DType.I16)
        for name, value in fields.items():
            step[name] = value
        return b.write()

    HostModel(file())
    with pytest.raises(ModelFileError, match="STEP"):
        HostModel(file(**change))


@pytest.mark.parametrize(
    ("op", "dtypes", "message"),
    [
        (BitLogic("nand"), [DType.BIT] * 2, "no logic"),
        (BitLogic(), [DType.BIT, DType.TRIT], "two bit maps"),
        (BitLogic(), [DType.TRIT] * 2, "two bit maps"),
        (BoxSum(), [DType.F32], "bits or trits"),
        (BoxSum(groups=3), [DType.BIT], "in 3 groups"),
        (BoxSum(pad_value=3), [DType.BIT], "padding value"),
        (BoxSum((6, 1)), [DType.BIT], "larger"),
    ],
)
def test_what_the_graph_refuses(op: Op, dtypes: list[DType], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        op.infer([TensorType((1, 4, 4, 4), t) for t in dtypes])


# -- asymmetric weights -----------------------------------------------------------------------------------------------------


def asymmetric(outputs: int = 40, *, ternary: bool = False) -> tuple[Net, Value, Array, Array, Array]:
    """y = conv(a, alpha * t + beta), a the signs (or trits) of x: graph, output, samples, weights, output's factor."""
    rng = np.random.default_rng(4)
    net = Net(6, 7, 5)
    limits = [np.full(5, 0.1)] if not ternary else [np.full(5, -0.4), np.full(5, 0.4)]
    a = net.add(Ternarize() if ternary else Sign(), net.x, *net.vector(*limits))
    t = rng.choice([-1, 1], (outputs, 3, 3, 5))
    alpha, beta, bias = rng.uniform(0.1, 0.3, outputs), rng.normal(0, 0.1, outputs), rng.normal(size=outputs)
    acc = net.add(Conv2d((2, 1), (1, 1, 1, 1)), a, net.graph.constant("w", t, DType.BIT))
    box = net.add(Repeat(outputs), net.add(BoxSum((3, 3), (2, 1), (1, 1, 1, 1)), a))
    y = net.add(Affine(2), acc, box, *net.vector(alpha, beta, bias))
    weights = alpha.reshape(-1, 1, 1, 1) * t + beta.reshape(-1, 1, 1, 1)
    return net, y, rng.normal(size=(6, 6, 7, 5)), weights, bias


@pytest.mark.parametrize("ternary", [False, True], ids=["bits", "trits"])
@pytest.mark.parametrize(("numerics", "most"), [("float", 1e-5), ("fixed16", 1e-3), ("fixed8", 0.01)])
def test_asymmetric_weights(numerics: str, most: float, ternary: bool) -> None:
    """Two steps: the sums, then the convolution, which takes them as a residual of one channel."""
    torch = pytest.importorskip("torch")
    net, y, samples, weights, bias = asymmetric(ternary=ternary)
    lowered = net.lowered(y, numerics, samples)
    conv = next(s for s in lowered.plan.steps if (s.kernel or "").startswith("bd_conv_"))
    assert conv.epilogue is not None and conv.epilogue.residual_channels == 1 and len(conv.nodes) == 2
    assert not any("repeat" in k for k in lowered.plan.kernels)
    found = check_host(lowered, samples)
    # The values of the bits (of the quantized input, in fixed point) through a real convolution.
    q = lowered.encode(samples)
    bits = evaluate(lowered.graph, [q], keep=True)[lowered.graph.nodes[0].output.name].astype(np.float64)
    real = torch.nn.functional.conv2d(
        torch.tensor(bits.transpose(0, 3, 1, 2)), torch.tensor(weights.transpose(0, 3, 1, 2)), torch.tensor(bias),
        (2, 1), (1, 1),
    ).numpy().transpose(0, 2, 3, 1)  # fmt: skip
    assert np.abs(found - real).max() <= most * np.abs(real).max()


@pytest.mark.parametrize(
    ("core", "numerics"), [("cortex-m0plus", "fixed16"), ("cortex-m4", "fixed8"), ("cortex-a72", "float")]
)
def test_emulated(core: str, numerics: str) -> None:
    """Sums, logic, pools of bits and trits and of the trunk on cores; in fixed point one count for every input."""
    net, y, samples, _, _ = asymmetric(ternary=core == "cortex-m4")
    y = net.add(MaxPool((2, 3), (1, 2), (1, 0, 1, 1)), y)
    best = net.add(Repeat(40), net.add(Affine(), net.add(Reduce("max", "channels"), y), *net.vector([0.5], [0.0])))
    y = net.add(Affine(2), y, best, *net.vector(*np.ones((2, 40)), np.zeros(40)))
    first, second = (net.add(Sign(), y, *net.vector(np.full(40, t))) for t in (-0.3, 0.4))
    bits = net.add(MaxPool((2, 2), (1, 1)), net.add(BitLogic("xor"), first, second))
    trits = net.add(MaxPool((2, 2), (1, 1)), net.add(Ternarize(), y, *net.vector(np.full(40, -0.5), np.full(40, 0.6))))
    rng = np.random.default_rng(5)
    sums = [
        net.add(Affine(), net.add(Conv2d(), v, net.graph.constant("w", rng.choice([-1, 1], (7, 1, 1, 40)), DType.BIT)),
                *net.vector(np.full(7, 0.1), np.zeros(7)))
        for v in (bits, trits)
    ]  # fmt: skip
    lowered = net.lowered(net.add(Affine(2), *sums, *net.vector(*np.ones((2, 7)), np.zeros(7))), numerics, samples)
    expected_kernels = {"bd_logic_bit", "bd_max_pool_bit", "bd_max_pool_trit"}
    assert expected_kernels <= set(lowered.plan.kernels)
    q = lowered.encode(np.concatenate([samples[:2], np.full((1, 6, 7, 5), 9.0)]))
    expected = evaluate(lowered.graph, [q])[lowered.graph.outputs[0].name]
    counts = set()
    with EmulatedModel(lowered, core) as model:
        for x, wanted in zip(q, expected, strict=True):
            found, result = model.count(x)
            same(found, wanted)
            counts.add(result.instructions)
    assert len(counts) == 1 or numerics == "float"


@pytest.mark.parametrize("numerics", NUMERICS)
def test_packed_weights_of_zero_and_one_are_refused(numerics: str) -> None:
    net = Net(4, 4, 8)
    bits = net.add(Sign(), net.x, *net.vector(np.zeros(8)))
    weights = net.graph.constant("w", np.ones((8, 1, 1, 8)), DType.UBIT)
    with pytest.raises(UnsupportedError, match=r"weights of 0 and 1"):
        net.lowered(net.add(Conv2d(), bits, weights), numerics, np.ones((1, 4, 4, 8)))
