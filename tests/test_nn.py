"""The trainable layers against numpy and against torch's own operators on explicit -1 / 0 / +1 arrays."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from bdnet_deploy import nn as bnn  # noqa: E402

GRID = [-3.0, -1.5, -1.0, -0.5, -1e-30, -0.0, 0.0, 1e-30, 0.5, 1.0, 1.5, 3.0]


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def gradient(function, x: torch.Tensor) -> np.ndarray:
    x = x.clone().requires_grad_()
    function(x).sum().backward()
    return x.grad.numpy()


def test_sign_values_and_tie() -> None:
    x = np.array(GRID, np.float32)
    assert (bnn.sign_ste(torch.from_numpy(x)).numpy() == np.where(x >= 0, 1, -1)).all()
    assert bnn.sign_ste(torch.tensor([float("nan")])).item() == -1


def test_sign_gradients() -> None:
    x = torch.tensor(GRID)
    clipped = gradient(lambda t: bnn.sign_ste(t, 1.0), x)
    assert (clipped == (np.abs(np.array(GRID)) <= 1)).all()
    assert (gradient(lambda t: bnn.sign_ste(t, 1.5), x) == (np.abs(np.array(GRID)) <= 1.5)).all()
    quadratic = gradient(lambda t: bnn.sign_ste(t, 1.0, "quadratic"), x)
    assert np.allclose(quadratic, np.maximum(0, 2 - 2 * np.abs(np.array(GRID))), atol=1e-6)


@pytest.mark.parametrize("clip", [0.5, 1.0, 2.0])
def test_gradient_windows_of_the_quadratic_kind_have_area_two(clip: float) -> None:
    # The sign jumps by 2, so the window that stands for its derivative must have that area.
    x = torch.linspace(-3, 3, 60001)
    area = gradient(lambda t: bnn.sign_ste(t, clip, "quadratic"), x).sum() * 6 / 60000
    assert area == pytest.approx(2, abs=1e-3)


def test_ternary_values_thresholds_and_gradients() -> None:
    x = torch.tensor([-2.0, -0.5001, -0.5, 0.0, 0.4999, 0.5, 2.0])
    low, high = torch.tensor(-0.5), torch.tensor(0.5)
    assert bnn.ternary_ste(x, low, high).tolist() == [-1, -1, 0, 0, 0, 1, 1]
    expected = 0.5 * ((np.abs(x.numpy() - 0.5) <= 1).astype(float) + (np.abs(x.numpy() + 0.5) <= 1))
    assert (gradient(lambda t: bnn.ternary_ste(t, low, high), x) == expected).all()


def test_ternary_activation_learns_its_thresholds() -> None:
    act = bnn.TernaryActivation(4, 0.25)
    x = values(8, 4, 6, 6)
    with torch.no_grad():
        act.half_width[0, 1] = -0.5  # a half width may change its sign in training
    y = act(x)
    y.sum().backward()
    half = np.array([0.25, 0.5, 0.25, 0.25])[None, :, None, None]
    xn = x.numpy()
    assert (y.detach().numpy() == (xn >= half).astype(int) - (xn < -half)).all()
    # d/dcenter of the mean of sign(x - c - h) and sign(x - c + h) is minus the mean of both windows.
    window = 0.5 * ((np.abs(xn - half) <= 1).astype(np.float64) + (np.abs(xn + half) <= 1))
    assert np.allclose(act.center.grad.numpy().ravel(), -window.sum((0, 2, 3)))
    assert act.half_width.grad.abs().sum() > 0


@pytest.mark.parametrize("module", [bnn.RSign, bnn.TernaryActivation])
def test_fixed_and_per_layer_thresholds(module) -> None:
    fixed = module(3, learnable=False)
    assert not any(parameter.requires_grad for parameter in fixed.parameters())
    assert fixed.state_dict().keys() == module(3).state_dict().keys()
    assert all(value.shape == (1, 1, 1, 1) for value in module(None).state_dict().values())
    assert module(None)(values(2, 5, 3, 3)).shape == (2, 5, 3, 3)


def test_rsign_compares_per_channel() -> None:
    act = bnn.RSign(3)
    with torch.no_grad():
        act.threshold.copy_(torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1))
    x = values(2, 3, 4, 4)
    expected = np.where(x.numpy() >= np.array([-1, 0, 1])[None, :, None, None], 1, -1)
    assert (act(x).detach().numpy() == expected).all()


def naive_conv(x: np.ndarray, w: np.ndarray, stride: int, padding: int, groups: int) -> np.ndarray:
    """Integer convolution with zero padding, by its definition."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    n, _, height, width = x.shape
    c_out, per_group, k, _ = w.shape
    rows, columns = (height - k) // stride + 1, (width - k) // stride + 1
    y = np.zeros((n, c_out, rows, columns), np.int64)
    for o in range(c_out):
        first = o // (c_out // groups) * per_group
        for i in range(rows):
            for j in range(columns):
                patch = x[:, first : first + per_group, i * stride : i * stride + k, j * stride : j * stride + k]
                y[:, o, i, j] = (patch * w[o]).sum((1, 2, 3))
    return y


