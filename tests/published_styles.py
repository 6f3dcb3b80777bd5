"""Small networks in the ways that published binary networks are written; each says how many layers are binary."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# -- signs --------------------------------------------------------------------------------------------------------------


class PolynomialSign(nn.Module):
    """Bi-Real Net's: a piecewise quadratic gradient written as arithmetic around a detached sign."""

    def forward(self, x: Tensor) -> Tensor:
        forward = torch.sign(x)
        below, left, right = ((x < edge).type(torch.float32) for edge in (-1, 0, 1))
        first = -1 * below + (x * x + 2 * x) * (1 - below)
        second = first * left + (-x * x + 2 * x) * (1 - left)
        third = second * right + 1 * (1 - right)
        return forward.detach() - third.detach() + third


class DetachedSign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        clipped = x.clamp(-1, 1)
        return (torch.sign(x) - clipped).detach() + clipped


class _SignFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x))

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        return g * (x.abs() <= 1)


class FunctionSign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _SignFunction.apply(x)


class WhereEqualSign(nn.Module):
    """torch.sign, and where it is exactly zero, one."""

    def forward(self, x: Tensor) -> Tensor:
        s = torch.sign(x)
        return torch.where(torch.eq(s, 0), torch.ones_like(s), s)


class RoundClampSign(nn.Module):
    """A 1-bit uniform quantizer."""

    def forward(self, x: Tensor) -> Tensor:
        unit = ((x + 1) / 2).clamp(0, 1)
        return 2 * (unit + (torch.round(unit) - unit).detach()) - 1


