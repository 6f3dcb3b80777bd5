"""BD-Net beyond MobileNet V1: MobileNet V2, EfficientNet-Lite0 and MLPerf Tiny's ResNet-8."""

from __future__ import annotations

import pytest

from bdnet_deploy import models
from bdnet_deploy.errors import UsageError

torch = pytest.importorskip("torch")

from model_counts import check_trains, multiply_accumulates, on_meta, ordinary_parameters  # noqa: E402

from bdnet_deploy.models.bdnet_inverted import InvertedConfig, divisible  # noqa: E402
from bdnet_deploy.models.inverted_residual import InvertedNet  # noqa: E402
from bdnet_deploy.nn import BDBlockHalf, BinaryConv2d, BroadcastResidual, RPReLU, TernaryActivation  # noqa: E402

SMALL = {"width": 0.25, "head": 64, "input_size": 16, "stem_stride": 1, "classes": 4}
INVERTED = ("bdnet_mobilenet_v2", "bdnet_efficientnet_lite0")


@pytest.mark.parametrize(
    ("arch", "count"),
    [
        ("bdnet_mobilenet_v2", 3_504_872),  # torchvision's page of mobilenet_v2
        (
            "bdnet_efficientnet_lite0",
            4_652_008,
        ),  # keras-hub's preset efficientnet_lite0_ra_imagenet; Google's page: 4.7M
    ],
)
def test_published_parameters(arch: str, count: int) -> None:
    assert ordinary_parameters(on_meta(arch)) == count


def test_multiply_accumulates_by_hand() -> None:
    """MobileNet V2: torchvision's page says 0.30 G."""
    blocks = {  # kernel, side before, stride, channels in, hidden, out
        "bdnet_mobilenet_v2": [
            (3, 112, 1, 32, 32, 16),
            (3, 112, 2, 16, 96, 24),
            (3, 56, 1, 24, 144, 24),
            (3, 56, 2, 24, 144, 32),
            *[(3, 28, 1, 32, 192, 32)] * 2,
            (3, 28, 2, 32, 192, 64),
            *[(3, 14, 1, 64, 384, 64)] * 3,
            (3, 14, 1, 64, 384, 96),
            *[(3, 14, 1, 96, 576, 96)] * 2,
            (3, 14, 2, 96, 576, 160),
            *[(3, 7, 1, 160, 960, 160)] * 2,
            (3, 7, 1, 160, 960, 320),
        ],
        "bdnet_efficientnet_lite0": [
            (3, 112, 1, 32, 32, 16),
            (3, 112, 2, 16, 96, 24),
            (3, 56, 1, 24, 144, 24),
            (5, 56, 2, 24, 144, 40),
            (5, 28, 1, 40, 240, 40),
            (3, 28, 2, 40, 240, 80),
            *[(3, 14, 1, 80, 480, 80)] * 2,
            (5, 14, 1, 80, 480, 112),
            *[(5, 14, 1, 112, 672, 112)] * 2,
            (5, 14, 2, 112, 672, 192),
            *[(5, 7, 1, 192, 1152, 192)] * 3,
            (3, 7, 1, 192, 1152, 320),
        ],
    }
    for arch, rows in blocks.items():
        binary = 7 * 7 * 320 * 1280
        for k, side, stride, c_in, hidden, c_out in rows:
            after = (side // stride) ** 2
            expand = side**2 * c_in * hidden if hidden > c_in else 0
            binary += expand + after * k * k * hidden + after * hidden * c_out
        assert multiply_accumulates(on_meta(arch)) == (binary, 112 * 112 * 32 * 27 + 1280 * 1000)
        if arch == "bdnet_mobilenet_v2":
            assert round((binary + 112 * 112 * 32 * 27 + 1280 * 1000) / 1e9, 2) == 0.30


def test_every_convolution_has_a_residual() -> None:
    for arch in INVERTED:
        for half in (m for m in on_meta(arch).modules() if isinstance(m, BDBlockHalf)):
            assert isinstance(half.shortcut, BroadcastResidual)
            assert half.residual == ("pre" if half.conv.groups > 1 else "post")


@pytest.mark.parametrize(("c_in", "c_out"), [(144, 32), (576, 160), (6, 4), (4, 6)])
def test_uneven_residual_means_then_repeats(c_in: int, c_out: int) -> None:
    x = torch.randn(2, c_in, 3, 5, dtype=torch.float64)
    y = BroadcastResidual(c_in, c_out, uneven=True)(x)
    kept = max(d for d in range(1, c_in + 1) if c_in % d == 0 and c_out % d == 0)
    group = c_in // kept
    assert y.shape == (2, c_out, 3, 5)
    for j in range(c_out):
        first = (j % kept) * group
        assert torch.allclose(y[:, j], x[:, first : first + group].mean(1))
    with pytest.raises(ValueError, match="divide"):
        BroadcastResidual(c_in, c_out)


def test_the_options_change_what_they_name() -> None:
    def block(**options: object) -> torch.nn.Module:
        return on_meta("bdnet_mobilenet_v2", **SMALL, **options).blocks[2]

    convolutions = block().convolutions
    assert block().adds and not block(block_shortcut=False).adds
    assert isinstance(convolutions["project"].rprelu, RPReLU)
    assert isinstance(block(linear_bottleneck=True).convolutions["project"].rprelu, torch.nn.Identity)
    assert isinstance(convolutions["dw"].conv.activation, TernaryActivation)
    assert not hasattr(convolutions["expand"].conv, "activation")
    assert hasattr(block(ternary="both").convolutions["expand"].conv, "activation")
    assert block(weights_dw="ternary").convolutions["dw"].conv.weights == "ternary"


@pytest.mark.parametrize("scaled", [1.0, 7.9, 8, 12, 11.9, 13, 24 * 0.35, 100])
def test_widths_are_multiples_of_8_near_the_scaled_ones(scaled: float) -> None:
    width = divisible(scaled)
    assert width % 8 == 0 and width >= max(8, 0.9 * scaled) and (width <= scaled + 8 or width == 8)


@pytest.mark.parametrize("options", [{}, {"linear_bottleneck": True, "block_shortcut": False, "ternary": "both"}])
def test_inverted_residuals_train(options: dict) -> None:
    torch.manual_seed(0)
    stages = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2))
    check_trains(InvertedNet(stages, InvertedConfig(**{**SMALL, "width": 0.5}, **options)))


