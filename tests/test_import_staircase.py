"""Uniform quantizers of activations with 4 to 65536 levels: recognised, exact in float, and on their own grid in fixed point."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from test_ops_elementwise import check_host  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch_modules import Fn, check, names, per_channel, randn, randomize, sign, to_nhwc  # noqa: E402

from bdnet_deploy.analysis.comparing.imported import compare_import  # noqa: E402
from bdnet_deploy.analysis.comparing.quantized import compare  # noqa: E402
from bdnet_deploy.analysis.comparing.verdicts import Verdicts  # noqa: E402
from bdnet_deploy.errors import UnsupportedError  # noqa: E402
from bdnet_deploy.graph import NUMERICS, Array, Clamp, Conv2d, DType, Graph, Quantize, evaluate  # noqa: E402
from bdnet_deploy.importers.torch import import_module, import_recorded  # noqa: E402
from bdnet_deploy.iodesc import InputDescription, IODescription  # noqa: E402
from bdnet_deploy.lowering import Lowered, lower  # noqa: E402
from bdnet_deploy.passes import merge_affine  # noqa: E402

U8, I8, I16 = DType.U8, DType.I8, DType.I16
SHAPE = (1, 4, 6, 6)
Function = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Inputs and weights are the same in every run."""
    torch.manual_seed(7)


def quant(scale: float, low: int, high: int, zero: int = 0) -> Function:
    """QONNX's Quant: clamped, then rounded, halves to even."""
    return lambda x: (torch.clamp(x / scale + zero, low, high).round() - zero) * scale


def qdq(scale: float, low: int, high: int, zero: int = 0) -> Function:
    """QuantizeLinear and DequantizeLinear."""
    return lambda x: (torch.clamp((x / scale).round() + zero, low, high) - zero) * scale


def k_bit(x: Tensor, bits: int) -> Tensor:
    """DoReFa-Net's activations."""
    return (x.clamp(0, 1) * (2**bits - 1)).round() / (2**bits - 1)


def straight_through(f: Function) -> Function:
    return lambda x: x + (f(x) - x).detach()


def fake(scale: float, zero: int, low: int, high: int) -> Function:
    return lambda x: torch.fake_quantize_per_tensor_affine(x, scale, zero, low, high)


def fake_by_tensors(x: Tensor) -> Tensor:
    scale, zero = torch.tensor([0.0173], dtype=x.dtype), torch.tensor([37], dtype=torch.int32)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255)


#: What is written: levels, dtype, zero point, step, and the operators around quantize and dequantize.
STYLES: dict[str, tuple[Function, int, DType, int, float, list[str]]] = {
    "signed 8 bits": (quant(0.0173, -128, 127), 256, I8, 0, 0.0173, []),
    "narrow 8 bits": (quant(0.0173, -127, 127), 255, I8, 0, 0.0173, ["clamp"]),
    "a zero point": (qdq(0.0173, 0, 255, 37), 256, I8, -91, 0.0173, []),
    "a zero point at the end": (qdq(1 / 128, 0, 255, 255), 256, I8, 127, 1 / 128, []),
    "16 bits": (qdq(1e-4, -32768, 32767, 37), 65536, I16, 37, 1e-4, []),
    "unsigned 16 bits": (lambda x: k_bit(x, 16), 65536, I16, -32768, 1 / 65535, []),
    "12 bits": (lambda x: k_bit(x, 12), 4096, I16, 0, 1 / 4095, ["clamp"]),
    "fake quantization": (fake(0.0173, 37, 0, 255), 256, I8, -91, 0.0173, []),
    "fake quantization by tensors": (fake_by_tensors, 256, I8, -91, 0.0173, []),
    **{
        f"DoReFa {bits}": (lambda x, bits=bits: k_bit(x, bits), 2**bits, U8, 0, 1 / (2**bits - 1), ["clamp"])  # type: ignore[misc]
        for bits in (2, 3, 4, 6)
    },
    "DoReFa 8": (lambda x: k_bit(x, 8), 256, U8, 0, 1 / 255, []),
    "straight through": (straight_through(quant(0.25, -8, 7)), 16, I8, 0, 0.25, ["clamp"]),
    "PACT": (lambda x: (x.clamp(0, 2.3) * (15 / 2.3)).round() * (2.3 / 15), 16, U8, 0, 2.3 / 15, ["clamp"]),
    "ReLU first": (lambda x: quant(0.0173, -128, 127)(x.relu()), 128, U8, 0, 0.0173, ["clamp"]),
    "floor": (lambda x: (x.clamp(0, 0.999) * 16).floor() / 16, 16, U8, 0, 1 / 16, ["affine", "clamp"]),
    "halves up": (lambda x: ((x * 4).clamp(-8, 7) + 0.5).floor() / 4, 16, I8, 0, 0.25, ["clamp"]),
    "no zero": (lambda x: (x.clamp(-1.99, 1.99) * 2).floor() / 2 + 0.25, 8, I8, 0, 0.5, ["affine", "clamp", "affine"]),
    "falling": (lambda x: 1 - k_bit(x, 4), 16, U8, 0, 1 / 15, ["clamp", "affine"]),
    "scaled": (lambda x: 3 * k_bit(x * 2, 4) + 0.3, 16, U8, 0, 1 / 30, ["clamp", "affine"]),
    "behind tanh": (lambda x: k_bit(torch.tanh(x) / 2 + 0.5, 4), 16, U8, 0, 1 / 15, ["unary", "affine", "affine", "clamp"]),
    "a shift per channel": (lambda x: k_bit(x + per_channel(0.3, -0.1, 0.5, 0.0), 4), 16, U8, 0, 1 / 15, ["affine", "clamp"]),
    "a scale per channel": (
        lambda x: (lambda s: (torch.clamp(x / s, -8, 7).round()) * s)(per_channel(0.3, 0.61, 1.2, 0.15)),
        16, I8, 0, 1.0, ["affine", "clamp", "affine"],
    ),
    "comparisons": (lambda x: sum(((x >= t).to(x.dtype) for t in (-0.5, 0.0, 0.5, 1.0)), -x * 0), 5, U8, 0, 0.5, ["affine", "clamp", "affine"]),
    "far from zero": (quant(1 / 150, 200, 300), 101, I16, 0, 1 / 150, ["clamp"]),
}  # fmt: skip


