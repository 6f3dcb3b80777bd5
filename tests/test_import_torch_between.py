"""PyTorch modules to graphs: gates, pools, moves, joins, normalizations and attention, compared in double."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch_modules import MAP, Fn, check, layers, names, per_channel, randn, randomize, sign  # noqa: E402

from bdnet_deploy.errors import UnsupportedError  # noqa: E402
from bdnet_deploy.graph import BitLogic, DType  # noqa: E402
from bdnet_deploy.importers.torch import import_module  # noqa: E402

W1, W5 = randn(4, 4, 3), randn(5, 36)
W144 = randn(144, 3)
C4 = per_channel(1.3, -0.4, 0.8, 0.2)
W4 = sign(randn(4, 4))
C3 = randn(1, 3, 1, 1, 1)

STYLES: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    # functions of single elements
    "hardtanh": (F.hardtanh, "clamp"),
    "relu6": (F.relu6, "clamp"),
    "clamp": (lambda x: (2 * x + 1).clamp(-0.5, 3), ""),
    "falling clamp": (lambda x: 1 - x.clamp(-1, 2), "clamp affine"),
    "clamp by where": (lambda x: torch.where(x < -1, -1.0, torch.where(x > 1, 1.0, x)), "clamp"),
    "sigmoid": (torch.sigmoid, "unary"),
    "gelu": (F.gelu, "unary"),
    "gelu tanh": (lambda x: F.gelu(x, approximate="tanh"), "unary"),
    "hardswish": (F.hardswish, "unary"),
    "silu written out": (lambda x: x * torch.sigmoid(x), "unary mul"),
    "hard sigmoid written out": (lambda x: F.relu6(x + 3) / 6, "affine clamp affine"),
    "square": (lambda x: x * x, "mul"),
    "power": (lambda x: x**2, "unary"),
    # functions of two tensors
    "gate": (lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)), "global_avg_pool reshape unary mul"),
    "gate first": (lambda x: torch.sigmoid(x.mean((2, 3), keepdim=True)) * x, "global_avg_pool reshape unary mul"),
    "gate of a vector": (
        lambda x: x * torch.sigmoid(x.mean((2, 3)))[:, :, None, None],
        "global_avg_pool unary reshape mul",
    ),
    "expanded gate": (
        lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)).expand_as(x),
        "global_avg_pool reshape unary upsample mul",
    ),
    "spatial gate": (lambda x: x * torch.sigmoid(x.mean(1, keepdim=True)), "group_mean unary repeat mul"),
    "spatial maximum": (lambda x: x - x.amax(1, keepdim=True), "reduce repeat affine"),
    "broadcast sum": (lambda x: x + x.mean((2, 3), keepdim=True), "global_avg_pool reshape affine"),
    "vector minus map": (lambda x: x.mean((2, 3), keepdim=True) - 2 * x, ""),
    "mix": (lambda x: 0.3 * x + (1 - 0.3) * F.relu(x), ""),
    "outer sum": (lambda x: x.mean(1, keepdim=True) + x.mean((2, 3), keepdim=True), ""),
    "comparison": (lambda x: (x >= 0.25 * x.amax(1, keepdim=True)).float(), ""),
    "choice": (lambda x: torch.where(x < x.mean(1, keepdim=True), 0, 1).to(x.dtype) * 0.5, ""),
    "choice of signs": (lambda x: torch.where(x.mean(1, keepdim=True) > x, 1.0, -1.0).to(x.dtype), ""),
    "unit length": (
        lambda x: x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-3),
        "unary reduce unary affine unary unary repeat mul",
    ),
    "reciprocal": (lambda x: torch.reciprocal(x.abs() + 0.5), "two_slope affine unary unary"),
    "less its mean": (lambda x: x - x.mean((1, 2, 3), keepdim=True), ""),
    "gradient of a softmax": (lambda x: 2 * x - torch.softmax(x, 1).detach() + torch.softmax(x, 1), ""),
    "gradient of its own": (
        lambda x: (lambda soft: ((x >= 0).to(x.dtype) - soft).detach() + soft)(torch.softmax(x, 1)),
        "sign affine",
    ),
    "offsets of copies": (lambda x: (x.unsqueeze(1) + C3.to(x.dtype)).flatten(1, 2), "repeat affine"),
    "offsets of rows": (lambda x: x[:, :, :1] * F.relu(randn(6, 1)).to(x.dtype), ""),
    # moves
    "two interleaved": (lambda x: torch.stack([x, F.relu(x)], 2).flatten(1, 2), "two_slope concat shuffle"),
    "concatenation": (lambda x: torch.cat([x, F.relu(x)], 1), "two_slope concat"),
    "three": (lambda x: torch.cat([x, F.relu(x), x[:, :2]], 1), ""),
    "rows joined": (lambda x: torch.cat([x, F.relu(x)], 2), ""),
    "columns joined": (lambda x: torch.cat([x, F.relu(x)], 3), ""),
    "interleaved": (lambda x: torch.stack([x, x], 2).flatten(1, 2), "gather"),
    "zero channels": (lambda x: torch.cat([x, torch.zeros_like(x)], 1), "pad"),
    "new zeros": (lambda x: torch.cat([x, x.new_zeros(1, 3, 6, 6)], 1), "pad"),
    "channels of 2": (lambda x: F.pad(x, (0, 0, 0, 0, 1, 2), value=2.0), "pad"),
    "option A": (lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)), "slice pad"),
    "slice": (lambda x: x[:, 1:3], "slice"),
    "halves exchanged": (lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), "gather"),
    "split": (lambda x: F.relu(x.split([1, 3], 1)[1]), "slice two_slope"),
    "shuffle": (lambda x: x.view(1, 2, 2, 6, 6).transpose(1, 2).reshape(1, 4, 6, 6), "shuffle"),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 2), "shuffle"),
    "every second channel": (lambda x: x[:, ::2], "slice"),
    "list of channels": (lambda x: x[:, [2, 0, 3]], "gather"),
    "interleaved repeat": (lambda x: x.repeat_interleave(2, 1), "gather"),
    "flipped": (lambda x: x.flip(3), "flip"),
    "rolled": (lambda x: torch.roll(x, (1, -1), (2, 3)), ""),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), "upsample"),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), "pixel_shuffle"),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), "pixel_unshuffle"),
    "reflected": (lambda x: F.relu(F.pad(x, (1, 2, 0, 1), mode="reflect")), "pad two_slope"),
    "replicated": (lambda x: F.relu(F.pad(x, (1, 2, 0, 1), mode="replicate")), "pad two_slope"),
    "padded": (lambda x: F.relu(F.pad(x, (1, 2, 0, 1))), "pad two_slope"),
    "cropped": (lambda x: F.pad(x, (-1, -1, -2, 0)), "slice"),
    "transposed map": (lambda x: x.transpose(2, 3) + 1, "transpose affine"),
    "channels last and back": (lambda x: (x.permute(0, 2, 3, 1) * 2).permute(0, 3, 1, 2), "affine"),
    "flattened": (lambda x: x.flatten(1), "reshape transpose reshape"),
    "linear of a map": (lambda x: x.flatten(1) @ W144.to(x.dtype), ""),
    "strided group mean": (lambda x: x.view(1, 2, 2, 6, 6).mean(1), ""),
    # pools
    "max pool": (lambda x: F.max_pool2d(x, 2), "max_pool"),
    "padded max pool": (lambda x: F.max_pool2d(x, 3, 2, 1), "max_pool"),
    "max pool, ceil": (lambda x: F.max_pool2d(x, 4, 3, 1, ceil_mode=True), "max_pool"),
    "global maximum": (lambda x: x.amax((2, 3)), "reduce"),
    "adaptive maximum": (lambda x: F.adaptive_max_pool2d(x, 1).flatten(1), None),
    "average, ceil": (lambda x: F.avg_pool2d(x[:, :, :5], 2, ceil_mode=True), "slice pad avg_pool"),
    "average, padding without count": (lambda x: F.avg_pool2d(x, 2, 2, 1, count_include_pad=False), "pad avg_pool"),
    "average, ceil that adds nothing": (lambda x: F.avg_pool2d(x, 3, 3, ceil_mode=True), "avg_pool"),
    "mean of groups of channels": (lambda x: x.view(1, 2, 2, 6, 6).mean(2), "group_mean"),
    "padded average": (lambda x: F.avg_pool2d(x, 3, 2, 1), "pad avg_pool"),
    "sum of channels": (lambda x: x.sum(1, keepdim=True), "reduce"),
    "max of channels": (lambda x: x.max(1, keepdim=True)[0], "reduce"),
    "pool over channels": (lambda x: F.avg_pool1d(x.flatten(2).transpose(1, 2), 2).mean(1), ""),
    "mean of one pixel": (lambda x: x[:, :, :1, :1].mean((2, 3)) * 2, ""),
    # normalizations and attention
    "group norm of groups": (
        lambda x: F.group_norm(
            x.view(1, 2, 2, 6, 6), 2, C4.flatten()[:2].to(x.dtype), C4.flatten()[2:].to(x.dtype)
        ).view(MAP),
        "",
    ),
    "batch norm in three dimensions": (
        lambda x: F.batch_norm(x.view(1, 2, 2, 6, 6), C4.flatten()[:2].to(x.dtype), C4.flatten()[2:].to(x.dtype)).view(
            MAP
        ),
        "",
    ),
    "softmax": (lambda x: torch.softmax(x.mean((2, 3)), 1), "global_avg_pool softmax"),
    "softmax of a map": (lambda x: torch.softmax(x, 1), "softmax"),
    "log-softmax": (lambda x: torch.log_softmax(x.mean((2, 3)), 1), ""),
    "log-softmax of large numbers": (lambda x: torch.log_softmax(1000 * x, 1), ""),
    "softmax of rows": (lambda x: torch.softmax(x, -1), ""),
    "group norm": (
        lambda x: F.group_norm(x, 2, C4.flatten().to(x.dtype), C4.flatten().to(x.dtype)),
        "group_norm affine",
    ),
    "layer norm of tokens": (
        lambda x: F.layer_norm(x.flatten(2).transpose(1, 2), (4,)).transpose(1, 2).reshape(x.shape),
        "",
    ),
    "layer norm, channels last": (
        lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,), C4.flatten().to(x.dtype)).permute(0, 3, 1, 2),
        "layer_norm affine",
    ),
    "one dimension": (lambda x: F.conv1d(x.flatten(2), W1.to(x.dtype), stride=2, padding=1).mean(2), ""),
    "tokens mixed": (lambda x: (W5.to(x.dtype) @ x.flatten(2).transpose(1, 2)).mean(1), ""),
}


@pytest.mark.parametrize("style", [s for s, (_, e) in STYLES.items() if e is not None])
def test_between_layers(style: str) -> None:
    function, expected = STYLES[style]
    graph = check(Fn(function), tolerance=1e-6)
    if expected:
        assert names(graph) == expected.split()


class Attention(nn.Module):
    """Self-attention over the pixels of a map, with heads, in the ways it is written."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self.style = style
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        if self.style == "joint":
            q, k, v = self.qkv(tokens).reshape(n, h * w, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            q, k, v = (t.view(n, h * w, 2, 4).transpose(1, 2) for t in self.qkv(tokens).chunk(3, -1))
        if self.style == "fused":
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.softmax(q @ k.transpose(-2, -1) / 2.0, -1) @ v
        y = self.out(y.transpose(1, 2).reshape(n, h * w, c))
        return x + y.transpose(1, 2).reshape(n, c, h, w)


@pytest.mark.parametrize("style", ["joint", "chunks", "fused"])
def test_attention(style: str) -> None:
    torch.manual_seed(3)
    graph = check(randomize(Attention(style)), (1, 8, 3, 5), tolerance=1e-6)
    assert names(graph).count("matmul") == 2 and names(graph).count("softmax") == 1


def test_torch_s_own_attention() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.flatten(2).transpose(1, 2)).mean(1)

    torch.manual_seed(3)
    check(Encoder(), (1, 8, 3, 4), tolerance=1e-5)


