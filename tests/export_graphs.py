"""Random graphs of numerics "float", as the passes make them, for the tests of the exporters."""

from __future__ import annotations

import numpy as np

from bdnet_deploy.graph import (
    Affine,
    AvgPool,
    Conv2d,
    DType,
    GlobalAvgPool,
    Graph,
    GroupMean,
    Linear,
    Op,
    Repeat,
    Sign,
    Ternarize,
    TwoSlope,
    Value,
    evaluate,
)


class Net:
    """A graph that grows; parameters come from a seeded generator."""

    def __init__(self, seed: int, *shape: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = Graph(name=f"net{seed}", numerics="float")
        self.x = self.graph.input("x", (1, *shape), DType.F32)

    def constant(self, data: object, dtype: DType = DType.F32) -> Value:
        return self.graph.constant("c", np.asarray(data), dtype)

    def add(self, op: Op, *inputs: Value) -> Value:
        return self.graph.add(op, inputs, op.name, source=f"user.{op.name}")

    def weights(self, *shape: int, dtype: DType = DType.BIT) -> Value:
        if dtype is DType.F32:
            return self.constant(self.rng.normal(size=shape))
        return self.constant(self.rng.choice([-1, 1] if dtype is DType.BIT else [-1, 0, 1], shape), dtype)

    def conv(self, x: Value, outputs: int, k: int = 1, dtype: DType = DType.BIT, **geometry: object) -> Value:
        op = Conv2d(**geometry)  # type: ignore[arg-type]
        return self.add(op, x, self.weights(outputs, k, k, x.type.channels // op.groups, dtype=dtype))

    def depthwise(self, x: Value, k: int = 3, times: int = 1, dtype: DType = DType.BIT, **geometry: object) -> Value:
        return self.conv(x, x.type.channels * times, k, dtype, groups=x.type.channels, **geometry)

    def affine(self, *xs: Value) -> Value:
        channels = xs[0].type.channels
        muls = [self.constant(self.rng.normal(size=channels) * 0.2) for _ in xs]
        return self.add(Affine(len(xs), DType.F32), *xs, *muls, self.constant(self.rng.normal(size=channels)))

    def two_slope(self, x: Value, positive: float | None = 1.0) -> Value:
        shape = (x.type.channels,)
        slopes = [np.full(shape, positive) if positive is not None else self.rng.normal(size=shape)]
        slopes += [self.rng.normal(size=shape) * 0.3, self.rng.normal(size=shape) * 0.2]
        return self.add(TwoSlope(DType.F32), x, *map(self.constant, slopes))

    def sign(self, x: Value) -> Value:
        if x.type.dtype is DType.I32:
            return self.add(Sign(), x, self.constant(self.rng.integers(-6, 7, x.type.channels), DType.I32))
        return self.add(Sign(), x, self.constant(self.rng.normal(size=x.type.channels) * 0.5))

    def ternarize(self, x: Value) -> Value:
        return self.add(
            Ternarize(), x, *map(self.constant, np.sort(self.rng.normal(size=(2, x.type.channels)) * 0.7, 0))
        )

    def done(self, *outputs: Value) -> Net:
        self.graph.outputs = list(outputs)
        return self

    def samples(self, n: int = 2) -> np.ndarray:
        return self.rng.normal(size=(n, *self.x.type.shape[1:])).astype(np.float32)


def bdnet(seed: int, blocks: int = 3) -> Net:
    """Stem, blocks of a depth-wise or full and a point-wise convolution with residuals, classifier."""
    net = Net(seed, 12, 12, 3)
    rng, channels = net.rng, int(np.random.default_rng(seed).choice([20, 24, 32, 33, 64]))
    pad = {"padding": (1, 1, 1, 1)}
    stem = net.conv(net.x, channels, 3, DType.F32, strides=(2, 2), **pad)
    y = net.two_slope(net.affine(stem))
    for _ in range(blocks):
        stride = 2 if y.type.shape[1] % 2 == 0 and rng.random() < 0.5 else 1
        t = net.ternarize(y) if rng.random() < 0.6 else net.sign(y)
        geometry = {"strides": (stride, stride), **pad}
        acc = net.depthwise(t, **geometry) if rng.random() < 0.7 else net.conv(t, y.type.channels, 3, **geometry)
        shortcut = net.add(AvgPool(), y) if stride == 2 else y
        y = net.two_slope(net.affine(acc, shortcut) if rng.random() < 0.7 else net.affine(acc), rng.choice([1.0, None]))
        b = net.sign(y) if rng.random() < 0.7 else net.ternarize(y)
        kind = rng.integers(3 if y.type.channels % 2 == 0 else 2)
        outputs = [y.type.channels, 2 * y.type.channels, y.type.channels // 2][kind]
        shortcut = [lambda: y, lambda: net.add(Repeat(2), y), lambda: net.add(GroupMean(2), y)][kind]()  # noqa: B023
        y = net.two_slope(net.affine(net.conv(b, outputs), shortcut))
        if rng.random() < 0.6:
            b = net.sign(net.affine(net.conv(net.sign(y), 40)))
            b = net.sign(net.conv(b, 33, 3, **pad, pad_value=int(rng.integers(-1, 2))))
            y = net.two_slope(net.affine(net.conv(b, y.type.channels), y))
    pooled = net.add(GlobalAvgPool(), y)
    logits = net.affine(net.add(Linear(), pooled, net.weights(10, pooled.type.channels, dtype=DType.F32)))
    return net.done(logits)


def assert_layer(name: str, got: np.ndarray, expected: np.ndarray) -> None:
    """Integers equal, floats within 1e-5 of the layer's largest value."""
    assert got.shape == expected.shape, name
    if expected.dtype == np.float32:
        assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max(), name
    else:
        assert np.array_equal(got, expected), name


def assert_model(net: Net, got: np.ndarray, samples: np.ndarray) -> None:
    """Equal logits per sample, unless a value lay so near to a threshold that another order of sums may flip it."""
    values = evaluate(net.graph, [samples], keep=True)
    expected = values[net.graph.outputs[0].name]
    near = np.zeros(len(samples), bool)
    for node in net.graph.nodes:
        if isinstance(node.op, (Sign, Ternarize)) and node.inputs[0].type.dtype.is_float:
            x = values[node.inputs[0].name]
            for threshold in node.inputs[1:]:
                close = np.abs(x - threshold.data) <= 1e-5 * np.abs(x).max()
                near |= close.reshape(len(samples), -1).any(1)
    close = np.abs(got - expected).max(1) <= 1e-5 * np.abs(expected).max()
    assert (close | near).all()
    assert close.any() or near.all()


def layer_weights(graph: Graph) -> dict[str, np.ndarray]:
    """The weights of every convolution and linear layer by the name of its output."""
    layers = [n for n in graph.nodes if isinstance(n.op, Conv2d | Linear)]
    return {n.name: n.inputs[1].data for n in layers if n.inputs[1].data is not None}