@pytest.mark.parametrize(
    ("c_in", "c_out", "k", "stride", "padding", "groups"),
    [
        (4, 6, 3, 1, 1, 1),
        (4, 6, 3, 2, 1, 2),
        (8, 8, 3, 1, 1, 8),
        (8, 8, 3, 2, 1, 8),
        (5, 7, 1, 1, 0, 1),
        (4, 8, 5, 2, 2, 4),
    ],
)
@pytest.mark.parametrize("weights", ["binary", "ternary"])
def test_convolution_of_explicit_levels(c_in, c_out, k, stride, padding, groups, weights) -> None:
    rng = np.random.default_rng(c_in * k)
    levels = rng.choice([-1, 1] if weights == "binary" else [-1, 0, 1], (c_out, c_in // groups, k, k))
    x = rng.choice([-1, 0, 1], (2, c_in, 8, 8))
    conv = bnn.BinaryConv2d(c_in, c_out, k, stride, padding, groups, alpha="one", weights=weights)
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(levels.astype(np.float32)))
    got = conv(torch.from_numpy(x.astype(np.float32))).detach().numpy()
    assert (got == naive_conv(x, levels, stride, padding, groups)).all()
    peer = functional.conv2d(
        torch.from_numpy(x.astype(np.float64)),
        torch.from_numpy(levels.astype(np.float64)),
        None,
        stride,
        padding,
        1,
        groups,
    )
    assert (got == peer.numpy()).all()


def test_alpha_mean_learned_and_one() -> None:
    conv = bnn.BinaryConv2d(4, 6, 3)
    w = conv.weight.detach().numpy()
    mean = np.abs(w).mean((1, 2, 3), keepdims=True)
    assert np.allclose(conv.quantized_weight().detach().numpy(), mean * np.where(w >= 0, 1, -1))
    conv(values(1, 4, 5, 5)).sum().backward()
    # Detached: the gradient is alpha times that of the sign, nothing through the mean.
    signs = torch.from_numpy(np.where(w >= 0, 1, -1).astype(np.float32)).requires_grad_()
    functional.conv2d(values(1, 4, 5, 5), signs).sum().backward()
    assert np.allclose(conv.weight.grad.numpy(), mean * signs.grad.numpy() * (np.abs(w) <= 1.5), atol=1e-5)

    learned = bnn.BinaryConv2d(4, 6, 3, alpha="learned")
    assert np.allclose(learned.scale.detach(), learned.weight.detach().abs().mean((1, 2, 3), keepdim=True))
    learned(values(1, 4, 5, 5)).sum().backward()
    assert learned.scale.grad.abs().sum() > 0
    assert set(bnn.BinaryConv2d(4, 6, 3, alpha="one").quantized_weight().unique().tolist()) == {-1, 1}


def test_ternary_weights_follow_their_threshold() -> None:
    conv = bnn.BinaryConv2d(4, 6, 3, weights="ternary")
    w = conv.weight.detach().numpy().astype(np.float64)
    delta = 0.7 * np.abs(w).mean((1, 2, 3), keepdims=True)
    kept = np.abs(w) > delta
    alpha = (np.abs(w) * kept).sum((1, 2, 3), keepdims=True) / kept.sum((1, 2, 3), keepdims=True)
    assert np.allclose(conv.quantized_weight().detach().numpy(), alpha * np.sign(w) * kept, atol=1e-6)
    with torch.no_grad():
        conv.weight.zero_()
    assert (conv.quantized_weight() == 0).all()


def test_real_weights_are_the_first_stage_of_binary_ones() -> None:
    real, binary = bnn.BinaryConv2d(3, 4, 3, weights="real"), bnn.BinaryConv2d(3, 4, 3)
    assert (real.quantized_weight() == real.weight).all()
    binary.load_state_dict(real.state_dict())
    assert (binary.weight == real.weight).all()


def test_dual_binary_is_the_mean_of_two_planes_that_share_a_weight() -> None:
    conv = bnn.DualBinaryConv2d(8, 8, 3, 1, 1, 8, alpha="one")
    x = values(2, 8, 6, 6)
    b1, b2 = conv.planes(x)
    assert set(b1.unique().tolist()) == set(b2.unique().tolist()) == {-1, 1}
    assert (b1 <= b2).all()
    signs = conv.quantized_weight()
    # Zero padding is -1 in the plane of the higher threshold and +1 in the other.
    first = functional.conv2d(functional.pad(b1, (1, 1, 1, 1), value=-1.0), signs, groups=8)
    second = functional.conv2d(functional.pad(b2, (1, 1, 1, 1), value=1.0), signs, groups=8)
    y = conv(x)
    assert (y == (first + second) / 2).all()
    assert set(y.unique().tolist()) <= set(range(-9, 10))
    assert sum(p.numel() for n, p in conv.named_parameters() if n == "weight") == 8 * 9


def test_rprelu_equals_prelu_between_shifts() -> None:
    module = bnn.RPReLU(3)
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.copy_(values(1, 3, 1, 1, seed=i))
    x = values(2, 3, 4, 4, seed=9)
    expected = functional.prelu(x + module.shift_in, module.slope.flatten()) + module.shift_out
    assert torch.allclose(module(x), expected, atol=1e-6)


def test_broadcast_residual() -> None:
    x = values(2, 4, 6, 6)
    xn = x.numpy()
    assert bnn.BroadcastResidual(4, 4)(x) is x
    assert (bnn.BroadcastResidual(4, 12)(x).numpy() == np.tile(xn, (1, 3, 1, 1))).all()
    groups = np.stack([xn[:, :2].mean(1), xn[:, 2:].mean(1)], 1)
    assert np.allclose(bnn.BroadcastResidual(4, 2)(x), groups, atol=1e-6)
    pooled = xn.reshape(2, 4, 3, 2, 3, 2).mean((3, 5))
    assert np.allclose(bnn.BroadcastResidual(4, 8, 2)(x), np.tile(pooled, (1, 2, 1, 1)), atol=1e-6)
    with pytest.raises(ValueError, match="divide"):
        bnn.BroadcastResidual(4, 6)
    with pytest.raises(ValueError, match="stride"):
        bnn.BroadcastResidual(4, 4, 3)


@pytest.mark.parametrize("residual", ["pre", "post", "none"])
@pytest.mark.parametrize("activation", ["binary", "ternary"])
def test_block_puts_the_residual_where_it_says(residual: str, activation: str) -> None:
    block = bnn.BDBlockHalf(8, 16, 1, activation=activation, residual=residual).eval()
    with torch.no_grad():
        block.bn.running_mean.copy_(values(16, seed=3))
        block.bn.running_var.copy_(values(16, seed=4) ** 2 + 0.5)
    x = values(2, 8, 4, 4)
    y, r = block.conv(block.activation(x)), x.repeat(1, 2, 1, 1)
    z = {"pre": lambda: block.bn(y + r), "post": lambda: block.bn(y) + r, "none": lambda: block.bn(y)}[residual]()
    assert torch.equal(block(x), block.rprelu(z))


def test_block_refuses_unknown_choices() -> None:
    with pytest.raises(ValueError, match="residual"):
        bnn.BDBlockHalf(8, 8, 3, residual="both")
    with pytest.raises(ValueError, match="alpha"):
        bnn.BinaryConv2d(8, 8, 3, alpha="max")


def test_every_operator_is_visible_to_a_dispatch_mode() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    seen: list[str] = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    block = bnn.BDBlockHalf(8, 8, 3, 2, groups=8, activation="ternary").eval().requires_grad_(False)
    with torch.no_grad(), Recorder():
        block(values(1, 8, 4, 4))
    assert "aten.convolution.default" in seen
    assert seen.count("aten.ge.Scalar") == 3  # two planes and the weight
    assert all(name.startswith("aten.") for name in seen)


@pytest.mark.parametrize("clip", [0.1, 1.0, 10.0])
def test_tanh_windows_are_ir_nets(clip: float) -> None:
    """k * t * (1 - tanh(t x)^2) with t = 1 / clip and k = max(1 / t, 1): arXiv 1909.10788."""
    t = 1 / clip
    x = torch.tensor(GRID)
    expected = max(1 / t, 1) * t * (1 - np.tanh(np.array(GRID) * t) ** 2)
    assert np.allclose(gradient(lambda v: bnn.sign_ste(v, clip, "tanh"), x), expected, rtol=1e-5, atol=1e-6)


def test_sign_layer_is_the_sign_of_zero_shift() -> None:
    x = torch.tensor(GRID)
    for kind in ("clipped", "quadratic"):
        layer = bnn.Sign(clip=0.5, gradient=kind)
        assert torch.equal(layer(x), bnn.sign_ste(x))
        assert (gradient(layer, x) == gradient(lambda v, kind=kind: bnn.sign_ste(v, 0.5, kind), x)).all()
    assert not list(bnn.Sign().parameters())


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (0.5, 0.75), (2.0, -0.25), (-1.0, 0.5)])
def test_adabin_activation_levels(alpha: float, beta: float) -> None:
    layer = bnn.AdaBinActivation()
    with torch.no_grad():
        layer.alpha.fill_(alpha), layer.beta.fill_(beta)
    x = np.array([-3, -0.75, beta - 0.25, beta, beta + 0.25, 2], np.float32)
    expected = alpha * (np.where((x - beta) / alpha >= 0, 1, -1) + beta)
    assert (layer(torch.from_numpy(x)).detach().numpy() == expected.astype(np.float32)).all()


