"""The registry and the BD-Net architectures."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bdnet_deploy import checkpoint, models
from bdnet_deploy.errors import UsageError

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from bdnet_deploy.nn import BinaryConv2d  # noqa: E402


def output(module: torch.nn.Module) -> torch.Tensor:
    height, width, channels = module.input_shape
    with torch.no_grad():
        return module.eval()(torch.randn(2, channels, height, width))


def macs(module: torch.nn.Module) -> dict[str, int]:
    """Multiply-accumulates of one image from the shapes of the modules' weights and outputs."""
    counts = {"pointwise": 0, "depthwise": 0, "real": 0}

    def hook(layer: torch.nn.Module, _: object, y: torch.Tensor) -> None:
        work = layer.weight[0].numel() * y[0].numel()
        if isinstance(layer, BinaryConv2d):
            counts["depthwise" if layer.groups > 1 else "pointwise"] += work
        else:
            counts["real"] += work

    for layer in module.modules():
        if isinstance(layer, BinaryConv2d | torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(hook)
    height, width, channels = module.input_shape
    module.eval()(torch.zeros(1, channels, height, width, device=next(module.parameters()).device))
    return counts


def test_mobilenet_v1_multiply_accumulates() -> None:
    with torch.device("meta"):
        module = models.create("bdnet_mobilenet_v1")
        counts = macs(module)
    # MobileNet V1 at 224x224 by hand: 13 blocks at 112, 56, 56, 28, 28, 14 (x6), 7, 7 pixels a side.
    widths = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    sides = [112, 56, 56, 28, 28, 14, 14, 14, 14, 14, 14, 7, 7]
    blocks = list(zip(sides, widths, widths[1:], strict=False))
    assert counts["pointwise"] == sum(side**2 * c_in * c_out for side, c_in, c_out in blocks)
    assert counts["depthwise"] == sum(side**2 * 9 * c_in for side, c_in, _ in blocks)
    assert counts["real"] == 112 * 112 * 32 * 27 + 1024 * 1000
    assert round(counts["pointwise"] / 1e6, 2) == 539.49
    assert round(counts["depthwise"] / 1e6, 3) == 17.386
    assert round(counts["real"] / 1e6, 3) == 11.862


def weights(module: torch.nn.Module) -> int:
    """Weights of convolutions and linear layers, biases of linear layers included."""
    kinds = BinaryConv2d | torch.nn.Conv2d | torch.nn.Linear
    layers = [layer for layer in module.modules() if isinstance(layer, kinds)]
    biases = sum(layer.bias.numel() for layer in layers if isinstance(layer, torch.nn.Linear))
    return sum(layer.weight.numel() for layer in layers) + biases


def test_visual_wake_words_has_the_published_size() -> None:
    """7.490 M multiply-accumulates: Silicon Labs MLTK's page of MLPerf Tiny's visual wake words. 221,794 parameters:
    NXP eIQ model zoo's; as Keras counts, every convolution there has a bias and four vectors of batch normalization."""
    with torch.device("meta"):
        module = models.create("bdnet_vww")
        counts = macs(module)
    assert module.input_shape == (96, 96, 3)
    assert round(sum(counts.values()) / 1e6, 3) == 7.490
    assert counts["real"] == 48 * 48 * 8 * 27 + 256 * 2
    channels = [
        layer.weight.shape[0] for layer in module.modules() if isinstance(layer, BinaryConv2d | torch.nn.Conv2d)
    ]
    assert len(channels) == 27
    assert weights(module) + 5 * sum(channels) == 221_794


def test_keyword_spotting_has_the_published_size() -> None:
    """2.657 M multiply-accumulates: Silicon Labs MLTK's page of MLPerf Tiny's keyword spotting. 23,756 parameters: NXP
    eIQ model zoo's; the trainable ones of Keras: a bias and two vectors of batch normalization a convolution."""
    module = models.create("bdnet_kws")
    assert module.input_shape == (49, 10, 1)
    assert output(module).shape == (2, 12)
    counts = macs(module)
    assert round(sum(counts.values()) / 1e6, 3) == 2.657
    assert counts == {"real": 125 * 64 * 40 + 64 * 12, "depthwise": 4 * 125 * 64 * 9, "pointwise": 4 * 125 * 64 * 64}
    assert weights(module) + 3 * 9 * 64 == 23_756


def test_keyword_spotting_pads_its_stem_as_the_reference_does() -> None:
    module = models.create("bdnet_kws", frames=7, coefficients=5, width=8, blocks=1).eval()
    x = torch.randn(1, 1, 7, 5)
    seen: list[torch.Tensor] = []
    module.stem.register_forward_hook(lambda _layer, _inputs, y: seen.append(y))
    with torch.no_grad():
        module(x)
    # "Same" padding by its definition: ceil(size / 2) outputs, the smaller half of the zeros before.
    rows, columns = (4 - 1) * 2 + 10 - 7, (3 - 1) * 2 + 4 - 5
    padded = torch.zeros(1, 1, 7 + rows, 5 + columns)
    padded[:, :, rows // 2 : rows // 2 + 7, columns // 2 : columns // 2 + 5] = x
    with torch.no_grad():
        expected = functional.conv2d(padded, module.stem.weight, stride=2)
    assert seen[0].shape == (1, 8, 4, 3)
    assert torch.equal(seen[0], expected)


def test_digits_multiply_accumulates_and_weights() -> None:
    module = models.bdnet_digits()
    counts = macs(module)
    assert counts["pointwise"] == 64 * (32 * 32 + 32 * 64) + 16 * (64 * 64 + 64 * 128)
    assert counts["depthwise"] == 9 * (64 * (32 + 32) + 16 * (64 + 64))
    bits = sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, BinaryConv2d))
    assert bits == 9 * (32 + 32 + 64 + 64) + 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128 == 17088


