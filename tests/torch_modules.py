"""Modules, and the comparison of an imported module with itself in double, for the tests of the PyTorch importer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from bdnet_deploy.graph import Conv2d, DType, Graph, Linear, evaluate  # noqa: E402
from bdnet_deploy.importers.torch import import_module  # noqa: E402
from bdnet_deploy.nn import RSign, Sign, TernaryActivation  # noqa: E402

MAP = (1, 4, 6, 6)
BIT, TRIT = DType.BIT, DType.TRIT


class Fn(nn.Module):
    """A module of one function."""

    def __init__(self, function: Callable[..., Any], **parameters: Tensor) -> None:
        super().__init__()
        self.function = function
        for name, value in parameters.items():
            setattr(self, name, nn.Parameter(value))

    def forward(self, x: Tensor) -> Any:
        return self.function(x, **dict(self.named_parameters()))


def randomize(module: nn.Module) -> nn.Module:
    """Normalizations, thresholds and slopes such as training leaves them."""
    generator = torch.Generator().manual_seed(5)

    def noise(t: Tensor) -> Tensor:
        return torch.randn(t.shape, generator=generator)

    with torch.no_grad():
        for m in module.modules():
            if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
                m.running_mean += 0.3 * noise(m.running_mean)
                m.running_var *= 1 + 0.5 * noise(m.running_var).abs()
                if m.affine:
                    m.weight += 0.3 * noise(m.weight)
                    m.bias += 0.3 * noise(m.bias)
        for name, p in module.named_parameters():
            if any(word in name for word in ("threshold", "center", "half_width", "shift", "slope")):
                p += 0.1 * noise(p)
    return module


def to_nhwc(x: Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).numpy() if x.dim() == 4 else x.numpy()


def check(module: nn.Module, shape: tuple[int, ...] = MAP, *, batch: int = 4, tolerance: float = 1e-4) -> Graph:
    """Import; in double on both sides every output must agree, and every sign and trit of our own modules exactly."""
    graph = import_module(module, shape)
    x = torch.randn((batch, *shape[1:]), generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    exact = copy.deepcopy(module).double().eval()
    levels: dict[str, Tensor] = {}
    for name, child in exact.named_modules():
        if isinstance(child, RSign | Sign | TernaryActivation):
            child.register_forward_hook(lambda _m, _i, y, name=name: levels.__setitem__(name, y))
    with torch.no_grad():
        # One by one: views with a batch of 1 in them are allowed.
        parts = [exact(row[None]) for row in x]
        if levels:
            exact(x)
    expected = [torch.cat(p) for p in zip(*parts)] if isinstance(parts[0], tuple) else [torch.cat(parts)]
    got = evaluate(graph, [to_nhwc(x)], keep=True)
    for name, y in levels.items():
        mine = got.get(f"{name}.sign", got.get(f"{name}.ternary"))
        assert mine is not None and np.array_equal(mine, to_nhwc(y)), name
    assert len(graph.outputs) == len(expected)
    for value, y in zip(graph.outputs, expected):
        assert value.type.shape[1:] == to_nhwc(y).shape[1:]
        scale = max(1.0, float(y.abs().max()))
        assert np.abs(got[value.name] - to_nhwc(y)).max() <= tolerance * scale
    return graph


def layers(graph: Graph) -> list[tuple[DType, DType]]:
    """(input dtype, weight dtype) of the convolutions and linear layers."""
    return [(n.inputs[0].type.dtype, n.inputs[1].type.dtype) for n in graph.nodes if isinstance(n.op, Conv2d | Linear)]


def names(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes]


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def per_channel(*values: float) -> Tensor:
    return torch.tensor(values).reshape(1, -1, 1, 1)


def sign(x: Tensor) -> Tensor:
    return (x >= 0).to(x.dtype) * 2 - 1
