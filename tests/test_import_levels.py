"""Levels that are not -c and +c, imported exactly: {0, c}, offsets, scales, asymmetric weights, and their borders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from test_ops_elementwise import check_host  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch_modules import BIT, TRIT, Fn, check, layers, names, per_channel, randn, randomize, sign, to_nhwc  # noqa: E402

from bdnet_deploy.graph import NUMERICS, BoxSum, Conv2d, DType, Graph  # noqa: E402
from bdnet_deploy.importers.torch import import_module  # noqa: E402
from bdnet_deploy.importers.torch.weights import Weights, recognise_weights  # noqa: E402
from bdnet_deploy.lowering import lower  # noqa: E402
from bdnet_deploy.model import Model  # noqa: E402

UBIT = DType.UBIT
SHAPE = (1, 6, 7, 9)


def asymmetric(w: Tensor) -> Tensor:
    """The weights of AdaBin: the mean of a filter plus or minus its deviation."""
    mean = w.mean((1, 2, 3), keepdim=True)
    return mean + w.std((1, 2, 3), keepdim=True, unbiased=False) * sign(w - mean)


#: Activation -> its dtype in the graph.
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], DType]] = {
    "signs": (sign, BIT),
    "zero and one": (lambda x: (x >= 0.1).to(x.dtype), UBIT),
    "zero and c": (lambda x: 0.7 * ((x / 0.7).round().clamp(0, 1)), UBIT),
    "c and zero": (lambda x: 0.7 * (x < 0.2).to(x.dtype), BIT),
    "two positive": (lambda x: 0.4 * (sign(x) + 2.5), BIT),
    "AdaBin": (lambda x: 0.8 * (sign((x - 0.3) / 0.8) + 0.375), BIT),
    "an offset per channel": (lambda x: 0.5 * sign(x) + per_channel(0.1, -0.2, 0.3, 0, 0, 1.0), BIT),
    "trits with an offset": (lambda x: x.round().clamp(-1, 1) + 0.25, TRIT),
    "zero, one and two": (lambda x: (x.round() + 1).clamp(0, 2), TRIT),
    "directions": (lambda x: 0.8 * (sign(x * per_channel(1, -1, 1, 1, -1, 2)) + 0.2), BIT),
    "a channel that never changes": (lambda x: 0.8 * (sign(x * per_channel(1, 0, 1, -1, 0, 1) - 0.1) + 0.3), BIT),
    "all falling": (lambda x: -0.5 * sign(x - 0.1) + 0.125, BIT),
}
WEIGHTS = {"symmetric": lambda w: 0.3 * sign(w), "asymmetric": asymmetric}
GEOMETRY: dict[str, dict[str, Any]] = {
    "no padding": {},
    "padding": {"padding": 1},
    "wide padding": {"padding": (3, 2), "stride": (2, 1)},
    "dilation": {"padding": (2, 1), "dilation": (2, 1), "stride": (1, 3)},
    "groups": {"padding": 1, "groups": 2},
    "depth-wise": {"padding": 1, "groups": 6, "stride": 2},
}


def module(activation: str, weights: str, geometry: str) -> nn.Module:
    function, quantize, options = ACTIVATIONS[activation][0], WEIGHTS[weights], GEOMETRY[geometry]
    outputs = {"groups": 4, "depth-wise": 12}.get(geometry, 5)
    w = randn(outputs, 6 // options.get("groups", 1), 3, 3)
    return Fn(lambda x, w, b: F.conv2d(function(x), quantize(w), b, **options), w=w, b=randn(outputs))


@pytest.mark.parametrize("geometry", GEOMETRY)
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_levels(activation: str, weights: str, geometry: str) -> None:
    """In double the graph is PyTorch's, borders included; the layer is binary."""
    graph = check(module(activation, weights, geometry), SHAPE, tolerance=2e-6)
    main = next(n for n in graph.nodes if n.name == "conv2d")
    assert main.inputs[0].type.dtype is ACTIVATIONS[activation][1]
    assert main.inputs[1].type.dtype is BIT
    assert graph.reasons == {}


def test_a_box_filter_for_all_outputs() -> None:
    graph = check(module("signs", "asymmetric", "padding"), SHAPE)
    assert names(graph) == ["sign", "box_sum", "repeat", "conv2d", "affine"]
    graph = check(module("AdaBin", "asymmetric", "no padding"), SHAPE)
    assert names(graph) == ["sign", "box_sum", "repeat", "conv2d", "affine"]
    graph = check(module("AdaBin", "symmetric", "padding"), SHAPE)
    assert not any(n.name.startswith("conv2d.sum") for n in graph.nodes)


def test_padding_that_is_a_level_costs_nothing() -> None:
    for activation, pad in (("zero and c", 0), ("c and zero", 1), ("zero, one and two", -1), ("signs", 0)):
        graph = check(module(activation, "symmetric", "padding"), SHAPE)
        convs = [n.op for n in graph.nodes if isinstance(n.op, Conv2d)]
        assert [op.pad_value for op in convs] == [pad], activation


