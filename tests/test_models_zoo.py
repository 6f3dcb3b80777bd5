"""Networks of the literature: their sizes beside the published figures, and that small ones train."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from zoo_counts import counts  # noqa: E402

from bdnet_deploy import models  # noqa: E402
from bdnet_deploy.errors import UsageError  # noqa: E402
from bdnet_deploy.nn import BinaryConv2d  # noqa: E402

SMALL = [
    ("reactnet_a", {"widths": (8, 16, 16, 32), "strides": (2, 1, 2, 2), "input_size": 16, "classes": 4}),
    ("reactnet_a", {"widths": (8, 8), "strides": (1, 2), "input_size": 8, "classes": 4, "in_channels": 1}),
    ("reactnet_18", {"width": 8, "blocks": (2, 2), "input_size": 32, "classes": 4}),
    ("birealnet_18", {"width": 8, "blocks": (1, 2, 1), "input_size": 32, "classes": 4}),
    ("adabin_resnet20", {"width": 4, "blocks": 1, "input_size": 8, "classes": 4}),
    ("quicknet", {"filters": (8, 12, 24), "blocks": (1, 2, 1), "input_size": 33, "classes": 4}),
    ("quicknet_small", {"filters": (8, 16), "blocks": (1, 1), "input_size": 20, "classes": 4}),
    ("quicknet_large", {"filters": (8, 8), "blocks": (1, 1), "input_size": 20, "classes": 4}),
]


def test_reactnet_a_has_the_published_size() -> None:
    """0.87e8 operations (README of github.com/liuzechun/ReActNet), a binary multiply-accumulate as 1/64 of a real
    one."""
    c = counts("reactnet_a")
    widths = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    sides = [112, 56, 56, 28, 28, 14, 14, 14, 14, 14, 14, 7, 7]  # of the 3x3 convolution's output
    blocks = list(zip(sides, widths, widths[1:], strict=False))
    assert c.binary_macs == sum(side**2 * (9 * before + after) * before for side, before, after in blocks)
    assert c.real_macs == 112 * 112 * 32 * 27 + 1024 * 1000
    assert (round(c.binary_macs / 1e9, 3), round(c.real_macs / 1e6, 3)) == (4.817, 11.862)
    assert round((c.binary_macs / 64 + c.real_macs) / 1e8, 2) == 0.87
    assert c.bits == sum((9 * before + after) * before for _, before, after in blocks)
    # A block: two RSign (1 vector each), normalization (2) and RPReLU (3) of the input's width, then of the output's.
    vectors = sum(7 * before + 5 * after for _, before, after in blocks)
    assert c.parameters == c.bits + vectors + 32 * (27 + 2) + 1025 * 1000
    assert c.logits == (2, 1000)


def test_resnet_18_has_the_published_size() -> None:
    """1.63e8 operations of Bi-Real Net 18 and of ReActNet on it (README of github.com/liuzechun/ReActNet), which leaves
    out the classifier. 11,699,112 numbers and 4.03 MB (MiB) of Bi-Real Net in Larq Zoo
    (github.com/larq/larq, pull request 213)."""
    stages = [(56, 64), (28, 128), (14, 256), (7, 512)]
    first = [side**2 * 9 * width * width // 2 for side, width in stages[1:]]
    binary = sum(first) + sum((4 - (i > 0)) * s * s * 9 * w * w for i, (s, w) in enumerate(stages))
    shortcuts = sum(side**2 * width * width // 2 for side, width in stages[1:])
    for arch in ("birealnet_18", "reactnet_18"):
        c = counts(arch)
        assert c.binary_macs == binary == 1_676_279_808
        assert c.real_macs == 112 * 112 * 64 * 147 + shortcuts + 512 * 1000
        assert round((c.binary_macs / 64 + c.real_macs - 512 * 1000) / 1e8, 2) == 1.63
        assert c.logits == (2, 1000)
    plain, react = counts("birealnet_18"), counts("reactnet_18")
    assert plain.parameters + plain.statistics == 11_699_112
    assert round((plain.bits / 8 + 4 * (plain.parameters + plain.statistics - plain.bits)) / 2**20, 2) == 4.03
    # RSign and RPReLU: a vector of the input's width and three of the output's for each of 16 convolutions.
    outputs = [width for _, width in stages for _ in range(4)]
    assert react.parameters - plain.parameters == sum([64, *outputs[:-1]]) + 3 * sum(outputs)


def test_resnet_34_is_an_option() -> None:
    """birealnet34 of github.com/liuzechun/Bi-Real-net: 6, 8, 12 and 6 convolutions of 3x3 on the same four maps."""
    c = counts("birealnet_18", blocks=(6, 8, 12, 6))
    each = 56**2 * 9 * 64**2  # equal in all stages: a quarter of the pixels, twice the channels on both sides
    assert c.binary_macs == 32 * each - 3 * each // 2
    assert c.real_macs == counts("birealnet_18").real_macs


def test_adabin_has_the_released_size() -> None:
    """The released checkpoint's state dict has 195 tensors; sizes by hand."""
    c = counts("adabin_resnet20")
    stages = [(32, 16, 16, 6), (16, 16, 32, 1), (16, 32, 32, 5), (8, 32, 64, 1), (8, 64, 64, 5)]
    assert c.binary_macs == sum(side**2 * 9 * before * after * times for side, before, after, times in stages)
    assert c.bits == sum(9 * before * after * times for _, before, after, times in stages) == 267_264
    assert c.real_macs == 32 * 32 * 16 * 27 + 64 * 10
    outputs = 16 + 6 * (16 + 32 + 64)
    assert c.parameters == c.bits + 16 * 27 + 4 * outputs + 2 * 18 + 2 * 64 + 65 * 10
    assert len(models.create("adabin_resnet20").state_dict()) == 195


