"""What stock Larq Compute Engine computes otherwise than its operators say, without a word: the trap, and our file beside it."""

from __future__ import annotations

import numpy as np
import pytest
from export_graphs import Net
from tflite_files import File

from bdnet_deploy.errors import BdnetError, MissingPackageError
from bdnet_deploy.export.tflite import write
from bdnet_deploy.export.tflite.builder import I8, SAME, VALID
from bdnet_deploy.export.tflite.flatbuffer import from_bytes, to_bytes
from bdnet_deploy.export.tflite.packing import pack, unpack
from bdnet_deploy.graph import Array, Conv2d, DType, Quantize, Sign, evaluate
from bdnet_deploy.peers import lce


def _available() -> bool:
    try:
        lce.find_interpreter()
    except MissingPackageError:
        return False
    return True


pytestmark = pytest.mark.skipif(not _available(), reason="larq-compute-engine cannot run here")


def conv_net(size: int, channels: int, outputs: int, op: Conv2d, kernel: int = 3) -> tuple[Net, Array, Array, Array]:
    """Bits of the input through a convolution: the network, its weights, samples and expected sums."""
    net = Net(size, size, size, channels)
    bits = net.add(Sign(), net.x, net.constant(np.zeros(channels)))
    w = net.weights(outputs, kernel, kernel, channels // op.groups)
    net.done(net.add(op, bits, w))
    x = net.samples(2)
    assert w.data is not None
    return net, w.data, x, evaluate(net.graph, [x])[net.graph.outputs[0].name]


def raw(net: Net, weights: Array, out: tuple[int, ...], channels: int, **options: object) -> bytes:
    """One LceBconv2d that gives the sums, with options as they are."""
    file = File(*net.x.type.shape)
    b, outputs = file.b, out[-1]
    y = b.tensor("y", out)
    given = {
        "multiplier": b.constant("one", np.ones(outputs, np.float32)),
        "bias": b.constant("zero", np.zeros(outputs, np.float32)),
    }
    b.lce_bconv2d(file.bits(file.x), b.constant("w", pack(weights)), y, channels, **given, **options)  # type: ignore[arg-type]
    return file.done(y)


def assert_ours(net: Net, x: Array, expected: Array) -> None:
    data = write(net.graph).data
    for mode in lce.MODES:
        assert np.array_equal(lce.run(data, x, mode=mode)[0], expected), mode


def test_groups_that_are_no_whole_words() -> None:
    """64 channels in 4 groups of 16 are read as 2 groups of 32."""
    net, w, x, expected = conv_net(5, 64, 8, Conv2d(groups=4))
    data = raw(net, w, (1, *expected.shape[1:]), 64)
    for mode in ("indirect", "reference"):
        assert not np.array_equal(lce.run(data, x, mode=mode)[0], expected)
    assert_ours(net, x, expected)


def test_groups_of_whole_words() -> None:
    """The default kernel refuses them."""
    net, w, x, expected = conv_net(5, 64, 8, Conv2d(groups=2))
    data = raw(net, w, (1, *expected.shape[1:]), 64)
    assert np.array_equal(lce.run(data, x, mode="indirect")[0], expected)
    with pytest.raises(BdnetError):
        lce.run(data, x)
    assert_ours(net, x, expected)


@pytest.mark.parametrize(("size", "kernel"), [(1, 3), (2, 3), (4, 5)])
def test_filters_larger_than_the_map(size: int, kernel: int) -> None:
    op = Conv2d(padding=(kernel // 2,) * 4)
    net, w, x, expected = conv_net(size, 32, 8, op, kernel)
    data = raw(net, w, (1, *expected.shape[1:]), 32, padding=SAME, pad_values=0)
    for mode in ("default", "indirect"):
        assert not np.array_equal(lce.run(data, x, mode=mode)[0], expected)
    assert_ours(net, x, expected)


def test_odd_channels_with_zero_padding() -> None:
    """The reference kernel refuses them."""
    net, w, x, expected = conv_net(6, 33, 8, Conv2d(padding=(1, 1, 1, 1)))
    data = raw(net, w, (1, *expected.shape[1:]), 33, padding=SAME, pad_values=0)
    with pytest.raises(BdnetError):
        lce.run(data, x, mode="reference")
    assert_ours(net, x, expected)


@pytest.mark.parametrize("pad_value", [0, 1, -1])
def test_stride_two_is_not_same(pad_value: int) -> None:
    """PyTorch pads both sides of an even map, TensorFlow the far one only."""
    net, w, x, expected = conv_net(6, 32, 8, Conv2d((2, 2), (1, 1, 1, 1), pad_value))
    if pad_value == 1:
        data = raw(net, w, (1, *expected.shape[1:]), 32, padding=SAME, pad_values=1, strides=(2, 2))
        assert (lce.run(data, x)[0] != expected).mean() > 0.5
    assert_ours(net, x, expected)


def test_set_bits_behind_the_last_channel_count() -> None:
    """PADV2 with all bits set is -1 in every channel, and in those that do not exist."""
    net, w, x, expected = conv_net(4, 20, 8, Conv2d(padding=(1, 1, 1, 1), pad_value=-1))
    file = File(*net.x.type.shape)
    b = file.b
    y = b.tensor("y", (1, *expected.shape[1:]))
    given = {
        "multiplier": b.constant("one", np.ones(8, np.float32)),
        "bias": b.constant("zero", np.zeros(8, np.float32)),
    }
    padded = b.pad(file.bits(file.x), (1, 1, 1, 1), -1, "padded")
    b.lce_bconv2d(padded, b.constant("w", pack(w)), y, 20, padding=VALID, **given)
    assert not np.array_equal(lce.run(file.done(y), x)[0], expected)
    assert_ours(net, x, expected)
    wide, _, x, expected = conv_net(4, 40, 8, Conv2d(padding=(1, 1, 1, 1), pad_value=-1))
    assert_ours(wide, x, expected)


def test_halves_of_integers() -> None:
    """QUANTIZE rounds halves away from zero, the graph to the even integer."""
    net = Net(0, 1, 1, 4)
    net.done(net.add(Quantize(DType.I8, 1.0, 0), net.x))
    x = np.array([0.5, 1.5, 2.5, -2.5], np.float32).reshape(1, 1, 1, 4)
    file = File(1, 1, 1, 4)
    q = file.b.op("QUANTIZE", (file.x,), file.b.tensor("q", (1, 1, 1, 4), I8, 1.0))
    assert lce.run(file.done(q), x)[0].ravel().tolist() == [1, 2, 3, -3]
    assert evaluate(net.graph, [x])[net.graph.outputs[0].name].ravel().tolist() == [0, 2, 2, -2]
    assert lce.run(write(net.graph).data, x)[0].ravel().tolist() == [0, 2, 2, -2]


def test_a_trit_is_two_planes() -> None:
    """One plane alone, as Larq's converter has it, is another convolution; both share the one filter."""
    net = Net(0, 4, 4, 32)
    t = net.ternarize(net.x)
    net.done(net.conv(t, 8, 3, padding=(1, 1, 1, 1)))
    x = net.samples(2)
    expected = evaluate(net.graph, [x])[net.graph.outputs[0].name]
    assert_ours(net, x, expected)
    model = from_bytes(write(net.graph).data)
    convolutions = [op for op in model.operators if op.name == "LceBconv2d"]
    assert len(convolutions) == 2 and len({op.inputs[1] for op in convolutions}) == 1
    weights = model.tensors[convolutions[0].inputs[1]].data
    assert weights is not None and set(unpack(weights, 32).ravel().tolist()) == {-1, 1}
    total = next(op for op in model.operators if op.name == "ADD" and convolutions[0].outputs[0] in op.inputs)
    total.inputs = (convolutions[0].outputs[0],) * 2
    assert not np.array_equal(lce.run(to_bytes(model), x)[0], expected)