def test_adabin_weights_are_mean_and_deviation_of_each_filter() -> None:
    layer = bnn.AdaBinConv2d(6, 5, 3, 2, 1)
    with torch.no_grad():
        layer.weight.add_(0.1 * values(5, 1, 1, 1))
    w = layer.weight.detach().double().numpy()
    mean, std = w.mean((1, 2, 3), keepdims=True), w.std((1, 2, 3), keepdims=True)
    expected = np.where(w >= mean, mean + std, mean - std)
    got = layer.quantized_weight().detach().numpy()
    assert np.allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert [len(np.unique(filter_)) for filter_ in got] == [2] * 5
    x = values(2, 6, 7, 7)
    assert torch.equal(layer(x), functional.conv2d(x, layer.quantized_weight(), None, 2, 1))


def test_adabin_gradients_are_those_of_automatic_differentiation_but_for_the_sign() -> None:
    """With t the scale: d sign(v) = k t (1 - tanh(t v)^2) dv, everything else is differentiated as it is written."""
    layer = bnn.AdaBinConv2d(3, 4, 3, weight_clip=0.5).double()
    direction = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    (layer.quantized_weight() * direction).sum().backward()
    w = layer.weight.detach().clone().requires_grad_()
    mean = w.mean((1, 2, 3), keepdim=True)
    spread = (w - mean).square().mean((1, 2, 3), keepdim=True).sqrt()
    v = (w - mean) / spread
    smooth = torch.tanh(2 * v)  # its derivative is the window
    signs = torch.where(v >= 0, 1.0, -1.0).double() + smooth - smooth.detach()
    ((signs * spread + mean) * direction).sum().backward()
    assert torch.allclose(layer.weight.grad, w.grad, rtol=1e-9, atol=1e-12)