@pytest.mark.parametrize(
    ("arch", "filters", "blocks", "published", "mebibytes"),
    [
        ("quicknet", (64, 128, 256, 512), (4, 4, 4, 4), 13_234_088, 4.17),
        ("quicknet_small", (32, 64, 256, 512), (4, 4, 4, 4), 12_655_688, 4.00),
        ("quicknet_large", (64, 128, 256, 512), (6, 8, 12, 6), 23_342_248, 5.40),
    ],
)
def test_quicknet_has_the_published_size(
    arch: str, filters: tuple[int, ...], blocks: tuple[int, ...], published: int, mebibytes: float
) -> None:
    """Parameters and memory of github.com/larq/zoo, larq_zoo/sota/quicknet.py (weights v1.0). They count a batch
    normalization as two numbers a channel, and the fixed filters of the blur pools."""
    c = counts(arch)
    folded = 2 * filters[0] // 4 + 9 * sum(filters[:-1])
    assert c.parameters + folded == published
    assert round((c.bits / 8 + 4 * (published - c.bits)) / 2**20, 2) == mebibytes
    sides = (56, 28, 14, 7)
    assert c.bits == sum(9 * width**2 * count for width, count in zip(filters, blocks, strict=True))
    assert c.binary_macs == sum(s * s * 9 * w * w * n for s, w, n in zip(sides, filters, blocks, strict=True))
    narrow = filters[0] // 4
    stem = 112**2 * narrow * 27 + 56**2 * narrow * (9 + filters[0])
    between = sum(s * s * a * b for s, a, b in zip(sides[1:], filters, filters[1:], strict=False))
    assert c.real_macs == stem + between + 512 * 1000
    assert c.logits == (2, 1000)


