"""PyTorch modules to graphs: values against PyTorch itself in double, what is recognised, what is refused and how."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch_modules import BIT, MAP, TRIT, Fn, check, layers, per_channel, randn, randomize, sign  # noqa: E402

from bdnet_deploy.graph import DType  # noqa: E402
from bdnet_deploy.importers.torch.quantizer import Quantizer, find_quantizer  # noqa: E402
from bdnet_deploy.importers.torch.recorder import record  # noqa: E402
from bdnet_deploy.models import create  # noqa: E402

# -- whole networks -----------------------------------------------------------------------------------------------------


def test_the_digits_model(root: Path) -> None:
    from bdnet_deploy.checkpoint import load_module

    graph = check(load_module(root / "examples/digits/model.pt"), (1, 1, 8, 8), batch=16)
    binary = [kinds for kinds in layers(graph) if kinds[1] is BIT]
    assert binary == [(TRIT, BIT), (BIT, BIT)] * 4
    assert set(graph.reasons) == {"stem", "classifier"}
    assert graph.reasons["stem"].startswith("first layer: its input is real")
    assert graph.numerics == "real"
    by_name = {n.name: n.source for n in graph.nodes}
    assert by_name["blocks.3.pw.conv"] == "blocks.3.pw.conv"


@pytest.mark.parametrize(
    "options",
    [
        {"ternary": "both", "residual_dw": "post", "residual_pw": "pre"},
        {"ternary": "none", "residual_dw": "none", "residual_pw": "none", "alpha": "learned"},
        {"ternary": "none", "weights_dw": "ternary", "weights_pw": "ternary", "threshold_per": "layer"},
        {"ternary": "both", "weights_dw": "ternary", "alpha": "one", "thresholds": "fixed"},
        {"widths": (8, 24, 8), "strides": (2, 1), "input_size": 12},
    ],
    ids=str,
)
def test_readings_of_bd_net(options: dict[str, Any]) -> None:
    settings = {"widths": (8, 8, 16), "strides": (1, 2), **options}
    torch.manual_seed(1)
    model = randomize(create("bdnet_digits", **settings))
    size = settings.get("input_size", 8)
    graph = check(model, (1, 1, size, size))
    activations = {"both": (TRIT, TRIT), "none": (BIT, BIT)}.get(settings.get("ternary", ""), (TRIT, BIT))
    weights = tuple(TRIT if settings.get(f"weights_{k}") == "ternary" else BIT for k in ("dw", "pw"))
    assert layers(graph)[1:-1] == list(zip(activations, weights)) * 2


def test_a_first_training_stage_has_real_weights() -> None:
    torch.manual_seed(1)
    model = randomize(create("bdnet_digits", widths=(8, 8), strides=(1,), weights_dw="real", weights_pw="real"))
    graph = check(model, (1, 1, 8, 8))
    assert layers(graph)[1:3] == [(TRIT, DType.F64), (BIT, DType.F64)]
    assert graph.reasons["blocks.0.dw.conv"] == "weights have 9 levels"


# -- activations --------------------------------------------------------------------------------------------------------


class SignFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def clipped(x: Tensor) -> Tensor:
    window = torch.clamp(x, -1.0, 1.0)
    return (sign(x) - window).detach() + window


def polynomial(x: Tensor, step: Callable[[Tensor], Tensor] = sign) -> Tensor:
    """The straight-through code of Bi-Real Net and ReActNet."""
    m1, m2, m3 = (x < -1).to(x.dtype), (x < 0).to(x.dtype), (x < 1).to(x.dtype)
    out1 = (-1) * m1 + (x * x + 2 * x) * (1 - m1)
    out2 = out1 * m2 + (-x * x + 2 * x) * (1 - m2)
    out3 = out2 * m3 + 1 * (1 - m3)
    return step(x).detach() - out3.detach() + out3


SHIFT = per_channel(0.3, -0.2, 0.05, 0.7)
SIGNS: dict[str, Callable[[Tensor], Tensor]] = {
    "comparison": sign,
    "strict": lambda x: torch.where(x > 0, 1.0, -1.0).to(x.dtype),
    "like": lambda x: torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x)),
    "full": lambda x: torch.where(x < 0, torch.full(x.shape, -1.0, dtype=x.dtype), x.new_ones(x.shape)),
    "detach": lambda x: x + (sign(x) - x).detach(),
    "clipped": clipped,
    "polynomial": polynomial,
    "function": SignFunction.apply,
    "data": lambda x: sign(x.data),
    "heaviside": lambda x: 2 * torch.heaviside(x - 0.1, torch.ones((), dtype=x.dtype)) - 1,
    "masked": lambda x: torch.ones_like(x).masked_fill(x < 0.25, -1),
    "shifted": lambda x: sign(x - SHIFT),
    "scaled": lambda x: 0.37 * sign((x + SHIFT) / 0.37),
    "descending": lambda x: sign(SHIFT - x),
    "mixed directions": lambda x: 0.5 * clipped(x * per_channel(1, -2, 0.5, -1) + SHIFT),
    "constant channel": lambda x: sign(x * per_channel(1, 0, -1, 1) - 0.5),
    "through a clamp": lambda x: sign(F.hardtanh(x)),
}
TERNARIES: dict[str, Callable[[Tensor], Tensor]] = {
    "two signs": lambda x: 0.5 * (sign(x - SHIFT - 0.5) + sign(x + 0.4)),
    "round": lambda x: x.round().clamp(-1, 1),
    "mask": lambda x: 0.8 * torch.sign(x) * (x.abs() > 0.6),
    "straight-through": lambda x: x + ((x > 0.5).to(x.dtype) - (x < -0.5).to(x.dtype) - x).detach(),
}


class Quantized(nn.Module):
    """Real stem, quantizer, convolution with binary weights."""

    def __init__(self, activation: Callable[[Tensor], Tensor], groups: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 4, 3, padding=1)
        self.activation = Fn(activation)
        self.conv = nn.Conv2d(4, 8, 3, 2, 1, groups=groups)
        with torch.no_grad():
            self.conv.weight.copy_(torch.where(self.conv.weight < 0, -0.25, 0.25))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.activation(self.stem(x)))


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("style", [*SIGNS, *TERNARIES])
def test_styles_of_activations(style: str, groups: int) -> None:
    torch.manual_seed(2)
    graph = check(Quantized(SIGNS.get(style) or TERNARIES[style], groups))
    assert layers(graph)[1] == (BIT if style in SIGNS else TRIT, BIT)
    assert list(graph.reasons) == ["stem"]


@pytest.mark.parametrize("style", [*SIGNS, *TERNARIES])
def test_thresholds_are_exact_in_float32(style: str) -> None:
    """PyTorch's own float32 expression, evaluated at the thresholds and at the floats beside them."""
    function = SIGNS.get(style) or TERNARIES[style]
    trace = record(Fn(function), randn(*MAP))
    found = find_quantizer(trace.outputs[0])
    assert isinstance(found, Quantizer) and found.source is trace.input
    for t in (found.low, found.high):
        with np.errstate(over="ignore"):
            at = np.where(np.abs(t) < 1e30, t, 0.0).astype(np.float32)
        around = np.stack([np.nextafter(at, np.float32(s)) if s else at for s in (-np.inf, 0, np.inf)])
        y = function(torch.from_numpy(around.copy())[:, :, None, None])[:, :, 0, 0].numpy()
        mine = (around >= found.low).astype(np.float64) + (around >= found.high) - 1
        assert np.abs(mine * found.mul + found.add - y).max() < 1e-5