@pytest.mark.parametrize(
    "config",
    [
        {"width": 0.25, "input_size": 32},
        {"width": 0.35, "input_size": 32, "classes": 10, "in_channels": 1},
        {"width": 0.25, "input_size": 32, "stem_stride": 1},
        {"width": 0.25, "input_size": 64, "ternary": "both", "alpha": "learned", "gradient": "quadratic"},
        {
            "width": 0.25,
            "input_size": 32,
            "ternary": "none",
            "weights_dw": "ternary",
            "weights_pw": "ternary",
        },
        {"width": 0.25, "input_size": 32, "residual_dw": "none", "residual_pw": "pre", "thresholds": "fixed"},
    ],
)
def test_mobilenet_v1_variants_train_and_run(config: dict) -> None:
    module = models.create("bdnet_mobilenet_v1", **config)
    assert output(module).shape == (2, config.get("classes", 1000))
    module.train()
    height, width, channels = module.input_shape
    module(torch.randn(2, channels, height, width)).square().mean().backward()
    lacking = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert not lacking
    assert any(not p.requires_grad for p in module.parameters()) == (config.get("thresholds") == "fixed")


@pytest.mark.parametrize(
    ("ternary", "weights"),
    [("depthwise", "binary"), ("both", "binary"), ("none", "ternary"), ("none", "binary")],
)
def test_activations_and_weights_have_the_levels_that_the_options_name(ternary: str, weights: str) -> None:
    torch.manual_seed(0)
    module = models.create("bdnet_digits", ternary=ternary, weights_dw=weights, weights_pw=weights)
    real = functional.conv2d
    levels: list[tuple[str, set[float], int]] = []

    def spy(x, w, *args):
        kind = "dw" if args[4] > 1 else "pw"
        levels.append((kind, set(x.unique().tolist()), max(len(row.unique()) for row in w)))
        return real(x, w, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, "conv2d", spy)
        output(module)
    binary = levels[1:]  # the first one is the stem
    assert len(binary) == 8
    for kind, values, weight_levels in binary:
        three = ternary == "both" or (ternary == "depthwise" and kind == "dw")
        assert values <= ({-1.0, 0.0, 1.0} if three else {-1.0, 1.0})
        assert (0.0 in values) == three
        assert weight_levels <= (3 if weights == "ternary" else 2)
    if weights == "ternary":
        assert max(count for _, _, count in binary) == 3


