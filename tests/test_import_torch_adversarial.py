"""PyTorch modules that look like something else than they compute: imported as they are, or refused with a reason."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402
from torch_modules import MAP, Fn, check, per_channel, randn, sign  # noqa: E402

from bdnet_deploy.errors import UnsupportedError  # noqa: E402
from bdnet_deploy.graph import DType  # noqa: E402

W, BITS = randn(4, 4, 3, 3), sign(randn(4, 4, 3, 3))


def conv(x: Tensor, factor: float = 1.0) -> Tensor:
    return F.conv2d(x, factor * W.to(x.dtype), padding=1)


RIGHT: dict[str, Callable[[Tensor], Tensor]] = {
    "bool is x != 0": lambda x: F.relu(x).bool().to(x.dtype),
    "integers beside constants": lambda x: torch.cat([(x > 0).long(), torch.full((1, 1, 6, 6), 3)], 1).to(x.dtype),
    "bools beside constants": lambda x: torch.cat([x > 0, torch.ones(1, 1, 6, 6, dtype=torch.bool)], 1).to(x.dtype),
    "product of bools": lambda x: ((x > 0) * (F.avg_pool2d(x, 3, 1, 1) > 0)).to(x.dtype),
    "integers counted": lambda x: (x > 0).to(torch.int64).sum((2, 3)) / 36,
    "a vector of rank 3": lambda x: conv(x + x.mean((0, 2, 3))[:, None, None]),
    "one row times a matrix": lambda x: x.mean((2, 3)) @ x.flatten(2)[0],
    "a matrix of rank 2 times itself": lambda x: (lambda y: (y @ y.t())[None].flatten(1))(x.flatten(2)[0]),
    "one score for all heads": lambda x: (x.mean(1, keepdim=True) @ x).mean((2, 3)),
    "a kink far out": lambda x: F.relu(conv(x, 1e4) - 5000),
    "limits far out": lambda x: conv(x, 1e4).clamp(-1e4, 1e4),
    "a threshold far out": lambda x: (conv(x, 1e5) > 2e5).to(x.dtype),
    "levels along the first axis": lambda x: sign(x.flatten(2)[0] - per_channel(0.3, -0.2, 0, 1).view(4, 1)).view(
        1, -1
    ),
    "a slope that grows": lambda x: F.leaky_relu(x, -2.0),
    "a bias of one row": lambda x: torch.addmm(
        randn(1, 4).to(x.dtype), x.flatten(2)[0], randn(36, 4).to(x.dtype)
    ).reshape(1, -1),
}


@pytest.mark.parametrize("style", RIGHT)
def test_it_is_what_pytorch_computes(style: str) -> None:
    check(Fn(RIGHT[style]), MAP, tolerance=1e-6)


@pytest.mark.parametrize("size", [1, 4, 6])
def test_constants_along_axes_that_shapes_cannot_tell_apart(size: int) -> None:
    """Channels, rows and columns of one length: the constant lies along the axis that PyTorch's broadcast says."""
    line = torch.arange(1.0, size + 1)
    w = randn(size, size, 1, 1)
    for shape in ((size, 1, 1), (size, 1), (size,)):
        check(Fn(lambda x, s=shape: F.conv2d(x * line.view(s).to(x.dtype), w.to(x.dtype))), (1, size, size, size))
        check(Fn(lambda x, s=shape: sign(x - line.view(s).to(x.dtype) / size)), (1, size, size, size))