def test_sign_of_zero_is_zero() -> None:
    """torch.sign has a third level at a single number: exact as 1.58 bit, and said."""
    torch.manual_seed(2)
    for style in (torch.sign, lambda x: polynomial(x, torch.sign)):
        model = Quantized(style)
        with torch.no_grad():  # a channel of exact zeros
            model.stem.weight[1] = 0
            model.stem.bias[1] = 0
        graph = check(model)
        assert layers(graph)[1] == (TRIT, BIT)
        assert "sign(0) = 0" in graph.reasons["conv"]


def test_sign_of_zero_by_coincidence_is_a_bit() -> None:
    """Behind arithmetic that makes no zeros on purpose the third level is a near tie, and +1."""
    torch.manual_seed(2)
    graph = check(Quantized(torch.sign))
    assert layers(graph)[1] == (BIT, BIT) and "conv" not in graph.reasons


@pytest.mark.parametrize(
    ("before", "levels"),
    [
        (F.relu, DType.UBIT),  # the lower level cannot occur
        (lambda x: x.clamp(-1, 0), TRIT),
        (lambda x: F.pad(x, (1, 1, 1, 1)), TRIT),
        (lambda x: torch.cat([x, 0 * x.detach()], 1)[:, :6], TRIT),
    ],
    ids=["relu", "limits", "padding", "zeros"],
)
def test_sign_of_zero_on_purpose_is_a_level(before: Callable[[Tensor], Tensor], levels: DType) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = nn.Conv2d(4, 6, 3), nn.Conv2d(6, 6, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            y = before(self.stem(x))
            return F.conv2d(torch.sign(y), sign(self.conv.weight)) + y.mean((2, 3), keepdim=True)

    torch.manual_seed(2)
    assert layers(check(Net(), (1, 4, 9, 9)))[1] == (levels, BIT)


def test_a_scale_per_channel_moves_behind_depthwise_layers_only() -> None:
    torch.manual_seed(2)
    scale = per_channel(0.5, 1, 2, 3)
    assert layers(check(Quantized(lambda x: scale * sign(x), groups=4)))[1] == (BIT, BIT)
    graph = check(Quantized(lambda x: scale * sign(x)))
    assert layers(graph)[1] == (DType.F64, DType.F64)
    assert "its scale differs from channel to channel" in graph.reasons["conv"]


def test_functions_of_several_quantizers() -> None:
    """A bump is a sign of a two-slope function; four levels are a sum of signs. The layer behind stays real."""
    torch.manual_seed(2)
    assert layers(check(Quantized(lambda x: (x.abs() < 1).to(x.dtype) * 2 - 1)))[1] == (BIT, BIT)
    graph = check(Quantized(lambda x: (x > 0).to(x.dtype) + 2 * (x > 1).to(x.dtype)))
    assert layers(graph)[1] == (DType.F64, DType.F64)
    assert graph.reasons["conv"].startswith("activation: its three levels are not equally spaced; ")


def test_relu_is_no_quantizer() -> None:
    torch.manual_seed(2)
    graph = check(Quantized(F.relu))
    reason = (
        "activation: 'relu' (activation) before this layer does not saturate to levels; its weights have two levels"
    )
    assert graph.reasons["conv"] == reason


def test_quantizer_feeding_a_residual() -> None:
    torch.manual_seed(2)
    conv = nn.Conv2d(4, 4, 1, bias=False)

    def function(x: Tensor, w: Tensor) -> Tensor:
        t = 0.5 * sign(x - 0.2)
        return F.conv2d(t, w.mean() * sign(w)) + t

    graph = check(Fn(function, w=conv.weight.detach().abs() * sign(conv.weight.detach())))
    assert layers(graph) == [(BIT, BIT)]


def test_levels_survive_repeat_and_reshape() -> None:
    w = sign(randn(3, 8))
    graph = check(Fn(lambda x, w: F.linear(0.3 * sign(x.mean((2, 3))).repeat(1, 2), w), w=w))
    assert layers(graph) == [(BIT, BIT)]


# -- weights ------------------------------------------------------------------------------------------------------------


def ternary_weight(w: Tensor) -> Tensor:
    delta = 0.7 * w.abs().mean((1, 2, 3), keepdim=True)
    kept = (w.abs() > delta).to(w.dtype)
    return torch.sign(w) * kept * (w.abs() * kept).sum((1, 2, 3), keepdim=True) / kept.sum((1, 2, 3), keepdim=True)


WEIGHTS: dict[str, tuple[Callable[[Tensor], Tensor], DType]] = {
    "plus minus one": (sign, BIT),
    "mean abs": (lambda w: w.abs().mean((1, 2, 3), keepdim=True) * sign(w), BIT),
    "straight-through": (lambda w: (lambda a: a * (sign(w) - w.clamp(-1, 1)).detach() + a * w.clamp(-1, 1))(0.1), BIT),
    "centred": (lambda w: sign(w - w.mean((1, 2, 3), keepdim=True)) * w.std((1, 2, 3), keepdim=True), BIT),
    "ternary": (ternary_weight, TRIT),
    "two signs": (lambda w: 0.5 * (sign(w - 0.1) + sign(w + 0.1)), TRIT),
}


@pytest.mark.parametrize("style", WEIGHTS)
def test_styles_of_weights(style: str) -> None:
    quantize, dtype = WEIGHTS[style]
    graph = check(Fn(lambda x, w: F.conv2d(sign(x), quantize(w), padding=1), w=randn(8, 4, 3, 3)))
    assert layers(graph) == [(BIT, dtype)]
    assert graph.reasons == {}


@pytest.mark.parametrize(
    ("quantize", "reason"),
    [
        (lambda w: w, "weights have 36 levels"),
        (lambda w: 0.1 + 0.3 * sign(w) + 1e-3 * (w > 1), "weights have 3 levels"),
        (lambda w: w * 0, "weights are all zero"),
        (lambda w: (w * 2).round().clamp(-2, 2), "weights have 5 levels"),
    ],
)
def test_weights_that_stay_real(quantize: Callable[[Tensor], Tensor], reason: str) -> None:
    graph = check(Fn(lambda x, w: F.conv2d(sign(x), quantize(w), padding=1), w=randn(8, 4, 3, 3)))
    assert layers(graph) == [(BIT, DType.F64)]
    assert reason in graph.reasons["conv2d"]


def test_one_tap_is_not_called_binary() -> None:
    graph = check(Fn(lambda x, w: F.conv2d(sign(x), w, groups=4), w=randn(4, 1, 1, 1)))
    assert "one weight per output channel" in graph.reasons["conv2d"]


def test_a_filter_of_zeros_among_binary_ones() -> None:
    w = 0.5 * sign(randn(8, 4, 3, 3))
    w[3] = 0
    assert layers(check(Fn(lambda x, w: F.conv2d(sign(x), w), w=w))) == [(BIT, BIT)]


def test_two_functional_convolutions_have_two_names() -> None:
    w = randn(4, 4, 1, 1)
    graph = check(Fn(lambda x, w: F.conv2d(F.conv2d(x, w), w), w=w))
    assert list(graph.reasons) == ["conv2d", "conv2d#2"]