def test_binary_attention() -> None:
    """Signs of queries, keys and values; scores are exact integers."""

    class Binary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(8, 8, bias=False) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            n, c, h, w = x.shape
            t = sign(x.flatten(2).transpose(1, 2))
            q, k, v = (
                sign(F.linear(t, sign(m.weight) * 0.3)).view(n, h * w, 2, 4).transpose(1, 2)
                for m in (self.q, self.k, self.v)
            )
            p = torch.softmax(q @ k.transpose(-2, -1) * 0.5, -1)
            return (p @ v).transpose(1, 2).reshape(n, h * w, c).mean(1)

    torch.manual_seed(3)
    graph = check(Binary(), (1, 8, 3, 4), tolerance=1e-6)
    assert layers(graph) == [(DType.BIT, DType.BIT)] * 3
    scores = next(n for n in graph.nodes if n.op.name == "matmul")
    assert all(v.type.dtype is DType.BIT for v in scores.inputs)


def test_bits_move_as_bits() -> None:
    """Concatenation, shuffles and max pooling between a sign and a convolution keep the bits."""
    w = sign(randn(8, 8, 3, 3))

    def function(x: Tensor, w: Tensor) -> Tensor:
        bits = torch.cat([sign(x), sign(x + 0.3)], 1)
        return F.conv2d(F.max_pool2d(F.channel_shuffle(bits, 2), 2), w, padding=1)

    graph = check(Fn(function, w=w), MAP)
    assert layers(graph) == [(DType.BIT, DType.BIT)]


