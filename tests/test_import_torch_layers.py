"""PyTorch modules to graphs: what stands between binary layers, how a module is recorded, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch_modules import BIT, MAP, Fn, check, layers, names, per_channel, randn, sign, to_nhwc  # noqa: E402

from bdnet_deploy.errors import UnsupportedError, UsageError  # noqa: E402
from bdnet_deploy.graph import evaluate  # noqa: E402
from bdnet_deploy.importers.torch import import_module  # noqa: E402
from bdnet_deploy.importers.torch.cone import cones  # noqa: E402
from bdnet_deploy.importers.torch.recorder import record  # noqa: E402
from bdnet_deploy.passes import merge_affine  # noqa: E402

# -- what stands between layers -----------------------------------------------------------------------------------------

C4 = per_channel(1.3, -0.4, 0.8, 0.2)
D4 = per_channel(0.3, 0.6, -0.5, 0.1)
TWO_SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "prelu": lambda x: F.prelu(x, C4.reshape(4).to(x.dtype)),
    "shared prelu": lambda x: F.prelu(x, torch.tensor([0.25], dtype=x.dtype)),
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "rprelu": lambda x: F.prelu(x + D4, C4.reshape(4).to(x.dtype)) + C4,
    "relu form": lambda x: (lambda p: p + C4 * (x - p))(F.relu(x)),
    "where": lambda x: torch.where(x > D4, x - D4, C4 * (x - D4)) + 0.5,
    "maxout": lambda x: C4 * F.relu(x) - D4 * F.relu(-x),
    "maximum": lambda x: torch.maximum(x, 0.2 * x),
    "abs": lambda x: 0.5 * (x + x.abs()),
    "clamp": lambda x: x.clamp(min=-0.3),
    "mask": lambda x: x * (x > 0) + 0.1 * x * (x <= 0),
    "in place": lambda x: F.relu_(x + 0.25).mul_(2),
}


@pytest.mark.parametrize("style", TWO_SLOPES)
def test_two_slope_activations(style: str) -> None:
    graph = check(Fn(TWO_SLOPES[style]), tolerance=1e-7)
    assert names(graph).count("two_slope") == 1 and set(names(graph)) <= {"two_slope", "affine"}


AFFINES: dict[str, Callable[[Tensor], Tensor]] = {
    "add": lambda x: x + C4,
    "from": lambda x: 1.5 - x,
    "rsub": lambda x: torch.rsub(x, 2.0, alpha=3),
    "alpha": lambda x: torch.add(x, C4, alpha=2),
    "mul div": lambda x: x * C4 / D4,
    "neg": lambda x: -x,
    "standardize": lambda x: (x - D4) / (C4.abs() + 1e-5).sqrt() * C4 + D4,
    "no axis": lambda x: x * C4.reshape(4, 1, 1),
    "residual": lambda x: x * C4 + x,
    "difference": lambda x: torch.sub(F.relu(x), x * 2, alpha=0.5),
    "nothing": lambda x: F.dropout(x, 0.5, False).contiguous().clone().detach().to(x.dtype),
}


@pytest.mark.parametrize("style", AFFINES)
def test_affine_arithmetic(style: str) -> None:
    assert set(names(check(Fn(AFFINES[style]), tolerance=1e-6))) <= {"affine", "two_slope"}


FULL, PIXELS, ROWS = randn(1, 4, 6, 6), randn(1, 1, 6, 6), randn(1, 4, 6, 1)
PER_PIXEL: dict[str, tuple[Callable[[Tensor], Tensor], list[str]]] = {
    "position embedding": (lambda x: x + FULL, ["add_map"]),
    "without batch": (lambda x: x + FULL[0], ["add_map"]),
    "per pixel": (lambda x: x - PIXELS, ["add_map"]),
    "rows and channels": (lambda x: torch.add(ROWS, x, alpha=3), ["affine", "add_map"]),
    "from": (lambda x: FULL - x, ["affine", "add_map"]),
    "rsub": (lambda x: torch.rsub(x, PIXELS, alpha=-2), ["affine", "add_map"]),
    "scale": (lambda x: x * FULL, ["mul_map"]),
    "divided": (lambda x: x / (PIXELS.abs() + 0.5), ["mul_map"]),
    "in place": (lambda x: (x * 1.0).add_(FULL).mul_(PIXELS), ["affine", "add_map", "mul_map"]),
    "of levels": (lambda x: 0.5 * sign(x) + FULL, ["sign", "affine", "add_map"]),
    "threshold": (lambda x: sign(x - FULL), ["add_map", "sign", "affine"]),
    "padded": (lambda x: F.pad(x[..., 1:], (1, 0)) + FULL, ["slice", "pad", "add_map"]),
    "bends": (lambda x: F.relu(x + FULL) - FULL, ["add_map", "two_slope", "add_map"]),
    "tokens": (
        lambda x: (x.flatten(2).transpose(1, 2) + FULL.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(1, 4, 6, 6),
        None,  # type: ignore[dict-item]
    ),
}


@pytest.mark.parametrize("style", PER_PIXEL)
def test_constants_per_pixel(style: str) -> None:
    function, expected = PER_PIXEL[style]
    graph = check(Fn(function), tolerance=1e-6)
    assert expected is None or names(graph) == expected
    assert set(names(graph)) & {"add_map", "mul_map"}


def test_factors_of_each_axis_need_no_transpose() -> None:
    """XNOR-Net++: a factor per channel, per row and per column, one after the other."""
    channels, rows, columns = randn(1, 5, 1, 1), randn(1, 1, 6, 1), randn(1, 1, 1, 6)
    w = sign(randn(5, 4, 3, 3))
    graph = check(Fn(lambda x, w: F.conv2d(sign(x), w, padding=1) * channels * rows * columns, w=w), tolerance=1e-6)
    assert layers(graph) == [(BIT, BIT)]
    assert names(graph)[-2:] == ["mul_map", "mul_map"] and "transpose" not in names(graph)
    assert names(merge_affine(graph)) == ["sign", "conv2d", "affine", "mul_map"]
    x = np.random.default_rng(0).normal(size=(3, 6, 6, 4))
    before, after = (evaluate(g, [x])[g.outputs[0].name] for g in (graph, merge_affine(graph)))
    assert np.abs(before - after).max() <= 1e-12 * np.abs(before).max()


def test_position_embeddings_of_tokens() -> None:
    """Patches, an embedding of each, and a layer of tokens: the constant lies as the tokens do."""

    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(4, 8, 2, stride=2)
            self.position = nn.Parameter(randn(1, 9, 8))
            self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
            result: Tensor = self.head(self.norm(tokens).mean(1))
            return result

    graph = check(Embedded(), tolerance=1e-5)
    assert names(graph).count("add_map") == 1 and "transpose" not in names(graph)
    embedded = next(n for n in graph.nodes if n.op.name == "add_map")
    assert embedded.output.type.shape[-1] == 8 and embedded.output.type.size == 72


def test_batch_norms() -> None:
    net = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False), nn.ReLU(inplace=True))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5))
    graph = check(randomize_affine(nn.Sequential(net, head)))
    assert graph.nodes[0].source == "0.0"


def randomize_affine(module: nn.Module) -> nn.Module:
    for m in module.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            m.running_mean += 0.4
            m.running_var *= 1.7
    return module


MOVES: dict[str, tuple[Callable[[Tensor], Tensor], list[str]]] = {
    "repeat": (lambda x: x.repeat(1, 3, 1, 1), ["repeat"]),
    "cat": (lambda x: torch.cat([x, x], 1), ["repeat"]),
    "expand": (lambda x: x.unsqueeze(1).expand(1, 3, 4, 6, 6).reshape(1, 12, 6, 6), ["repeat"]),
    "tile": (lambda x: torch.tile(x, (1, 2, 1, 1)), ["repeat"]),
    "group mean": (lambda x: x.view(1, 2, 2, 6, 6).mean(2), ["group_mean"]),
    "group mean, keepdim": (lambda x: x.unflatten(1, (2, 2)).mean(2, keepdim=True).squeeze(2), ["group_mean"]),
    "group mean by pooling": (
        lambda x: F.avg_pool1d(x.flatten(2).transpose(1, 2), 2).transpose(1, 2).reshape(1, 2, 6, 6),
        ["group_mean"],
    ),
    "group mean by 3-D pooling": (
        lambda x: F.avg_pool3d(x.unsqueeze(1), (4, 1, 1)).squeeze(1),
        ["group_mean"],
    ),
    "global": (lambda x: x.mean((2, 3)), ["global_avg_pool"]),
    "global, keepdim": (lambda x: x.mean((-1, -2), keepdim=True), ["global_avg_pool", "reshape"]),
    "adaptive": (lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1), ["global_avg_pool"]),
    "adaptive to 3": (lambda x: F.adaptive_avg_pool2d(x, 3), ["avg_pool"]),
    "window of the map": (lambda x: F.avg_pool2d(x, 6).view(x.size(0), -1), None),  # type: ignore[dict-item]
    "flat mean": (lambda x: x.flatten(2).mean(-1), ["global_avg_pool"]),
    "one axis, then the other": (lambda x: x.mean(3).mean(2), ["global_avg_pool"]),
    "sum": (lambda x: x.sum((2, 3)), ["global_avg_pool", "affine"]),
    "pool": (lambda x: F.avg_pool2d(x, 2), ["avg_pool"]),
    "overlapping pool": (lambda x: F.avg_pool2d(x, (3, 2), (2, 1)), ["avg_pool"]),
    "every second pixel": (lambda x: x[:, :, ::2, ::2], ["slice"]),
    "pool, then repeat": (lambda x: F.avg_pool2d(x, 2).repeat(1, 2, 1, 1), ["avg_pool", "repeat"]),
    "there and back": (lambda x: x.flatten(2).transpose(1, 2).transpose(1, 2).reshape(1, 4, 6, 6) + 1, ["affine"]),
}


@pytest.mark.parametrize("style", MOVES)
def test_moves(style: str) -> None:
    function, expected = MOVES[style]
    graph = check(Fn(function), tolerance=1e-9)
    if expected is None:
        assert names(graph)[0] == "global_avg_pool" and graph.outputs[0].type.shape == (1, 4)
    else:
        assert names(graph) == expected


def test_vectors_repeat_and_group() -> None:
    assert names(check(Fn(lambda x: x.repeat(1, 2)), (1, 6))) == ["repeat"]
    assert names(check(Fn(lambda x: x.view(1, 2, 3).mean(2)), (1, 6))) == ["group_mean"]


def test_geometry_of_convolutions() -> None:
    check(nn.Conv2d(4, 6, (3, 2), (2, 1), (2, 1), dilation=(1, 2), groups=2), tolerance=1e-6)
    check(nn.Sequential(nn.Conv2d(4, 6, 3, padding="same", dilation=2)), tolerance=1e-6)
    graph = check(nn.Sequential(nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(4, 6, 3, padding=1)), tolerance=1e-6)
    assert graph.nodes[0].op.padding == (1, 2, 2, 3)  # type: ignore[attr-defined]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("direction", [-0.5, 0.5])
def test_padding_merges_into_binary_convolutions(value: float, before: bool, direction: float) -> None:
    """Before the sign a padding of 0 is one of +1."""
    w = sign(randn(8, 4, 3, 3))
    scaled = value * abs(direction)

    def after_sign(x: Tensor, w: Tensor) -> Tensor:
        return F.conv2d(F.pad(direction * sign(x), (1, 1, 1, 1), value=scaled), w)

    def before_sign(x: Tensor, w: Tensor) -> Tensor:
        return F.conv2d(direction * sign(F.pad(x, (1, 1, 1, 1), value=value)), w)

    assert layers(check(Fn(before_sign if before else after_sign, w=w))) == [(BIT, BIT)]


def test_linear_layers() -> None:
    w, b = randn(3, 4), randn(3)
    check(Fn(lambda x, w: x @ w.t(), w=w), (1, 4))
    check(Fn(lambda x, w, b: torch.addmm(b, x, w.t(), alpha=2, beta=0.5), w=w, b=b), (1, 4), tolerance=1e-6)
    check(nn.Linear(4, 3, bias=False), (1, 4))
    graph = check(Fn(lambda x, w, b: F.linear(sign(x), 0.1 * sign(w), b), w=w, b=b), (1, 4))
    assert layers(graph) == [(BIT, BIT)]


def test_several_outputs() -> None:
    graph = check(Fn(lambda x: (F.relu(x), x.mean((2, 3)))))
    assert len(graph.outputs) == 2


def test_a_deep_network_needs_no_deep_stack() -> None:
    net = nn.Sequential(*[nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU()) for _ in range(400)])
    assert len(import_module(net, (1, 2, 1, 1)).nodes) >= 1200


def test_only_what_the_outputs_need() -> None:
    def function(x: Tensor) -> Tensor:
        torch.softmax(x, 1)
        return F.relu(x)

    assert names(check(Fn(function))) == ["two_slope"]


# -- recording ----------------------------------------------------------------------------------------------------------


class Habits(nn.Module):
    """What research code does in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.register_buffer("temperature", torch.tensor(1e-8))
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        if self.temperature < 1e-7:  # a test of a buffer
            self.conv.weight.data.clamp_(-1, 1)  # an edit of .data
            w = self.conv.weight.abs().mean() * sign(self.conv.weight)
        else:
            w = torch.tanh(self.conv.weight)
        scale = torch.tensor([0.5]).cuda()  # a GPU that may not be there
        y = F.conv2d(sign(x), w, padding=1) * scale.to(x.dtype)
        y = self.drop(self.bn(y))
        y += x.repeat(1, 2, 1, 1)
        y.relu_()
        return y