@pytest.mark.parametrize(("arch", "config"), SMALL)
def test_small_ones_train(arch: str, config: dict) -> None:
    torch.manual_seed(0)
    module = models.create(arch, **config)
    assert module.training
    size, channels = config["input_size"], config.get("in_channels", 3)
    assert module.input_shape == (size, size, channels)
    x, y = torch.randn(16, channels, size, size), torch.randint(4, (16,))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.02)
    losses = []
    for _ in range(2):
        loss = torch.nn.functional.cross_entropy(module(x), y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        lacking = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert not lacking
        optimizer.step()
    assert losses[1] < losses[0]


@pytest.mark.parametrize(("arch", "config"), SMALL)
def test_binary_convolutions_see_two_levels(arch: str, config: dict) -> None:
    """Per filter of weights, and in the whole map; around it zeros or, in QuickNet, +1."""
    torch.manual_seed(0)
    module = models.create(arch, **config).eval()
    seen: list[str] = []

    def hook(layer: BinaryConv2d, inputs: tuple[torch.Tensor], name: str) -> None:
        seen.append(name)
        assert len(inputs[0].unique()) == 2
        assert {len(filter_.unique()) for filter_ in layer.quantized_weight()} == {2}
        assert layer.padding == (0 if "quicknet" in arch else layer.kernel_size // 2)

    for name, layer in module.named_modules():
        if isinstance(layer, BinaryConv2d):
            layer.register_forward_pre_hook(lambda m, i, name=name: hook(m, i, name))
    size, channels = config["input_size"], config.get("in_channels", 3)
    with torch.no_grad():
        module(torch.randn(2, channels, size, size))
    assert len(seen) == sum(isinstance(m, BinaryConv2d) for m in module.modules()) > 0


@pytest.mark.parametrize(("arch", "config"), SMALL[:4])
def test_the_first_training_stage_has_real_weights(arch: str, config: dict) -> None:
    first = models.create(arch, weights="real", **config)
    convs = [m for m in first.modules() if isinstance(m, BinaryConv2d)]
    assert convs and all(m.quantized_weight() is m.weight for m in convs)
    models.create(arch, **config).load_state_dict(first.state_dict())


@pytest.mark.parametrize(
    ("arch", "config", "message"),
    [
        ("reactnet_a", {"widths": (8, 24), "strides": (1, 1)}, "keeps or doubles"),
        ("reactnet_a", {"widths": (8, 16)}, "as many"),
        ("reactnet_a", {"widths": 8}, "list"),
        ("reactnet_a", {"strides": (4, *[1] * 13)}, "1 or 2"),
        ("reactnet_a", {"input_size": 100}, "multiple of 32"),
        ("reactnet_a", {"weights": "ternary"}, "binary, real"),
        ("reactnet_18", {"gradient": "tanh"}, "clipped, quadratic"),
        ("birealnet_18", {"input_size": 48}, "multiple of 32"),
        ("birealnet_18", {"blocks": ()}, "list"),
        ("birealnet_18", {"width": 0}, "width"),
        ("adabin_resnet20", {"width": 5}, "even"),
        ("adabin_resnet20", {"weight_clip": 0}, "greater than 0"),
        ("adabin_resnet20", {"input_size": 30}, "multiple of 4"),
        ("quicknet", {"filters": (10, 20), "blocks": (1, 1)}, "multiple of 4"),
        ("quicknet", {"filters": (8, 16)}, "as many"),
        ("quicknet", {"input_size": 8}, "2x2 pool"),
        ("quicknet_small", {"clip": -1}, "greater than 0"),
        ("quicknet_large", {"classes": 0}, "classes"),
    ],
)
def test_wrong_options_are_usage_errors(arch: str, config: dict, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        models.create(arch, **config)


def test_the_sizes_in_the_documentation_are_these() -> None:
    text = (Path(__file__).parent.parent / "docs" / "zoo.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", text, re.MULTILINE)
    assert {arch for arch, _ in SMALL} <= {arch for arch, *_ in rows}
    for arch, *numbers in rows:
        c = counts(arch)
        measured = [c.binary_macs, c.real_macs, c.bits, c.parameters]
        assert [int(n.replace(",", "")) for n in numbers] == measured, arch
