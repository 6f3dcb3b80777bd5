"""Likely causes: each planted mistake is named, and none is named where no hypothesis fits."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bdnet_deploy import load
from bdnet_deploy.analysis.comparing.behaviour import cause_of_inputs, cause_of_layer
from bdnet_deploy.analysis.comparing.graphs import compare_graphs
from bdnet_deploy.analysis.comparing.verdicts import Verdicts
from bdnet_deploy.graph import Affine, Array, Conv2d, DType, Graph, Node, Sign, Value, evaluate
from bdnet_deploy.iodesc import InputDescription, IODescription
from bdnet_deploy.model import Model

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits"
Change = Callable[[Array], Array]


def network(seed: int = 0) -> Graph:
    """A stem, an affine, a sign, a binary convolution, an integer sign, a second binary convolution."""
    rng = np.random.default_rng(seed)
    g = Graph("net", "float")
    x = g.input("x", (1, 8, 8, 3), DType.F32)

    def weights(name: str, shape: tuple[int, ...], dtype: DType) -> Value:
        data = rng.normal(size=shape) if dtype is DType.F32 else rng.choice([-1, 1], shape)
        return g.constant(name, data, dtype)

    y = g.add(Conv2d(padding=(1, 1, 1, 1)), [x, weights("w0", (16, 3, 3, 3), DType.F32)], "stem", source="stem")
    mul, add = (g.constant(name, rng.normal(size=16), DType.F32) for name in ("mul", "add"))
    y = g.add(Affine(1, DType.F32), [y, mul, add], "bn", source="bn")
    y = g.add(Sign(), [y, g.constant("t0", rng.normal(size=16), DType.F32)], "bits", source="act")
    op = Conv2d(strides=(2, 2), padding=(1, 1, 1, 1), pad_value=1)
    y = g.add(op, [y, weights("w1", (16, 3, 3, 16), DType.BIT)], "conv1", source="conv1")
    y = g.add(Sign(), [y, g.constant("t1", rng.integers(-9, 9, 16), DType.I32)], "bits1", source="act1")
    g.outputs = [g.add(Conv2d(), [y, weights("w2", (10, 4, 4, 16), DType.BIT)], "conv2", source="conv2")]
    return g


def node_of(g: Graph, name: str) -> Node:
    return next(node for node in g.nodes if node.name == name)


def with_constant(g: Graph, name: str, change: Change) -> Graph:
    """A copy with one constant changed."""
    new = g.copy()
    value = next(v for v in new.constants() if v.name == name)
    assert value.data is not None
    value.data = np.ascontiguousarray(change(value.data.copy()), value.data.dtype)
    return new


def compared(a: Graph, b: Graph, **options: object) -> Verdicts:
    verdicts = Verdicts()
    compare_graphs(a, b, verdicts, **options)  # type: ignore[arg-type]
    return verdicts


def one_flipped(w: Array) -> Array:
    w[3, 1, 2, 5] *= -1
    return w


@pytest.mark.parametrize(
    ("name", "layer", "check", "change", "cause"),
    [
        ("w1", "conv1", "weights", one_flipped, "a damaged or edited file"),
        ("w1", "conv1", "weights", lambda w: -w, "all weights are negated"),
        ("w1", "conv1", "weights", lambda w: w[:, ::-1, ::-1], "turned by 180 degrees"),
        ("w1", "conv1", "weights", lambda w: w.transpose(0, 2, 1, 3), "rows and columns of the kernels"),
        ("w0", "stem", "weights", lambda w: w[..., ::-1], "RGB and BGR"),
        ("w2", "conv2", "weights", lambda w: w[..., np.r_[8:16, :8]], "input channels in another order"),
        ("w2", "conv2", "weights", lambda w: w[::-1], "same filters in another order"),
        ("w2", "conv2", "weights", lambda w: w.transpose(0, 3, 1, 2).reshape(w.shape), "an NCHW/NHWC swap"),
        ("w1", "conv1", "weights", lambda w: w * np.r_[[-1] * 3, [1] * 13][:, None, None, None], "3 of 16 filters"),
        ("w1", "conv1", "weights", lambda w: np.random.default_rng(9).choice([-1, 1], w.shape), "another training"),
        ("mul", "bn", "parameters", lambda a: a * np.float32(1 / 255), "times 0.00392157"),
        ("mul", "bn", "parameters", lambda a: a[::-1], "another order of channels"),
        ("add", "bn", "parameters", lambda a: np.where(np.arange(16) == 4, a + 1, a), "edited file"),
        ("add", "bn", "parameters", lambda a: np.nextafter(a, np.float32(9)), "rounding"),
        ("t0", "act", "parameters", lambda a: np.nextafter(a, np.float32(np.inf)), "tie rule"),
        ("t1", "act1", "thresholds", lambda a: a + 1, "tie rule"),
        ("t1", "act1", "thresholds", lambda a: np.where(np.arange(16) == 2, a + 5, a), "edited file"),
    ],
)
def test_constants(name: str, layer: str, check: str, change: Change, cause: str) -> None:
    g = network()
    first = compared(g, with_constant(g, name, change)).first
    assert first is not None
    assert (first.check, first.layer) == (check, layer)
    assert cause in first.cause
    assert "the model has" in first.why


def test_nothing_is_invented() -> None:
    g = network()
    noise = np.random.default_rng(1).normal(size=16)
    verdicts = compared(g, with_constant(g, "mul", lambda a: a + noise))
    assert verdicts.first is not None and verdicts.first.cause == verdicts.cause == ""


def test_every_bit_counts_unless_two_importers_made_the_graphs() -> None:
    g = network()
    other = with_constant(g, "mul", lambda a: np.where(np.arange(16) == 7, np.nextafter(a, np.float32(9)), a))
    assert compared(g, other).first is not None
    tolerant = compared(g, other, exact=False)
    assert tolerant.first is None
    assert sum(int(str(row["near_ties"])) for row in tolerant.table.rows) == 1
    assert compared(g, with_constant(g, "mul", lambda a: a * np.float32(1.001)), exact=False).first is not None
    zero = with_constant(g, "add", lambda a: a * 0)
    assert compared(zero, with_constant(zero, "add", lambda a: -a)).first is not None  # -0.0


def test_other_names_and_another_order_are_the_same_graph() -> None:
    g, other = network(), network()
    for i, value in enumerate([*other.inputs, *other.constants(), *(n.output for n in other.nodes)]):
        value.name = f"v{i}"
    assert compared(g, other).first is None


def with_op(g: Graph, name: str, op: Conv2d) -> Graph:
    new = g.copy()
    node_of(new, name).op = op
    return new


def test_attributes() -> None:
    g = network()
    op = node_of(g, "conv1").op
    assert isinstance(op, Conv2d)
    for change, cause in (
        ({"padding": (0, 2, 0, 2)}, "padding alignment"),
        ({"pad_value": -1}, "padding with -1 instead of 1"),
    ):
        first = compared(g, with_op(g, "conv1", dataclasses.replace(op, **change))).first  # type: ignore[arg-type]
        assert first is not None and (first.check, first.layer) == ("structure", "conv1")
        assert cause in first.cause and "in the model" in first.why


def test_missing_and_extra_nodes_are_named() -> None:
    g, shorter = network(), network()
    node = node_of(shorter, "bn")
    shorter.redirect(node.output, node.inputs[0])
    shorter.prune()
    first = compared(g, shorter).first
    assert first is not None and (first.check, first.layer) == ("structure", "bn")
    assert "no such affine" in first.why
    first = compared(shorter, g).first
    assert first is not None and first.check == "structure"


def test_batch_normalization_with_another_epsilon() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 1), torch.nn.BatchNorm2d(16))
    rng = np.random.default_rng(0)
    variance = rng.uniform(1e-4, 0.01, 16)
    module[1].running_var.copy_(torch.from_numpy(variance))
    variance = module[1].running_var.double().numpy()
    g = with_constant(network(), "mul", lambda a: rng.normal(size=16) / np.sqrt(variance + 1e-5))
    other = with_constant(g, "mul", lambda a: a * np.sqrt((variance + 1e-5) / (variance + 1e-3)))
    first = compared(g, other, module=module).first
    assert first is not None and "'1' with epsilon 0.001" in first.cause
    wrong = with_constant(g, "mul", lambda a: a * rng.uniform(0.8, 1.0, 16))
    first = compared(g, wrong, module=module).first
    assert first is not None and first.cause == ""


# -- layers that ran alone ------------------------------------------------------------------------------------------------------


def values_of(g: Graph) -> dict[str, Array]:
    x = np.random.default_rng(3).normal(size=(2, 8, 8, 3)).astype(np.float32)
    return {**evaluate(g, [x], keep=True), "x": x}


def test_layers_alone() -> None:
    g = network()
    values = values_of(g)

    def cause(name: str, found: Array) -> str:
        return cause_of_layer(node_of(g, name), found, values)

    def of(name: str, **changes: object) -> Array:
        op = node_of(g, name).op
        return values_of(with_op(g, name, dataclasses.replace(op, **changes)))[name]  # type: ignore[arg-type,type-var]

    assert "padding alignment" in cause("conv1", of("conv1", padding=(0, 2, 0, 2)))
    assert "(0, 2, 0, 2)" in cause("conv1", of("conv1", padding=(0, 2, 0, 2)))
    assert cause("conv1", of("conv1", pad_value=0)) == "padding with 0 instead of 1"
    assert cause("conv1", -values["conv1"]) == "all values are negated"
    assert "rows and columns" in cause("bits", values["bits"].transpose(0, 2, 1, 3))
    assert "NCHW/NHWC" in cause("bn", values["bn"].transpose(0, 3, 1, 2).reshape(values["bn"].shape))
    assert "times 0.5" in cause("bn", values["bn"] / 2)
    assert cause("bn", values["bn"] + np.random.default_rng(0).normal(size=values["bn"].shape)) == ""
    tied = {**values, "conv1": np.zeros_like(values["conv1"])}
    zero = with_constant(g, "t1", lambda a: a * 0)
    tied["bits1"] = np.ones_like(values["bits1"])
    assert "tie rule" in cause_of_layer(node_of(zero, "bits1"), -tied["bits1"], tied)


# -- inputs -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prepare", "cause"),
    [
        (lambda x: x[..., ::-1], "RGB and BGR"),
        (lambda x: x.transpose(0, 2, 1, 3), "rows and columns"),
        (lambda x: x * 255, "divided by 255"),
        (lambda x: (x - 127.5) * np.float32(1 / 64), "raw samples go in"),
        (lambda x: x.transpose(0, 3, 1, 2).reshape(x.shape), "NCHW"),
    ],
)
def test_wrong_inputs_are_found_by_trying(prepare: Change, cause: str) -> None:
    g = network()
    io = IODescription((InputDescription(shape=(8, 8, 3), dtype="u8", mean=(127.5,), std=(64.0,)),))
    x = np.random.default_rng(5).normal(size=(3, 8, 8, 3)).astype(np.float32)

    def run(inputs: Array) -> Array:  # a file that prepares its inputs itself
        return evaluate(g, [np.ascontiguousarray(prepare(inputs), np.float32)])["conv2"]

    expected = evaluate(g, [x])["conv2"]
    assert cause in cause_of_inputs(run, x, expected, io)
    other = evaluate(network(1), [x])["conv2"]
    assert cause_of_inputs(run, x, other, io) == ""


# -- files ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Model:
    pytest.importorskip("torch")
    return load(DIGITS / "model.pt")


def test_of_another_program(model: Model, tmp_path: Path) -> None:
    """PyTorch's own export of the module, where batch normalization lies in the weights, is compared end to end."""
    pytest.importorskip("onnxruntime")
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from bdnet_deploy.analysis.verify import VerifyError

    path = tmp_path / "theirs.onnx"
    example = torch.zeros(1, 1, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the new exporter needs onnxscript
        torch.onnx.export(model.module(), (example,), str(path), dynamo=False)
    report = model.verify(path, inputs=DIGITS / "test.npz", limit=10)
    assert report.facts["verdict"] == "equal"
    assert str(report.facts["file"]).startswith("of another program")
    assert "recognised" in str(report.facts["layers"])
    other = load(arch="bdnet_digits", preprocess=model.io)
    with pytest.raises(VerifyError) as caught:
        other.verify(path, inputs=(DIGITS / "test.npz"), limit=10)
    assert caught.value.exit_code == 4 and "bdnet-deploy export" not in str(caught.value.fix)
    assert "end to end" in caught.value.what
    assert "weights of another training" in str(caught.value.report.facts["first layer unlike"])
