"""BinaryViT with and without ES-BNN: counts, the layers by their formulas, training."""

from __future__ import annotations

import math

import pytest

from bdnet_deploy import models
from bdnet_deploy.errors import UsageError

torch = pytest.importorskip("torch")

from model_counts import check_trains, image, multiply_accumulates, on_meta, parameters  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch_modules import randomize  # noqa: E402

from bdnet_deploy.models.binaryvit_layers import Attention, BinaryLinear, FeedForward  # noqa: E402
from bdnet_deploy.models.es_binaryvit import ESBinaryViTConfig  # noqa: E402
from bdnet_deploy.nn import BinaryConv2d, BinaryProbabilities  # noqa: E402

SMALL = {
    "widths": (8, 16),
    "depths": (1, 1),
    "heads": (1, 2),
    "reductions": (2, 1),
    "ratios": (2, 2),
    "input_size": 16,
    "classes": 4,
    "probability": 0.1,
}


def by_the_published_sizes() -> tuple[int, int, int]:
    """Binary weights, binary and real multiply-accumulates of config binaryvit-small-patch4-224, by hand."""
    bits = work = 0
    hidden = (512, 1024, 1024, 2048)
    for c, h, depth, reduction, side in zip((64, 128, 256, 512), hidden, (3, 4, 8, 4), (8, 4, 1, 1), (56, 28, 14, 7)):
        tokens, keys = side**2, (side // reduction) ** 2
        # query and output of all tokens, key and value (and the reduction itself) of the averaged ones; two linears
        layer = 2 * c * c + 2 * c * c + (c * c if reduction > 1 else 0) + 2 * c * h
        bits += depth * layer
        work += depth * (tokens * 2 * c * c + keys * (3 if reduction > 1 else 2) * c * c + tokens * 2 * c * h)
    for c, side in ((64, 28), (128, 14), (256, 7)):
        bits += 4 * c * 2 * c
        work += side**2 * 4 * c * 2 * c
    return bits, work, 56**2 * 64 * 48 + 512 * 1000


@pytest.mark.parametrize("options", [{"tau": 1}, {}, {"expand": "hidden"}, {"tau": 4}])
def test_sizes_are_the_published_ones_whatever_tau(options: dict) -> None:
    module = on_meta("es_binaryvit", **options)
    bits, work, real = by_the_published_sizes()
    assert parameters(module)[0] == bits
    assert multiply_accumulates(module) == (work, real)
    binary = [layer for layer in module.modules() if isinstance(layer, BinaryConv2d)]
    # query, key, value, output, up, down in each of 19 layers, one more in the 7 that average, three mergings
    assert len(binary) == 19 * 6 + 7 + 3


def quantized(conv: BinaryConv2d) -> torch.Tensor:
    """Rows of mean|W| times sign(W - mean W): transformer/utils_quant.py."""
    w = conv.weight[:, :, 0, 0]
    return w.abs().mean(1, keepdim=True) * torch.where(w - w.mean(1, keepdim=True) >= 0, 1.0, -1.0).double()


def normalized(bn: nn.BatchNorm2d, y: torch.Tensor) -> torch.Tensor:
    return (y - bn.running_mean) / torch.sqrt(bn.running_var + bn.eps) * bn.weight + bn.bias


def rprelu(module: nn.Module, y: torch.Tensor) -> torch.Tensor:
    y = y + module.shift_in.flatten()
    return torch.where(y >= 0, y, module.slope.flatten() * y) + module.shift_out.flatten()


def sign(threshold: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.where(y - threshold.flatten() >= 0, 1.0, -1.0).double()


def linear_by_hand(layer: BinaryLinear, y: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """Of tokens (L, C)."""
    sums = sign(layer.activation.threshold, torch.cat([y] * layer.copies_in, 1)) @ quantized(layer.conv).T
    return rprelu(layer.rprelu, normalized(layer.norm, torch.cat([sums] * layer.copies_out, 1)) + residual)


def tokens(x: torch.Tensor) -> torch.Tensor:
    """A map (1, C, H, W) as (H * W, C)."""
    return x[0].flatten(1).T


@pytest.mark.parametrize(("tau", "expand"), [(1, "both"), (2, "both"), (4, "both"), (2, "hidden")])
def test_the_feed_forward_part_is_its_formula(tau: int, expand: str) -> None:
    torch.manual_seed(tau)
    config = ESBinaryViTConfig(tau=tau, expand=expand)
    module = randomize(FeedForward(8, 4, config)).eval().double()
    assert module.up.conv.weight.shape[:2] == ((32 // tau, 8 * tau) if expand == "both" else (32, 8))
    assert module.down.conv.weight.shape[:2] == (8 // tau, 32 * tau)
    x = torch.randn(1, 8, 3, 5, dtype=torch.float64)
    with torch.no_grad():
        h = linear_by_hand(module.up, tokens(x), torch.cat([tokens(x)] * (4 * tau), 1))
        means = functional.avg_pool1d(h[None], 4 * tau)[0]  # over neighbouring channels, as published
        assert torch.allclose(tokens(module(x)), linear_by_hand(module.down, h, means), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("heads", "reduction"), [(1, 1), (2, 1), (2, 2)])
def test_attention_is_its_formula(heads: int, reduction: int) -> None:
    torch.manual_seed(heads)
    config = ESBinaryViTConfig(probability=0.12)
    module = randomize(Attention(8, heads, reduction, config)).eval().double()
    x = torch.randn(1, 8, 4, 6, dtype=torch.float64)
    with torch.no_grad():
        q = linear_by_hand(module.query, tokens(x), tokens(x))
        seen = tokens(functional.avg_pool2d(x, reduction))
        if reduction > 1:
            seen = linear_by_hand(module.reduce, seen, seen)
        k, v = (linear_by_hand(layer, seen, seen) for layer in (module.key, module.value))
        bits = [sign(s.threshold, y) for s, y in ((module.sign_query, q), (module.sign_key, k), (module.sign_value, v))]
        width = 8 // heads
        context = torch.empty_like(q)
        c = module.probabilities.scale
        for head in range(heads):
            bq, bk, bv = (b[:, head * width : (head + 1) * width] for b in bits)
            p = torch.softmax(bq @ bk.T / math.sqrt(width), 1)
            chosen = torch.where(p > c / 2, c, 0.0)
            assert 0 < (chosen > 0).double().mean() < 1
            context[:, head * width : (head + 1) * width] = chosen @ bv
        rows = [[(i // reduction) * (6 // reduction) + j // reduction for j in range(6)] for i in range(4)]
        back = torch.tensor(rows).flatten()
        expected = rprelu(module.rprelu, normalized(module.norm, context) + q + k[back] + v[back])
        assert torch.allclose(tokens(module(x)), expected, rtol=1e-10, atol=1e-10)


def test_probabilities_have_two_levels_and_half_rounds_down() -> None:
    binary = BinaryProbabilities(0.25)
    p = torch.tensor([0.0, 0.125, 0.126, 0.25, 0.9])
    assert binary(p).tolist() == [0.0, 0.0, 0.25, 0.25, 0.25]
    p.requires_grad_()
    binary(p).sum().backward()
    assert p.grad.tolist() == [1.0, 1.0, 1.0, 1.0, 0.0]
    # inside: round(p / c) - p / c; above: 1
    assert binary.scale.grad.item() == pytest.approx(0 - 0.5 + (1 - 0.504) + 0 + 1)


def test_layer_adds_pools_of_its_normed_input() -> None:
    torch.manual_seed(0)
    layer = models.create("es_binaryvit", **SMALL).eval().stages[0][0]
    x = torch.randn(1, 8, 4, 4)
    with torch.no_grad():
        before = layer(x)
        layer.scale_pools[1].factor.fill_(2.0)  # the pool of 1 x 3 tokens
        attended = layer.scale_attention(layer.output(layer.attention(layer.norm_before(x)))) + x
        padded = functional.pad(layer.norm_after(attended), (1, 1))
        pooled = (padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]) / 3
        assert layer.pools == [(3, 1), (1, 3), (5, 1), (1, 5)]
        assert torch.allclose(layer(x) - before, 2 * pooled, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tau": 1},
        {"expand": "hidden", "merging": "real"},
        {"layer_scale": False, "pools": (), "gradient": "clipped"},
        {"depths": (1, 2), "heads": (2, 4), "reductions": (1, 1), "ratios": (1, 3)},
    ],
)
def test_it_trains(options: dict) -> None:
    torch.manual_seed(0)
    module = models.create("es_binaryvit", **{**SMALL, **options})
    assert module.eval()(image(module)).shape == (2, 4)
    check_trains(module)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"expand": "input"}, "both, hidden"),
        ({"merging": "none"}, "binary, real"),
        ({"depths": (1, 1)}, "depths has 2"),
        ({"heads": (3, 4, 4, 8)}, "heads"),
        ({"tau": 3}, "tau"),
        ({"widths": (64, 128, 200, 512)}, "multiple of the one before"),
        ({"pools": (2,)}, "odd"),
        ({"pools": 3}, "list"),
        ({"probability": 0}, "probability"),
        ({"input_size": 100}, "reductions"),
    ],
)
def test_wrong_options_are_usage_errors(config: dict, message: str) -> None:
    with pytest.raises(UsageError) as error:
        models.create("es_binaryvit", **config)
    assert message in str(error.value)
