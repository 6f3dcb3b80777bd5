"""ES-ResNet-18, and the group variant of both ES-ResNets."""

from __future__ import annotations

import pytest

from bdnet_deploy import models
from bdnet_deploy.errors import UsageError

torch = pytest.importorskip("torch")

from model_counts import check_trains, image, multiply_accumulates, on_meta, ordinary_parameters, parameters  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch_modules import randomize  # noqa: E402

from bdnet_deploy.nn import ESBlockHalf  # noqa: E402

SMALL_18 = {"width": 8, "blocks": 1, "input_size": 32, "classes": 4}
SMALL_20 = {"width": 8, "blocks": 1, "input_size": 8, "classes": 4}


def test_resnet18_has_the_published_parameters() -> None:
    """11,689,512: torchvision's page of ResNet-18, the same layers without binarization."""
    module = on_meta("es_resnet18", tau=1)
    assert ordinary_parameters(module) == 11_689_512


def test_resnet18_costs_the_same_however_wide() -> None:
    # A 7x7 stem, 1x1 shortcuts where maps of 28, 14 and 7 pixels a side begin, the classifier.
    real = 112**2 * 64 * 49 * 3 + 28**2 * 64 * 128 + 14**2 * 128 * 256 + 7**2 * 256 * 512 + 512 * 1000
    # 3x3: four in each stage, the first of a stage from half as many channels.
    stages = [(56, 64, 64), (28, 64, 128), (14, 128, 256), (7, 256, 512)]
    binary = sum(side**2 * 9 * (c_in * c + 3 * c * c) for side, c_in, c in stages)
    bits = sum(9 * (c_in * c + 3 * c * c) for _, c_in, c in stages)
    for tau, groups in ((1, 1), (2, 1), (4, 1), (1, 2), (2, 2)):
        module = on_meta("es_resnet18", tau=tau, groups=groups)
        assert multiply_accumulates(module) == (binary, real)
        assert parameters(module)[0] == bits
        assert module.blocks[-1].bn.num_features == 512 * tau * groups


def test_resnet20_in_groups_costs_the_same() -> None:
    plain = on_meta("es_resnet20", tau=1)
    for tau, groups in ((1, 2), (2, 2), (2, 4)):
        module = on_meta("es_resnet20", tau=tau, groups=groups)
        assert multiply_accumulates(module) == multiply_accumulates(plain)
        assert parameters(module)[0] == parameters(plain)[0]


@pytest.mark.parametrize(("tau", "groups"), [(1, 2), (2, 2), (2, 4), (1, 4)])
@pytest.mark.parametrize(("c_in", "c_out", "stride", "downsample"), [(8, 8, 1, "pool"), (8, 16, 2, "conv")])
def test_the_group_variant_is_the_figures(
    tau: int, groups: int, c_in: int, c_out: int, stride: int, downsample: str
) -> None:
    """Input in g parts of c_in * tau; of each, c_out / (tau * g) filters; concatenated; tiled tau**2 * g times."""
    torch.manual_seed(2)
    block = randomize(ESBlockHalf(c_in, c_out, stride, tau=tau, groups=groups, downsample=downsample)).eval().double()
    x = torch.randn(2, c_in * tau * groups, 4, 6, dtype=torch.float64)
    with torch.no_grad():
        bits = torch.where(x - block.activation.threshold >= 0, 1.0, -1.0).double()
        signs = torch.where(block.conv.weight >= 0, 1.0, -1.0).double()
        assert signs.shape == (c_out // tau, c_in * tau, 3, 3)
        parts = zip(bits.chunk(groups, 1), signs.chunk(groups, 0), strict=True)
        maps = torch.cat([functional.conv2d(b, w, None, stride, 1) for b, w in parts], 1)
        y = block.bn(torch.cat([maps] * (tau**2 * groups), 1))
        if downsample == "conv":
            pooled = functional.avg_pool2d(x, 2)
            real = block.shortcut.conv.weight
            assert real.shape == (c_out // tau, c_in * tau, 1, 1)
            parts = zip(pooled.chunk(groups, 1), real.chunk(groups, 0), strict=True)
            maps = torch.cat([functional.conv2d(p, w) for p, w in parts], 1)
            residual = block.shortcut.bn(torch.cat([maps] * (tau**2 * groups), 1))
        else:
            residual = x
        expected = functional.prelu(y + residual, block.prelu.weight)
        assert torch.allclose(block(x), expected, rtol=1e-12, atol=1e-12)


def test_every_group_of_the_next_convolution_sees_every_filter() -> None:
    """Why no channels need shuffling: a filter changed in one group reaches all groups of the next convolution."""
    torch.manual_seed(3)
    block = ESBlockHalf(8, 8, tau=2, groups=2).eval()
    x = torch.randn(1, 32, 4, 4)
    with torch.no_grad():
        before = block(x)
        block.conv.weight[0] *= -1
        changed = (block(x) != before).any((0, 2, 3))
    assert changed.nonzero().flatten().tolist() == list(range(0, 32, 4))  # of 4 filters, 16 channels a group


@pytest.mark.parametrize("tau", [1, 2])
def test_head_sees_the_first_channels_only(tau: int) -> None:
    torch.manual_seed(0)
    module = models.create("es_resnet18", **SMALL_18, tau=tau).eval()
    features: list[torch.Tensor] = []
    module.blocks.register_forward_hook(lambda _m, _x, y: features.append(y))
    with torch.no_grad():
        logits = module(image(module))
        assert features[0].shape == (2, 64 * tau, 1, 1)
        assert torch.allclose(logits, module.classifier(features[0][:, :64].mean((2, 3))), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("es_resnet18", {}),
        ("es_resnet18", {"stem": "3x3", "downsample": "pool"}),
        ("es_resnet18", {"groups": 2}),
        ("es_resnet20", {"groups": 2}),
        ("es_resnet20", {"downsample": "conv", "gradient": "quadratic"}),
    ],
)
def test_they_train(arch: str, options: dict) -> None:
    torch.manual_seed(0)
    check_trains(models.create(arch, **{**(SMALL_18 if arch == "es_resnet18" else SMALL_20), **options}))


@pytest.mark.parametrize(
    ("arch", "config", "message"),
    [
        ("es_resnet18", {"stem": "5x5"}, "7x7, 3x3"),
        ("es_resnet18", {"input_size": 40}, "multiple of 32"),
        ("es_resnet18", {"downsample": "none"}, "pool, conv"),
        ("es_resnet18", {"tau": 2, "groups": 3}, "divides width"),
        ("es_resnet20", {"groups": 0}, "groups"),
        ("es_resnet20", {"groups": 16}, "divides width"),
    ],
)
def test_wrong_options_are_usage_errors(arch: str, config: dict, message: str) -> None:
    with pytest.raises(UsageError) as error:
        models.create(arch, **config)
    assert message in str(error.value)