class Shift(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(0.2 * torch.randn(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.expand_as(x)


# -- convolutions -------------------------------------------------------------------------------------------------------


class LatentConv(nn.Module):
    """Latent weights in one column, scaled by their mean magnitude, straight-through."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.stride, self.padding, self.shape = stride, kernel // 2, (outputs, inputs, kernel, kernel)
        self.weights = nn.Parameter(torch.rand(outputs * inputs * kernel * kernel, 1) * 0.001 - 0.0005)

    def forward(self, x: Tensor) -> Tensor:
        real = self.weights.view(self.shape)
        scale = torch.mean(torch.mean(torch.mean(abs(real), dim=3, keepdim=True), dim=2, keepdim=True), 1, keepdim=True)
        signed = scale.detach() * torch.sign(real)
        clipped = torch.clamp(real, -1.0, 1.0)
        w = signed.detach() - clipped.detach() + clipped
        return F.conv2d(x, w, stride=self.stride, padding=self.padding)


class CenteredConv(nn.Conv2d):
    """Weights standardized, signed, and scaled by a power of two."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        flat = w.view(w.size(0), -1)
        w = (w - flat.mean(-1).view(-1, 1, 1, 1)) / flat.std(-1).view(-1, 1, 1, 1)
        scale = torch.pow(2.0, torch.round(torch.log2(w.abs().view(w.size(0), -1).mean(-1)))).view(-1, 1, 1, 1)
        return F.conv2d(x, _SignFunction.apply(w) * scale.detach(), self.bias, self.stride, self.padding)


class TemperatureConv(nn.Conv2d):
    """BNext's: real weights until a buffer has cooled down."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, temperature: float = 1e-8) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.register_buffer("temperature", torch.ones(1) * temperature)

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data.clamp_(-1.5, 1.5)
        if self.temperature < 1e-7:
            w = self.weight.sign()
        else:
            w = torch.clamp(self.weight / max(float(self.temperature), 1e-8), -1, 1)
        return F.conv2d(x, w, None, self.stride, self.padding, self.dilation, self.groups)


# -- what stands between ------------------------------------------------------------------------------------------------


class Maxout(nn.Module):
    """Two learned slopes, of any sign."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.positive = nn.Parameter(torch.randn(1, channels, 1, 1))
        self.negative = nn.Parameter(torch.randn(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.positive * F.relu(x) - self.negative * F.relu(-x)


class ShiftedPReLU(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before, self.prelu, self.after = Shift(channels), nn.PReLU(channels), Shift(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.prelu(self.before(x)))


class Gate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.AdaptiveAvgPool2d((1, 1)),
            nn.Conv2d(channels, channels // 4, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // 4, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Stem(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class Block(nn.Module):
    """sign -> convolution -> BN -> residual -> activation."""

    def __init__(self, channels: int, sign: nn.Module, conv: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.move, self.sign, self.conv, self.bn = Shift(channels), sign, conv, nn.BatchNorm2d(channels)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn(self.conv(self.sign(self.move(x))))
        out += x
        return self.activation(out)


class TwoPassGate(nn.Module):
    """BNext's block: a gate on a learned mix of input and output, whose mean needs the whole map first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.move, self.sign, self.conv = Shift(channels), PolynomialSign(), TemperatureConv(channels, channels)
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.activation1, self.activation2, self.se = nn.PReLU(channels), nn.PReLU(channels), Gate(channels)
        self.scale = nn.Parameter(torch.full((1, channels, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        self.scale.data.clamp_(0, 1)
        residual = self.activation1(x)
        h = self.activation2(self.norm1(self.conv(self.sign(self.move(x)))))
        mixed = self.scale * x + h * (1 - self.scale)
        h = h * self.se(mixed)
        return self.norm2(h * residual) + residual


class Duplicating(nn.Module):
    """ReActNet's down-sampling: two point-wise halves on the same input, pooled shortcut, concatenated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.move1, self.conv, self.bn = Shift(channels), LatentConv(channels, channels, 3, 2), nn.BatchNorm2d(channels)
        self.pool, self.act, self.move2 = nn.AvgPool2d(2, 2), ShiftedPReLU(channels), Shift(channels)
        self.down1, self.down2 = LatentConv(channels, channels, 1), LatentConv(channels, channels, 1)
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.sign = PolynomialSign()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.pool(x) + self.bn(self.conv(self.sign(self.move1(x)))))
        bits = self.sign(self.move2(y))
        first, second = self.bn1(self.down1(bits)), self.bn2(self.down2(bits))
        first += y
        second += y
        return torch.cat([first, second], dim=1)


class Replicating(nn.Module):
    """ES-BNN: fewer filters on a wider map, replicas with their own normalization."""

    def __init__(self, channels: int, tau: int = 2) -> None:
        super().__init__()
        self.tau, self.move, self.sign = tau, Shift(channels), DetachedSign()
        self.conv = TemperatureConv(channels, channels // tau**2)
        self.bn, self.prelu = nn.BatchNorm2d(channels), nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.prelu(self.bn(self.conv(self.sign(self.move(x))).repeat(1, self.tau**2, 1, 1)) + x)


class PaddedShortcut(nn.Module):
    """Option A: every second pixel, zero channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sign, self.conv = FunctionSign(), CenteredConv(channels, 2 * channels, 3, 2)
        self.bn, self.channels = nn.BatchNorm2d(2 * channels), channels

    def forward(self, x: Tensor) -> Tensor:
        half = self.channels // 2
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half), "constant", 0)
        return F.hardtanh(self.bn(self.conv(self.sign(x))) + shortcut)


class StatisticsBlock(nn.Module):
    """RBNN's: the sign of an activation that is standardized by each image's own mean and deviation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sign, self.conv, self.bn = FunctionSign(), CenteredConv(channels, channels), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean([1, 2, 3], keepdim=True)
        scaled = centred / centred.std([1, 2, 3], keepdim=True)
        return F.hardtanh(self.bn(self.conv(self.sign(scaled))) + x)


class Thermometer(nn.Module):
    """BoolNet's: several signs of one activation, each with its own offset, (N, C, H, W) to (N, G, C, H, W)."""

    def __init__(self, channels: int, groups: int = 4) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.offsets = nn.Parameter(torch.linspace(-0.6, 0.5, groups).reshape(1, groups, 1, 1, 1))
        self.sign = DetachedSign()

    def forward(self, x: Tensor) -> Tensor:
        return self.sign(self.bn(x).unsqueeze(1) + self.offsets)


class LogicBlock(nn.Module):
    """BoolNet's: grouped convolutions of a thermometer's bits, whose residuals are xnor and or, and bits interleaved."""

    def __init__(self, channels: int, groups: int = 4) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(groups * channels, channels, 3, 1, 1, groups=groups, bias=False) for _ in range(2)
        )
        self.out = nn.Conv2d(2 * groups * channels, channels, 1, bias=False)
        self.levels, self.levels1, self.levels2 = (Thermometer(channels, groups) for _ in range(3))

    def convolve(self, conv: nn.Conv2d, bits: Tensor) -> Tensor:
        w = torch.where(conv.weight < 0, -1.0, 1.0) * conv.weight.abs().mean((1, 2, 3), keepdim=True)
        x = F.pad(bits.flatten(1, 2), (1, 1, 1, 1), mode="replicate")
        return F.conv2d(x, w.to(x.dtype), groups=conv.groups)

    def forward(self, x: Tensor) -> Tensor:
        bits = self.levels(x)
        same = self.levels1(self.convolve(self.first, bits)) * bits
        z = self.levels2(self.convolve(self.second, same))
        either = ((z + 1) / 2 + (bits + 1) / 2).clamp(0, 1) * 2 - 1
        both = torch.stack([either, bits], dim=3).flatten(1, 3)
        w = torch.where(self.out.weight < 0, -0.1, 0.1).to(both.dtype)
        return F.conv2d(both, w)


class Net(nn.Module):
    """Stem, blocks, pool, classifier. ``binary``: how many of its layers a reader must find binary."""

    def __init__(self, channels: int, binary: int, *blocks: nn.Module, out: int | None = None) -> None:
        super().__init__()
        self.stem, self.blocks = Stem(channels), nn.Sequential(*blocks)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(out or channels, 10)
        self.binary = binary

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.blocks(self.stem(x)))
        return self.fc(x.view(x.size(0), -1))


def _residual(sign: type[nn.Module], conv: type[nn.Module], activation: Callable[[int], nn.Module]) -> Net:
    c = 32
    return Net(c, 2, *(Block(c, sign(), conv(c, c), activation(c)) for _ in range(2)))


STYLES: dict[str, Callable[[], Net]] = {
    "polynomial sign, latent weights": lambda: _residual(PolynomialSign, LatentConv, ShiftedPReLU),
    "detached sign, maxout": lambda: _residual(DetachedSign, LatentConv, Maxout),
    "autograd function, standardized weights": lambda: _residual(FunctionSign, CenteredConv, lambda c: nn.Hardtanh()),
    "where and eq": lambda: _residual(WhereEqualSign, CenteredConv, nn.PReLU),
    "round and clamp": lambda: _residual(RoundClampSign, LatentConv, lambda c: nn.ReLU()),
    "temperature, gate in two passes": lambda: Net(32, 2, TwoPassGate(32), TwoPassGate(32)),
    "concatenated shortcut": lambda: Net(32, 3, Duplicating(32), out=64),
    "replicas": lambda: Net(32, 2, Replicating(32), Replicating(32)),
    "each image's statistics": lambda: Net(32, 2, StatisticsBlock(32), StatisticsBlock(32)),
    "thermometer and logic": lambda: Net(16, 3, LogicBlock(16)),
    "padded shortcut": lambda: Net(32, 1, PaddedShortcut(32), out=64),
}


def create(style: str) -> Net:
    """A network with normalizations such as training leaves them."""
    torch.manual_seed(len(style))
    net = STYLES[style]().eval()
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean += 0.5 * torch.randn(m.running_mean.shape, generator=generator)
                m.running_var *= 1 + torch.rand(m.running_var.shape, generator=generator)
                m.weight += 0.3 * torch.randn(m.weight.shape, generator=generator)
                m.bias += 0.3 * torch.randn(m.bias.shape, generator=generator)
    return net