def test_resnet8_has_mlperf_tinys_sizes() -> None:
    """By hand from the layers of the Keras model, its two 1x1 shortcuts left out: broadcast residuals stand for them."""
    full = on_meta("bdnet_resnet8", convolutions="full")
    assert full.input_shape == (32, 32, 3)
    layers = [m for m in full.modules() if isinstance(m, BinaryConv2d | torch.nn.Conv2d | torch.nn.Linear)]
    convolutions = [(3, 16), (16, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64)]
    weights = [9 * c_in * c_out for c_in, c_out in convolutions]
    assert [layer.weight.numel() for layer in layers] == [*weights, 64 * 10]
    binary, real = multiply_accumulates(full)
    assert real == 32 * 32 * 16 * 27 + 640
    stages = [(32, 16, 16), (16, 16, 32), (8, 32, 64)]
    assert binary == sum(side**2 * 9 * (c_in * c + c * c) for side, c_in, c in stages)


def test_resnet8_separable_has_a_pair_for_each_convolution() -> None:
    full = on_meta("bdnet_resnet8", convolutions="full")
    pairs = on_meta("bdnet_resnet8")
    assert len(full.blocks) == len(pairs.blocks) == 6
    for one, pair in zip(full.blocks, pairs.blocks, strict=True):
        c_out, c_in = one["conv"].conv.weight.shape[:2]
        assert pair["dw"].conv.weight.shape == (c_in, 1, 3, 3)
        assert pair["pw"].conv.weight.shape == (c_out, c_in, 1, 1)
        assert pair["dw"].conv.stride == one["conv"].conv.stride


@pytest.mark.parametrize("convolutions", ["separable", "full"])
def test_resnet8_trains(convolutions: str) -> None:
    torch.manual_seed(0)
    check_trains(models.create("bdnet_resnet8", convolutions=convolutions, width=8, input_size=8))


@pytest.mark.parametrize(
    ("arch", "config", "message"),
    [
        ("bdnet_mobilenet_v2", {"input_size": 100}, "multiple of 32"),
        ("bdnet_mobilenet_v2", {"width": 0}, "width"),
        ("bdnet_mobilenet_v2", {"stem_stride": 4}, "stem_stride"),
        ("bdnet_efficientnet_lite0", {"head": 0}, "head"),
        ("bdnet_resnet8", {"convolutions": "dense"}, "separable, full"),
        ("bdnet_resnet8", {"input_size": 30}, "multiple of 4"),
    ],
)
def test_wrong_options_are_usage_errors(arch: str, config: dict, message: str) -> None:
    with pytest.raises(UsageError) as error:
        models.create(arch, **config)
    assert message in str(error.value)
