"""A network whose blocks are binary in the ways that published code writes it, for importers of exported programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402


def by_detach(x: Tensor) -> Tensor:
    return x + (torch.where(x >= 0, 1.0, -1.0) - x).detach()


def by_polynomial(x: Tensor) -> Tensor:
    """The straight-through code of Bi-Real Net and ReActNet."""
    m1, m2, m3 = (x < -1).float(), (x < 0).float(), (x < 1).float()
    out1 = (-1) * m1 + (x * x + 2 * x) * (1 - m1)
    out2 = out1 * m2 + (-x * x + 2 * x) * (1 - m2)
    out3 = out2 * m3 + 1 * (1 - m3)
    return ((x >= 0).float() * 2 - 1).detach() - out3.detach() + out3


class SignFunction(torch.autograd.Function):
    """With what the older exporter needs to write it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (x.abs() <= 1)

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        zero, one, minus = (g.op("Constant", value_t=torch.tensor(float(v))) for v in (0, 1, -1))
        return g.op("Where", g.op("Less", x, zero), minus, one)


def by_where_and_eq(x: Tensor) -> Tensor:
    y = torch.sign(x)
    return torch.where(torch.eq(y, 0.0), torch.ones_like(y), y)


def by_rounding(x: Tensor) -> Tensor:
    """Ternary."""
    return x + (torch.clamp(torch.round(x), -1, 1) - x).detach()


def sign_of_weights(w: Tensor) -> Tensor:
    return torch.where(w >= 0, 1.0, -1.0)


def by_mean_abs(w: Tensor) -> Tensor:
    """Latent weights with a scale for each filter."""
    binary = w.abs().mean((1, 2, 3), keepdim=True).detach() * sign_of_weights(w)
    clipped = torch.clamp(w, -1.0, 1.0)
    return binary.detach() - clipped.detach() + clipped


def ternary_weights(w: Tensor) -> Tensor:
    delta = 0.7 * w.abs().mean((1, 2, 3), keepdim=True)
    return w + (torch.where(w > delta, 1.0, torch.where(w < -delta, -1.0, 0.0)) - w).detach()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "detach": by_detach,
    "polynomial": by_polynomial,
    "function": SignFunction.apply,
    "where_eq": by_where_and_eq,
    "rounded": by_rounding,
}


class Conv(nn.Conv2d):
    def __init__(self, channels: int, activation: str, quantize: Callable[[Tensor], Tensor], groups: int = 1) -> None:
        super().__init__(channels, channels, 3, 1, 1, bias=False, groups=groups)
        self.shift = nn.Parameter(0.2 * torch.randn(1, channels, 1, 1))
        self.activation = activation
        self.quantize = quantize

    def forward(self, x: Tensor) -> Tensor:
        t = ACTIVATIONS[self.activation](x + self.shift)
        return F.conv2d(t, self.quantize(self.weight), None, self.stride, self.padding, self.dilation, self.groups)


class Block(nn.Module):
    def __init__(self, channels: int, activation: str, quantize: Callable[[Tensor], Tensor], groups: int = 1) -> None:
        super().__init__()
        self.conv = Conv(channels, activation, quantize, groups)
        self.bn = nn.BatchNorm2d(channels)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)) + x)


class Styles(nn.Module):
    """3x12x12 to 5 classes: a real stem, a block of every style, a real classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.features = nn.Sequential(
            Block(8, "detach", by_mean_abs),
            Block(8, "polynomial", by_mean_abs),
            Block(8, "function", by_mean_abs, groups=8),
            Block(8, "where_eq", ternary_weights),
            Block(8, "rounded", by_mean_abs),
        )
        self.pool = nn.AvgPool2d(2)
        self.fc = nn.Linear(8, 5)
        generator = torch.Generator().manual_seed(6)
        with torch.no_grad():
            for m in self.modules():
                if isinstance(m, nn.BatchNorm2d):
                    m.running_mean.copy_(torch.randn(8, generator=generator))
                    m.running_var.copy_(torch.rand(8, generator=generator) + 0.5)
                    m.weight.copy_(torch.rand(8, generator=generator) + 0.5)
                    m.bias.copy_(0.3 * torch.randn(8, generator=generator))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.features(self.stem(x))).mean((2, 3)))


SHAPE = (1, 3, 12, 12)