def of(graph: Graph) -> Quantize:
    (found,) = [n.op for n in graph.nodes if isinstance(n.op, Quantize)]
    return found


@pytest.mark.parametrize("style", STYLES)
def test_styles(style: str) -> None:
    function, count, dtype, zero, step, around = STYLES[style]
    graph = check(Fn(lambda x, w: F.conv2d(function(x), w, padding=1), w=randn(5, 4, 3, 3)), SHAPE, tolerance=2e-5)
    op = of(graph)
    assert (op.dtype, op.zero_point) == (dtype, zero)
    assert op.scale == pytest.approx(step, rel=1e-6)
    ops = names(graph)
    at = ops.index("quantize")
    assert ops[at + 1] == "dequantize" and ops[:at] + ops[at + 2 : -1] == around
    bits = math.ceil(math.log2(count))
    assert graph.reasons["conv2d"] == f"activation has {count} levels ({bits} bits); weights have 36 levels"


@pytest.mark.parametrize("style", [s for s in STYLES if s not in ("behind tanh", "straight through")])
def test_in_float32_every_number_but_near_ties(style: str) -> None:
    """Also next to each threshold: a few units in the last place are what another spelling of the division costs."""
    function, count, _, _, step, _ = STYLES[style]
    graph = lower(import_module(Fn(function), SHAPE), "float").graph
    centre = 0.9 if style == "far from zero" else 0.0
    k = np.random.default_rng(1).integers(-count, count, 400) if count > 400 else np.arange(-count, count)
    threshold = (k + 0.5) * step if style != "far from zero" else (k + 250.5) * step
    off = 4 * np.spacing(np.maximum(np.abs(threshold), 1).astype(np.float32))
    x = np.concatenate([threshold - off, threshold + off, np.random.default_rng(2).normal(centre, 1, 2000)])
    x = np.resize(x, (-(-len(x) // 144), 4, 6, 6)).astype(np.float32)
    with torch.no_grad():
        expected = to_nhwc(torch.cat([function(row[None]) for row in torch.from_numpy(x)]))
    got = evaluate(graph, [np.moveaxis(x, 1, -1)])[graph.outputs[0].name]
    wrong = np.abs(got - expected) > 1e-5 * max(1, np.abs(expected).max())
    if count > 4096:
        wrong &= np.abs(got - expected) > 1.001 * step  # steps of few units in the last place
    assert wrong.mean() <= 2e-3
    assert len(np.unique(expected)) > min(count, 60) / 2


def test_halves() -> None:
    """The graph rounds them to even; elsewhere it is any other rule, too."""
    x = torch.arange(-40, 40).reshape(1, 5, 4, 4) / 8
    even, up = (
        import_module(Fn(f), (1, 5, 4, 4))
        for f in (quant(0.25, -8, 7), lambda x: (x * 4 + 0.5).floor().clamp(-8, 7) / 4)
    )
    assert of(even) == of(up)
    got = [evaluate(g, [to_nhwc(x.double())])[g.outputs[0].name] for g in (even, up)]
    assert np.array_equal(got[0], got[1]) and np.array_equal(got[0], to_nhwc(quant(0.25, -8, 7)(x)))
    theirs = to_nhwc((x * 4 + 0.5).floor().clamp(-8, 7) / 4)
    ties = to_nhwc((x * 4) % 1) == 0.5
    assert np.array_equal(got[1][~ties], theirs[~ties])
    assert set(np.unique((theirs - got[1])[ties])) == {0.0, 0.25}


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: x.round(), "neither a quantizer, nor affine"),
        (lambda x: x.clamp(-2, 2).round() ** 3, "it takes 5 levels, not 2 or 3"),
        (lambda x: k_bit(torch.tanh(x), 4) * 0 + torch.fake_quantize_per_channel_affine(
            x, torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.zeros(4, dtype=torch.int32), 1, -8, 7),
         "fake_quantize_per_channel_affine"),
    ],
)  # fmt: skip
def test_what_is_no_staircase(function: Function, says: str) -> None:
    with pytest.raises(UnsupportedError, match=says):
        import_module(Fn(function), SHAPE)