@pytest.mark.parametrize(("widths", "strides"), [((8, 16), (2,)), ((16, 32, 32, 8), (1, 2, 1)), ((8, 8, 16), (2, 2))])
def test_digits_widths_and_strides(widths, strides) -> None:
    module = models.bdnet_digits(widths=widths, strides=strides, classes=3)
    assert output(module).shape == (2, 3)
    for half in (half for block in module.blocks for half in block.values()):
        assert half.conv.weight.shape[0] == half.bn.num_features


def test_modules_remember_how_they_were_made() -> None:
    module = models.bdnet_digits(widths=(8, 16), strides=(2,), ternary="both")
    assert module.bdnet_arch == "bdnet_digits"
    assert module.bdnet_config == json.loads(json.dumps(module.bdnet_config))
    assert module.bdnet_config.keys() == models.options("bdnet_digits").keys()
    again = models.create(module.bdnet_arch, **module.bdnet_config)
    assert again.bdnet_config == module.bdnet_config
    again.load_state_dict(module.state_dict())


def test_options_are_documented_and_in_the_signature() -> None:
    for name in models.names():
        factory = getattr(models, name)
        options = models.options(name)
        assert list(inspect.signature(factory).parameters) == list(options)
        documentation = "".join(kind.__doc__ or "" for kind in config_types(name))
        assert [option for option in options if option not in documentation] == []


def config_types(name: str) -> list[type]:
    from bdnet_deploy.models import registry

    return [kind for kind in registry._CONFIGS[name].__mro__ if kind is not object]


@pytest.mark.parametrize(
    ("arch", "config", "message"),
    [
        ("bdnet_digit", {}, "bdnet_digits"),
        ("bdnet_digits", {"widht": (8, 8)}, "widths"),
        ("bdnet_digits", {"ternary": "all"}, "depthwise, both, none"),
        ("bdnet_digits", {"widths": (8, 12), "strides": (1,)}, "divide"),
        ("bdnet_digits", {"widths": (8, 8), "strides": (1, 1)}, "strides"),
        ("bdnet_digits", {"widths": 8}, "list"),
        ("bdnet_digits", {"strides": (1, 3, 1, 1), "input_size": 9}, "stride"),
        ("bdnet_digits", {"classes": 0}, "classes"),
        ("bdnet_digits", {"half_width": "wide"}, "do not make"),
        ("bdnet_mobilenet_v1", {"input_size": 100}, "multiple of 32"),
        ("bdnet_mobilenet_v1", {"width": 0}, "width"),
        ("bdnet_mobilenet_v1", {"width": "big"}, "do not make"),
        ("bdnet_mobilenet_v1", {"stem_stride": 3}, "stem_stride"),
        ("bdnet_vww", {"input_size": 90}, "multiple of 32"),
        ("bdnet_kws", {"frames": 0}, "frames"),
        ("es_resnet20", {"tau": 3}, "tau"),
        ("es_resnet20", {"input_size": 30}, "multiple of 4"),
        ("es_resnet20", {"gradient": "none"}, "clipped, quadratic"),
        ("es_resnet20", {"clip": 0}, "clip"),
    ],
)
def test_wrong_options_are_usage_errors(arch: str, config: dict, message: str) -> None:
    with pytest.raises(UsageError) as error:
        models.create(arch, **config)
    assert message in str(error.value)


def test_names_need_no_torch() -> None:
    code = (
        "import sys; from bdnet_deploy import models; models.options(models.names()[0]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_digits_example_is_what_its_script_promises() -> None:
    folder = Path(__file__).parent.parent / "examples" / "digits"
    assert (folder / "model.pt").stat().st_size < 300_000
    module = checkpoint.load_module(folder / "model.pt")
    assert module.bdnet_io.outputs[0].labels == tuple("0123456789")
    for name, count in (("test", 360), ("calibration", 100)):
        data = np.load(folder / f"{name}.npz")
        assert (data["x"].shape, data["x"].dtype, data["x"].max()) == ((count, 8, 8, 1), np.uint8, 16)
        x = torch.from_numpy(module.bdnet_io.preprocess(data["x"])).permute(0, 3, 1, 2)
        with torch.no_grad():
            right = (module(x).argmax(1).numpy() == data["y"]).mean()
        assert right >= 0.97