def test_products_of_signs_are_logic() -> None:
    graph = check(Fn(lambda x: (sign(x) * sign(x - 0.5)).mean((2, 3))))
    assert "bit_logic" in names(graph)


def test_a_module_in_two_layouts_is_emitted_once() -> None:
    """A PReLU read as a map and as tokens."""

    def function(x: Tensor) -> Tensor:
        y = F.prelu(x, C4.flatten().to(x.dtype))
        return y + F.linear(y.flatten(2).transpose(1, 2), W4.to(x.dtype)).transpose(1, 2).reshape(y.shape)

    assert names(check(Fn(function))).count("two_slope") == 1


def test_a_sign_behind_what_is_never_negative_has_two_levels() -> None:
    """0 and 1, though sign(0) = 0: read by a shortcut too, pooled, and the sum of two."""
    w = sign(randn(4, 4, 3, 3))

    def function(x: Tensor, w: Tensor) -> Tensor:
        y = F.relu(x)
        z = F.avg_pool2d(y, 2)
        first = F.conv2d(torch.sign(y), w).mean((2, 3))
        return first + F.conv2d(torch.sign(z), w).mean((2, 3)) + F.conv2d(torch.sign(y + F.relu(x - 1)), w).mean((2, 3))

    assert layers(check(Fn(function, w=w))) == [(DType.UBIT, DType.BIT)] * 3