def test_paddings_before_it_become_levels() -> None:
    w = randn(5, 4, 3, 3)
    for fill, operators in (
        (0.0, ["quantize", "dequantize", "conv2d"]),
        (0.3, ["pad", "quantize", "dequantize", "conv2d"]),
    ):
        graph = check(
            Fn(lambda x, w, fill=fill: F.conv2d(quant(0.0173, -128, 127)(F.pad(x, (1, 2, 1, 1), value=fill)), w), w=w)
        )
        assert sorted(names(graph)) == sorted(operators), fill


def test_binary_weights_and_max_pooling() -> None:
    graph = check(Fn(lambda x, w: F.conv2d(F.max_pool2d(k_bit(x, 2), 2), 0.1 * sign(w)), w=randn(5, 4, 3, 3)))
    assert graph.reasons["conv2d"] == "activation has 4 levels (2 bits); its weights have two levels"
    assert {n.op.name for n in graph.nodes} >= {"max_pool", "quantize"}


def test_an_import_is_verified_with_near_ties() -> None:
    """Weights and inputs on a grid make sums that lie on halves; code that rounds these up differs there, and only there."""
    conv = nn.Conv2d(3, 8, 3, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(np.random.default_rng(0).integers(-4, 5, (8, 3, 3, 3)) / 16))
    net = nn.Sequential(conv, Fn(lambda x: (x * 4 + 0.5).floor().clamp(-8, 7) / 4), nn.Conv2d(8, 4, 3))
    x = np.random.default_rng(1).integers(-8, 8, (4, 8, 8, 3)) / 4
    verdicts = Verdicts()
    compare_import(import_recorded(net, (1, 3, 8, 8)), x, verdicts)
    assert verdicts.first is None
    levels = next(row for row in verdicts.table.rows if "dequantize" in str(row["layer"]))
    assert 0 < levels["near_ties"] < 0.2 * levels["compared"]  # type: ignore[operator]


# -- in all numerics ------------------------------------------------------------------------------------------------------