def test_research_habits() -> None:
    module = randomize_affine(Habits().train())
    before = copy.deepcopy(module.state_dict())
    threads, rng = torch.get_num_threads(), torch.get_rng_state()
    graph = import_module(module, MAP)
    assert layers(graph) == [(BIT, BIT)]
    assert module.training and torch.get_num_threads() == threads and torch.equal(rng, torch.get_rng_state())
    assert all(p.requires_grad for p in module.parameters())
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), key
    x = torch.randn(2, *MAP[1:])
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "cuda", lambda self: self)
        expected = module.eval()(x)
    (got,) = evaluate(graph, [to_nhwc(x)]).values()
    assert np.abs(got - to_nhwc(expected)).max() < 1e-4


def test_a_sample_is_used() -> None:
    sample = torch.full(MAP, 0.5)
    assert names(import_module(Fn(F.relu), MAP, sample=sample)) == ["two_slope"]
    with pytest.raises(UsageError, match="sample has shape"):
        import_module(Fn(F.relu), MAP, sample=torch.zeros(1, 4, 5, 6))


def test_cones_are_nearest_first() -> None:
    trace = record(Fn(lambda x: (x + 1) * 2 - 1), randn(*MAP))
    assert [len(c.steps) for c in cones(trace.outputs[0])] == [1, 2, 3]


