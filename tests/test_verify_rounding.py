"""Sound layers are not called wrong where float32 itself loses their digits; wrong ones still are."""

from __future__ import annotations

import numpy as np
import pytest
from export_graphs import Net

from bdnet_deploy.analysis.comparing.layers import TOLERANCE, compare_layer
from bdnet_deploy.analysis.comparing.rounding import allowance, largest_term
from bdnet_deploy.analysis.comparing.verdicts import Verdicts
from bdnet_deploy.graph import Array, GroupNorm, LayerNorm, Linear, Node, evaluate


def differences(node: Node, found: Array, values: dict[str, Array]) -> int:
    verdicts = Verdicts()
    compare_layer("a runtime", node, found, values, verdicts)
    return int(str(verdicts.table.rows[-1]["different"]))


def cancelling(n: int) -> tuple[Node, dict[str, Array], Array]:
    """One logit of n products whose sum is all but 0, and the same sum in the opposite order."""
    net = Net(1, n)
    rng = np.random.default_rng(3)
    x = rng.normal(size=(1, n)).astype(np.float32)
    w = rng.normal(size=(1, n)).astype(np.float32)
    w[0, -1] -= np.float32((x.astype(np.float64) * w).sum() / x[0, -1])  # now the sum is a rounding error
    net.done(net.add(Linear(), net.x, net.constant(w)))
    values = evaluate(net.graph, [x], keep=True)
    total = np.zeros((1, 1), np.float32)
    for i in reversed(range(n)):
        total = total + x[:, i, None] * w[:, i]
    return net.graph.nodes[0], values, total


@pytest.mark.parametrize("n", [4, 100, 2000])
def test_cancelled_sums_in_another_order(n: int) -> None:
    node, values, other = cancelling(n)
    assert differences(node, other, values) == 0
    size = float(np.abs(allowance(node, values)).max())
    assert size <= 1e-6 * np.sqrt(n) * largest_term(node.output, values)
    assert differences(node, other + np.float32(4 * size), values) == 1  # a wrong value is further away
    assert differences(node, other * np.float32(np.nan), values) == 1


def test_the_tolerance_alone_would_refuse_them() -> None:
    refused = 0
    for n in (4, 100, 2000):
        node, values, other = cancelling(n)
        expected = values[node.name]
        refused += bool((np.abs(other - expected) > TOLERANCE * np.abs(expected).max()).any())
    assert refused >= 2


@pytest.mark.parametrize("op", [LayerNorm(), GroupNorm(2)])
def test_normalizations_of_equal_numbers(op: LayerNorm | GroupNorm) -> None:
    """Deviations of a few units in the last place: another formula of the mean gives other ones."""
    net = Net(2, 4, 4, 8)
    net.done(net.add(op, net.x))
    node = net.graph.nodes[0]
    rng = np.random.default_rng(5)
    x = (1000 + rng.normal(size=(2, 4, 4, 8)) * 1e-3).astype(np.float32)
    values = evaluate(net.graph, [x], keep=True)
    exact = values[node.name].astype(np.float64)
    assert differences(node, (exact + 0.4 * allowance(node, values)).astype(np.float32), values) == 0
    double = node.op.reference([v.type for v in node.inputs], [x], node.output.type)
    assert np.array_equal(double, values[node.name])
    assert differences(node, -values[node.name], values) > 0
    ordinary = rng.normal(size=x.shape).astype(np.float32)
    values = evaluate(net.graph, [ordinary], keep=True)
    assert allowance(node, values).max() < TOLERANCE * np.abs(values[node.name]).max()  # nothing is lost there