def test_a_sign_behind_a_normalized_relu_meets_no_zero() -> None:
    """The zeros of a ReLU are moved by a normalization, unless that keeps them."""

    def function(x: Tensor, w: Tensor, b: Tensor, scale: Tensor) -> Tensor:
        y = F.batch_norm(F.relu(x), torch.zeros_like(b), torch.ones_like(b), scale, b, eps=0.0)
        return F.conv2d(torch.sign(y), w).mean((2, 3)) + y.mean((2, 3))

    w, scale = sign(randn(4, 4, 3, 3)), torch.tensor([1.0, -2.0, 0.5, 1.5])
    graph = check(Fn(function, w=w, b=torch.tensor([0.1, 0.2, -0.1, 0.3]), scale=scale))
    assert layers(graph) == [(DType.BIT, DType.BIT)]
    graph = check(Fn(function, w=w, b=torch.tensor([0.1, 0.0, -0.1, 0.3]), scale=scale))
    assert layers(graph) == [(DType.TRIT, DType.BIT)]


def test_a_mask_writes_levels() -> None:
    def function(x: Tensor, w: Tensor) -> Tensor:
        out = torch.sign(x - 0.25)
        out[out == -1] = 0
        return F.conv2d(out, w)

    assert layers(check(Fn(function, w=sign(randn(4, 4, 3, 3))))) == [(DType.UBIT, DType.BIT)]


