"""Random PyTorch modules: short chains of moves, functions, reductions and products of tensors of any rank.

Sizes are drawn from few numbers, so that axes of one length, and of length 1, are common. A chain is built by running it: each
operator is drawn for the tensors that are there, and kept if its result is finite and of moderate size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: An operator of the tensors made so far.
Operator = Callable[[Sequence[Tensor]], Tensor]

SIZES = (1, 2, 3, 4, 4, 4, 6)
LARGEST_TENSOR, LARGEST_VALUE = 3000, 300.0


class RandomModule(nn.Module):
    """Runs a list of operators; returns the last tensors."""

    def __init__(self, operators: Sequence[tuple[str, Operator]], outputs: int) -> None:
        super().__init__()
        self.operators, self.outputs = operators, outputs

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        pool = [x]
        for _, operator in self.operators:
            pool.append(operator(pool))
        ends = tuple(as_output(y) for y in pool[-self.outputs :])
        return ends[0] if len(ends) == 1 else ends

    def __str__(self) -> str:
        return " | ".join(name for name, _ in self.operators)


def as_output(y: Tensor) -> Tensor:
    """As a graph can return it: a map or a vector."""
    return y if y.dim() in (2, 4) and y.shape[0] == 1 else y.reshape(1, -1)


def random_module(seed: int) -> tuple[RandomModule, tuple[int, ...]]:
    """A module and the shape of its input."""
    rng = np.random.default_rng(seed)
    space = (rng.choice(SIZES), rng.choice(SIZES)) if rng.random() < 0.85 else ()
    shape = tuple(int(n) for n in (1, rng.choice(SIZES), *space))
    draw = _Drawing(rng, [torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)])
    for _ in range(int(rng.integers(2, 7))):
        draw.append()
    outputs = int(rng.choice([1, 1, 1, 2])) if len(draw.operators) > 1 else 1
    return RandomModule(draw.operators, outputs), shape


@dataclass
class _Drawing:
    rng: np.random.Generator
    pool: list[Tensor]
    operators: list[tuple[str, Operator]] = field(default_factory=list)

    def append(self) -> None:
        """Draw operators until one fits, mostly of the newest tensor."""
        for _ in range(100):
            i = len(self.pool) - 1 if self.rng.random() < 0.8 else int(self.rng.integers(len(self.pool)))
            family = FAMILIES[int(self.rng.choice(len(FAMILIES), p=WEIGHTS))]
            made = family(self, i)
            if made is None:
                continue
            with torch.no_grad():
                y = made[1]([t.clone() for t in self.pool])
            if 0 < y.numel() <= LARGEST_TENSOR and y.dim() and bool((y.abs() <= LARGEST_VALUE).all()):
                self.pool.append(y)
                self.operators.append(made)
                return

    def integer(self, low: int, high: int) -> int:
        """From low to high, both possible."""
        return int(self.rng.integers(low, high + 1))

    def one_of(self, *choices: str) -> str:
        return str(self.rng.choice(choices))

    def numbers(self, *shape: int) -> Tensor:
        return torch.from_numpy(self.rng.normal(size=shape).astype(np.float32))

    def constant(self, x: Tensor) -> Tensor:
        """One that differs along no axis, along one, or along some."""
        shape = [1] * x.dim()
        if self.rng.random() < 0.15:
            shape = [n if self.rng.random() < 0.7 else 1 for n in x.shape]
        elif self.rng.random() < 0.7:
            axis = self.integer(0, x.dim() - 1)
            shape[axis] = x.shape[axis]
        constant = self.numbers(*shape)
        while constant.dim() > 1 and constant.shape[0] == 1 and self.rng.random() < 0.5:
            constant = constant[0]
        return constant

    def weights(self, *shape: int) -> Tensor:
        """Real, binary, ternary, or of two levels that are not -a and +a."""
        w = self.numbers(*shape)
        scale = self.numbers(shape[0], *[1] * (len(shape) - 1)).abs() + 0.1
        kind = self.one_of("real", "binary", "binary", "ternary", "asymmetric")
        if kind == "real":
            return w
        signs = torch.where(w >= 0, 1.0, -1.0)
        if kind == "ternary":
            return scale * signs * (w.abs() > 0.5)
        return scale * signs + (0.3 * scale if kind == "asymmetric" else 0)


def _of_one(i: int, function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda pool: function(pool[i])


# -- families: each draws an operator of tensor i, or None where it has none for it ------------------------------------


def moves(draw: _Drawing, i: int) -> tuple[str, Operator] | None:
    x = draw.pool[i]
    kind = draw.one_of(*"permute reshape flatten slice flip roll index cat stack repeat expand pad chunk unfold "
                       "unsqueeze squeeze interleave constants shuffle reflect window".split())  # fmt: skip
    axis = draw.integer(0, x.dim() - 1)
    size = x.shape[axis]
    function: Callable[[Tensor], Tensor]
    if kind == "permute":
        order = [int(a) for a in draw.rng.permutation(x.dim())]
        function = lambda t: t.permute(order)  # noqa: E731
    elif kind == "reshape":
        shape = _factors(draw, x.numel())
        function = lambda t: t.reshape(shape)  # noqa: E731
    elif kind == "flatten":
        end = draw.integer(axis, x.dim() - 1)
        function = lambda t: t.flatten(axis, end)  # noqa: E731
    elif kind == "slice":
        start, step = draw.integer(0, size - 1), draw.integer(1, 2)
        function = lambda t: t[(*[slice(None)] * axis, slice(start, None, step))]  # noqa: E731
    elif kind == "flip":
        function = lambda t: t.flip(axis)  # noqa: E731
    elif kind == "roll":
        function = lambda t: torch.roll(t, 1, axis)  # noqa: E731
    elif kind == "index":
        places = torch.from_numpy(draw.rng.integers(0, size, draw.integer(1, 5)))
        function = lambda t: t.index_select(axis, places)  # noqa: E731
    elif kind in ("cat", "stack"):
        join = torch.cat if kind == "cat" else torch.stack
        same = [j for j, t in enumerate(draw.pool) if t.shape == x.shape]
        j = int(draw.rng.choice(same))
        return f"{kind} {i} {j} {axis}", lambda pool: join([pool[i], pool[j]], axis)
    elif kind == "repeat":
        times = [1] * x.dim()
        times[axis] = 2
        function = lambda t: t.repeat(times)  # noqa: E731
    elif kind == "expand":
        if size != 1:
            return None
        to = [-1] * x.dim()
        to[axis] = draw.integer(2, 4)
        function = lambda t: t.expand(to)  # noqa: E731
    elif kind == "pad":
        sides = [draw.integer(-1 if min(x.shape) > 3 else 0, 2) for _ in range(2 * draw.integer(1, min(x.dim(), 2)))]
        value = float(draw.rng.choice([0, 0, 1, -1, 0.5]))
        function = lambda t: F.pad(t, sides, value=value)  # noqa: E731
    elif kind == "chunk":
        if size % 2:
            return None
        function = lambda t: torch.cat(t.chunk(2, axis)[::-1], axis)  # noqa: E731
    elif kind == "unfold":
        length = draw.integer(1, min(size, 3))
        function = lambda t: t.unfold(axis, length, 1)  # noqa: E731
    elif kind == "unsqueeze":
        function = lambda t: t.unsqueeze(axis)  # noqa: E731
    elif kind == "squeeze":
        function = lambda t: t.squeeze(axis)  # noqa: E731
    elif kind == "interleave":
        function = lambda t: t.repeat_interleave(2, axis)  # noqa: E731
    elif kind == "constants":
        value = float(draw.rng.choice([0, 1, 0.5]))
        function = lambda t: torch.cat([t, torch.full_like(t, value)], axis)  # noqa: E731
    elif kind == "shuffle":
        if x.dim() != 4 or x.shape[1] % 4:
            return None
        function = lambda t: F.pixel_shuffle(t, 2)  # noqa: E731
    elif kind == "reflect":
        if x.dim() != 4 or min(x.shape[2:]) < 2:
            return None
        mode = draw.one_of("reflect", "replicate")
        function = lambda t: F.pad(t, (1, 0, 0, 1), mode=mode)  # noqa: E731
    else:
        if x.dim() != 4 or min(x.shape[2:]) < 2:
            return None
        function = lambda t: F.unfold(t, 2)  # noqa: E731
    return f"{kind} {i} {axis}", _of_one(i, function)


def _factors(draw: _Drawing, count: int) -> list[int]:
    """A shape of so many elements."""
    shape = []
    while count > 1 and len(shape) < 4 and draw.rng.random() < 0.8:
        divisors = [d for d in range(1, count + 1) if count % d == 0]
        shape.append(int(draw.rng.choice(divisors)))
        count //= shape[-1]
    shape.append(count)
    return [1, *shape] if draw.rng.random() < 0.6 else shape


def functions(draw: _Drawing, i: int) -> tuple[str, Operator] | None:
    x = draw.pool[i]
    c, d = draw.constant(x), draw.constant(x)
    low, high = sorted(draw.rng.normal(size=2).tolist())
    shapes: dict[str, Callable[[Tensor], Tensor]] = {
        "relu": F.relu,
        "relu_": lambda t: t.clone().relu_(),
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "gelu": F.gelu,
        "silu": F.silu,
        "hardswish": F.hardswish,
        "softplus": F.softplus,
        "abs": torch.abs,
        "square": lambda t: t * t,
        "root": lambda t: torch.sqrt(t.abs() + 0.5),
        "neg": lambda t: -t,
        "clamp": lambda t: t.clamp(low, high),
        "hardtanh": lambda t: F.hardtanh(t) + 1,
        "leaky": lambda t: F.leaky_relu(t, low),
        "scale": lambda t: t * c.to(t.dtype),
        "shift": lambda t: t + c.to(t.dtype),
        "scale_": lambda t: t.clone().mul_(low).add_(high),
        "rsub": lambda t: c.to(t.dtype) - 2 * t,
        "divide": lambda t: t / (c.to(t.dtype).abs() + 0.5),
        "line": lambda t: t * c.to(t.dtype) + d.to(t.dtype),
        "slopes": lambda t: torch.where(t >= 0, t, t * c.to(t.dtype)),
        "bent": lambda t: F.relu(t - c.to(t.dtype)) - 0.3 * F.relu(c.to(t.dtype) - t),
        "largest": lambda t: torch.maximum(t, c.to(t.dtype)),
        "masked": lambda t: t * (t > low),
        "sign": lambda t: torch.where(t >= c.to(t.dtype), 1.0, -1.0).to(t.dtype),
        "falling": lambda t: torch.where(t * (c.to(t.dtype) + 0.1) > 0.137, 0.7, -0.7).to(t.dtype),
        "step": lambda t: (t > c.to(t.dtype)).to(t.dtype),
        "step as integer": lambda t: (t > low).long().to(t.dtype) * 3,
        "levels": lambda t: torch.where(t < low, -1.0, torch.where(t >= high, 1.0, 0.0)).to(t.dtype) * c.to(t.dtype),
        "straight through": lambda t: (torch.where(t >= low, 1.0, -1.0).to(t.dtype) - t).detach() + t,
        "offset levels": lambda t: torch.where(t < low, -0.3, 0.9).to(t.dtype),
    }
    kind = draw.one_of(*shapes)
    return f"{kind} {i} {tuple(c.shape)}", _of_one(i, shapes[kind])


def pairs(draw: _Drawing, i: int) -> tuple[str, Operator] | None:
    x = draw.pool[i]
    fitting = [j for j, t in enumerate(draw.pool) if _broadcast(x, t)]
    j = int(draw.rng.choice(fitting))
    shapes: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: torch.sub(a, b, alpha=2),
        "mul": lambda a, b: a * b,
        "gate": lambda a, b: a * torch.sigmoid(b),
        "mix": lambda a, b: 0.3 * a + 0.7 * F.relu(b),
        "compare": lambda a, b: (a >= b + 0.137).to(a.dtype),
        "minus mean": lambda a, b: a - b.mean(-1, keepdim=True),
        "matmul": lambda a, b: a @ b.transpose(-2, -1),
    }
    kind = draw.one_of(*shapes)
    if kind == "matmul" and (min(x.dim(), draw.pool[j].dim()) < 2 or x.shape[-1] != draw.pool[j].shape[-1]):
        return None
    return f"{kind} {i} {j}", lambda pool: shapes[kind](pool[i], pool[j])


def _broadcast(a: Tensor, b: Tensor) -> bool:
    return all(m == n or 1 in (m, n) for m, n in zip(reversed(a.shape), reversed(b.shape), strict=False))


def reductions(draw: _Drawing, i: int) -> tuple[str, Operator] | None:
    x = draw.pool[i]
    kind = draw.one_of("mean", "sum", "amax", "avg_pool", "max_pool", "adaptive", "softmax", "softmax")
    function: Callable[[Tensor], Tensor]
    if kind in ("mean", "sum", "amax"):
        axes = [int(a) for a in draw.rng.choice(x.dim(), draw.integer(1, min(2, x.dim())), replace=False)]
        keep = bool(draw.rng.random() < 0.5)
        function = lambda t: getattr(t, kind)(axes, keepdim=keep)  # noqa: E731
        return f"{kind} {i} {axes} {keep}", _of_one(i, function)
    if kind == "softmax":
        axis = draw.integer(0, x.dim() - 1)
        return f"{kind} {i} {axis}", _of_one(i, lambda t: torch.softmax(t, axis))
    if x.dim() != 4 or x.shape[0] != 1 or min(x.shape[2:]) < 3:
        return None
    k, s = draw.integer(1, 3), draw.integer(1, 2)
    pad = draw.integer(0, k // 2)
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "avg_pool": lambda t: F.avg_pool2d(t, k, s, pad),
        "max_pool": lambda t: F.max_pool2d(t, k, s, pad, ceil_mode=bool(s - 1)),
        "adaptive": lambda t: F.adaptive_avg_pool2d(t, (1, None)),
    }
    return f"{kind} {i} {k} {s} {pad}", _of_one(i, functions[kind])


def products(draw: _Drawing, i: int) -> tuple[str, Operator] | None:
    x = draw.pool[i]
    kind = draw.one_of("linear", "right", "left", "conv2d", "conv2d", "conv1d", "attention", "einsum")
    outputs = int(draw.rng.choice((1, 2, 4, 6)))
    function: Callable[[Tensor], Tensor]
    if kind == "linear":
        w, b = draw.weights(outputs, x.shape[-1]), draw.numbers(outputs) if draw.rng.random() < 0.5 else None
        function = lambda t: F.linear(t, w.to(t.dtype), None if b is None else b.to(t.dtype))  # noqa: E731
    elif kind == "right":
        w = draw.weights(outputs, x.shape[-1])
        function = lambda t: t @ w.t().to(t.dtype)  # noqa: E731
    elif kind == "left":
        if x.dim() < 2:
            return None
        w = draw.weights(outputs, x.shape[-2])
        function = lambda t: w.to(t.dtype) @ t  # noqa: E731
    elif kind == "attention":
        if x.dim() < 2:
            return None
        function = lambda t: torch.softmax(t @ t.transpose(-1, -2) / 3, -1) @ t  # noqa: E731
    elif kind == "einsum":
        if x.dim() < 2:
            return None
        w = draw.weights(outputs, x.shape[1])
        function = lambda t: torch.einsum("bc...,dc->bd...", t, w.to(t.dtype))  # noqa: E731
    else:
        rank = 4 if kind == "conv2d" else 3
        if x.dim() != rank or x.shape[0] != 1:
            return None
        channels = x.shape[1]
        groups = int(draw.rng.choice([g for g in (1, 2, channels) if channels % g == 0]))
        kernel = [draw.integer(1, 3) for _ in range(rank - 2)]
        w = draw.weights(groups * draw.integer(1, 3), channels // groups, *kernel)
        options = {
            name: [draw.integer(low, 2) for _ in kernel]
            for name, low in (("stride", 1), ("padding", 0), ("dilation", 1))
        }
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, options["dilation"], strict=True)]
        if any(n + 2 * p < r for n, p, r in zip(x.shape[2:], options["padding"], reach, strict=True)):
            return None
        bias = draw.numbers(len(w)) if draw.rng.random() < 0.5 else None
        convolve = F.conv2d if rank == 4 else F.conv1d
        function = lambda t: convolve(  # noqa: E731
            t, w.to(t.dtype), None if bias is None else bias.to(t.dtype), groups=groups, **options
        )
        return f"{kind} {i} {tuple(w.shape)} {groups} {options}", _of_one(i, function)
    return f"{kind} {i} {outputs}", _of_one(i, function)


def normalizations(draw: _Drawing, i: int) -> tuple[str, Operator] | None:
    x = draw.pool[i]
    if x.dim() < 2:
        return None
    kind = draw.one_of("batch_norm", "layer_norm", "group_norm")
    size = x.shape[-1] if kind == "layer_norm" else x.shape[1]
    mean, weight, bias = (draw.numbers(size) for _ in range(3))
    var = draw.numbers(size).abs() + 0.5
    groups = 2 if size % 2 == 0 else 1

    def function(t: Tensor) -> Tensor:
        m, v, w, b = (p.to(t.dtype) for p in (mean, var, weight, bias))
        if kind == "batch_norm":
            return F.batch_norm(t, m, v, w, b)
        if kind == "layer_norm":
            return F.layer_norm(t, (size,), w, b)
        return F.group_norm(t, groups, w, b)

    if kind == "group_norm" and math.prod(x.shape[2:]) * size // groups < 2:
        return None
    return f"{kind} {i}", _of_one(i, function)


FAMILIES = (moves, functions, pairs, reductions, products, normalizations)
WEIGHTS = (0.32, 0.28, 0.1, 0.1, 0.15, 0.05)