class Weights8(nn.Conv2d):
    """8-bit weights, with one scale for all filters."""

    def forward(self, x: Tensor) -> Tensor:
        step = self.weight.abs().max() / 127
        w = (self.weight / step).round() * step
        return F.conv2d(x, w, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Residual(nn.Module):
    def __init__(self, channels: int, high: int) -> None:
        super().__init__()
        self.body = Weights8(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.BatchNorm2d(channels)
        self.high = high

    def forward(self, x: Tensor) -> Tensor:
        y = x + quant(2 / self.high, -(self.high + 1) // 2, self.high // 2)(self.norm(self.body(x)))
        return quant(3 / self.high, 0, self.high)(y.relu())


def network(bits: int) -> nn.Module:
    torch.manual_seed(0)
    high = 2**bits - 1
    net = nn.Sequential(
        Fn(quant(1 / 40, -128, 127)), Weights8(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), Fn(quant(3 / high, 0, high)),
        Residual(12, high), nn.MaxPool2d(2), Weights8(12, 9, 1), nn.BatchNorm2d(9), Fn(lambda x: 3 * k_bit(x / 3, bits)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(9, 10),
    )  # fmt: skip
    net.train()
    with torch.no_grad():
        for _ in range(10):
            net(torch.randn(8, 3, 9, 7))
    return randomize(net).eval()


@pytest.mark.parametrize("bits", [2, 4, 8, 11])
def test_a_network_on_the_host(bits: int) -> None:
    """All kernels give the bytes of the references. Fixed point has the model's own steps: fixed8 is as exact as fixed16."""
    net = network(bits)
    graph = import_module(net, (1, 3, 9, 7))
    x = torch.randn(24, 3, 9, 7, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = net(x).numpy()
    found = {}
    for numerics in NUMERICS:
        lowered = lower(graph, numerics, samples=to_nhwc(x))
        found[numerics] = check_host(lowered, to_nhwc(x).astype(np.float64))
        if numerics != "float":
            assert np.array_equal(
                check_host(lowered.replanned(push_rows=True), to_nhwc(x).astype(np.float64)), found[numerics]
            )
    scale = expected.std()
    assert np.abs(found["float"] - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.sqrt(np.mean((found["fixed16"] - expected) ** 2)) <= 0.05 * scale
    assert np.sqrt(np.mean((found["fixed8"] - expected) ** 2)) <= 0.05 * scale


def own(lowered: Lowered, name: str) -> Array:
    """Scale and zero point of a value of the lowered graph."""
    quant = next(n.output.type.quant for n in lowered.graph.nodes if n.name == name)
    assert quant is not None
    return np.array([quant.scale, quant.zero_point], np.float64)


@pytest.mark.parametrize("numerics", ["fixed16", "fixed8"])
def test_a_normalization_goes_straight_to_the_models_integers(numerics: str) -> None:
    """One affine map with exactly the model's scale, so that a ReLU that the saturation stands for cuts at 0."""
    net = nn.Sequential(Weights8(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), Fn(quant(3 / 255, 0, 255)), nn.Conv2d(8, 4, 1))
    x = torch.randn(8, 3, 9, 7)
    graph = import_module(randomize(net).eval(), (1, 3, 9, 7))
    lowered = lower(graph, numerics, samples=to_nhwc(x))
    assert [n.op.name for n in lowered.graph.nodes] == ["conv2d", "affine", "conv2d", "affine"]
    assert np.array_equal(own(lowered, lowered.graph.nodes[1].name), [3 / 255, -128])
    values = evaluate(lowered.graph, [lowered.encode(to_nhwc(x))], keep=True)[lowered.graph.nodes[1].name]
    assert values.min() == -128 and (values == -128).mean() > 0.3


def test_sums_whose_unit_is_many_steps_saturate() -> None:
    """Factors beyond 16 bits: limited 16 bits are between the sum and the model's integers."""
    net = Fn(lambda x, w: quant(0.01, -128, 127)(900 * F.conv2d(x, w) + F.conv2d(x, w.flip(0))), w=randn(6, 3, 3, 3))
    graph = import_module(net, (1, 3, 9, 7))
    x = torch.randn(16, 3, 9, 7).double()
    with torch.no_grad():
        expected = to_nhwc(copy_of(net)(x))
    for numerics in ("fixed16", "fixed8"):
        lowered = lower(graph, numerics, samples=to_nhwc(x))
        assert [n.op.name for n in lowered.graph.nodes][-3:] == ["affine", "clamp", "affine"]
        assert own(lowered, lowered.graph.nodes[-1].name)[0] == pytest.approx(0.01)
        assert (np.abs(check_host(lowered, to_nhwc(x)) - expected) < 0.001).mean() > 0.95  # the input has 8 bits


def copy_of(net: nn.Module) -> nn.Module:
    return copy.deepcopy(net).double()


def test_levels_of_16_bits_keep_their_limits() -> None:
    """16-bit factors cannot fill 16 bits: the steps are coarser, as those of other wide sums; the ends are the model's."""
    net = Fn(lambda x, w: quant(1e-4, 0, 65535, 20000)(F.conv2d(x, w)), w=randn(6, 3, 3, 3))
    graph = import_module(net, (1, 3, 9, 7))
    x = torch.randn(16, 3, 9, 7).double()
    with torch.no_grad():
        expected = to_nhwc(copy_of(net)(x))
    for numerics in ("fixed16", "fixed8"):
        lowered = lower(graph, numerics, samples=to_nhwc(x))
        got = check_host(lowered, to_nhwc(x))
        assert isinstance(lowered.graph.nodes[-1].op, Clamp)
        coarse = float(lowered.graph.nodes[-1].output.type.quant.scale)  # type: ignore[union-attr]
        assert 1e-4 < coarse < np.ptp(expected) / 1000
        assert abs(got.min() + 2.0) <= coarse and abs(got.max() - 4.5535) <= coarse
        assert np.quantile(np.abs(got - expected), 0.95) <= 0.1  # the input has 8 bits


def test_limits_hold_on_the_integers() -> None:
    """Levels fewer than the integers: all of them are reached, none beyond."""
    net = nn.Sequential(nn.Conv2d(3, 6, 3), Fn(lambda x: k_bit(x, 3)))
    graph = import_module(net, (1, 3, 9, 7))
    x = torch.randn(16, 3, 9, 7)
    for numerics in NUMERICS:
        got = check_host(lower(graph, numerics, samples=to_nhwc(x)), to_nhwc(x).astype(np.float64))
        np.testing.assert_allclose(np.unique(got), np.arange(8) / 7, rtol=1e-6)


def test_the_input_takes_the_models_own_integers() -> None:
    net = nn.Sequential(Fn(quant(1 / 50, -128, 127)), nn.Conv2d(3, 6, 3))
    graph = import_module(net, (1, 3, 9, 7))
    x = to_nhwc(3 * torch.randn(8, 3, 9, 7))
    lowered = lower(graph, "fixed8", samples=x)
    assert [n.op.name for n in lowered.graph.nodes] == ["conv2d", "affine"]
    given = lowered.graph.inputs[0].type
    assert given.dtype is I8 and given.quant is not None and given.quant.scale == pytest.approx(1 / 50, rel=1e-7)
    assert np.array_equal(lowered.encode(x), np.clip(np.rint(x.astype(np.float64) * 50), -128, 127))
    check_host(lowered, x)


def test_raw_pixels_that_are_the_models_integers() -> None:
    """Bytes with 1/255 in front of 8 bits of DoReFa-Net: nothing to compute; with another scale an affine map."""
    net = nn.Sequential(Fn(lambda x: k_bit(x, 8)), nn.Conv2d(3, 6, 3))
    graph = import_module(net, (1, 3, 9, 7))
    x = np.random.default_rng(0).integers(0, 256, (8, 9, 7, 3)) / 255
    for std, operators in ((1.0, ["conv2d", "affine"]), (0.5, ["affine", "conv2d", "affine"])):
        io = IODescription((InputDescription(shape=(9, 7, 3), dtype="u8", std=(255.0 * std,) * 3),))
        lowered = lower(graph, "fixed8", io=io, samples=x / std)
        assert [n.op.name for n in lowered.graph.nodes] == operators
        assert lowered.graph.inputs[0].type.dtype is U8
        check_host(lowered, x / std)


def test_weights_that_are_integers_keep_their_scale() -> None:
    """One scale for all filters, whose largest weights differ: in fixed point each has its own numbers."""
    rng = np.random.default_rng(0)
    levels = rng.integers(-127, 128, (6, 3, 3, 3)) * np.array([1, 0.9, 0.7, 0.5, 0.3, 0.1])[:, None, None, None]
    levels = np.rint(levels)
    net = nn.Conv2d(3, 6, 3)
    with torch.no_grad():
        net.weight.copy_(torch.from_numpy(levels * 0.0031).float())
    graph = import_module(net, (1, 3, 9, 7))
    lowered = lower(graph, "fixed8", samples=rng.normal(size=(8, 9, 7, 3)))
    conv = next(n for n in lowered.graph.nodes if isinstance(n.op, Conv2d))
    data, quant = conv.inputs[1].data, conv.inputs[1].type.quant
    assert data is not None and quant is not None
    real = data * quant.scale[:, None, None, None]
    np.testing.assert_allclose(real, levels.transpose(0, 2, 3, 1) * 0.0031, rtol=1e-6, atol=1e-9)
    assert np.abs(data).max() <= 127


def test_what_calibration_compares() -> None:
    """What the model's own limits cut off is no saturation to report, and no twin of the sums in front of them."""
    net = nn.Sequential(Weights8(3, 8, 3), nn.BatchNorm2d(8), Fn(lambda x: k_bit(x, 4)), nn.Conv2d(8, 4, 1))
    graph = import_module(randomize(net).eval(), (1, 3, 9, 7))
    x = to_nhwc(torch.randn(8, 3, 9, 7))
    lowered = lower(graph, "fixed8", samples=x)
    found = compare(merge_affine(graph), lowered, Held(x))
    assert [edge.value.type.shape for edge in found.edges] == [(1, 9, 7, 3), (1, 7, 5, 4)]
    assert found.edges[1].saturated == 0


class Held:
    """Samples in one batch."""

    def __init__(self, x: Array) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def batches(self, size: int) -> Iterator[Array]:
        yield self.x