def test_borders_come_from_a_small_map() -> None:
    """Whatever the map's size, a 3x3 filter has nine cases, as on a map of 3x3."""
    w = randn(5, 6, 3, 3)
    graph = import_module(Fn(lambda x, w: F.conv2d(sign(x) + 0.3, 0.2 * sign(w), padding=1), w=w), (1, 6, 40, 50))
    border = next(n for n in graph.nodes if n.name == "conv2d.border")
    assert border.inputs[0].type.shape == (1, 3, 3, 1)
    assert border.inputs[1].type.shape == (5, 3, 3, 1)


def test_linear_layers() -> None:
    w, b = randn(7, 12), randn(7)
    two = 0.2 * sign(w) + 0.05 * randn(7)[:, None]
    for function in (sign, lambda x: sign(x) + 0.3, lambda x: (x > 0).to(x.dtype), lambda x: 0.5 - 0.5 * sign(x)):
        for weights in (two, 0.2 * sign(w)):
            graph = check(Fn(lambda x, w, b, f=function: F.linear(f(x), w, b), w=weights, b=b), (1, 12), tolerance=2e-6)
            assert layers(graph)[-1][1] is BIT and graph.reasons == {}
    mixed = torch.tensor([1.0, -1, 1, -1, 1, 1, 1, -1, 1, 1, -1, 1])
    graph = check(Fn(lambda x, w, b: F.linear(sign(x * mixed) + 0.1, w, b), w=two, b=b), (1, 12), tolerance=2e-6)
    assert {kinds[1] for kinds in layers(graph)} == {BIT}


# -- on the host ----------------------------------------------------------------------------------------------------------


def on_host(
    graph: Graph, expected: Callable[[Tensor], Tensor], shape: tuple[int, ...], limits: dict[str, float]
) -> None:
    """The host library gives the bytes of the references in all numerics, which are near PyTorch."""
    x = torch.randn((24, *shape[1:]), generator=torch.Generator().manual_seed(3)).double()
    samples = to_nhwc(x)
    for numerics in NUMERICS:
        lowered = lower(graph, numerics, samples=samples)
        found = check_host(lowered, samples)
        if numerics == "fixed16" and len(shape) == 4:  # row by row too
            assert np.array_equal(check_host(lowered.replanned(push_rows=True), samples), found)
        # Real numbers that the inputs stand for: a sign of a rounded input may differ.
        seen = lowered.encode(samples)
        quant = lowered.graph.inputs[0].type.quant
        exact = seen.astype(np.float64) if quant is None else quant.dequantize(seen)
        axes = (0, 3, 1, 2) if exact.ndim == 4 else (0, 1)
        y = torch.cat([expected(row[None]) for row in torch.from_numpy(exact.transpose(axes).copy())])
        real = to_nhwc(y.detach())
        error = np.abs(found - real) / np.abs(real).max()
        assert np.quantile(error, 0.98) <= limits[numerics], numerics  # a few saturate: signs of the rounded input
        if numerics == "float":
            assert error.max() <= limits[numerics]


@pytest.mark.parametrize("geometry", ["no padding", "padding", "wide padding", "dilation", "groups", "depth-wise"])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("activation", ["zero and c", "c and zero", "AdaBin", "trits with an offset", "directions"])
def test_levels_on_the_host(activation: str, weights: str, geometry: str) -> None:
    net = module(activation, weights, geometry)
    limits = {"float": 1e-5, "fixed16": 0.003, "fixed8": 0.02}
    on_host(import_module(net, SHAPE), net.double(), SHAPE, limits)


def test_a_channel_that_is_always_zero_among_trits() -> None:
    net = Fn(
        lambda x, w: F.conv2d(torch.sign(x * per_channel(1, 0, 1, -1, 1, 1)), sign(w), padding=1), w=randn(5, 6, 3, 3)
    )
    graph = check(net, SHAPE)
    assert layers(graph) == [(TRIT, BIT)]