def test_the_sign_of_a_quotient_is_that_of_the_dividend() -> None:
    """No statistics are computed that only scale."""

    def function(x: Tensor, w: Tensor) -> Tensor:
        centred = x - x.mean((1, 2, 3), keepdim=True)
        return F.conv2d(sign(centred / centred.std((1, 2, 3), keepdim=True)), w)

    graph = check(Fn(function, w=sign(randn(4, 4, 3, 3))))
    assert layers(graph) == [(DType.BIT, DType.BIT)]
    assert not {"unary", "mul"} & set(names(graph))


def test_a_divisor_of_unknown_sign_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="div"):
        import_module(Fn(lambda x: x / (x.mean((2, 3), keepdim=True) + 0.1)), MAP)


LOGIC: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "or of halves": (lambda a, b: ((a + 1) / 2 + (b + 1) / 2).clamp(0, 1) * 2 - 1, "or"),
    "or by maximum": (torch.maximum, "or"),
    "and by minimum": (torch.minimum, "and"),
    "and of halves": (lambda a, b: F.relu(a + b) - 1, "and"),
    "negated product": (lambda a, b: -(a * b), "xnor"),
    "xor by comparison": (lambda a, b: (a != b).to(a.dtype) * 2 - 1, "xor"),
    "product": (lambda a, b: a * b, "xnor"),
    "product, scaled": (lambda a, b: (0.5 * a) * (b * 3), "xnor"),
}


@pytest.mark.parametrize("style", LOGIC)
def test_logic_of_two_bits(style: str) -> None:
    """A convolution of it is binary, and again of logic of logic."""
    function, kind = LOGIC[style]

    def forward(x: Tensor, w: Tensor) -> Tensor:
        a, b = sign(x), sign(x.flip(1) - 0.3)
        c = function(a, b)
        return F.conv2d(c, w).mean((2, 3)) + F.conv2d(function(c, sign(x + 0.5)), w).mean((2, 3))

    graph = check(Fn(forward, w=sign(randn(4, 4, 3, 3))), tolerance=1e-6)
    assert layers(graph) == [(DType.BIT, DType.BIT)] * 2
    found = [n.op.kind for n in graph.nodes if isinstance(n.op, BitLogic)]
    assert found == [kind, kind]


def test_levels_by_comparison_of_attention() -> None:
    """Bits where a probability reaches a share of its row's largest; a softmax gives the gradient only."""

    def function(x: Tensor) -> Tensor:
        t = sign(x.flatten(2).transpose(1, 2))
        soft = torch.softmax(t @ t.transpose(-2, -1) * 0.5, -1)
        threshold = soft.max(-1)[0] * 0.25
        hard = torch.where(soft < threshold.unsqueeze(-1), 0, 1).to(x.dtype)
        return ((hard.detach() - soft.detach() + soft) @ t).mean(1)

    graph = check(Fn(function), tolerance=1e-6)
    first, second = (n for n in graph.nodes if n.op.name == "matmul")
    assert [v.type.dtype for v in first.inputs] == [DType.BIT, DType.BIT]
    assert [v.type.dtype for v in second.inputs] == [DType.UBIT, DType.BIT]