# -- refusals -----------------------------------------------------------------------------------------------------------


class Broken(nn.Module):
    """A function in a named submodule."""

    def __init__(self, function: Callable[[Tensor], Any] | nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Identity(), function if isinstance(function, nn.Module) else Fn(function))

    def forward(self, x: Tensor) -> Any:
        return self.body(x)


def write_through_view(x: Tensor) -> Tensor:
    y = x + 1
    y[:, 0].mul_(2)
    return y * 3


def write_constant(x: Tensor) -> Tensor:
    y = torch.zeros(1, 8, 6, 6)
    y[:, :4] = x
    return y * 2


def stale_view(x: Tensor) -> Tensor:
    y = x * 2
    z = y.view(1, 4, 36)
    y.relu_()
    return z.mean(2)


REFUSED: dict[str, tuple[Callable[[Tensor], Any] | nn.Module, str]] = {
    "levels at growing distances": (lambda x: x.round().clamp(-2, 2) ** 3, "5 levels"),
    "uneven levels": (lambda x: torch.where(x > 0, torch.where(x > 1, 3.0, 1.0), 0.0), "not equally spaced"),
    "sine": (lambda x: torch.sin(x), "'sin'"),
    "transposed": (nn.ConvTranspose2d(4, 4, 2), "transposed"),
    "dynamic weights": (lambda x: F.conv2d(x, x.mean((2, 3), keepdim=True).repeat(4, 1, 1, 1)), "depends on the input"),
    "padding of 2": (lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1), value=2.0), randn(4, 4, 3, 3)), "padded with 2"),
    "ceil": (lambda x: F.avg_pool2d(x, 4, 3, ceil_mode=True), "ceil_mode"),
    "uneven adaptive pool": (lambda x: F.adaptive_avg_pool2d(x, 4), "6x6 does not divide into 4x4"),
    "norm of the batch": (nn.BatchNorm2d(4, track_running_stats=False), "no running statistics"),
    "divided by a value per pixel": (lambda x: x / randn(1, 1, 6, 6).relu(), "'div'"),
    "a value per pixel, divided": (lambda x: randn(1, 1, 6, 6) / x, "'div'"),
    "widened by a value per pixel": (lambda x: x.mean((2, 3), keepdim=True) * randn(1, 1, 6, 6), "'mul'"),
    "branch": (lambda x: x if x.mean() > 0 else -x, "depends on values of the input"),
    "item": (lambda x: x * x.max().item(), "depends on values of the input"),
    "view written": (write_through_view, "changed in place through a view"),
    "view read": (stale_view, "changed in place through a view"),
    "parts written": (write_constant, "writing parts"),
    "numpy": (lambda x: x * torch.from_numpy(x.detach().numpy().mean((2, 3), keepdims=True)), "depends on values"),
    "random": (lambda x: x + torch.rand(1), "random numbers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_named(case: str) -> None:
    function, words = REFUSED[case]
    with pytest.raises(UnsupportedError) as raised:
        import_module(Broken(function), MAP)
    error = raised.value
    assert words in str(error)
    assert error.why and error.fix
    if case not in ("numpy", "random"):
        assert error.where is not None and "body.1" in error.where
        if not isinstance(function, nn.Module):
            assert "test_import_torch_layers.py:" in error.where


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda x: torch.ones(1, 3), "constant"),
        (lambda x: (x, "label"), "type str"),
        (lambda x: x.unsqueeze(0), "output has shape"),
    ],
)
def test_outputs_that_cannot_be_deployed(result: Callable[[Tensor], Any], words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        import_module(Fn(result), MAP)


def test_nan_is_named() -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    with torch.no_grad():
        net[1].weight[2] = float("nan")
    with pytest.raises(UnsupportedError, match=r"'1\.weight' holds NaN"):
        import_module(net, MAP)
    with pytest.raises(UnsupportedError, match="weight holds NaN"):
        import_module(
            Fn(lambda x, w: F.conv2d(x, w / w.sum()), w=torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1)), (1, 2, 3, 3)
        )


def test_wrong_shapes() -> None:
    net = nn.Sequential(nn.Identity(), nn.Conv2d(3, 4, 3))
    with pytest.raises(UsageError, match="does not run on an input of shape 1x4x6x6") as raised:
        import_module(net, MAP)
    assert "expected input" in str(raised.value.why) and raised.value.where == "1"
    with pytest.raises(UsageError, match="batch 1"):
        import_module(net, (2, 3, 6, 6))
    with pytest.raises(UsageError, match="batch 1"):
        import_module(net, (3, 6, 6))
    with pytest.raises(UsageError, match="this is a function"):
        import_module(lambda x: x, MAP)  # type: ignore[arg-type]


def test_a_module_that_cannot_be_copied() -> None:
    module = Fn(F.relu)
    module.cache = torch.ones(2, requires_grad=True) * 2
    with pytest.raises(UnsupportedError, match="cannot be copied"):
        import_module(module, MAP)
