"""Networks of the literature as their authors publish them: random weights under published names, and what the network
computes from them, in plain torch functions and double. Written from descriptions of the released code, with sign(0)
= +1; an independent second opinion for tests of our modules."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
Filler = Callable[..., Tensor]


def filler(seed: int) -> Filler:
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(shape, generator=generator)


def add_norm(state: State, name: str, channels: int, fill: Filler) -> None:
    state[f"{name}.weight"] = 1 + 0.3 * fill(channels)
    state[f"{name}.bias"] = 0.3 * fill(channels)
    state[f"{name}.running_mean"] = 0.3 * fill(channels)
    state[f"{name}.running_var"] = 1 + fill(channels).abs()
    state[f"{name}.num_batches_tracked"] = torch.tensor(7)


def norm(state: State, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    shape = (1, -1) + (1,) * (x.dim() - 2)
    y = (x - mean.reshape(shape)) / torch.sqrt(var.reshape(shape) + eps)
    return y * weight.reshape(shape) + bias.reshape(shape)


def sign(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0).double()


def scaled_sign(weight: Tensor) -> Tensor:
    """The mean size of a filter times its signs."""
    return weight.abs().flatten(1).mean(1).reshape(-1, 1, 1, 1) * sign(weight)


def shifted(state: State, name: str, x: Tensor) -> Tensor:
    return x + state[f"{name}.bias"]


def double(state: State) -> State:
    return {name: value.double() for name, value in state.items()}


# ReActNet-A: github.com/liuzechun/ReActNet, mobilenet/2_step2


def reactnet_a_state(widths: Sequence[int], classes: int, *, flat: bool, latent: bool, seed: int = 0) -> State:
    """``flat``: weights (N, 1) under "weights", as in step 2; else (O, I, kh, kw) under "weight", as in step 1."""
    fill, state = filler(seed), State()

    def add_binary(name: str, *shape: int) -> None:
        weight = fill(*shape) if latent else torch.sign(fill(*shape))
        state[f"{name}.{'weights' if flat else 'weight'}"] = weight.reshape(-1, 1) if flat else weight

    state["feature.0.conv1.weight"] = fill(widths[0], 3, 3, 3)
    add_norm(state, "feature.0.bn1", widths[0], fill)
    for i, (c, after) in enumerate(itertools.pairwise(widths), 1):
        block = f"feature.{i}"
        for name, channels in (("move11", c), ("move12", c), ("move13", c), ("move21", c), ("move22", after)):
            state[f"{block}.{name}.bias"] = 0.3 * fill(1, channels, 1, 1)
        state[f"{block}.move23.bias"] = 0.3 * fill(1, after, 1, 1)
        state[f"{block}.prelu1.weight"], state[f"{block}.prelu2.weight"] = 0.3 * fill(c), 0.3 * fill(after)
        add_binary(f"{block}.binary_3x3", c, c, 3, 3)
        add_norm(state, f"{block}.bn1", c, fill)
        doubled = after == 2 * c
        for conv in ("binary_pw_down1", "binary_pw_down2") if doubled else ("binary_pw",):
            add_binary(f"{block}.{conv}", c, c, 1, 1)
        for bn in ("bn2_1", "bn2_2") if doubled else ("bn2",):
            add_norm(state, f"{block}.{bn}", c, fill)
    state["fc.weight"], state["fc.bias"] = fill(classes, widths[-1]), fill(classes)
    return state


def reactnet_a(state: State, x: Tensor, widths: Sequence[int], strides: Sequence[int]) -> Tensor:
    state, x = double(state), x.double()

    def weight(name: str, channels: int, kernel: int) -> Tensor:
        values = state[f"{name}.weights"] if f"{name}.weights" in state else state[f"{name}.weight"]
        return scaled_sign(values.reshape(channels, channels, kernel, kernel))

    def rprelu(block: str, k: int, y: Tensor) -> Tensor:
        y = F.prelu(shifted(state, f"{block}.move{k}2", y), state[f"{block}.prelu{k}.weight"])
        return shifted(state, f"{block}.move{k}3", y)

    x = norm(state, "feature.0.bn1", F.conv2d(x, state["feature.0.conv1.weight"], None, strides[0], 1))
    for i, (c, after, stride) in enumerate(zip(widths[:-1], widths[1:], strides[1:]), 1):
        block = f"feature.{i}"
        signs = sign(shifted(state, f"{block}.move11", x))
        y = norm(state, f"{block}.bn1", F.conv2d(signs, weight(f"{block}.binary_3x3", c, 3), None, stride, 1))
        y = rprelu(block, 1, y + (F.avg_pool2d(x, 2) if stride == 2 else x))
        signs = sign(shifted(state, f"{block}.move21", y))
        if after == c:
            z = norm(state, f"{block}.bn2", F.conv2d(signs, weight(f"{block}.binary_pw", c, 1))) + y
        else:
            convs = [F.conv2d(signs, weight(f"{block}.binary_pw_down{k}", c, 1)) for k in (1, 2)]
            z = torch.cat([norm(state, f"{block}.bn2_{k}", convs[k - 1]) + y for k in (1, 2)], 1)
        x = rprelu(block, 2, z)
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


# Bi-Real Net: github.com/liuzechun/Bi-Real-net, pytorch_implementation/BiReal18_34, weights (N, 1) under "weights".
# ReActNet on its skeleton: github.com/liuzechun/ReActNet, resnet/2_step2, weights (O, I, 3, 3) under "weight".


def resnet_state(width: int, blocks: Sequence[int], classes: int, *, react: bool, latent: bool, seed: int = 0) -> State:
    fill, state = filler(seed), State()
    state["conv1.weight"] = fill(width, 3, 7, 7)
    add_norm(state, "bn1", width, fill)
    c = width
    for stage, count in enumerate(blocks, 1):
        for i in range(count):
            block, after = f"layer{stage}.{i}", width << (stage - 1)
            weight = fill(after, c, 3, 3) if latent else torch.sign(fill(after, c, 3, 3))
            if react:
                state[f"{block}.move0.bias"] = 0.3 * fill(1, c, 1, 1)
                state[f"{block}.binary_conv.weight"] = weight
                state[f"{block}.move1.bias"] = 0.3 * fill(1, after, 1, 1)
                state[f"{block}.prelu.weight"] = 0.3 * fill(after)
                state[f"{block}.move2.bias"] = 0.3 * fill(1, after, 1, 1)
            else:
                state[f"{block}.binary_conv.weights"] = weight.reshape(-1, 1)
            add_norm(state, f"{block}.bn1", after, fill)
            if after != c:
                state[f"{block}.downsample.1.weight"] = fill(after, c, 1, 1)
                add_norm(state, f"{block}.downsample.2", after, fill)
            c = after
    state["fc.weight"], state["fc.bias"] = fill(classes, c), fill(classes)
    return state


def resnet(state: State, x: Tensor, width: int, blocks: Sequence[int], *, react: bool) -> Tensor:
    state, x = double(state), x.double()
    x = norm(state, "bn1", F.conv2d(x, state["conv1.weight"], None, 2, 3))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate(blocks, 1):
        for i in range(count):
            block, after = f"layer{stage}.{i}", width << (stage - 1)
            down = f"{block}.downsample.1.weight" in state
            signs = sign(shifted(state, f"{block}.move0", x) if react else x)
            weight = state[f"{block}.binary_conv.weight" if react else f"{block}.binary_conv.weights"]
            weight = scaled_sign(weight.reshape(after, x.shape[1], 3, 3))
            y = norm(state, f"{block}.bn1", F.conv2d(signs, weight, None, 2 if down else 1, 1))
            if down:
                x = F.conv2d(F.avg_pool2d(x, 2), state[f"{block}.downsample.1.weight"])
                x = norm(state, f"{block}.downsample.2", x)
            x = y + x
            if react:
                x = F.prelu(shifted(state, f"{block}.move1", x), state[f"{block}.prelu.weight"])
                x = shifted(state, f"{block}.move2", x)
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


# AdaBin: github.com/huawei-noah/Efficient-Computing, BinaryNetworks/AdaBin/cifar10


def adabin_state(width: int, blocks: int, classes: int, seed: int = 0) -> State:
    fill, state = filler(seed), State()

    def add_maxout(name: str, channels: int) -> None:
        state[f"{name}.neg_scale"], state[f"{name}.pos_scale"] = 0.5 * fill(channels), 1 + 0.3 * fill(channels)

    state["conv1.weight"] = fill(width, 3, 3, 3)
    add_norm(state, "bn1", width, fill)
    add_maxout("nonlinear1", width)
    c = width
    for stage in (1, 2, 3):
        for i in range(blocks):
            after = width << (stage - 1)
            for k, before in ((1, c), (2, after)):
                block = f"layer{stage}.{i}"
                state[f"{block}.conv{k}.weight"] = 0.2 + fill(after, before, 3, 3)
                state[f"{block}.conv{k}.binary_a.alpha_a"] = 0.5 + fill().abs()
                state[f"{block}.conv{k}.binary_a.beta_a"] = 0.3 * fill()
                add_norm(state, f"{block}.bn{k}", after, fill)
                add_maxout(f"{block}.nonlinear{k}", after)
            c = after
    add_norm(state, "bn2", c, fill)
    state["linear.weight"], state["linear.bias"] = fill(classes, c), fill(classes)
    return state


def adabin(state: State, x: Tensor, blocks: int) -> Tensor:
    state, x = double(state), x.double()

    def maxout(name: str, y: Tensor) -> Tensor:
        slopes = (state[f"{name}.{side}_scale"].reshape(1, -1, 1, 1) for side in ("pos", "neg"))
        positive, negative = slopes
        return torch.where(y > 0, positive * y, negative * y)

    def half(block: str, k: int, y: Tensor, shortcut: Tensor, stride: int) -> Tensor:
        alpha, beta = (state[f"{block}.conv{k}.binary_a.{name}_a"] for name in ("alpha", "beta"))
        levels = alpha * (sign((y - beta) / alpha) + beta)
        weight = state[f"{block}.conv{k}.weight"]
        center = weight.flatten(1).mean(1).reshape(-1, 1, 1, 1)
        spread = weight.flatten(1).std(1, correction=0).reshape(-1, 1, 1, 1)
        two_levels = torch.where(weight - center >= 0, center + spread, center - spread)
        y = norm(state, f"{block}.bn{k}", F.conv2d(levels, two_levels, None, stride, 1))
        return maxout(f"{block}.nonlinear{k}", y + shortcut)

    x = maxout("nonlinear1", norm(state, "bn1", F.conv2d(x, state["conv1.weight"], None, 1, 1)))
    for stage in (1, 2, 3):
        for i in range(blocks):
            block, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            shortcut = x
            if stride == 2:
                zeros = torch.zeros_like(x[:, : x.shape[1] // 2, ::2, ::2])
                shortcut = torch.cat([zeros, x[:, :, ::2, ::2], zeros], 1)
            x = half(block, 1, x, shortcut, stride)
            x = half(block, 2, x, x, 1)
    return F.linear(norm(state, "bn2", x.mean((2, 3))), state["linear.weight"], state["linear.bias"])


# QuickNet: github.com/larq/zoo, larq_zoo/sota/quicknet.py; names and layouts of Keras variables


def quicknet_state(
    filters: Sequence[int], blocks: Sequence[int], classes: int, *, first: int = 0, folders: bool = False, seed: int = 0
) -> State:
    """``first``: how many layers of each kind the process had made before; ``folders``: names as in a weight file."""
    fill, state, made = filler(seed), State(), dict[str, int]()

    def add(kind: str, **values: Tensor) -> None:
        number = made[kind] = made.get(kind, first - 1) + 1
        layer = kind if number == 0 else f"{kind}_{number}"
        for name, value in values.items():
            state[f"{layer}/{layer}/{name}:0" if folders else f"{layer}/{name}:0"] = value

    def add_norm_layer(channels: int, *, parameters: bool = True) -> None:
        learned = {"gamma": 1 + 0.3 * fill(channels), "beta": 0.3 * fill(channels)} if parameters else {}
        moving = {"moving_mean": 0.3 * fill(channels), "moving_variance": 1 + fill(channels).abs()}
        add("batch_normalization", **learned, **moving)

    c = filters[0]
    add("quant_conv2d", kernel=fill(3, 3, 3, c // 4))
    add_norm_layer(c // 4)
    add("quant_depthwise_conv2d", depthwise_kernel=fill(3, 3, c // 4, 1))
    add_norm_layer(c // 4, parameters=False)
    add("quant_conv2d", kernel=fill(1, 1, c // 4, c))
    add_norm_layer(c)
    for width, count in zip(filters, blocks):
        if width != c:
            blur = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
            add("depthwise_conv2d", depthwise_kernel=blur.reshape(3, 3, 1, 1).repeat(1, 1, c, 1))
            add("quant_conv2d", kernel=fill(1, 1, c, width))
            add_norm_layer(width)
            c = width
        for _ in range(count):
            add("quant_conv2d", kernel=fill(3, 3, c, c).clamp(-1.25, 1.25))
            add_norm_layer(c)
    add("quant_dense", kernel=fill(c, classes), bias=fill(classes))
    return state


def quicknet(state: State, x: Tensor, filters: Sequence[int], blocks: Sequence[int]) -> Tensor:
    """Of a state without ``first`` and ``folders``."""
    state, x = double(state), x.double()
    used: dict[str, int] = {}

    def take(kind: str) -> dict[str, Tensor]:
        number = used[kind] = used.get(kind, -1) + 1
        prefix = f"{kind}/" if number == 0 else f"{kind}_{number}/"
        return {name[len(prefix) : -2]: value for name, value in state.items() if name.startswith(prefix)}

    def batch_norm(y: Tensor, eps: float) -> Tensor:
        v = {name: value.reshape(1, -1, 1, 1) for name, value in take("batch_normalization").items()}
        return (y - v["moving_mean"]) / torch.sqrt(v["moving_variance"] + eps) * v.get("gamma", 1) + v.get("beta", 0)

    def conv(y: Tensor, stride: int = 1, *, binary: bool = False) -> Tensor:
        kernel = take("quant_conv2d")["kernel"].permute(3, 2, 0, 1)
        if binary:
            return F.conv2d(F.pad(sign(y), (1, 1, 1, 1), value=1.0), sign(kernel))
        return F.conv2d(same(y, kernel.shape[2], stride), kernel, None, stride)

    def depthwise(y: Tensor, kind: str) -> Tensor:
        kernel = take(kind)["depthwise_kernel"].permute(2, 3, 0, 1)
        return F.conv2d(same(y, 3, 2), kernel, None, 2, groups=y.shape[1])

    def same(y: Tensor, kernel: int, stride: int) -> Tensor:
        # ceil(size / stride) outputs; of the zeros that takes, the smaller half before.
        pads: list[int] = []
        for size in (y.shape[3], y.shape[2]):
            need = max(((size + stride - 1) // stride - 1) * stride + kernel - size, 0)
            pads += [need // 2, need - need // 2]
        return F.pad(y, pads)

    x = F.relu(batch_norm(conv(x, 2), 1e-3))
    x = batch_norm(depthwise(x, "quant_depthwise_conv2d"), 1e-3)
    x = batch_norm(conv(x), 1e-3)
    for width, count in zip(filters, blocks):
        if width != x.shape[1]:
            x = depthwise(F.max_pool2d(F.relu(x), 2, 1), "depthwise_conv2d")
            x = batch_norm(conv(x), 1e-5)
        for _ in range(count):
            x = batch_norm(F.relu(conv(x, binary=True)), 1e-5) + x
    dense = take("quant_dense")
    return F.relu(x).mean((2, 3)) @ dense["kernel"] + dense["bias"]
