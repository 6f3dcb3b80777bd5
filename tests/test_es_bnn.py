"""ES-BNN: the block, ResNet-20's sizes, and the way of replicas through import, numerics, plan and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bdnet_deploy import models
from bdnet_deploy.graph import Affine, Conv2d, DType, Graph, Linear, Repeat, Sign, TwoSlope, Value, evaluate
from bdnet_deploy.lowering import lower
from bdnet_deploy.model import Model
from bdnet_deploy.passes import merge_affine

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402
from torch_modules import check, randomize  # noqa: E402

from bdnet_deploy.nn import BinaryConv2d, ESBlockHalf, RSign  # noqa: E402

NUMERICS = ("float", "fixed16", "fixed8")


def network(**options: object) -> torch.nn.Module:
    torch.manual_seed(5)
    return randomize(models.create("es_resnet20", **{"input_size": 8, "blocks": 1, **options})).eval()


def binary_work(module: torch.nn.Module) -> list[int]:
    """A list that takes the multiply-accumulates of every binary convolution when the module runs."""
    work: list[int] = []
    for layer in module.modules():
        if isinstance(layer, BinaryConv2d):
            layer.register_forward_hook(lambda m, _x, y: work.append(m.weight[0].numel() * y[0].numel()))
    return work


@pytest.mark.parametrize(("c_in", "c_out", "stride", "tau"), [(8, 8, 1, 2), (4, 8, 2, 2), (8, 16, 1, 4), (6, 6, 2, 1)])
def test_the_block_is_the_papers_formula(c_in: int, c_out: int, stride: int, tau: int) -> None:
    torch.manual_seed(1)
    block = randomize(ESBlockHalf(c_in, c_out, stride, tau=tau)).eval().double()
    x = torch.randn(2, c_in * tau, 6, 4, dtype=torch.float64)
    with torch.no_grad():
        bits = torch.where(x - block.activation.threshold >= 0, 1.0, -1.0).double()
        signs = torch.where(block.conv.weight >= 0, 1.0, -1.0).double()
        counts = functional.conv2d(bits, signs, None, stride, 1)
        assert signs.shape == (c_out // tau, c_in * tau, 3, 3)
        pooled = functional.avg_pool2d(x, 2) if stride == 2 else x
        expected = torch.empty(2, c_out * tau, *counts.shape[2:], dtype=torch.float64)
        for j in range(c_out * tau):  # replica j reads filter j mod (c_out / tau) and has parameters of its own
            scale = block.bn.weight[j] / torch.sqrt(block.bn.running_var[j] + block.bn.eps)
            y = (counts[:, j % (c_out // tau)] - block.bn.running_mean[j]) * scale + block.bn.bias[j]
            y = y + pooled[:, j % (c_in * tau)]
            expected[:, j] = torch.where(y >= 0, y, block.prelu.weight[j] * y)
        assert torch.allclose(block(x), expected, rtol=1e-12, atol=1e-12)


def test_resnet20_costs_what_the_plain_one_costs() -> None:
    """Multiply-accumulates of a ResNet-20 on 32x32 by hand; the same for every tau, which is what ES promises."""
    stages = [(32, 16, 16, 6), (16, 16, 32, 1), (16, 32, 32, 5), (8, 32, 64, 1), (8, 64, 64, 5)]
    by_hand = sum(side**2 * 9 * c_in * c_out * times for side, c_in, c_out, times in stages)
    bits = sum(9 * c_in * c_out * times for _, c_in, c_out, times in stages)
    assert (by_hand, bits) == (40_108_032, 267_264)
    for tau in (1, 2, 4):
        module = models.create("es_resnet20", tau=tau).eval()
        work = binary_work(module)
        with torch.no_grad():
            logits = module(torch.randn(2, 3, 32, 32))
        assert logits.shape == (2, 10)
        assert len(work) == 18
        assert sum(work) == by_hand
        assert sum(m.weight.numel() for m in module.modules() if isinstance(m, BinaryConv2d)) == bits
        blocks = [m for m in module.modules() if isinstance(m, ESBlockHalf)]
        assert [b.bn.num_features for b in blocks] == [w * tau for w in (16, 32, 64) for _ in range(6)]


def test_the_head_sees_the_first_channels_only() -> None:
    module = network(tau=2, width=4)
    features: list[torch.Tensor] = []
    module.blocks.register_forward_hook(lambda _m, _x, y: features.append(y))
    with torch.no_grad():
        logits = module(torch.randn(3, 3, 8, 8))
        assert features[0].shape[1] == 32
        pooled = features[0][:, :16].mean((2, 3))
        assert torch.allclose(logits, module.classifier(pooled), rtol=1e-5, atol=1e-5)


def test_it_trains() -> None:
    module = models.create("es_resnet20", input_size=8, blocks=1)
    module(torch.randn(4, 3, 8, 8)).square().mean().backward()
    lacking = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not lacking


@pytest.mark.parametrize("options", [{}, {"tau": 1}, {"tau": 4, "width": 8}, {"blocks": 2, "width": 4, "classes": 3}])
def test_imported_as_the_module_computes(options: dict[str, object]) -> None:
    graph = check(network(**options), (1, 3, 8, 8))
    layers = [n for n in graph.nodes if isinstance(n.op, Conv2d | Linear)]
    binary = [n for n in layers if n.inputs[0].type.dtype is DType.BIT and n.inputs[1].type.dtype is DType.BIT]
    assert len(binary) == len(layers) - 2  # all but stem and classifier


def test_replicas_stay_the_convolutions_integers() -> None:
    graph = check(network(), (1, 3, 8, 8))
    merged = merge_affine(graph)
    repeats = [n for n in merged.nodes if isinstance(n.op, Repeat) and n.op.times == 4]
    assert len(repeats) == 6
    for repeat in repeats:
        assert repeat.output.type.dtype is DType.I32
        assert isinstance(repeat.inputs[0].node.op, Conv2d)
        (reader,) = merged.users()[repeat.output]
        assert isinstance(reader.op, Affine) and reader.op.terms == 2  # batch normalization and residual in one
    assert all(n.output.type.dtype is DType.F64 for n in graph.nodes if isinstance(n.op, Repeat))


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_merging_across_a_repeat_keeps_the_values(seed: int, flipped: bool) -> None:
    rng = np.random.default_rng([seed, flipped])
    graph, times, filters = Graph("repeat"), int(rng.integers(1, 5)), int(rng.integers(1, 9))
    channels = times * filters
    x = graph.input("x", (1, 5, 4, 7), DType.F64)
    kernel = graph.constant("w", rng.standard_normal((filters, 3, 3, 7)), DType.F64)

    def affine(name: str, *terms: Value) -> Value:
        vectors = [rng.standard_normal(terms[0].type.channels) for _ in range(len(terms) + 1)]
        constants = [graph.constant(f"{name}{i}", v, DType.F64) for i, v in enumerate(vectors)]
        return graph.add(Affine(len(terms)), [*terms, *constants], name)

    scaled = affine("scale", graph.add(Conv2d(padding=(1, 1, 1, 1)), [x, kernel], "conv"))
    shortcut = graph.add(Conv2d(), [x, graph.constant("v", rng.standard_normal((channels, 1, 1, 7)), DType.F64)], "sc")
    replicas = graph.add(Repeat(times), [scaled], "repeat")
    graph.outputs = [affine("sum", *((shortcut, replicas) if flipped else (replicas, shortcut)))]
    before = str(graph)
    merged = merge_affine(graph)
    assert str(graph) == before
    assert sum(isinstance(n.op, Affine) for n in merged.nodes) == 1
    data = rng.standard_normal((2, 5, 4, 7))
    old, new = evaluate(graph, [data])["sum"], evaluate(merged, [data])[merged.outputs[0].name]
    assert np.allclose(old, new, rtol=1e-12, atol=1e-12)


def test_an_affine_map_that_others_read_stays_before_the_repeat() -> None:
    graph = Graph("shared")
    x = graph.input("x", (1, 3, 3, 2), DType.F64)
    conv = graph.add(Conv2d(), [x, graph.constant("w", np.ones((4, 1, 1, 2)), DType.F64)], "conv")
    inner = graph.add(Affine(), [conv, *(graph.constant(n, np.full(4, 2.0), DType.F64) for n in "ab")], "inner")
    repeat = graph.add(Repeat(3), [inner], "repeat")
    outer = graph.add(Affine(), [repeat, *(graph.constant(n, np.full(12, 3.0), DType.F64) for n in "cd")], "outer")
    graph.outputs = [outer, inner]
    assert sum(isinstance(n.op, Affine) for n in merge_affine(graph).nodes) == 2


@pytest.mark.parametrize("numerics", ["fixed16", "fixed8"])
@pytest.mark.parametrize("real_weights", [False, True])
def test_replicas_are_as_precise_as_what_they_repeat(numerics: str, real_weights: bool) -> None:
    """The factors behind a repeat are the factors without it: no bits are kept free for 32-bit integers."""
    rng = np.random.default_rng(2)
    times, filters = 3, 5
    w = rng.standard_normal((filters, 3, 3, 7)) if real_weights else rng.choice([-1.0, 1.0], (filters, 3, 3, 7))
    mul, add = rng.uniform(0.1, 2.0, filters), rng.standard_normal(filters)
    samples = rng.standard_normal((8, 6, 5, 7))

    def fixed(k: int) -> list[np.ndarray]:
        graph = Graph("replicas")
        x = graph.input("x", (1, 6, 5, 7), DType.F64)
        if not real_weights:
            x = graph.add(Sign(), [x, graph.constant("t", np.zeros(7), DType.F64)], "bits")
        conv = graph.add(Conv2d(), [x, graph.constant("w", w, DType.F64 if real_weights else DType.BIT)], "conv")
        y = graph.add(Repeat(k), [conv], "repeat") if k > 1 else conv
        muls, adds = np.tile(mul, k), np.tile(add, k)
        muls[filters:], adds[filters:] = 0.999 * muls[filters:], 0.999 * adds[filters:]  # of their own: they stay
        vectors = [graph.constant(n, v, DType.F64) for n, v in (("mul", muls), ("add", adds))]
        graph.outputs = [graph.add(TwoSlope(), [graph.add(Affine(), [y, *vectors], "affine"),
                         *(graph.constant(n, np.full(filters * k, v), DType.F64) for n, v in (("p", 1.0), ("n", 0.5), ("b", 0.0)))],
                         "slopes")]  # fmt: skip
        lowered = lower(graph, numerics, samples=samples).graph
        (node,) = [n for n in lowered.nodes if isinstance(n.op, Affine) and n.inputs[0].type.dtype is DType.I32]
        return [np.array(node.op.shifts), *(v.data for v in node.inputs[1:])]

    alone, repeated = fixed(1), fixed(times)
    assert np.array_equal(alone[0], repeated[0])
    for one, many in zip(alone[1:], repeated[1:], strict=True):
        assert np.array_equal(one, many[:filters])


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("options", [{}, {"tau": 4, "width": 8}])
def test_files_verify_byte_for_byte(numerics: str, options: dict[str, object], tmp_path: Path) -> None:
    model = Model("es", check(network(**options), (1, 3, 8, 8)))
    samples = np.random.default_rng(1).standard_normal((12, 8, 8, 3)).astype(np.float32)
    calibrate = None if numerics == "float" else samples
    model.export("bdn", tmp_path / "es.bdn", numerics=numerics, calibrate=calibrate)
    report = model.verify(tmp_path / "es.bdn", inputs=samples[:3], calibrate=calibrate)
    assert (report.facts["verdict"], report.facts["compared"]) == ("equal", "every byte")


class Sum(torch.nn.Module):
    """Replicas of two convolutions and a residual, in sums of either order."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.sign, self.prelu = RSign(8), torch.nn.PReLU(8)
        self.first, self.second = BinaryConv2d(8, 4, 3, 1, 1), BinaryConv2d(8, 4, 1)
        self.bn1, self.bn2 = torch.nn.BatchNorm2d(8), torch.nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bits = self.sign(x)
        a, b = self.first(bits).repeat(1, 2, 1, 1), self.second(bits).repeat(1, 2, 1, 1)
        forms = {
            "replicas + residual": lambda: self.bn1(a) + x,
            "residual + replicas": lambda: x + self.bn1(a),
            "two replicas": lambda: self.bn2(b) + self.bn1(a),
            "bare replicas": lambda: a + b,
        }
        y: torch.Tensor = self.prelu(forms[self.form]())
        return y


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("form", ["replicas + residual", "residual + replicas", "two replicas", "bare replicas"])
def test_replicas_in_sums(form: str, numerics: str, tmp_path: Path) -> None:
    torch.manual_seed(6)
    model = Model("sum", check(randomize(Sum(form)).eval(), (1, 8, 5, 5)))
    samples = np.random.default_rng(2).standard_normal((12, 5, 5, 8)).astype(np.float32)
    calibrate = None if numerics == "float" else samples
    model.export("bdn", tmp_path / "sum.bdn", numerics=numerics, calibrate=calibrate)
    report = model.verify(tmp_path / "sum.bdn", inputs=samples[:3], calibrate=calibrate)
    assert (report.facts["verdict"], report.facts["compared"]) == ("equal", "every byte")
