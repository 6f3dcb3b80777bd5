"""The blocks of BNext, expanded and shrunk (ES-BNN); tau = 1 is BNext itself.

Attribute names are those of the published state dicts (github.com/hpi-xnor/BNext, github.com/imfinethanks/ESBNN).
Shapes: a map of c channels is carried as W = c * tau * groups.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bdnet_deploy.models.bnext import ESBNextConfig
from bdnet_deploy.nn import AnnealedConv2d
from bdnet_deploy.nn.quantizers import sign_ste

_SQUEEZE = 8


class Shift(nn.Module):
    """``x + bias``, a learned bias per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class SignActivation(nn.Module):
    """Sign with a straight-through window; ``temperature`` is in the published keys and changes no value."""

    def __init__(self, clip: float, gradient: str) -> None:
        super().__init__()
        self.clip, self.gradient = clip, gradient
        self.register_buffer("temperature", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return sign_ste(x, self.clip, self.gradient)


class Replicate(nn.Module):
    """The map ``copies`` times, one behind the other along the channels."""

    def __init__(self, copies: int) -> None:
        super().__init__()
        self.copies = copies

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat(1, self.copies, 1, 1)

    def extra_repr(self) -> str:
        return f"{self.copies}"


class SqueezeExcitation(nn.Module):
    """Gates (N, W, 1, 1) in (0, 1) of a map (N, W, H, W): mean, 1x1 convolution, ReLU, 1x1 convolution, sigmoid.

    Where ``replicated``, both convolutions are expanded and shrunk as the binary ones are: W -> c / (8 tau) -> tiled
    to W / 8 -> c / tau -> tiled to W, as many multiply-accumulates as BNext's c -> c / 8 -> c.
    """

    def __init__(self, channels: int, tau: int, groups: int, replicated: bool) -> None:
        super().__init__()
        wide, copies = channels * tau * groups, tau**2 * groups
        layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(1)]
        if replicated:
            layers += [nn.Conv2d(wide, channels // _SQUEEZE // tau, 1, groups=groups), Replicate(copies), nn.ReLU()]
            layers += [nn.Conv2d(wide // _SQUEEZE, channels // tau, 1, groups=groups), Replicate(copies)]
        else:
            layers += [nn.Conv2d(wide, channels // _SQUEEZE, 1), nn.ReLU(), nn.Conv2d(channels // _SQUEEZE, wide, 1)]
        self.se = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        gates: Tensor = torch.sigmoid(self.se(x))
        return gates


class Unit(nn.Module):
    """One binary convolution: shift, sign, convolution, replicate, norm1, PReLU; recalibrated; norm2, residual.

    With h the PReLU's output and r the residual (x, average-pooled 2x2 at stride 2), the gates are
    ``SE(scale * r + (1 - scale) * h)`` and the result is ``norm2(gates * h) + r``. With ``attention``, the residual is
    a PReLU of x instead (pooled behind it), and ``norm2(gates * h * residual) + residual``. ``scale``, per channel,
    is kept in [0, 1]: in training, and for 1x1 convolutions always.

    Input (N, W, H, W'), output (N, W, H / stride, W' / stride).
    """

    def __init__(
        self, channels: int, kernel_size: int, stride: int = 1, *, attention: bool = False, config: ESBNextConfig
    ) -> None:
        super().__init__()
        tau, groups = config.tau, config.groups
        wide = channels * tau * groups
        self.attention, self.stride, self.pointwise = attention, stride, kernel_size == 1
        self.copies = tau**2 * groups
        self.move = Shift(wide)
        self.binary_activation = SignActivation(config.clip, config.gradient)
        self.binary_conv = AnnealedConv2d(
            wide,
            channels // tau,
            kernel_size,
            stride,
            kernel_size // 2,
            groups,
            temperature=config.temperature,
            weight_clip=config.clip,
        )
        self.norm1 = nn.BatchNorm2d(wide, momentum=config.bn_momentum)
        self.norm2 = nn.BatchNorm2d(wide, momentum=config.bn_momentum)
        # In the published keys of every unit; only those with attention read it.
        self.activation1 = nn.PReLU(wide).requires_grad_(attention)
        self.activation2 = nn.PReLU(wide)
        self.se = SqueezeExcitation(channels, tau, groups, config.ops_matched and self.copies > 1)
        self.scale = nn.Parameter(torch.full((1, wide, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.avg_pool2d(x, 2) if self.stride == 2 else x
        h = self.binary_conv(self.binary_activation(self.move(x)))
        if self.copies > 1:
            h = h.repeat(1, self.copies, 1, 1)
        h = self.activation2(self.norm1(h))
        scale = self._scale()
        h = self.se(scale * pooled + (1 - scale) * h) * h
        residual = pooled
        if self.attention:
            residual = self.activation1(x)
            if self.stride == 2:
                residual = functional.avg_pool2d(residual, 2)
            h = h * residual
        y: Tensor = self.norm2(h) + residual
        return y

    def _scale(self) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.scale.clamp_(0, 1)
            return self.scale
        return self.scale.clamp(0, 1) if self.pointwise else self.scale


class Block(nn.Module):
    """A 3x3 unit, then a 1x1 unit; where the width doubles, two 1x1 units beside each other, concatenated."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, attention: bool, config: ESBNextConfig
    ) -> None:
        super().__init__()
        # The published name of the 3x3 unit, whichever of its kinds it is.
        self.Attention = Unit(in_channels, 3, stride, attention=attention, config=config)
        self.doubles = in_channels != out_channels
        if self.doubles:
            self.FFN_1 = Unit(in_channels, 1, config=config)
            self.FFN_2 = Unit(in_channels, 1, config=config)
        else:
            self.FFN = Unit(in_channels, 1, config=config)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Attention(x)
        if self.doubles:
            return torch.cat((self.FFN_1(x), self.FFN_2(x)), 1)
        y: Tensor = self.FFN(x)
        return y