def test_weights() -> None:
    w = np.array([[0.5, -0.1, -0.1, 0.5], [0.2, -0.2, -0.2, -0.2], [0.3, 0.3, 0.3, 0.3]])
    found = recognise_weights(w)
    assert isinstance(found, Weights) and found.dtype is BIT and found.asymmetric
    np.testing.assert_allclose(found.levels * found.alpha[:, None] + found.beta[:, None], w, rtol=1e-12)
    np.testing.assert_allclose(found.beta, [0.2, 0, 0])
    assert isinstance(recognise_weights(np.array([[0.1, 0.5], [0.3, 0.7]])), str)
    # A middle of a few millionths counts, since it is multiplied by a sum over the window; the rounding of
    # straight-through code does not.
    for middle in (3e-5, 5e-6):
        nearly = np.float32(0.25) * (np.where(randn(1, 576).numpy() < 0, -1, 1) + np.float32(middle))
        found = recognise_weights(nearly)
        assert isinstance(found, Weights) and found.dtype is BIT
        np.testing.assert_allclose(found.beta, 0.25 * middle, rtol=0.02)
    latent = randn(8, 576) * 0.5
    scale = 0.01 * latent.abs().mean(1, keepdim=True)
    through = (scale * torch.sign(latent) - latent) + latent
    assert len(torch.unique(through.abs(), dim=1)[0]) > 2
    found = recognise_weights(through.numpy())
    assert isinstance(found, Weights) and found.dtype is BIT and not found.asymmetric
    dense = np.concatenate([np.linspace(-1, -0.5, 20000), np.linspace(0.5, 1, 20000)])[None]
    assert isinstance(recognise_weights(dense), str)  # neighbours are near, but these are not two levels


# -- a network of such layers ---------------------------------------------------------------------------------------------


class AdaActivation(nn.Module):
    """alpha * (sign((x - beta) / alpha) + beta), with one alpha and one beta a layer, as AdaBin's code has it."""

    def __init__(self, alpha: float, beta: float) -> None:
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.tensor([alpha])), nn.Parameter(torch.tensor([beta]))

    def forward(self, x: Tensor) -> Tensor:
        return self.alpha * (torch.where((x - self.beta) / self.alpha >= 0, 1.0, -1.0).to(x.dtype) + self.beta)


class AdaConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, asymmetric(self.weight), None, self.stride, self.padding)


class Maxout(nn.Module):
    """Both slopes are learned; some are negative."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.positive = nn.Parameter(1 + 0.2 * randn(1, channels, 1, 1))
        self.negative = nn.Parameter(0.25 * randn(1, 1, channels, 1).transpose(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.positive * F.relu(x) - self.negative * F.relu(-x)


class AdaBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1, beta: float = 0.4) -> None:
        super().__init__()
        self.binary = AdaActivation(0.6, beta)
        self.conv = AdaConv(inputs, outputs, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = Maxout(outputs)
        self.pool, self.times = nn.AvgPool2d(stride) if stride > 1 else nn.Identity(), outputs // inputs

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(self.binary(x))) + self.pool(x).repeat(1, self.times, 1, 1))


class AdaNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(AdaBlock(8, 8), AdaBlock(8, 16, 2, -0.05), AdaBlock(16, 16))
        self.classifier = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.body(self.stem(x)).mean((2, 3)))


def test_adabin_end_to_end() -> None:
    torch.manual_seed(4)
    net = randomize(AdaNet()).eval()
    shape = (1, 3, 12, 10)
    graph = check(net, shape, tolerance=1e-5)
    assert set(graph.reasons) == {"stem", "classifier"}
    binary = [n for n in graph.nodes if isinstance(n.op, Conv2d) and n.inputs[1].type.dtype is BIT]
    assert [n.name for n in binary] == [f"body.{i}.conv" for i in range(3)]
    assert sum(isinstance(n.op, BoxSum) and n.name.endswith(".sum") for n in graph.nodes) == 3
    on_host(graph, net.double(), shape, {"float": 1e-4, "fixed16": 0.1, "fixed8": 0.3})


def test_bits_that_are_also_added() -> None:
    """Levels that something else than a product reads become numbers, also on the host."""
    w = randn(6, 6, 1, 1)

    def function(x: Tensor, w: Tensor) -> Tensor:
        bits, steps = 0.5 * sign(x - 0.1), (x > 0.4).to(x.dtype)
        return F.conv2d(bits, 0.2 * sign(w)) + bits + steps

    net = Fn(function, w=w)
    graph = check(net, SHAPE)
    on_host(graph, net.double(), SHAPE, {"float": 1e-5, "fixed16": 1e-3, "fixed8": 0.02})
    vector = Fn(lambda x: 0.5 * sign(x) + 0.25 * x)
    on_host(check(vector, (1, 9)), vector.double(), (1, 9), {"float": 1e-5, "fixed16": 1e-3, "fixed8": 1e-2})


@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_bits_that_are_also_added_in_foreign_files(target: str, tmp_path: Path) -> None:
    """Where bits are numbers anyway, nothing makes numbers of them."""
    if target == "onnx":
        pytest.importorskip("onnxruntime")
    else:
        pytest.importorskip("bdnet_deploy.peers.lce")
    w = randn(6, 6, 1, 1)
    net = Fn(lambda x, w: (F.conv2d(sign(x - 0.1), 0.2 * sign(w)) + 0.5 * sign(x - 0.1)).mean((2, 3)), w=w)
    model = Model("added", import_module(net, SHAPE))
    path = tmp_path / f"added.{target}"
    model.export(target, path)
    model.verify(path, inputs=np.random.default_rng(0).normal(size=(5, 7, 9, 6)).astype(np.float32))
