"""BNext and ES-BNext: published counts and keys, the unit by its formula, the temperature of the weights."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from bdnet_deploy import checkpoint, models
from bdnet_deploy.errors import UsageError

torch = pytest.importorskip("torch")

from model_counts import check_trains, image, multiply_accumulates, on_meta, parameters  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch_modules import randomize  # noqa: E402

from bdnet_deploy.models.bnext import ESBNextConfig  # noqa: E402
from bdnet_deploy.models.bnext_blocks import Shift, SignActivation, Unit  # noqa: E402
from bdnet_deploy.nn import AnnealedConv2d, anneal, not_yet_binary  # noqa: E402

SMALL = {"widths": (16, 32, 64, 64), "input_size": 16, "classes": 4}


@pytest.mark.parametrize(
    ("arch", "options", "real_parameters", "real_work", "elementwise"),
    [
        ("bnext", {}, 2_609_052, 13.34, 27.6),
        ("es_bnext", {"tau": 1}, 2_609_052, 13.34, 27.6),
        ("es_bnext", {}, 2_690_306, 13.34, 55.2),
        ("es_bnext", {"ops_matched": False}, 5_214_876, 15.85, 55.2),
    ],
)
def test_the_published_networks_cost(
    arch: str, options: dict, real_parameters: int, real_work: float, elementwise: float
) -> None:
    """Counted on the published code (imfinethanks/ESBNN at 972eecd: bnext.py, bnext_rep_ops.py, bnext_rep.py)."""
    module = on_meta(arch, **options)
    outputs: list[int] = []
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.PReLU | Shift | SignActivation):
            layer.register_forward_hook(lambda _m, _x, y: outputs.append(y[0].numel()))
    assert parameters(module) == (28_253_184, real_parameters)
    binary, real = multiply_accumulates(module)
    assert (round(binary / 1e9, 4), round(real / 1e6, 2)) == (4.8169, real_work)
    assert round(sum(outputs) / 1e6, 1) == elementwise


@pytest.mark.parametrize("size", ["small", "middle", "large"])
@pytest.mark.parametrize("groups", [1, 2])
def test_expansion_is_free_of_binary_work_at_every_size(size: str, groups: int) -> None:
    plain = on_meta("bnext", size=size)
    # A stem of 48 channels allows tau * groups = 2 only where SE is replicated too: 48 / 8 = 6.
    wide = on_meta("es_bnext", size=size, tau=3 - groups, groups=groups)
    assert parameters(wide)[0] == parameters(plain)[0]
    assert multiply_accumulates(wide) == multiply_accumulates(plain)


def test_state_dict_has_the_published_keys() -> None:
    """The keys and shapes that the published ES-BNext-T saves, by hand."""
    module = on_meta("es_bnext")
    state = {name: tuple(value.shape) for name, value in module.state_dict().items()}

    def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
        vectors = {f"{name}.{key}": (channels,) for key in ("weight", "bias", "running_mean", "running_var")}
        return {**vectors, f"{name}.num_batches_tracked": ()}

    expected: dict[str, tuple[int, ...]] = {"feature.0.conv1.weight": (32, 3, 3, 3), "feature.0.prelu.weight": (64,)}
    expected |= norm("feature.0.bn1", 64)
    widths = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    for i, (c, after) in enumerate(pairwise(widths), 1):
        units = {"Attention": 3, **({"FFN": 1} if c == after else {"FFN_1": 1, "FFN_2": 1})}
        for name, k in units.items():
            unit, wide = f"feature.{i}.{name}", 2 * c
            expected |= {
                f"{unit}.scale": (1, wide, 1, 1),
                f"{unit}.move.bias": (1, wide, 1, 1),
                f"{unit}.binary_activation.temperature": (1,),
                f"{unit}.binary_conv.weight": (c // 2, wide, k, k),
                f"{unit}.binary_conv.temperature": (1,),
                **norm(f"{unit}.norm1", wide),
                **norm(f"{unit}.norm2", wide),
                f"{unit}.activation1.weight": (wide,),
                f"{unit}.activation2.weight": (wide,),
                f"{unit}.se.se.1.weight": (c // 16, wide, 1, 1),
                f"{unit}.se.se.1.bias": (c // 16,),
                f"{unit}.se.se.4.weight": (c // 2, wide // 8, 1, 1),
                f"{unit}.se.se.4.bias": (c // 2,),
            }
    expected |= {"prelu.weight": (1024,), "fc.weight": (1000, 1024), "fc.bias": (1000,)}
    assert state == expected
    assert len(state) == 661
    plain = on_meta("bnext").state_dict()
    assert {"feature.1.FFN_2.se.se.1.weight", "feature.1.FFN_2.se.se.3.weight"} <= set(plain)


def by_hand(unit: Unit, x: torch.Tensor, tau: int, groups: int, ops_matched: bool) -> torch.Tensor:
    """The unit one output channel at a time."""
    wide = x.shape[1]
    channels = wide // (tau * groups)
    filters = channels // tau
    bits = torch.where(x + unit.move.bias >= 0, 1.0, -1.0).double()
    signs = torch.where(unit.binary_conv.weight >= 0, 1.0, -1.0).double()
    per_group, depth = filters // groups, channels * tau
    sums = torch.cat(
        [
            functional.conv2d(
                bits[:, g * depth : (g + 1) * depth],
                signs[g * per_group : (g + 1) * per_group],
                None,
                unit.stride,
                signs.shape[-1] // 2,
            )
            for g in range(groups)
        ],
        1,
    )

    def normalized(bn: nn.BatchNorm2d, y: torch.Tensor, j: int) -> torch.Tensor:
        return (y - bn.running_mean[j]) / torch.sqrt(bn.running_var[j] + bn.eps) * bn.weight[j] + bn.bias[j]

    def prelu(y: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        return torch.where(y >= 0, y, slope * y)

    h = torch.stack(
        [
            prelu(normalized(unit.norm1, sums[:, j % filters], j), unit.activation2.weight[j])
            for j in range(sums.shape[1] * tau**2 * groups)
        ],
        1,
    )
    pooled = functional.avg_pool2d(x, 2) if unit.stride == 2 else x
    scale = unit.scale.clamp(0, 1) if unit.pointwise else unit.scale
    mean = (scale * pooled + (1 - scale) * h).mean((2, 3))
    first, second = (layer for layer in unit.se.se if isinstance(layer, nn.Conv2d))
    replicated = ops_matched and tau * groups > 1

    def squeezed(layer: nn.Conv2d, v: torch.Tensor) -> torch.Tensor:
        out, inputs = layer.weight.shape[:2]
        parts = layer.groups
        rows = [
            v[:, (o // (out // parts)) * inputs : (o // (out // parts) + 1) * inputs] @ layer.weight[o, :, 0, 0]
            + layer.bias[o]
            for o in range(out)
        ]
        times = tau**2 * groups if replicated else 1
        return torch.stack([rows[j % out] for j in range(out * times)], 1)

    gates = torch.sigmoid(squeezed(second, torch.relu(squeezed(first, mean))))[:, :, None, None]
    y, residual = gates * h, pooled
    if unit.attention:
        residual = prelu(x, unit.activation1.weight[:, None, None])
        residual = functional.avg_pool2d(residual, 2) if unit.stride == 2 else residual
        y = y * residual
    return torch.stack([normalized(unit.norm2, y[:, j], j) for j in range(wide)], 1) + residual


@pytest.mark.parametrize(("tau", "groups", "ops_matched"), [(1, 1, True), (2, 1, True), (2, 1, False), (2, 2, True)])
@pytest.mark.parametrize(("kernel", "stride", "attention"), [(3, 1, True), (3, 2, True), (3, 2, False), (1, 1, False)])
def test_the_unit_is_the_papers_formula(
    tau: int, groups: int, ops_matched: bool, kernel: int, stride: int, attention: bool
) -> None:
    torch.manual_seed(tau + groups)
    config = ESBNextConfig(widths=(32, 32), tau=tau, groups=groups, ops_matched=ops_matched)
    unit = randomize(Unit(32, kernel, stride, attention=attention, config=config)).eval().double()
    with torch.no_grad():
        for p in (unit.move.bias, unit.activation1.weight, unit.activation2.weight, unit.scale):
            p += torch.randn_like(p)
        x = torch.randn(2, 32 * tau * groups, 4, 6, dtype=torch.float64)
        assert torch.allclose(unit(x), by_hand(unit, x, tau, groups, ops_matched), rtol=1e-10, atol=1e-10)


def test_head_sees_the_first_channels_where_ops_are_matched() -> None:
    torch.manual_seed(0)
    for ops_matched in (True, False):
        module = models.create("es_bnext", **SMALL, ops_matched=ops_matched).eval()
        seen: list[torch.Tensor] = []
        module.feature[-1].register_forward_hook(lambda _m, _x, y, seen=seen: seen.append(y))
        with torch.no_grad():
            logits = module(image(module))
            kept = 64 if ops_matched else 128
            assert seen[0].shape == (2, 128, 4, 4)
            expected = module.fc(functional.prelu(seen[0][:, :kept], module.prelu.weight).mean((2, 3)))
        assert torch.allclose(logits, expected)


@pytest.mark.parametrize(
    "options",
    [{}, {"tau": 1}, {"temperature": 1.0}, {"ops_matched": False}, {"groups": 2, "widths": (32, 32, 64, 64)}],
)
def test_it_trains(options: dict) -> None:
    torch.manual_seed(0)
    module = models.create("es_bnext", **{**SMALL, **options})
    # What the published code never reads: the stem's PReLU, and activation1 of all but the second block's 3x3 unit.
    frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
    unread = {name for name in module.state_dict() if name.endswith("activation1.weight")}
    assert frozen == {"feature.0.prelu.weight", *unread} - {"feature.2.Attention.activation1.weight"}
    with torch.no_grad():  # two units behind a ReLU may both be dead by chance: lift them
        for name, p in module.named_parameters():
            if name.endswith("se.1.bias"):
                p.fill_(2.0)
    check_trains(module)


def test_weights_are_real_until_the_temperature_is_low() -> None:
    torch.manual_seed(0)
    conv = AnnealedConv2d(4, 2, 3, temperature=0.5).eval()
    with torch.no_grad():
        conv.weight.mul_(300)
        assert torch.equal(conv.quantized_weight(), (conv.weight / 0.5).clamp(-1, 1))
        conv.temperature.fill_(1e-7)
        assert torch.equal(conv.quantized_weight(), (conv.weight / 1e-7).clamp(-1, 1))
        conv.temperature.fill_(0.99e-7)
        conv.weight[0, 0, 0, 0] = 0
        assert torch.equal(conv.quantized_weight(), torch.where(conv.weight >= 0, 1.0, -1.0))


def test_latent_weights_are_clamped_in_training_alone() -> None:
    conv = AnnealedConv2d(2, 2, 1, temperature=0.0)
    with torch.no_grad():
        conv.weight.fill_(3.0)
    x = torch.ones(1, 2, 1, 1)
    conv.eval()(x)
    assert conv.weight.max() == 3
    conv.train()(x).sum().backward()
    assert conv.weight.max() == 1.5
    assert torch.equal(conv.weight.grad, torch.ones_like(conv.weight))  # straight through at the bound, too


def test_annealing_reaches_signs_when_the_paper_does() -> None:
    """0.9 an epoch: 1e-7 after 153 epochs, of the 512 that BNext trains."""
    module = models.create("bnext", **SMALL, temperature=1.0)
    names = not_yet_binary(module)
    assert names[0] == "feature.1.Attention.binary_conv" and len(names) == 3 + 3 + 2
    epochs = 0
    while not_yet_binary(module):
        assert anneal(module) == pytest.approx(0.9 ** (epochs + 1), rel=1e-4)
        epochs += 1
    assert epochs == 153
    with pytest.raises(ValueError, match="factor"):
        anneal(module, 1.1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"size": "huge"}, "tiny, small, middle, large"),
        ({"widths": (16, 24)}, "keeps or doubles"),
        ({"widths": (12, 24)}, "multiple of 8"),
        ({"widths": (8, 8)}, "multiple of 16"),
        ({"widths": (16, 32)}, "last block"),
        ({"widths": 16}, "list"),
        ({"tau": 0}, "tau"),
        ({"temperature": -1.0}, "temperature"),
        ({"input_size": 100}, "multiple of 32"),
        ({"stem_stride": 3}, "stem_stride"),
        ({"ops_matched": "yes"}, "ops_matched"),
        ({"clip": 0}, "clip"),
    ],
)
def test_wrong_options_are_usage_errors(config: dict, message: str) -> None:
    with pytest.raises(UsageError) as error:
        models.create("es_bnext", **config)
    assert message in str(error.value)


def test_a_network_has_a_block() -> None:
    with pytest.raises(UsageError, match="no block"):
        models.create("bnext", widths=(16,))


def test_a_published_checkpoint_loads_by_name(tmp_path: Path) -> None:
    """The training script's dictionary, with the names of DistributedDataParallel."""
    torch.manual_seed(0)
    module = randomize(models.create("es_bnext", **SMALL, temperature=0.5))
    state = {f"module.{name}": value for name, value in module.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state, "best_top1_acc": 1.0, "temp": 0.5}, tmp_path / "checkpoint.pth.tar")
    loaded = checkpoint.load_module(tmp_path / "checkpoint.pth.tar", arch="es_bnext", set_=SMALL)
    assert not_yet_binary(loaded) == not_yet_binary(module) != []
    x = image(module)
    with torch.no_grad():
        assert torch.equal(loaded(x), module.eval()(x))