def test_maxout_has_two_slopes() -> None:
    layer = bnn.Maxout(3)
    slopes = np.array([[1.5, -0.5, 0.0], [0.25, -2.0, 3.0]], np.float32).reshape(2, 1, 3, 1, 1)
    with torch.no_grad():
        layer.positive.copy_(torch.from_numpy(slopes[0])), layer.negative.copy_(torch.from_numpy(slopes[1]))
    x = values(4, 3, 5, 5)
    expected = np.where(x.numpy() > 0, slopes[0], slopes[1]) * x.numpy()
    assert (layer(x).detach().numpy() == expected).all()


@pytest.mark.parametrize("size", [*range(1, 12), 55, 224])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (2, 1), (3, 1), (3, 2), (4, 2), (5, 3), (1, 2)])
def test_same_padding(size: int, kernel: int, stride: int) -> None:
    before, after = bnn.same_padding(size, kernel, stride)
    # ceil(size / stride) windows with as few zeros as that takes, no more than one more behind than before.
    outputs = len(range(0, size, stride))
    assert (size + before + after - kernel) // stride + 1 == outputs
    assert before in (after, after - 1)
    assert before + after == 0 or (outputs - 1) * stride + kernel == size + before + after
    padded = bnn.SamePad2d(kernel, stride, value=1.0)(torch.zeros(1, 1, size, 3))
    assert padded[0, 0, :, 0].sum() in (before + after, size + before + after)
    assert padded.shape[2] == size + before + after and (padded[0, 0, before : before + size].sum(1) <= 3).all()