@pytest.mark.parametrize("seed", range(20))
def test_maxima_over_axes_of_one_length(seed: int) -> None:
    """Maxima over channels and rows are those over rows and columns in one of a few draws."""
    weights = torch.randn(2, 2, 1, 1, generator=torch.Generator().manual_seed(seed))
    with contextlib.suppress(UnsupportedError):
        check(Fn(lambda x: F.conv2d(x, weights.to(x.dtype)).amax((1, 2))), (1, 2, 2 + seed, 2))
    check(Fn(lambda x: F.conv2d(x, weights.to(x.dtype)).amax((2, 3))), (1, 2, 2 + seed, 2))


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "a softplus that becomes a line early": (lambda x: F.softplus(x, 1, 0.5), "softplus"),
    "whole numbers": (lambda x: (x * 3).long().to(x.dtype), "neither a quantizer"),
    "bytes": (lambda x: (x * 3).to(torch.int8).to(x.dtype) + x, "neither a quantizer"),
    "True + True": (lambda x: ((x > 0) + (conv(x) > 0)).to(x.dtype), "of bool are not those of numbers"),
    "bytes that overflow": (
        lambda x: ((x > 0).to(torch.uint8) * 200 + (conv(x) > 0).to(torch.uint8) * 100).to(x.dtype),
        "of uint8 are not those of numbers",
    ),
    "bits of floats": (lambda x: x.float().view(torch.int32).to(x.dtype), "view"),
    "computed channels": (lambda x: x[:, (x.sum((0, 2, 3)) > 1e9).long()], "index"),
    "filled with a computed number": (lambda x: torch.cat([x, torch.fill(x, x.mean())], 1), "fill"),
    "a bias of one column": (
        lambda x: torch.addmm(randn(4, 1).to(x.dtype), x.flatten(2)[0], randn(36, 4).to(x.dtype)).reshape(1, -1),
        "its bias differs from row to row",
    ),
    "a spike between probes": (lambda x: torch.where((x > 0.5) & (x < 0.55), 5.0, x), "where"),
    "a step and a spike": (lambda x: ((x > -0.2) ^ ((x > 0.5) & (x < 0.56))).to(x.dtype), "to"),
    "a single number": (lambda x: (F.conv2d(sign(x), BITS.to(x.dtype)) == 4).to(x.dtype), "eq"),
    "thresholds too far out": (
        lambda x: (conv(x, 1e7) > per_channel(1e7, 0, 1, 2).to(x.dtype)).to(x.dtype),
        "neither a quantizer",
    ),
    "steps at several places": (lambda x: torch.bucketize(x, torch.zeros(3, dtype=x.dtype)).to(x.dtype), "bucketize"),
    "three levels at unequal distances": (
        lambda x: torch.where(x < -0.5, -0.2, torch.where(x < 0.5, 0.0, 1.0)).to(x.dtype),
        "its three levels are not equally spaced",
    ),
    "zeros in between": (
        lambda x: F.relu(torch.stack([x, torch.zeros_like(x)], 2).flatten(1, 2)),
        "moved in a way that the graph has no operators for",
    ),
    "a product plus an activation": (lambda x: torch.baddbmm(x[0], x[0], x[0]).reshape(1, -1), "baddbmm"),
    "a batch made of channels": (
        lambda x: F.conv2d(x.view(4, 1, 6, 6), W[:1, :1].to(x.dtype)).view(1, 4, 4, 4),
        "whose first axis is no batch of 1",
    ),
    "groups made a batch": (
        lambda x: F.group_norm(x.view(2, 2, 6, 6), 2).view(MAP),
        "whose first axis is no batch of 1",
    ),
    "memory of another order": (
        lambda x: conv(x.contiguous(memory_format=torch.channels_last)).as_strided((1, 2, 4, 4), (32, 16, 4, 1)),
        "as_strided",
    ),
}


@pytest.mark.parametrize("style", REFUSED)
def test_it_is_refused(style: str) -> None:
    function, why = REFUSED[style]
    with pytest.raises(UnsupportedError) as raised:
        check(Fn(function), MAP)
    assert why in str(raised.value)


@pytest.mark.parametrize(
    "before",
    [
        lambda x: F.relu(x) + F.relu(conv(x)),
        lambda x: F.relu(x) * torch.sigmoid(x.mean((2, 3), keepdim=True)),
        lambda x: F.avg_pool2d(F.relu(x), 2),
        lambda x: F.conv2d(sign(x), BITS.to(x.dtype)),
        lambda x: x.clamp(min=1) * 3 - 3,
    ],
    ids=["sum of relus", "gate", "average", "sums of signs", "limit and offset"],
)
def test_sign_of_zeros_that_are_met_is_zero(before: Callable[[Tensor], Tensor]) -> None:
    """torch.sign(0) = 0, wherever zeros are no coincidence: a third level, or 0 and 1 where nothing is negative."""

    def function(x: Tensor) -> Tensor:
        y = before(x)
        return torch.sign(y) + 0.25 * y

    graph = check(Fn(function), MAP, tolerance=1e-6)
    levels = {node.output.type.dtype for node in graph.nodes if node.op.name in ("sign", "ternarize")}
    assert levels & {DType.TRIT, DType.UBIT}
