"""Adaptive binary sets: two levels that need not lie symmetrically around zero (AdaBin, arXiv 2208.08084)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bdnet_deploy.nn.conv import BinaryConv2d
from bdnet_deploy.nn.quantizers import sign_ste


class AdaBinActivation(nn.Module):
    """``alpha * (sign((x - beta) / alpha) + beta)`` with two learned numbers for the layer.

    Input and output (N, C, H, W). As in the released code (github.com/huawei-noah/Efficient-Computing,
    BinaryNetworks/AdaBin), beta is the threshold and is also added to the sign before alpha multiplies both; the
    paper's levels are beta - alpha and beta + alpha. sign(0) is +1, where the released code has 0.

    Args:
        clip, gradient: straight-through window, see :mod:`bdnet_deploy.nn.quantizers`.
    """

    def __init__(self, *, clip: float = 1.0, gradient: str = "quadratic") -> None:
        super().__init__()
        self.clip, self.gradient = clip, gradient
        self.alpha = nn.Parameter(torch.tensor(1.0))
        self.beta = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        signs = sign_ste((x - self.beta) / self.alpha, self.clip, self.gradient)
        return self.alpha * (signs + self.beta)


class AdaBinConv2d(BinaryConv2d):
    """Convolution whose weights take beta - alpha and beta + alpha: mean and standard deviation of each filter.

    beta and alpha are those of the latent weights of an output channel (the population's deviation, no learned
    numbers) and the gradient passes through them, as in the released code. Input (N, C_in, H, W), output (N, C_out,
    H', W'). Zero padding, of the levels themselves.

    Args:
        in_channels, out_channels, kernel_size, stride, padding: as in :class:`torch.nn.Conv2d`.
        weight_clip: scale of the ``"tanh"`` window of the normalized weights. The authors lower it during training,
            from 1000 to 0.1 in equal steps of its logarithm: set the attribute in the training loop.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        *,
        weight_clip: float = 10.0,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, alpha="one", weight_clip=weight_clip)

    def quantized_weight(self) -> Tensor:
        """The weights that the convolution uses, two values per filter: (C_out, C_in, k, k)."""
        beta = self.weight.mean((1, 2, 3), keepdim=True)
        centred = self.weight - beta
        alpha = centred.square().mean((1, 2, 3), keepdim=True).sqrt()
        return sign_ste(centred / alpha, self.weight_clip, "tanh") * alpha + beta

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}"
        )


class Maxout(nn.Module):
    """``positive * x`` where x > 0, else ``negative * x``: both slopes learned per channel.

    Input and output (N, C, H, W). Unlike PReLU's, the slope of the positive side is free, too; slopes may become
    negative.

    Args:
        channels: C.
        negative, positive: initial slopes.
    """

    def __init__(self, channels: int, negative: float = 0.25, positive: float = 1.0) -> None:
        super().__init__()
        self.negative = nn.Parameter(torch.full((1, channels, 1, 1), negative))
        self.positive = nn.Parameter(torch.full((1, channels, 1, 1), positive))

    def forward(self, x: Tensor) -> Tensor:
        return self.positive * functional.relu(x) - self.negative * functional.relu(-x)
